//! The state machine of one router for one virtual router (RFC 9568, section 6.4).

use std::net::IpAddr;

use crate::{
    Action, Advertisement, Config, ConfigError, Event, Fitness, Interval, Link, Priority, Received,
    RouterKey, Time,
};

mod active;
mod backup;
mod clock;
mod lifecycle;
mod observe;
mod resuming;
mod role;
#[cfg(test)]
mod tests;

use role::{Active, Backup, Pace, Resuming, Role, Wait};
pub use role::{OtherActive, State};

/// One router for one virtual router. It decides when the router becomes active and when it gives way. Its caller sends, listens and holds the
/// addresses.
///
/// The machine follows RFC 9568, section 6.4, with these additions:
///
/// 1. A router that becomes unfit resigns, and is never active while it is unfit.
/// 2. A backup that may not preempt follows a less preferred active router, like one with `Preempt_Mode` false.
/// 3. A backup that may preempt follows a less preferred active router too, so it notices when that router dies. It takes over
///    after the delay and its skew time, if it hears no preferred router meanwhile. Of several such backups, the skew time lets the most
///    preferred go first.
/// 4. In a planned hand-over the active router resigns and keeps the addresses until it hears its successor, so no
///    packet is lost. The resignation is repeated once. If no other router takes over within four intervals, it stays active. A backup
///    that has got [`Event::HandOver`] too succeeds a router that resigns only after silence.
/// 5. A router that ran late listens for a whole down interval before it takes over. The rule is in `machine/clock.rs`.
/// 6. A resignation counts only if it is of the active router that the backup follows, and no other is active. Otherwise the loser of
///    a split brain would make the backups take over from the winner.
/// 7. An active router answers a less preferred one at once, but sends at most one advertisement in 10 ms, so that
///    forged packets cannot make it flood the link.
/// 8. A router whose interval is longer than the one that others expect sends its first advertisements at the shorter one, so
///    that the loss of one of them does not look like silence.
/// 9. An owner obeys fitness and hand-over like any other.
/// 10. A router that gives way to a preferred one advertises once more: the other learns that both were active, as after a split
///     of the network, and that neighbours may have learnt the wrong holder of the addresses.
/// 11. A router that was active before a restart keeps the addresses, and asks whether another has taken over before it goes on. The rule
///     is in `machine/resuming.rs`.
#[derive(Clone, Debug)]
pub struct Machine {
    config: Config,
    role: Role,
    participation: Participation,
    link: Link,
    fitness: Fitness,
    candidacy: Candidacy,
    /// The time of the last event.
    now: Time,
}

/// Whether the caller has started the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Participation {
    Stopped,
    Started,
}

/// Whether a planned hand-over forbids preemption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Candidacy {
    Standing,
    Withdrawn,
}

impl Machine {
    /// Creates a machine that is not started. Its interface is up, it is fit and may preempt.
    ///
    /// # Errors
    ///
    /// If the settings do not go together.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            config,
            role: Role::Initialize,
            participation: Participation::Stopped,
            link: Link::Up,
            fitness: Fitness::Fit,
            candidacy: Candidacy::Standing,
            now: Time::default(),
        })
    }

    /// Returns what identifies the virtual router.
    #[must_use]
    pub const fn key(&self) -> RouterKey {
        self.config.key()
    }

    /// Returns the settings.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the state.
    #[must_use]
    pub const fn state(&self) -> State {
        match &self.role {
            Role::Initialize => State::Initialize,
            Role::Resuming(_) => State::Resuming,
            Role::Backup(_) => State::Backup,
            Role::Active(_) => State::Active,
        }
    }

    /// Returns the active router that this backup follows.
    #[must_use]
    pub const fn other_active(&self) -> Option<&OtherActive> {
        match &self.role {
            Role::Backup(backup) => backup.active.as_ref(),
            Role::Initialize | Role::Resuming(_) | Role::Active(_) => None,
        }
    }

    /// Returns whether the advertisements of a router count. One that is none of the peers is heard only while this backup follows it since
    /// the time before it had the peers: it may not have its own yet, and send from another address.
    #[must_use]
    pub fn hears(&self, source: IpAddr) -> bool {
        let followed = self.other_active();
        self.config.recipients.include(source)
            || followed.is_some_and(|active| active.source == source)
    }

    /// Returns when the machine must get [`Event::Deadline`]. `None` if it waits for other events only.
    ///
    /// It changes with every event.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match &self.role {
            Role::Initialize => None,
            Role::Resuming(resuming) => Some(resuming.until),
            Role::Backup(backup) => match self.fitness {
                Fitness::Fit => Some(backup.deadline(self.config.priority)),
                Fitness::Unfit => None,
            },
            Role::Active(active) => Some(active.deadline()),
        }
    }

    /// Returns the advertisement of this router with a priority, `None` to resign.
    #[must_use]
    pub fn advertisement(&self, priority: Option<Priority>) -> Advertisement {
        Advertisement {
            vrid: self.config.vrid,
            priority,
            interval: self.config.interval,
            addresses: self.config.addresses.clone(),
        }
    }

    /// Takes an event, and returns what to do.
    ///
    /// `now` is the time of the event. If it is before that of the last event, the clock went back, and all waits go on for
    /// as long as they would have.
    #[must_use = "the actions are not done yet"]
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.advance(now, &mut actions);
        match event {
            Event::Start(start) => self.start(start, &mut actions),
            Event::Stop => self.stop(&mut actions),
            Event::HandOver => self.hand_over(&mut actions),
            Event::TakeBack => self.take_back(&mut actions),
            Event::Received(received) => self.receive(&received, &mut actions),
            Event::Deadline => self.reach_deadline(&mut actions),
            Event::Fitness(fitness) => self.set_fitness(fitness, &mut actions),
            Event::Link(link) => self.set_link(link, &mut actions),
        }
        actions
    }

    /// Takes new settings, and returns what to do. An active router advertises them at once.
    ///
    /// # Errors
    ///
    /// If the settings do not go together, or are those of another virtual router. Nothing has changed then.
    pub fn configure(&mut self, now: Time, config: Config) -> Result<Vec<Action>, ConfigError> {
        config.check()?;
        if config.key() != self.key() {
            return Err(ConfigError::OtherRouter);
        }
        let mut actions = Vec::new();
        self.advance(now, &mut actions);
        if config != self.config {
            let expected = self.expected_interval();
            self.config = config;
            self.apply_settings(expected, &mut actions);
        }
        Ok(actions)
    }

    /// Returns whether this router may take over from a less preferred one that is active, if its settings say so.
    fn can_preempt(&self) -> bool {
        self.fitness == Fitness::Fit && self.candidacy == Candidacy::Standing
    }

    fn receive(&mut self, received: &Received, actions: &mut Vec<Action>) {
        let is_own_source = received.source == self.config.source;
        if !self.observe(received, actions) || is_own_source {
            return;
        }
        match &self.role {
            Role::Initialize => {}
            Role::Resuming(_) => self.receive_as_resuming(received, actions),
            Role::Backup(_) => self.receive_as_backup(received),
            Role::Active(_) => self.receive_as_active(received, actions),
        }
    }

    fn reach_deadline(&mut self, actions: &mut Vec<Action>) {
        match &self.role {
            Role::Initialize => {}
            Role::Resuming(resuming) => self.end_resuming(resuming.until, actions),
            Role::Backup(backup) => {
                if let Some(reason) = self.succession(backup) {
                    self.become_active(reason, actions);
                }
            }
            Role::Active(active) => {
                let active = active.clone();
                self.continue_as_active(&active, actions);
            }
        }
    }

    /// Acts on changed settings. `expected` is the interval at which the others expect advertisements.
    fn apply_settings(&mut self, expected: Interval, actions: &mut Vec<Action>) {
        match &mut self.role {
            Role::Initialize | Role::Resuming(_) => {}
            Role::Backup(backup) => {
                backup.preempt_at = None;
                if backup.active.is_none() {
                    backup.interval = self.config.interval;
                }
            }
            Role::Active(active) => {
                active.pace = Pace::after(expected, self.config.interval);
                self.advertise_soon(actions);
            }
        }
    }
}
