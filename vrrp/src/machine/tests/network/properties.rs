//! What holds whatever happens.

use super::{
    scenario::{micros, scenarios},
    *,
};

/// How long any change may take until all is settled: waking up late, then a down interval, then a preemption with its delay.
fn settling(scenario: &Scenario) -> u64 {
    let delay = match scenario.preemption {
        Preemption::Never => 0,
        Preemption::After(delay) => micros(delay),
    };
    30 * scenario.longest_interval() + 2 * delay
}

/// Starts all routers, makes them fit and lets their pauses end.
fn recover(scenario: &Scenario, network: &mut Simulation) {
    network.quality = Quality {
        delay: scenario.longest_interval() / 1_000,
        ..Quality::PERFECT
    };
    network.run_until(network.now + 16 * scenario.longest_interval());
    for index in 0..network.routers.len() {
        Op::Start.apply(network, index);
        Op::Fitness(true).apply(network, index);
    }
}

/// A network whose routers have started and settled on the first one, and whose links have the scenario's quality from then on.
fn lay_out_settled(scenario: &Scenario) -> Simulation {
    let mut network = scenario.lay_out();
    begin(&mut network, 0);
    for index in 1..network.routers.len() {
        Op::Start.apply(&mut network, index);
    }
    network.run_until(network.now + settling(scenario));
    network.quality = scenario.quality;
    network
}

/// Starts a router while no other runs.
fn begin(network: &mut Simulation, index: usize) {
    Op::Start.apply(network, index);
    let interval = network.routers[index].machine.config().interval;
    network.run_until(network.now + 5 * micros(interval.duration()));
    assert_eq!(network.actives(), [index]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn once_the_link_is_quiet_exactly_one_router_is_active(scenario in scenarios(false, false)) {
        let mut network = scenario.lay_out();
        scenario.run(&mut network);
        recover(&scenario, &mut network);
        network.run_until(network.now + settling(&scenario));
        let settled = network.actives();
        prop_assert_eq!(settled.len(), 1);
        network.longest_several = 0;
        network.none = false;
        network.run_until(network.now + settling(&scenario));
        prop_assert_eq!(network.actives(), settled);
        prop_assert!(!network.none && network.longest_several == 0);
    }

    #[test]
    fn unfit_routers_never_become_active(scenario in scenarios(false, false)) {
        let mut network = scenario.lay_out();
        scenario.run(&mut network);
        for router in &network.routers {
            let active = router.machine.state() == State::Active;
            prop_assert!(!active || router.fit || !router.alive);
        }
    }

    #[test]
    fn two_are_active_for_less_than_a_down_interval_when_packets_pass(
        scenario in scenarios(true, true),
    ) {
        let mut network = scenario.lay_out();
        scenario.run(&mut network);
        network.run_until(network.now + settling(&scenario));
        // The shortest down interval of any router. Pauses, crashes and jumping clocks are part of the scenario.
        prop_assert!(network.longest_several < 3 * scenario.longest_interval());
    }

    #[test]
    fn after_any_split_two_are_active_for_less_than_a_down_interval(
        scenario in scenarios(true, false),
    ) {
        let mut network = scenario.lay_out();
        scenario.run(&mut network);
        recover(&scenario, &mut network);
        network.longest_several = 0;
        let healed = network.now;
        network.run_until(healed + settling(&scenario));
        let split_before = network.longest_several.min(network.now - healed);
        prop_assert!(split_before < 3 * scenario.longest_interval());
    }

    #[test]
    fn a_fit_active_router_stays_active_without_preemption(
        scenario in scenarios(true, true),
        first in 0..5usize,
        starts in prop::collection::vec((0..5usize, 0..60u64), 1..30),
    ) {
        let scenario = Scenario { preemption: Preemption::Never, ..scenario };
        // An owner preempts always.
        let priorities = scenario.priorities.iter().map(|priority| (*priority).min(254)).collect();
        let scenario = Scenario { priorities, ..scenario };
        let mut network = scenario.lay_out();
        let first = first % scenario.priorities.len();
        begin(&mut network, first);
        network.quality = scenario.quality;
        network.none = false;
        for (index, wait) in starts {
            let index = index % scenario.priorities.len();
            network.run_until(network.now + wait * scenario.longest_interval() / 10);
            if index != first {
                let op = if network.routers[index].alive { Op::Crash } else { Op::Start };
                op.apply(&mut network, index);
            }
        }
        network.run_until(network.now + 1_000 * scenario.longest_interval());
        prop_assert_eq!(network.actives(), [first]);
        prop_assert!(!network.none && network.longest_several == 0);
        let taken = network.routers.iter().flat_map(|router| &router.done);
        let taken = taken.filter(|(_, action)| matches!(action, Action::BecomeActive(_)));
        prop_assert_eq!(taken.count(), 1);
    }

    #[test]
    fn a_resignation_moves_the_addresses_to_the_most_preferred_within_its_skew_time(
        scenario in scenarios(true, true),
        unfit: bool,
    ) {
        let scenario = Scenario { preemption: Preemption::Never, ..scenario };
        let mut network = scenario.lay_out();
        begin(&mut network, 0);
        let interval = scenario.longest_interval();
        for index in 1..network.routers.len() {
            Op::Start.apply(&mut network, index);
        }
        network.run_until(network.now + 5 * interval);
        let resigned = network.now;
        if network.actives() != [0] {
            // An owner was among the others.
            return Ok(());
        }
        let op = if unfit { Op::Fitness(false) } else { Op::Stop };
        op.apply(&mut network, 0);
        let others = network.routers.iter().skip(1);
        let preferred = others.map(|router| router.machine.config().priority).max().unwrap();
        let skew = mk_interval(scenario.intervals[0]).skew(preferred);
        network.run_until(resigned + micros(skew) + 1);
        let active = network.actives();
        prop_assert!(!active.is_empty());
        for index in active {
            prop_assert_eq!(network.routers[index].machine.config().priority, preferred);
        }
    }

    #[test]
    fn a_planned_hand_over_leaves_no_moment_without_an_active_router(
        scenario in scenarios(true, true),
    ) {
        let mut network = lay_out_settled(&scenario);
        let active = network.actives();
        prop_assert_eq!(active.len(), 1);
        network.none = false;
        network.longest_several = 0;
        Op::HandOver.apply(&mut network, active[0]);
        let interval = scenario.longest_interval();
        network.run_until(network.now + 2 * interval);
        prop_assert!(!network.actives().contains(&active[0]));
        // Both have the addresses only until the first advertisement of the successor has arrived. If packets are slower than the
        // skew times differ, a second successor appears, and gives way to the first one's.
        prop_assert!(network.longest_several <= 2 * scenario.quality.delay);
        network.run_until(network.now + settling(&scenario));
        prop_assert!(!network.none);
        prop_assert!(!network.actives().contains(&active[0]));
    }

    #[test]
    fn the_death_of_the_active_router_is_noticed_within_a_down_interval(
        scenario in scenarios(true, true),
    ) {
        let scenario = Scenario { preemption: Preemption::Never, ..scenario };
        let mut network = lay_out_settled(&scenario);
        let active = network.actives();
        Op::Crash.apply(&mut network, active[0]);
        let delay = scenario.quality.delay;
        network.run_until(network.now + 4 * scenario.longest_interval() + delay);
        prop_assert!(!network.actives().is_empty());
    }
}
