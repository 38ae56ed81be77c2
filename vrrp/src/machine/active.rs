//! The state Active (RFC 9568, section 6.4.3), the way into it and the ways out of it.

use std::time::Duration;

use super::{
    Active, Backup, Candidacy, Machine, Role,
    role::{OtherActive, Pace},
};
use crate::{Action, ActiveReason, BackupReason, Interval, Observation, Priority, Received};

/// The shortest time between two advertisements: the shortest interval that VRRP has.
const SHORTEST_GAP: Duration = Duration::from_millis(10);

/// How many intervals a hand-over lasts at most. A backup that hears a resignation takes over within an interval, and one that hears
/// none takes over after less than four.
const HAND_OVER_INTERVALS: u32 = 4;

/// How many intervals are between two resignations of a hand-over: more than a skew time. RFC 9568, section 6.4.2, starts the skew time
/// anew with each.
const RESIGNATION_INTERVALS: u32 = 2;

impl Machine {
    /// Advertises first, so that a router that is active sees it before the addresses appear here, then takes the addresses.
    pub(super) fn become_active(&mut self, reason: ActiveReason, actions: &mut Vec<Action>) {
        let expected = self.expected_interval();
        self.role = Role::Active(Active {
            last_sent: self.now,
            next: self.now,
            pace: Pace::after(expected, self.config.interval),
            hand_over_until: None,
        });
        self.advertise(actions);
        actions.push(Action::BecomeActive(reason));
    }

    /// Sends a resignation and gives up the addresses, if this router has them.
    pub(super) fn resign(&mut self, reason: BackupReason, actions: &mut Vec<Action>) {
        match &self.role {
            Role::Initialize | Role::Backup(_) => {}
            Role::Resuming(_) | Role::Active(_) => {
                self.send(None, actions);
                self.leave(None, reason, actions);
            }
        }
    }

    /// Gives up the addresses without a word.
    pub(super) fn leave(
        &mut self,
        successor: Option<OtherActive>,
        reason: BackupReason,
        actions: &mut Vec<Action>,
    ) {
        let interval = successor.map_or(self.config.interval, |active| active.interval);
        self.role = Role::Backup(Backup::listening(self.now, interval, successor));
        actions.push(Action::BecomeBackup(reason));
    }

    /// Answers another router, or gives way to it.
    ///
    /// 1. During a hand-over, the sender of an advertisement is the successor, whatever its priority.
    /// 2. A resignation is answered: its sender's backups must not take over.
    /// 3. A preferred router gets the addresses; of two with one priority, the one with the higher address. It is answered once more, so
    ///    that it learns of this one.
    /// 4. Any other is answered, so that it gives way.
    pub(super) fn receive_as_active(&mut self, received: &Received, actions: &mut Vec<Action>) {
        let source = received.source;
        let interval = received.advertisement.interval;
        let successor = |priority| OtherActive {
            source,
            priority,
            interval,
            heard: self.now,
        };
        match (received.advertisement.priority, self.is_handing_over()) {
            (None, true) => {}
            (None, false) => self.advertise_soon(actions),
            (Some(priority), true) => {
                let reason = BackupReason::HandedOver { to: source };
                self.leave(Some(successor(priority)), reason, actions);
            }
            (Some(priority), false) => {
                actions.push(Action::Report(Observation::TwoActives { source, priority }));
                if self.config.is_outranked_by(priority, source) {
                    self.send(Some(self.config.priority), actions);
                    let by = source;
                    let reason = BackupReason::Outranked { by, priority };
                    self.leave(Some(successor(priority)), reason, actions);
                } else {
                    self.advertise_soon(actions);
                }
            }
        }
    }

    /// Sends what is due.
    pub(super) fn continue_as_active(&mut self, active: &Active, actions: &mut Vec<Action>) {
        let is_due = self.now >= active.next;
        match active.hand_over_until {
            Some(until) if self.now >= until => {
                actions.push(Action::Report(Observation::HandOverFailed));
                self.take_back(actions);
            }
            Some(_) if is_due => self.repeat_resignation(actions),
            None if is_due => self.advertise(actions),
            Some(_) | None => {}
        }
    }

    /// Begins a hand-over, and forbids preemption until [`take_back`](Self::take_back).
    pub(super) fn hand_over(&mut self, actions: &mut Vec<Action>) {
        self.candidacy = Candidacy::Withdrawn;
        self.cancel_preemption();
        let until = self.now + self.config.interval.duration() * HAND_OVER_INTERVALS;
        match &mut self.role {
            Role::Active(active) if active.hand_over_until.is_none() => {
                active.hand_over_until = Some(until);
                self.repeat_resignation(actions);
            }
            Role::Initialize | Role::Resuming(_) | Role::Backup(_) | Role::Active(_) => {}
        }
    }

    pub(super) fn take_back(&mut self, actions: &mut Vec<Action>) {
        self.candidacy = Candidacy::Standing;
        match &mut self.role {
            Role::Active(active) if active.hand_over_until.is_some() => {
                active.hand_over_until = None;
                self.advertise(actions);
            }
            Role::Initialize | Role::Resuming(_) | Role::Backup(_) | Role::Active(_) => {}
        }
    }

    /// Advertises, at once if the last advertisement is long enough ago.
    pub(super) fn advertise_soon(&mut self, actions: &mut Vec<Action>) {
        let Role::Active(active) = &mut self.role else {
            return;
        };
        if active.hand_over_until.is_some() {
            return;
        }
        let earliest = active.last_sent + SHORTEST_GAP;
        if self.now < earliest {
            active.next = active.next.min(earliest);
        } else {
            self.advertise(actions);
        }
    }

    fn advertise(&mut self, actions: &mut Vec<Action>) {
        let Role::Active(active) = &mut self.role else {
            return;
        };
        let interval = active.expected_interval(self.config.interval);
        active.pace = active.pace.and_then(Pace::one_less);
        active.last_sent = self.now;
        active.next = self.now + interval.duration();
        self.send(Some(self.config.priority), actions);
    }

    fn repeat_resignation(&mut self, actions: &mut Vec<Action>) {
        let Role::Active(active) = &mut self.role else {
            return;
        };
        active.last_sent = self.now;
        active.next = self.now + self.config.interval.duration() * RESIGNATION_INTERVALS;
        self.send(None, actions);
    }

    pub(super) fn send(&self, priority: Option<Priority>, actions: &mut Vec<Action>) {
        let to = self.config.recipients.destinations(self.key().family);
        actions.push(Action::SendAdvertisement { priority, to });
    }

    fn is_handing_over(&self) -> bool {
        match &self.role {
            Role::Active(active) => active.hand_over_until.is_some(),
            Role::Initialize | Role::Resuming(_) | Role::Backup(_) => false,
        }
    }

    /// Returns the interval at which the other routers expect advertisements.
    pub(super) fn expected_interval(&self) -> Interval {
        match &self.role {
            Role::Resuming(resuming) => resuming.interval,
            Role::Backup(backup) => backup.interval,
            Role::Active(active) => active.expected_interval(self.config.interval),
            Role::Initialize => self.config.interval,
        }
    }
}
