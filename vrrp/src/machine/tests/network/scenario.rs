//! What happens to the routers.

use super::*;

/// Something that happens to one router.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Start,
    /// The same, of a router that was active and has its addresses.
    Resume,
    Stop,
    Crash,
    HandOver,
    TakeBack,
    Fitness(bool),
    /// For so many intervals, in tenths; whether packets are lost meanwhile.
    Pause(u64, bool),
    /// The clock goes forward or back by so many intervals.
    Clock(i64),
    Priority(u8),
}

/// Routers, and what happens to them: an operation, the router, and the tenths of an interval after the one before.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) priorities: Vec<u8>,
    pub(super) intervals: Vec<u16>,
    pub(super) preemption: Preemption,
    pub(super) ops: Vec<(Op, usize, u64)>,
    pub(super) quality: Quality,
    pub(super) random: u64,
}

impl Op {
    pub(super) fn apply(&self, network: &mut Simulation, index: usize) {
        let interval = network.routers[index].machine.config().interval;
        let unit = micros(interval.duration());
        let router = &mut network.routers[index];
        let is_running = router.alive && router.paused_until.is_none();
        match self {
            Self::Start | Self::Resume if !router.alive => {
                // A new process: nothing is remembered.
                router.machine = Machine::new(router.machine.config().clone()).unwrap();
                (router.alive, router.fit, router.paused_until) = (true, true, None);
                let is_resumed = matches!(self, Self::Resume);
                let start = if is_resumed {
                    Start::Resume
                } else {
                    Start::Fresh
                };
                network.handle(index, Event::Start(start));
            }
            Self::Crash => router.alive = false,
            _ if !is_running => {}
            Self::Start | Self::Resume => {}
            Self::Stop => {
                network.handle(index, Event::Stop);
                network.routers[index].alive = false;
            }
            Self::HandOver => network.handle(index, Event::HandOver),
            Self::TakeBack => network.handle(index, Event::TakeBack),
            Self::Fitness(fit) => {
                router.fit = *fit;
                let fitness = if *fit { Fitness::Fit } else { Fitness::Unfit };
                network.handle(index, Event::Fitness(fitness));
            }
            Self::Pause(tenths, deaf) => network.pause(index, unit * tenths / 10, *deaf),
            Self::Clock(intervals) => {
                let by = unit * intervals.unsigned_abs();
                router.clock = match intervals {
                    0.. => router.clock + by,
                    _ => router.clock - by,
                };
                // Something notices it.
                network.handle(index, Event::Deadline);
            }
            Self::Priority(priority) => {
                let config = Config {
                    priority: mk_priority(*priority),
                    ..router.machine.config().clone()
                };
                network.configure(index, config);
            }
        }
    }
}

impl Scenario {
    /// Lays the routers out, none of them started. Their addresses are in no order.
    pub(super) fn lay_out(&self) -> Simulation {
        let hosts = [30, 10, 50, 20, 40];
        let routers = self.priorities.iter().zip(&self.intervals).zip(hosts);
        let configs = routers.map(|((priority, interval), host)| Config {
            source: IpAddr::from([192, 0, 2, host]),
            interval: mk_interval(*interval),
            ..mk_config(*priority, self.preemption)
        });
        Simulation::new(configs.collect(), self.random)
    }

    pub(super) fn longest_interval(&self) -> u64 {
        let longest = self.intervals.iter().max().unwrap();
        micros(mk_interval(*longest).duration())
    }

    /// Lets everything happen.
    pub(super) fn run(&self, network: &mut Simulation) {
        network.quality = self.quality;
        let unit = self.longest_interval() / 10;
        for (op, index, wait) in &self.ops {
            network.run_until(network.now + wait * unit);
            op.apply(network, index % self.priorities.len());
        }
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap()
}

fn start_often() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Start),
        1 => Just(Op::Stop),
        1 => Just(Op::Crash),
        1 => Just(Op::HandOver),
        1 => Just(Op::TakeBack),
        1 => any::<bool>().prop_map(Op::Fitness),
        1 => (1..=255u8).prop_map(Op::Priority),
    ]
}

fn with_pauses() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => start_often(),
        2 => (1..150u64, any::<bool>()).prop_map(|(tenths, deaf)| Op::Pause(tenths, deaf)),
        1 => (-50..50i64).prop_map(Op::Clock),
    ]
}

fn preemptions() -> impl Strategy<Value = Preemption> {
    prop_oneof![
        Just(Preemption::Never),
        (0..3_000u64).prop_map(|delay| Preemption::After(ms(delay))),
    ]
}

/// Two to five routers; with one interval or several; with packets that all arrive, or not.
pub(super) fn scenarios(one_interval: bool, lossless: bool) -> impl Strategy<Value = Scenario> {
    let intervals = prop::sample::select(vec![1u16, 10, 100]);
    // Often equal, and often an owner.
    let priorities = prop_oneof![prop::sample::select(vec![100u8, 150, 255]), 1..=255u8];
    let routers = prop::collection::vec((priorities, intervals), 2..=5);
    let ops = prop::collection::vec((with_pauses(), 0..5usize, 0..60u64), 1..40);
    let loss = if lossless { 0..=0u64 } else { 0..=60 };
    (
        routers,
        ops,
        preemptions(),
        loss,
        0..=30u64,
        0..=4u64,
        any::<u64>(),
    )
        .prop_map(
            move |(routers, ops, preemption, loss, repeated, delay, random)| {
                let (priorities, mut intervals): (Vec<_>, Vec<_>) = routers.into_iter().unzip();
                if one_interval {
                    intervals = vec![intervals[0]; intervals.len()];
                }
                let shortest = micros(mk_interval(*intervals.iter().min().unwrap()).duration());
                let delay = shortest * delay / 10;
                Scenario {
                    priorities,
                    intervals,
                    preemption,
                    ops,
                    quality: Quality {
                        loss,
                        repeated,
                        delay,
                    },
                    random,
                }
            },
        )
}
