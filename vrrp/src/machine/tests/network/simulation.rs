//! The simulated link and the routers on it. Time is in microseconds since the beginning.

use std::collections::BTreeMap;

use super::*;

/// What the link does to packets from now on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quality {
    /// Of 100 packets, how many are lost for one receiver.
    pub(super) loss: u64,
    /// Of 100 packets, how many arrive twice.
    pub(super) repeated: u64,
    /// The longest delay. Each packet has its own, so that they overtake each other.
    pub(super) delay: u64,
}

impl Quality {
    pub(super) const PERFECT: Self = Self {
        loss: 0,
        repeated: 0,
        delay: 0,
    };
}

/// A router, and what a person would know of it.
pub(super) struct Router {
    pub(super) machine: Machine,
    /// What its clock shows more than the time.
    pub(super) clock: u64,
    /// The end of a pause.
    pub(super) paused_until: Option<u64>,
    /// Whether packets of the pause are lost.
    deaf: bool,
    /// Packets of the pause.
    unread: Vec<Received>,
    /// Whether the process runs. A crash says nothing.
    pub(super) alive: bool,
    pub(super) fit: bool,
    /// What it did, with the time.
    pub(super) done: Vec<(u64, Action)>,
}

pub(super) struct Simulation {
    pub(super) now: u64,
    pub(super) routers: Vec<Router>,
    pub(super) quality: Quality,
    /// Packets on their way, by the time of their arrival.
    packets: BTreeMap<(u64, u64), (usize, Received)>,
    number: u64,
    random: u64,
    /// Since when two routers or more are active.
    several_since: Option<u64>,
    /// The longest time for which they were since it was last asked for.
    pub(super) longest_several: u64,
    /// Whether no router was active at some time since this was last reset.
    pub(super) none: bool,
}

impl Router {
    /// Returns whether it acts as the active router. What a paused machine holds is for the lifetime of its addresses to end.
    pub(super) fn is_active(&self) -> bool {
        self.alive && self.paused_until.is_none() && self.machine.state() == State::Active
    }

    fn local(&self, now: u64) -> Time {
        Time::since_epoch(Duration::from_micros(now + self.clock))
    }

    /// Returns when the machine wants to be called, in the time of the link.
    fn deadline(&self) -> Option<u64> {
        if !self.alive || self.paused_until.is_some() {
            return None;
        }
        let deadline = self.machine.deadline()?.as_duration();
        // Rounded up: a real clock shows the deadline when it has passed.
        let micros = u64::try_from(deadline.as_nanos().div_ceil(1_000)).unwrap();
        Some(micros.saturating_sub(self.clock))
    }
}

impl Simulation {
    pub(super) fn new(configs: Vec<Config>, random: u64) -> Self {
        let routers = configs.into_iter().map(|config| Router {
            machine: Machine::new(config).unwrap(),
            clock: 3_600_000_000,
            paused_until: None,
            deaf: false,
            unread: Vec::new(),
            alive: false,
            fit: true,
            done: Vec::new(),
        });
        Self {
            now: 0,
            routers: routers.collect(),
            quality: Quality::PERFECT,
            packets: BTreeMap::new(),
            number: 0,
            random: random | 1,
            several_since: None,
            longest_several: 0,
            none: false,
        }
    }

    /// Returns the routers that are active, by index.
    pub(super) fn actives(&self) -> Vec<usize> {
        let routers = self.routers.iter().enumerate();
        let active = routers.filter(|(_, router)| router.is_active());
        active.map(|(index, _)| index).collect()
    }

    /// Runs until a time.
    pub(super) fn run_until(&mut self, end: u64) {
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.move_to(next.max(self.now));
            self.wake();
            self.deliver();
            self.call();
            self.watch();
        }
        self.move_to(end);
        self.watch();
    }

    pub(super) fn handle(&mut self, index: usize, event: Event) {
        let router = &mut self.routers[index];
        let now = router.local(self.now);
        let actions = router.machine.handle(now, event);
        self.act(index, actions);
        self.watch();
    }

    pub(super) fn configure(&mut self, index: usize, config: Config) {
        let router = &mut self.routers[index];
        let now = router.local(self.now);
        let actions = router.machine.configure(now, config).unwrap();
        self.act(index, actions);
        self.watch();
    }

    /// Pauses a machine. Its packets wait, or are lost if it is deaf.
    pub(super) fn pause(&mut self, index: usize, duration: u64, deaf: bool) {
        let router = &mut self.routers[index];
        router.paused_until = Some(self.now + duration);
        router.deaf = deaf;
        self.watch();
    }

    fn next(&self) -> Option<u64> {
        let arrival = self.packets.keys().next().map(|(arrival, _)| *arrival);
        let deadlines = self.routers.iter().filter_map(Router::deadline);
        let pauses = self.routers.iter().filter_map(|router| router.paused_until);
        arrival.into_iter().chain(deadlines).chain(pauses).min()
    }

    fn move_to(&mut self, now: u64) {
        self.now = now;
        if let Some(since) = self.several_since {
            self.longest_several = self.longest_several.max(now - since);
        }
    }

    fn watch(&mut self) {
        let active = self.actives().len();
        self.none |= active == 0;
        self.several_since = match active {
            0 | 1 => None,
            _ => self.several_since.or(Some(self.now)),
        };
    }

    /// Ends pauses. A machine that wakes reads what has waited first.
    fn wake(&mut self) {
        for index in 0..self.routers.len() {
            let router = &mut self.routers[index];
            if router.paused_until.is_some_and(|until| until <= self.now) {
                router.paused_until = None;
                for received in std::mem::take(&mut router.unread) {
                    self.handle(index, Event::Received(received));
                }
                self.handle(index, Event::Deadline);
            }
        }
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.packets.first_entry() {
            if entry.key().0 > self.now {
                return;
            }
            let (index, received) = entry.remove();
            let router = &mut self.routers[index];
            if !router.alive {
                continue;
            }
            match (router.paused_until, router.deaf) {
                (None, _) => self.handle(index, Event::Received(received)),
                (Some(_), false) => router.unread.push(received),
                (Some(_), true) => {}
            }
        }
    }

    fn call(&mut self) {
        for index in 0..self.routers.len() {
            let deadline = self.routers[index].deadline();
            if deadline.is_some_and(|deadline| deadline <= self.now) {
                self.handle(index, Event::Deadline);
            }
        }
    }

    fn act(&mut self, index: usize, actions: Vec<Action>) {
        for action in actions {
            if let Action::SendAdvertisement { priority, to: _ } = &action {
                self.send(index, *priority);
            }
            self.routers[index].done.push((self.now, action));
        }
    }

    /// Sends through the codec, so that the whole way is tested.
    fn send(&mut self, sender: usize, priority: Option<Priority>) {
        let machine = &self.routers[sender].machine;
        let source = machine.config().source;
        let destination = machine.key().family.group();
        let advertisement = machine.advertisement(priority);
        let payload = advertisement.encode(source, destination, Ipv4Checksum::Message);
        let payload = &payload.unwrap();
        let packet = crate::Packet {
            source,
            destination,
            hop_limit: crate::HOP_LIMIT,
            payload,
        };
        let received = packet.parse().unwrap();
        for receiver in (0..self.routers.len()).filter(|receiver| *receiver != sender) {
            let copies = 1 + u64::from(self.chance(self.quality.repeated));
            for _ in 0..copies {
                if !self.chance(self.quality.loss) {
                    let arrival = self.now + self.below(self.quality.delay + 1);
                    self.number += 1;
                    let key = (arrival, self.number);
                    self.packets.insert(key, (receiver, received.clone()));
                }
            }
        }
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Returns a random number below a limit (xorshift).
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }
}
