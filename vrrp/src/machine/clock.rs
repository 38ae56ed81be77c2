//! What a machine concludes from the clock alone.

use super::{Machine, Role, Wait};
use crate::{Action, BackupReason, Fitness, Observation, Time};

impl Machine {
    /// Moves on to the time of an event, before the event itself counts.
    ///
    /// A process is not always run when it asks to be: its machine is busy, a virtual machine is paused, migrated or suspended. RFC
    /// 9568 has no rule for that; a literal implementation advertises when it wakes. But by then another router may have been active
    /// for long, perhaps with less priority, and would have to give way to a router that nobody missed. Packets of that time may
    /// be lost. So:
    ///
    /// 1. The clock went back: all waits keep their rest.
    /// 2. An active router that was silent for three intervals gives up the addresses without a word, and listens as a backup. Before
    ///    three intervals no router can have taken over. It does not resign: nothing says that it is the active router, and its
    ///    resignation would make the backups of another take over.
    /// 3. A backup whose deadline passed an interval ago, or longer, begins to wait anew. An active router sends within that time, so
    ///    what it sent would have been lost or still be unread.
    ///
    /// The price: a lone active router that is paused for three intervals is away for a down interval longer. Who would rather not
    /// pay it chooses a longer interval.
    pub(super) fn advance(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.role.shift_back(self.now.since(now));
        self.now = now;

        match &mut self.role {
            Role::Initialize => {}
            Role::Active(active) => {
                let silent_for = now.since(active.last_sent);
                let expected = active.expected_interval(self.config.interval);
                if silent_for >= expected.shortest_down() {
                    let reason = BackupReason::Paused { silent_for };
                    self.leave(None, reason, actions);
                }
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
}
