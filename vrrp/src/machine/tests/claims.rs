//! Single claims about one router.

use super::*;

const AT_ONCE: Preemption = Preemption::After(Duration::ZERO);

/// Hands a machine an advertisement of another each second, from `from` to `to` in milliseconds; returns everything done.
fn hear_each_second(machine: &mut Machine, event: &Event, from: u64, to: u64) -> Vec<Action> {
    let mut actions = Vec::new();
    for now in (from..=to).step_by(1_000) {
        while let Some(deadline) = machine.deadline().filter(|deadline| *deadline < at(now)) {
            actions.extend(machine.handle(deadline, Event::Deadline));
        }
        actions.extend(machine.handle(at(now), event.clone()));
    }
    actions
}

fn are_reports(actions: &[Action]) -> bool {
    let mut actions = actions.iter();
    actions.all(|action| matches!(action, Action::Report(_)))
}

#[test]
fn a_backup_takes_over_after_the_down_interval_of_the_active_ones_interval() {
    let mut machine = mk_backup(100, Preemption::Never);
    let mut received = mk_received(200, BELOW);
    received.advertisement.interval = mk_interval(10);
    let _ = machine.handle(at(500), Event::Received(received));
    let deadline = at(500) + mk_interval(10).down(mk_priority(100));
    assert_eq!(machine.deadline(), Some(deadline));
    assert_eq!(machine.handle(deadline - ms(1), Event::Deadline), []);
    let actions = machine.handle(deadline, Event::Deadline);
    assert_eq!(
        actions,
        [sends(100), Action::BecomeActive(ActiveReason::Silence)]
    );
}

#[test]
fn a_slow_router_begins_at_the_pace_of_the_fast_one_before_it() {
    let mut machine = mk_backup(100, Preemption::Never);
    let mut received = mk_received(200, BELOW);
    received.advertisement.interval = mk_interval(10);
    let _ = machine.handle(at(0), Event::Received(received));
    let mut waits = Vec::new();
    let mut now = at(0);
    for _ in 0..6 {
        let deadline = machine.deadline().unwrap();
        waits.push(deadline.since(now));
        now = deadline;
        let _ = machine.handle(now, Event::Deadline);
    }
    let takeover = mk_interval(10).down(mk_priority(100));
    assert_eq!(
        waits,
        [takeover, ms(100), ms(100), ms(100), ms(1_000), ms(1_000)]
    );
}

#[test]
fn a_raised_interval_begins_at_the_old_pace() {
    let mut machine = mk_active(100, Preemption::Never);
    let raised = |centiseconds| Config {
        interval: mk_interval(centiseconds),
        ..mk_config(100, Preemption::Never)
    };
    assert_eq!(
        machine.configure(at(500), raised(200)).unwrap(),
        [sends(100)]
    );
    assert_eq!(machine.deadline(), Some(at(1_500)));
    // Raised once more: the others may still expect the first.
    assert_eq!(
        machine.configure(at(600), raised(400)).unwrap(),
        [sends(100)]
    );
    let mut sent = Vec::new();
    for _ in 0..4 {
        let deadline = machine.deadline().unwrap();
        sent.push(deadline);
        assert_eq!(machine.handle(deadline, Event::Deadline), [sends(100)]);
    }
    assert_eq!(sent, [at(1_600), at(2_600), at(3_600), at(7_600)]);
    // A lowered one counts at once.
    assert_eq!(
        machine.configure(at(8_000), raised(10)).unwrap(),
        [sends(100)]
    );
    assert_eq!(machine.deadline(), Some(at(8_100)));
}

#[test]
fn without_preemption_a_less_preferred_active_router_stays() {
    let mut machine = mk_backup(200, Preemption::Never);
    let actions = hear_each_second(&mut machine, &hears(50, ABOVE), 100, 60_100);
    assert_eq!(actions, []);
    assert_eq!(machine.other_active().unwrap().source, ip(ABOVE));
}

#[test]
fn preemption_waits_for_the_delay_and_the_skew_time() {
    let mut machine = mk_backup(200, Preemption::After(ms(5_500)));
    let actions = hear_each_second(&mut machine, &hears(50, ABOVE), 1_000, 6_000);
    assert_eq!(actions, []);
    let skew = mk_interval(100).skew(mk_priority(200));
    assert_eq!(machine.deadline(), Some(at(6_500) + skew));
    let actions = machine.handle(at(6_500) + skew, Event::Deadline);
    assert_eq!(
        actions,
        [sends(200), Action::BecomeActive(ActiveReason::Preemption)]
    );
}

#[test]
fn a_preferred_active_router_ends_the_delay() {
    let mut machine = mk_backup(100, Preemption::After(ms(3_500)));
    let _ = machine.handle(at(1_000), hears(50, ABOVE));
    let _ = machine.handle(at(1_500), hears(200, BELOW));
    // The loser of a split brain does not begin it anew while the winner is heard.
    let _ = machine.handle(at(2_000), hears(50, ABOVE));
    assert_eq!(machine.other_active().unwrap().source, ip(BELOW));
    let down = mk_interval(100).down(mk_priority(100));
    assert_eq!(machine.deadline(), Some(at(2_000) + down));
}

#[test]
fn a_router_that_gives_way_lets_the_preferred_one_know_of_it() {
    let mut loser = mk_active(100, Preemption::Never);
    let actions = loser.handle(at(1_000), hears(200, BELOW));
    assert!(actions.contains(&sends(100)), "{actions:?}");
    assert_eq!(loser.state(), State::Backup);

    let mut winner = mk_active(200, Preemption::Never);
    let actions = winner.handle(at(1_000), hears(100, ABOVE));
    let priority = mk_priority(100);
    let source = ip(ABOVE);
    let reported = Action::Report(Observation::TwoActives { source, priority });
    assert!(actions.contains(&reported), "{actions:?}");
    assert_eq!(winner.state(), State::Active);
}

#[test]
fn what_forbids_preemption_ends_the_delay() {
    let forbidding = [Event::HandOver, Event::Fitness(Fitness::Unfit)];
    for event in forbidding {
        let mut machine = mk_backup(200, AT_ONCE);
        let _ = machine.handle(at(1_000), hears(50, ABOVE));
        let _ = machine.handle(at(1_100), event.clone());
        let actions = hear_each_second(&mut machine, &hears(50, ABOVE), 1_200, 60_200);
        assert_eq!(actions, [], "{event:?}");
    }
}

#[test]
fn preemption_begins_when_it_is_allowed_again() {
    let pairs = [
        (Event::HandOver, Event::TakeBack),
        (Event::Fitness(Fitness::Unfit), Event::Fitness(Fitness::Fit)),
    ];
    for (forbids, allows) in pairs {
        let mut machine = mk_backup(200, AT_ONCE);
        let _ = machine.handle(at(100), forbids);
        let _ = machine.handle(at(1_000), hears(50, ABOVE));
        let _ = machine.handle(at(1_500), allows.clone());
        assert_eq!(machine.handle(at(2_000), hears(50, ABOVE)), []);
        let skew = mk_interval(100).skew(mk_priority(200));
        assert_eq!(machine.deadline(), Some(at(2_000) + skew), "{allows:?}");
    }
}

#[test]
fn an_owner_that_may_not_preempt_listens_first() {
    let mut machine = mk_machine(255, Preemption::Never);
    let _ = machine.handle(at(0), Event::HandOver);
    let started = machine.handle(at(0), Event::Start(Start::Fresh));
    assert_eq!(started, [Action::BecomeBackup(BackupReason::Started)]);
}

#[test]
fn an_owner_takes_back_at_once_when_it_is_fit_again() {
    let mut machine = mk_active(255, Preemption::Never);
    let _ = machine.handle(at(100), Event::Fitness(Fitness::Unfit));
    let _ = machine.handle(at(500), hears(50, ABOVE));
    let actions = machine.handle(at(900), Event::Fitness(Fitness::Fit));
    assert_eq!(
        actions,
        [sends(255), Action::BecomeActive(ActiveReason::Owner)]
    );
}

#[test]
fn an_unfit_router_is_never_active() {
    let mut machine = mk_active(100, AT_ONCE);
    let resigned = machine.handle(at(100), Event::Fitness(Fitness::Unfit));
    assert_eq!(
        resigned,
        [sends(0), Action::BecomeBackup(BackupReason::Unfit)]
    );
    for (now, event) in [
        (200, hears(0, ABOVE)),
        (300, hears(50, ABOVE)),
        (99_000, Event::Deadline),
        (99_100, Event::Link(Link::Down)),
        (99_200, Event::Link(Link::Up)),
        (99_300, Event::Stop),
        (99_400, Event::Start(Start::Continue)),
        (99_500, Event::Deadline),
    ] {
        let _ = machine.handle(at(now), event);
        assert_ne!(machine.state(), State::Active);
        assert_eq!(machine.deadline(), None);
    }
}

#[test]
fn a_router_that_is_fit_again_listens_for_a_whole_down_interval() {
    let mut machine = mk_backup(100, Preemption::Never);
    let _ = machine.handle(at(100), Event::Fitness(Fitness::Unfit));
    let _ = machine.handle(at(200), hears(0, ABOVE));
    let actions = machine.handle(at(90_000), Event::Fitness(Fitness::Fit));
    assert_eq!(actions, []);
    let down = mk_interval(100).down(mk_priority(100));
    assert_eq!(machine.deadline(), Some(at(90_000) + down));
}

#[test]
fn a_hand_over_keeps_the_addresses_until_the_successor_is_heard() {
    let mut machine = mk_active(200, AT_ONCE);
    assert_eq!(machine.handle(at(300), Event::HandOver), [sends(0)]);
    assert_eq!(machine.state(), State::Active);
    // The resignation may be lost: it is repeated.
    assert_eq!(machine.handle(at(2_300), Event::Deadline), [sends(0)]);
    let handed_over = machine.handle(at(2_900), hears(50, BELOW));
    let to = ip(BELOW);
    assert_eq!(
        handed_over,
        [Action::BecomeBackup(BackupReason::HandedOver { to })]
    );
    // It does not take back what it has given, before it is asked to.
    let actions = hear_each_second(&mut machine, &hears(50, BELOW), 3_900, 60_900);
    assert_eq!(actions, []);
    assert_eq!(machine.handle(at(61_000), Event::TakeBack), []);
    let actions = hear_each_second(&mut machine, &hears(50, BELOW), 61_900, 62_900);
    let taken = [sends(200), Action::BecomeActive(ActiveReason::Preemption)];
    assert_eq!(actions.get(..2), Some(taken.as_slice()));
}

#[test]
fn a_router_that_handed_over_takes_over_from_a_dead_one() {
    let mut machine = mk_active(200, AT_ONCE);
    let _ = machine.handle(at(0), Event::HandOver);
    let _ = machine.handle(at(500), hears(50, BELOW));
    let deadline = machine.deadline().unwrap();
    assert_eq!(deadline, at(500) + mk_interval(100).down(mk_priority(200)));
    let actions = machine.handle(deadline, Event::Deadline);
    assert_eq!(
        actions,
        [sends(200), Action::BecomeActive(ActiveReason::Silence)]
    );
}

#[test]
fn a_router_that_handed_over_lets_all_others_succeed_first() {
    let mut machine = mk_backup(200, AT_ONCE);
    let _ = machine.handle(at(0), hears(100, BELOW));
    let _ = machine.handle(at(100), Event::HandOver);
    let down = mk_interval(100).down(mk_priority(200));
    for second in [500, 2_500] {
        let _ = machine.handle(at(second), hears(0, BELOW));
        assert_eq!(machine.deadline(), Some(at(second) + down));
    }
    // So one that hands over to it in vain is heard again before.
    let _ = machine.handle(at(4_500), hears(100, BELOW));
    assert_eq!(machine.deadline(), Some(at(4_500) + down));
}

#[test]
fn a_hand_over_without_a_successor_fails_and_changes_nothing() {
    let mut machine = mk_active(200, AT_ONCE);
    let _ = machine.handle(at(0), Event::HandOver);
    assert_eq!(machine.deadline(), Some(at(2_000)));
    assert_eq!(machine.handle(at(2_000), Event::Deadline), [sends(0)]);
    let failed = machine.handle(at(4_000), Event::Deadline);
    assert_eq!(
        failed,
        [Action::Report(Observation::HandOverFailed), sends(200)]
    );
    assert_eq!(machine.state(), State::Active);
    assert_eq!(machine.handle(at(5_000), Event::Deadline), [sends(200)]);
}

#[test]
fn the_resignation_of_another_than_the_active_router_is_ignored() {
    let mut machine = mk_backup(100, Preemption::Never);
    let _ = machine.handle(at(1_000), hears(200, BELOW));
    let before = machine.deadline();
    let _ = machine.handle(at(1_500), hears(0, ABOVE));
    assert_eq!(machine.deadline(), before);
    let _ = machine.handle(at(1_600), hears(0, BELOW));
    let skew = mk_interval(100).skew(mk_priority(100));
    assert_eq!(machine.deadline(), Some(at(1_600) + skew));
    assert_eq!(machine.other_active(), None);
}

#[test]
fn after_a_resignation_another_active_router_is_followed() {
    let mut machine = mk_backup(100, Preemption::Never);
    let _ = machine.handle(at(1_000), hears(200, BELOW));
    // The successor's advertisement overtook the resignation.
    let _ = machine.handle(at(1_500), hears(150, ABOVE));
    assert_eq!(machine.other_active().unwrap().source, ip(BELOW));
    let _ = machine.handle(at(1_600), hears(0, BELOW));
    assert_eq!(machine.other_active().unwrap().source, ip(ABOVE));
    let down = mk_interval(100).down(mk_priority(100));
    assert_eq!(machine.deadline(), Some(at(1_500) + down));
    let _ = machine.handle(at(1_700), hears(0, ABOVE));
    let skew = mk_interval(100).skew(mk_priority(100));
    assert_eq!(machine.deadline(), Some(at(1_700) + skew));
}

#[test]
fn a_repeated_resignation_does_not_start_the_skew_time_anew() {
    let mut machine = mk_backup(1, Preemption::Never);
    let _ = machine.handle(at(1_000), hears(200, BELOW));
    for repeated in [1_500, 1_900, 2_300] {
        let _ = machine.handle(at(repeated), hears(0, BELOW));
    }
    let skew = mk_interval(100).skew(mk_priority(1));
    assert_eq!(machine.deadline(), Some(at(1_500) + skew));
}

#[test]
fn the_resignation_of_a_successor_that_was_not_heard_counts_once_the_active_one_is_silent() {
    let mut machine = mk_backup(100, Preemption::Never);
    let _ = machine.handle(at(1_000), hears(200, BELOW));
    let _ = machine.handle(at(4_000), hears(0, ABOVE));
    let skew = mk_interval(100).skew(mk_priority(100));
    assert_eq!(machine.deadline(), Some(at(4_000) + skew));
}

#[test]
fn forged_packets_do_not_make_an_active_router_flood_the_link() {
    let mut machine = mk_active(100, Preemption::Never);
    let mut sent = 0;
    for millisecond in 1..=1_000 {
        for forged in [hears(50, BELOW), hears(0, BELOW)] {
            let actions = machine.handle(at(millisecond), forged);
            sent += actions
                .iter()
                .filter(|action| **action == sends(100))
                .count();
        }
        if machine.deadline() <= Some(at(millisecond)) {
            let actions = machine.handle(at(millisecond), Event::Deadline);
            sent += actions.len();
        }
    }
    assert_eq!(sent, 100);
}

#[test]
fn an_answer_that_would_come_too_soon_is_put_off_and_not_forgotten() {
    let mut machine = mk_active(100, Preemption::Never);
    let actions = machine.handle(at(4), hears(50, BELOW));
    assert!(are_reports(&actions));
    assert_eq!(machine.deadline(), Some(at(10)));
    assert_eq!(machine.handle(at(10), Event::Deadline), [sends(100)]);
}

#[test]
fn an_active_router_that_slept_gives_way_to_the_router_that_is_active_now() {
    let mut machine = mk_active(200, Preemption::Never);
    // The first that it sees after its pause is the advertisement of a less preferred router.
    let actions = machine.handle(at(3_000), hears(50, BELOW));
    let silent_for = ms(3_000);
    assert_eq!(
        actions,
        [Action::BecomeBackup(BackupReason::Paused { silent_for })]
    );
    assert_eq!(machine.other_active().unwrap().source, ip(BELOW));
    let actions = hear_each_second(&mut machine, &hears(50, BELOW), 4_000, 60_000);
    assert_eq!(actions, []);
}

#[test]
fn an_active_router_that_slept_alone_is_active_again_after_a_down_interval() {
    let mut machine = mk_active(200, Preemption::Never);
    let _ = machine.handle(at(50_000), Event::Deadline);
    assert_eq!(machine.state(), State::Backup);
    let deadline = machine.deadline().unwrap();
    assert_eq!(
        deadline,
        at(50_000) + mk_interval(100).down(mk_priority(200))
    );
    let actions = machine.handle(deadline, Event::Deadline);
    assert_eq!(
        actions,
        [sends(200), Action::BecomeActive(ActiveReason::Silence)]
    );
}

#[test]
fn an_active_router_that_slept_for_less_than_three_intervals_goes_on() {
    let mut machine = mk_active(200, Preemption::Never);
    assert_eq!(machine.handle(at(2_999), Event::Deadline), [sends(200)]);
}

#[test]
fn a_backup_that_slept_listens_first() {
    let mut machine = mk_backup(100, AT_ONCE);
    let _ = machine.handle(at(1_000), hears(200, BELOW));
    let deadline = machine.deadline().unwrap();
    let by = ms(1_000);
    let late = machine.handle(deadline + by, Event::Deadline);
    assert_eq!(late, [Action::Report(Observation::Late { by })]);
    let down = mk_interval(100).down(mk_priority(100));
    assert_eq!(machine.deadline(), Some(deadline + by + down));
    // A little late is on time.
    let next = machine.deadline().unwrap() + ms(999);
    assert_eq!(machine.handle(next, Event::Deadline).len(), 2);
}

#[test]
fn a_clock_that_goes_back_stops_nothing() {
    let far = 1_000_000;
    let mut backup = mk_machine(100, AT_ONCE);
    let _ = backup.handle(at(far), Event::Start(Start::Fresh));
    let _ = backup.handle(at(far + 1_000), hears(50, BELOW));
    let rest = backup.deadline().unwrap().since(at(far + 1_000));
    let _ = backup.handle(at(5_000), Event::Link(Link::Up));
    assert_eq!(backup.deadline(), Some(at(5_000) + rest));
    let mut active = mk_machine(100, AT_ONCE);
    let _ = active.handle(at(far), Event::Start(Start::Continue));
    let _ = active.handle(at(5_000), Event::Deadline);
    assert_eq!(active.deadline(), Some(at(6_000)));
    let _ = active.handle(at(5_500), Event::HandOver);
    let _ = active.handle(at(500), Event::Deadline);
    assert_eq!(active.deadline(), Some(at(2_500)));
    assert_eq!(active.handle(at(2_500), Event::Deadline), [sends(0)]);
    assert_eq!(active.handle(at(4_499), Event::Deadline), []);
    let failed = active.handle(at(4_500), Event::Deadline);
    assert_eq!(
        failed,
        [Action::Report(Observation::HandOverFailed), sends(100)]
    );
}

#[test]
fn differences_of_another_router_are_reported_and_its_advertisement_counts() {
    let mut received = mk_received(200, BELOW);
    received.checksum = Some(Ipv4Checksum::PseudoHeader);
    received.advertisement.interval = mk_interval(50);
    let list = [ip("198.51.100.2"), ip("198.51.100.9")];
    received.advertisement.addresses = Addresses::new(&list).unwrap();
    let mut machine = mk_backup(100, Preemption::Never);
    let actions = machine.handle(at(100), Event::Received(received));
    let source = ip(BELOW);
    let expected = [
        Observation::IntervalDiffers {
            source,
            interval: mk_interval(50),
        },
        Observation::ChecksumDiffers {
            source,
            checksum: Ipv4Checksum::PseudoHeader,
        },
        Observation::AddressesDiffer {
            source,
            additional: BTreeSet::from([ip("198.51.100.9")]),
            missing: BTreeSet::from([ip("198.51.100.1")]),
        },
    ];
    assert_eq!(actions, expected.map(Action::Report));
    assert_eq!(machine.other_active().unwrap().source, source);
}

#[test]
fn addresses_in_another_order_are_the_same() {
    let mut received = mk_received(200, BELOW);
    let list = [ip("198.51.100.2"), ip("198.51.100.1")];
    received.advertisement.addresses = Addresses::new(&list).unwrap();
    let mut machine = mk_backup(100, Preemption::Never);
    assert_eq!(machine.handle(at(100), Event::Received(received)), []);
}

fn mk_config_v6() -> Config {
    let vrid = Vrid::new(51).unwrap();
    Config {
        addresses: Addresses::new(&[vrid.link_local().into(), ip("2001:db8::1")]).unwrap(),
        source: ip("fe80::20"),
        ..mk_config(100, Preemption::Never)
    }
}

#[test]
fn another_group_with_our_id_is_foreign_although_the_link_local_address_is_the_same() {
    let mut machine = Machine::new(mk_config_v6()).unwrap();
    let _ = machine.handle(at(0), Event::Start(Start::Fresh));
    let source = ip("fe80::30");
    let list = [
        Vrid::new(51).unwrap().link_local().into(),
        ip("2001:db8::99"),
    ];
    let advertisement = Advertisement {
        addresses: Addresses::new(&list).unwrap(),
        ..machine.advertisement(Some(mk_priority(200)))
    };
    let received = Received {
        source,
        advertisement,
        checksum: None,
    };
    let actions = machine.handle(at(100), Event::Received(received));
    let addresses = BTreeSet::from(list);
    let foreign = Observation::ForeignRouter { source, addresses };
    assert_eq!(actions, [Action::Report(foreign)]);
}

#[test]
fn an_unknown_peer_is_reported_and_ignored() {
    let peers = BTreeSet::from([ip(BELOW)]);
    let config = Config {
        recipients: Recipients::Peers(peers.clone()),
        ..mk_config(100, Preemption::Never)
    };
    let mut machine = Machine::new(config).unwrap();
    let started = machine.handle(at(0), Event::Start(Start::Continue));
    let answer = Action::SendAdvertisement {
        priority: Some(mk_priority(100)),
        to: peers,
    };
    assert_eq!(started.first(), Some(&answer));
    let source = ip(ABOVE);
    let unknown = Action::Report(Observation::UnknownPeer { source });
    for priority in [0, 50, 254] {
        let actions = machine.handle(at(500), hears(priority, ABOVE));
        assert_eq!(actions, std::slice::from_ref(&unknown), "{priority}");
        assert_eq!(machine.state(), State::Active);
    }
    let (source, priority) = (ip(BELOW), mk_priority(50));
    assert_eq!(
        machine.handle(at(600), hears(50, BELOW)),
        [
            Action::Report(Observation::TwoActives { source, priority }),
            answer
        ]
    );
}

#[test]
fn a_backup_that_gets_peers_hears_the_active_router_until_that_one_sends_as_a_peer() {
    let mut machine = mk_backup(100, Preemption::Never);
    let _ = machine.handle(at(100), hears(150, ABOVE));
    let config = Config {
        recipients: Recipients::Peers(BTreeSet::from([ip(BELOW)])),
        ..mk_config(100, Preemption::Never)
    };
    assert_eq!(machine.configure(at(200), config), Ok(vec![]));
    for time in [1_000, 2_000, 3_000, 4_000] {
        assert_eq!(machine.handle(at(time), hears(150, ABOVE)), []);
    }
    assert_eq!(machine.handle(at(5_000), hears(150, BELOW)), []);
    let source = ip(ABOVE);
    let unknown = Action::Report(Observation::UnknownPeer { source });
    assert_eq!(machine.handle(at(5_100), hears(150, ABOVE)), [unknown]);
    assert_eq!(
        machine.other_active().map(|active| active.source),
        Some(ip(BELOW))
    );
}

#[test]
fn an_advertisement_of_the_other_family_is_not_for_this_router() {
    let mut machine = Machine::new(mk_config_v6()).unwrap();
    let _ = machine.handle(at(0), Event::Start(Start::Fresh));
    let before = machine.deadline();
    assert_eq!(machine.handle(at(100), hears(200, BELOW)), []);
    assert_eq!(machine.deadline(), before);
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    let good = mk_config(100, Preemption::Never);
    let peers = |list: &[&str]| Recipients::Peers(list.iter().map(|text| ip(text)).collect());
    let cases = [
        (
            Config {
                source: ip("fe80::1"),
                ..good.clone()
            },
            ConfigError::Family(ip("fe80::1")),
        ),
        (
            Config {
                source: ip("0.0.0.0"),
                ..good.clone()
            },
            ConfigError::Source(ip("0.0.0.0")),
        ),
        (
            Config {
                source: ip("224.0.0.18"),
                ..good.clone()
            },
            ConfigError::Source(ip("224.0.0.18")),
        ),
        (
            Config {
                recipients: peers(&["fe80::1"]),
                ..good.clone()
            },
            ConfigError::Family(ip("fe80::1")),
        ),
        (
            Config {
                recipients: peers(&[OWN]),
                ..good
            },
            ConfigError::OwnPeer(ip(OWN)),
        ),
        (
            Config {
                addresses: Addresses::new(&[ip("2001:db8::1")]).unwrap(),
                ..mk_config_v6()
            },
            ConfigError::FirstAddressNotLinkLocal,
        ),
    ];
    for (config, expected) in cases {
        assert_eq!(Machine::new(config).unwrap_err(), expected);
    }
}

#[test]
fn settings_of_another_virtual_router_are_refused() {
    let good = mk_config(100, Preemption::Never);
    let mut machine = Machine::new(good.clone()).unwrap();
    let other = Config {
        vrid: Vrid::new(52).unwrap(),
        ..good
    };
    assert_eq!(
        machine.configure(at(0), other),
        Err(ConfigError::OtherRouter)
    );
    assert_eq!(
        machine.configure(at(0), mk_config_v6()),
        Err(ConfigError::OtherRouter)
    );
}
