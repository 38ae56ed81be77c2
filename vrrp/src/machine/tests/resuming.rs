//! A router that was active before a restart.

use super::*;

/// A machine that resumes since time 0, and asks until 100 ms.
fn mk_resuming(priority: u8) -> Machine {
    let mut machine = mk_machine(priority, Preemption::Never);
    let asked = machine.handle(at(0), Event::Start(Start::Resume));
    assert_eq!(asked, [sends(1)]);
    assert_eq!(machine.state(), State::Resuming);
    machine
}

#[test]
fn it_goes_on_as_the_active_one_if_no_other_answers() {
    let mut machine = mk_resuming(100);
    assert_eq!(machine.handle(at(99), Event::Deadline), []);
    assert_eq!(machine.deadline(), Some(at(100)));
    assert_eq!(
        machine.handle(at(100), Event::Deadline),
        [sends(100), Action::BecomeActive(ActiveReason::Resumed)]
    );
    assert_eq!(machine.deadline(), Some(at(1_100)));
}

#[test]
fn it_waits_for_less_than_the_skew_time_of_a_backup_that_is_not_preferred() {
    for (priority, centiseconds) in [(1, 1), (100, 10), (150, 20), (254, 100), (200, 4_095)] {
        let config = Config {
            interval: mk_interval(centiseconds),
            ..mk_config(priority, Preemption::Never)
        };
        let skew = config.interval.skew(config.priority);
        let mut machine = Machine::new(config).unwrap();
        let _ = machine.handle(at(0), Event::Start(Start::Resume));
        let wait = machine.deadline().unwrap().since(at(0));
        assert_eq!(wait, (skew / 2).min(ms(100)), "{priority} {centiseconds}");
    }
}

#[test]
fn it_leaves_the_addresses_to_any_router_that_has_taken_over() {
    for (priority, source) in [(50, BELOW), (100, BELOW), (100, ABOVE), (254, BELOW)] {
        let mut machine = mk_resuming(100);
        let by = ip(source);
        assert_eq!(
            machine.handle(at(20), hears(priority, source)),
            [Action::BecomeBackup(BackupReason::TakenOver { by })]
        );
        assert_eq!(machine.other_active().unwrap().source, by);
    }
}

#[test]
fn it_stays_if_the_other_resigns_or_gives_way_to_the_question() {
    let mut machine = mk_resuming(100);
    for other in [hears(0, ABOVE), hears(1, BELOW)] {
        assert_eq!(machine.handle(at(20), other), []);
    }
    assert_eq!(machine.handle(at(100), Event::Deadline).len(), 2);
    assert_eq!(machine.state(), State::Active);
}

#[test]
fn a_hand_over_begins_once_no_other_has_answered() {
    let mut machine = mk_resuming(100);
    assert_eq!(machine.handle(at(10), Event::HandOver), []);
    let resumed = Action::BecomeActive(ActiveReason::Resumed);
    assert_eq!(
        machine.handle(at(100), Event::Deadline),
        [sends(100), resumed, sends(0)]
    );
}
