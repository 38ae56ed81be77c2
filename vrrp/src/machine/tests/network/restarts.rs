//! The active router is restarted.

use super::{scenario::micros, *};

const INTERVAL: u64 = 200_000;

/// Routers with these priorities, of which the first one is active and has crashed; packets take 200 us at most.
fn lay_out(priorities: &[u8], preemption: Preemption) -> Simulation {
    let hosts = [20, 10, 30];
    let configs = priorities.iter().zip(hosts).map(|(priority, host)| Config {
        source: IpAddr::from([192, 0, 2, host]),
        interval: mk_interval(20),
        ..mk_config(*priority, preemption)
    });
    let mut network = Simulation::new(configs.collect(), 7);
    network.quality.delay = 200;
    for index in 0..priorities.len() {
        Op::Start.apply(&mut network, index);
        network.run_until(network.now + 5 * INTERVAL);
    }
    assert_eq!(network.actives(), [0]);
    Op::Crash.apply(&mut network, 0);
    network
}

/// How often routers have become active.
fn takeovers(network: &Simulation) -> usize {
    let done = network.routers.iter().flat_map(|router| &router.done);
    done.filter(|(_, action)| matches!(action, Action::BecomeActive(_)))
        .count()
}

#[test]
fn within_three_intervals_nothing_moves() {
    let at_once = Preemption::After(Duration::ZERO);
    for preemption in [Preemption::Never, at_once, Preemption::After(ms(1_000))] {
        for tenths in 1..=29 {
            let mut network = lay_out(&[150, 150, 100], preemption);
            let before = takeovers(&network);
            let last_sent = network.routers[0].done.last().unwrap().0;
            network.run_until((last_sent + tenths * INTERVAL / 10).max(network.now));
            Op::Resume.apply(&mut network, 0);
            network.run_until(network.now + 50 * INTERVAL);
            assert_eq!(network.actives(), [0], "{preemption:?} {tenths}");
            assert_eq!(takeovers(&network), before + 1, "{preemption:?} {tenths}");
        }
    }
}

#[test]
fn after_another_has_taken_over_the_addresses_stay_there() {
    for other in [100, 150, 200] {
        let mut network = lay_out(&[150, other], Preemption::Never);
        network.run_until(network.now + micros(ms(1_000)));
        assert_eq!(network.actives(), [1]);
        let before = takeovers(&network);
        (network.none, network.longest_several) = (false, 0);
        Op::Resume.apply(&mut network, 0);
        network.run_until(network.now + 50 * INTERVAL);
        assert_eq!(network.actives(), [1], "{other}");
        assert_eq!(takeovers(&network), before, "{other}");
        assert!(!network.none && network.longest_several == 0, "{other}");
    }
}
