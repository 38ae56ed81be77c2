//! What a router remembers in each of its states.

use std::{net::IpAddr, time::Duration};

use crate::{Interval, Priority, Time};

/// The state of a router (RFC 9568, section 6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It does not take part, or its interface is down.
    Initialize,
    /// It has the virtual addresses since before a restart, and waits for the answer whether another router has taken over.
    Resuming,
    /// It listens, and takes over when the active router falls silent or resigns.
    Backup,
    /// It has the virtual addresses and advertises.
    Active,
}

/// The active router that a backup follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherActive {
    /// Its address.
    pub source: IpAddr,
    /// Its priority.
    pub priority: Priority,
    /// The time between its advertisements.
    pub interval: Interval,
    /// When its last advertisement was handed over.
    pub heard: Time,
}

/// The state with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Initialize,
    Resuming(Resuming),
    Backup(Backup),
    Active(Active),
}

/// What a router remembers while it asks whether another has taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resuming {
    pub(super) since: Time,
    /// The end of the wait for an answer.
    pub(super) until: Time,
    /// The interval that it has announced.
    pub(super) interval: Interval,
}

/// What a backup remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backup {
    /// The beginning of the wait, moved on by each advertisement.
    pub(super) since: Time,
    pub(super) wait: Wait,
    /// `Active_Adver_Interval`: the interval of the last advertisement, at first this router's own.
    pub(super) interval: Interval,
    /// When this router preempts. `None` if the active router is preferred, or preemption is not allowed.
    pub(super) preempt_at: Option<Time>,
    /// The active router. `None` before one was heard and after it resigned.
    pub(super) active: Option<OtherActive>,
    /// Another router that is active beside it and less preferred. There is one for a moment when packets overtake each other, and for
    /// longer when the network is split.
    pub(super) rival: Option<OtherActive>,
}

/// What a backup waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// That nothing is heard for the down interval.
    Silence,
    /// Its turn to succeed a router that has resigned: the skew time.
    Succession,
}

/// What an active router remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Active {
    pub(super) last_sent: Time,
    pub(super) next: Time,
    /// A shorter interval that others may still expect.
    pub(super) pace: Option<Pace>,
    /// The end of the hand-over that is under way.
    pub(super) hand_over_until: Option<Time>,
}

/// The interval of the next advertisements, shorter than the one that they announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) interval: Interval,
    /// How many advertisements are left, at least one.
    pub(super) left: u8,
}

impl Role {
    /// Moves all points in time into the past, after the clock has gone back.
    pub(super) fn shift_back(&mut self, by: Duration) {
        match self {
            Self::Initialize => {}
            Self::Resuming(Resuming {
                since,
                until,
                interval: _,
            }) => {
                *since = *since - by;
                *until = *until - by;
            }
            Self::Backup(Backup {
                since,
                preempt_at,
                active,
                rival,
                wait: _,
                interval: _,
            }) => {
                *since = *since - by;
                *preempt_at = preempt_at.map(|at| at - by);
                for other in active.iter_mut().chain(rival) {
                    other.heard = other.heard - by;
                }
            }
            Self::Active(Active {
                last_sent,
                next,
                hand_over_until,
                pace: _,
            }) => {
                *last_sent = *last_sent - by;
                *next = *next - by;
                *hand_over_until = hand_over_until.map(|until| until - by);
            }
        }
    }
}

impl Backup {
    pub(super) fn listening(since: Time, interval: Interval, active: Option<OtherActive>) -> Self {
        Self {
            since,
            wait: Wait::Silence,
            interval,
            preempt_at: None,
            active,
            rival: None,
        }
    }

    /// Returns when a router with a priority takes over.
    pub(super) fn deadline(&self, priority: Priority) -> Time {
        let wait = match self.wait {
            Wait::Silence => self.interval.down(priority),
            Wait::Succession => self.interval.skew(priority),
        };
        let end = self.since + wait;
        self.preempt_at
            .map_or(end, |preempt_at| preempt_at.min(end))
    }
}

impl Active {
    pub(super) fn deadline(&self) -> Time {
        let next = self.next;
        self.hand_over_until.map_or(next, |until| until.min(next))
    }

    /// Returns the shortest interval at which others may expect advertisements that announce `announced`.
    pub(super) fn expected_interval(&self, announced: Interval) -> Interval {
        self.pace.map_or(announced, |pace| pace.interval)
    }
}

impl OtherActive {
    /// Returns whether the router is active as far as one can know.
    pub(super) fn is_current(&self, now: Time) -> bool {
        now.since(self.heard) < self.interval.shortest_down()
    }
}

impl Pace {
    /// How many advertisements are sent early: as many as must be lost before a router takes over.
    const ADVERTISEMENTS: u8 = 3;

    /// Returns the pace if others may expect a shorter interval than that of the next advertisements.
    pub(super) fn after(expected: Interval, announced: Interval) -> Option<Self> {
        (expected < announced).then_some(Self {
            interval: expected,
            left: Self::ADVERTISEMENTS,
        })
    }

    pub(super) fn one_less(self) -> Option<Self> {
        let left = self.left.saturating_sub(1);
        (left > 0).then_some(Self { left, ..self })
    }
}
