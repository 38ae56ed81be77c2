//! How much of the changes the cache has saved. A status waits for this, so that an object it calls served is on disk and
//! survives a reboot.

use std::time::Duration;

use tokio::{sync::watch, time::timeout};
use tracing::warn;

/// How long statuses wait for the disk. A disk that hangs must not keep them from being published.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How many changes were queued, and how many of them a write has covered.
#[derive(Clone, Copy, Default)]
struct Counts {
    sent: u64,
    tried: u64,
}

/// The progress of saving, shared by the cache and the tasks that wait for it.
#[derive(Default)]
pub(crate) struct Progress(watch::Sender<Counts>);

impl Progress {
    /// Counts a queued change.
    pub(crate) fn sent(&self) {
        self.0.send_modify(|counts| counts.sent += 1);
    }

    /// Counts changes that were written. A failed write, which is logged, counts too.
    pub(crate) fn tried(&self, changes: u64) {
        self.0.send_modify(|counts| counts.tried += changes);
    }

    /// Waits until the changes queued before the call are written; later ones are not waited for.
    pub(crate) async fn caught_up(&self) {
        let mut counts = self.0.subscribe();
        let sent = counts.borrow().sent;
        let caught_up = counts.wait_for(|counts| counts.tried >= sent);
        if timeout(LONGEST_WAIT, caught_up).await.is_err() {
            warn!(
                "the objects were not cached on disk within {} s; publishing statuses without waiting longer",
                LONGEST_WAIT.as_secs()
            );
        }
    }

    /// Returns whether a task is waiting.
    #[cfg(test)]
    pub(crate) fn is_waited_for(&self) -> bool {
        self.0.receiver_count() > 0
    }
}
