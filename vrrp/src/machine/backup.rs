//! The state Backup (RFC 9568, section 6.4.2).

use super::{Backup, Machine, Role, Wait, role::OtherActive};
use crate::{ActiveReason, Fitness, Received};

impl Machine {
    /// Follows what an active router says.
    ///
    /// 1. A resignation of the active router starts the skew time. One of another router is ignored while the active router is
    ///    heard.
    /// 2. Any other advertisement starts the wait for silence anew, with the interval that it names.
    /// 3. The one to follow is the sender, unless a more preferred router is still heard.
    /// 4. If the one to follow is less preferred than this router, which may preempt, the delay of the preemption begins, or goes on. If
    ///    it is preferred, or equal, the delay ends.
    pub(super) fn receive_as_backup(&mut self, received: &Received) {
        let delay = self.config.preemption_delay();
        let delay = delay.filter(|_| self.can_preempt());
        let (now, own) = (self.now, self.config.priority);
        let Role::Backup(backup) = &mut self.role else {
            return;
        };
        let source = received.source;
        let current = backup.active.filter(|active| active.is_current(now));
        let another = current.filter(|active| active.source != source);

        let Some(priority) = received.advertisement.priority else {
            if another.is_none() {
                backup.since = now;
                backup.wait = Wait::Succession;
                backup.preempt_at = None;
                backup.active = None;
            }
            return;
        };

        let interval = received.advertisement.interval;
        backup.since = now;
        backup.wait = Wait::Silence;
        backup.interval = interval;

        let sender = OtherActive {
            source,
            priority,
            interval,
            heard: now,
        };
        let preferred = another.filter(|active| active.priority > priority);
        let followed = *backup.active.insert(preferred.unwrap_or(sender));

        backup.preempt_at = match delay {
            Some(delay) if followed.priority < own => {
                let begun = backup.preempt_at;
                Some(begun.unwrap_or(now + delay + interval.skew(own)))
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
            Role::Initialize | Role::Active(_) => {}
        }
    }
}
