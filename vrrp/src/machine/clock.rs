//! What a machine concludes from the clock alone.

use super::{Machine, Resuming, Role, Wait};
use crate::{Action, BackupReason, Fitness, Interval, Observation, Time};

impl Machine {
    /// Moves on to the time of an event, before the event itself counts.
    ///
    /// A process can run late: its machine is busy, or a virtual machine is paused, migrated or suspended. RFC 9568 has no rule for
    /// that; a literal implementation advertises when it wakes. By then another router may have been active for a long time, perhaps
    /// with a lower priority, and would have to give way. The packets of that time may be lost. Therefore:
    ///
    /// 1. If the clock went back, each wait lasts as long as it would have.
    /// 2. An active router, or one that resumes, that was silent for three intervals gives up the addresses without a packet, and listens
    ///    as a backup. In less than three intervals no router takes over. It does not resign, because another router may be active by
    ///    then, and a resignation would make the backups of that router take over.
    /// 3. A backup that gets an event one interval after its deadline, or later, starts its wait anew. An active router sends once in
    ///    that time, so its advertisement was lost or is still unread.
    ///
    /// The cost: the addresses of an active router that is alone and paused for three intervals are away for another down interval. A
    /// longer interval avoids that.
    pub(super) fn advance(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.role.shift_back(self.now.since(now));
        self.now = now;

        match &mut self.role {
            Role::Initialize => {}
            Role::Resuming(Resuming {
                since, interval, ..
            }) => {
                let (since, expected) = (*since, *interval);
                self.notice_pause(since, expected, actions);
            }
            Role::Active(active) => {
                let since = active.last_sent;
                let expected = active.expected_interval(self.config.interval);
                self.notice_pause(since, expected, actions);
            }
            Role::Backup(backup) => {
                let by = now.since(backup.deadline(self.config.priority));
                if self.fitness == Fitness::Fit && by >= backup.interval.duration() {
                    backup.since = now;
                    backup.wait = Wait::Silence;
                    backup.preempt_at = None;
                    actions.push(Action::Report(Observation::Late { by }));
                }
            }
        }
    }

    /// Gives up the addresses if the last advertisement, after which the others `expected` the next one, is too long ago.
    fn notice_pause(&mut self, last_sent: Time, expected: Interval, actions: &mut Vec<Action>) {
        let silent_for = self.now.since(last_sent);
        if silent_for >= expected.shortest_down() {
            self.leave(None, BackupReason::Paused { silent_for }, actions);
        }
    }
}
