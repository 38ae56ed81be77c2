//! The state Backup (RFC 9568, section 6.4.2).

use std::net::IpAddr;

use super::{Backup, Candidacy, Machine, Role, Wait, role::OtherActive};
use crate::{ActiveReason, Fitness, Received, Time};

impl Machine {
    /// Follows what an active router says.
    ///
    /// 1. A resignation of the active router that is followed starts the skew time, unless another is active beside it, which is
    ///    then followed. A resignation of any other router is ignored while the followed one is heard.
    /// 2. A repeated resignation does not start the skew time anew, or a router with a long one would never succeed. After a
    ///    [`HandOver`](crate::Event::HandOver), a resignation starts the wait for silence anew instead, so all others go first.
    /// 3. Any other advertisement starts the wait for silence anew, with the interval that it names.
    /// 4. The one to follow is the sender, unless a more preferred router is still heard.
    /// 5. If the one to follow is less preferred than this router, which may preempt, the delay of the preemption begins, or goes on. If
    ///    it is preferred, or equal, the delay ends.
    pub(super) fn receive_as_backup(&mut self, received: &Received) {
        let delay = self.config.preemption_delay();
        let delay = delay.filter(|_| self.can_preempt());
        let (now, own) = (self.now, self.config.priority);
        let turn = match self.candidacy {
            Candidacy::Standing => Wait::Succession,
            Candidacy::Withdrawn => Wait::Silence,
        };
        let Role::Backup(backup) = &mut self.role else {
            return;
        };
        let source = received.source;
        let Some(priority) = received.advertisement.priority else {
            return backup.hear_resignation(source, now, turn);
        };
        let sender = OtherActive {
            source,
            priority,
            interval: received.advertisement.interval,
            heard: now,
        };
        let followed = backup.hear_active(sender, now);
        backup.preempt_at = match delay {
            Some(delay) if followed.priority < own => {
                let begun = backup.preempt_at;
                Some(begun.unwrap_or(now + delay + sender.interval.skew(own)))
            }
            Some(_) | None => None,
        };
    }

    /// Returns why the backup takes over at this time, if it does.
    pub(super) fn succession(&self, backup: &Backup) -> Option<ActiveReason> {
        let is_reached = self.now >= backup.deadline(self.config.priority);
        if self.fitness == Fitness::Unfit || !is_reached {
            return None;
        }
        let preempts = backup.preempt_at.is_some_and(|at| self.now >= at);
        Some(match (preempts, backup.wait) {
            (true, _) => ActiveReason::Preemption,
            (false, Wait::Silence) => ActiveReason::Silence,
            (false, Wait::Succession) => ActiveReason::Resignation,
        })
    }

    /// Ends a delay of preemption that has begun. It begins anew with an advertisement once preemption is allowed.
    pub(super) fn cancel_preemption(&mut self) {
        match &mut self.role {
            Role::Backup(backup) => backup.preempt_at = None,
            Role::Initialize | Role::Resuming(_) | Role::Active(_) => {}
        }
    }
}

impl Backup {
    /// `turn` is what it waits for until it succeeds the router that resigns.
    fn hear_resignation(&mut self, source: IpAddr, now: Time, turn: Wait) {
        if self.another(source, now).is_some() || self.wait == Wait::Succession {
            return;
        }
        self.preempt_at = None;
        let rival = self.rival.take().filter(|rival| rival.source != source);
        self.active = rival.filter(|rival| rival.is_current(now));
        if self.active.is_none() {
            self.since = now;
            self.wait = turn;
        }
    }

    /// Returns the active router to follow.
    fn hear_active(&mut self, sender: OtherActive, now: Time) -> OtherActive {
        self.since = now;
        self.wait = Wait::Silence;
        self.interval = sender.interval;

        let preferred = self.another(sender.source, now);
        if let Some(preferred) = preferred.filter(|active| active.priority > sender.priority) {
            self.rival = Some(sender);
            return preferred;
        }
        *self.active.insert(sender)
    }

    /// Returns the followed router if it is not this one and still heard.
    fn another(&self, source: IpAddr, now: Time) -> Option<OtherActive> {
        let active = self.active.filter(|active| active.source != source);
        active.filter(|active| active.is_current(now))
    }
}
