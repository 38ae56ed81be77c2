//! What holds for any events at any times.

use proptest::prelude::*;

use super::*;

fn any_received() -> impl Strategy<Value = Event> {
    let sources = prop::sample::select(vec![BELOW, OWN, ABOVE]);
    (any::<u8>(), sources, 1..=4095u16).prop_map(|(priority, source, centiseconds)| {
        let mut received = mk_received(priority, source);
        received.advertisement.interval = mk_interval(centiseconds);
        Event::Received(received)
    })
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => any_received(),
        6 => Just(Event::Deadline),
        2 => Just(Event::Start(Start::Fresh)),
        1 => Just(Event::Start(Start::Continue)),
        1 => Just(Event::Start(Start::Resume)),
        1 => Just(Event::Stop),
        1 => Just(Event::HandOver),
        1 => Just(Event::TakeBack),
        1 => Just(Event::Fitness(Fitness::Unfit)),
        2 => Just(Event::Fitness(Fitness::Fit)),
        1 => Just(Event::Link(Link::Down)),
        2 => Just(Event::Link(Link::Up)),
    ]
}

/// When an event happens: at the deadline, or so many milliseconds after the last event, or before it.
fn any_moment() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![
        2 => Just(None),
        4 => (0..5_000i64).prop_map(Some),
        1 => (0..10_000_000i64).prop_map(Some),
        1 => (-10_000_000..0i64).prop_map(Some),
    ]
}

/// Checks that the addresses are taken and given up in turns, and returns whether they are held. A router that resumes may have some.
fn follow(held: bool, resumes: bool, actions: &[Action]) -> bool {
    actions.iter().fold(held, |held, action| match action {
        Action::BecomeActive(_) => {
            assert!(!held, "active twice: {actions:?}");
            true
        }
        Action::BecomeBackup(BackupReason::Started) => {
            assert!(!held, "a former life: {actions:?}");
            false
        }
        Action::BecomeBackup(_) => {
            assert!(held || resumes, "gives up what it has not: {actions:?}");
            false
        }
        Action::SendAdvertisement { .. } | Action::Report(_) => held,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn any_events_at_any_times(
        priority in 1..=255u8,
        delay in prop::option::of(0..10_000u64),
        events in prop::collection::vec((any_event(), any_moment()), 1..80),
    ) {
        let preemption = delay.map_or(Preemption::Never, |delay| Preemption::After(ms(delay)));
        let mut machine = mk_machine(priority, preemption);
        let (mut held, mut now, mut fit, mut up) = (false, at(20_000_000), true, true);
        for (event, moment) in events {
            now = match moment {
                None => machine.deadline().unwrap_or(now),
                Some(later @ 0..) => now + ms(later.unsigned_abs()),
                Some(earlier) => now - ms(earlier.unsigned_abs()),
            };
            if let Event::Fitness(fitness) = event {
                fit = fitness == Fitness::Fit;
            }
            if let Event::Link(link) = event {
                up = link == Link::Up;
            }
            let resumes = machine.state() == State::Resuming;
            held = follow(held, resumes, &machine.handle(now, event));

            prop_assert_eq!(held, machine.state() == State::Active);
            prop_assert!(fit || !held, "active while unfit");
            prop_assert!(up || machine.state() == State::Initialize);
            let resumes = machine.state() == State::Resuming;
            prop_assert!(fit || !resumes, "resumes while unfit");
            let waits = held || resumes || fit && machine.state() == State::Backup;
            prop_assert_eq!(machine.deadline().is_some(), waits);
            if let Some(deadline) = machine.deadline() {
                let mut copy = machine.clone();
                let _ = copy.handle(deadline.max(now), Event::Deadline);
                prop_assert!(copy.deadline() > Some(deadline), "a deadline that stays");
            }
        }
    }
}
