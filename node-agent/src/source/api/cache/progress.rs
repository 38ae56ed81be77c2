//! How far saving has come: statuses tell of what is on disk, and survives a reboot, and of nothing else.

use std::time::Duration;

use tokio::{sync::watch, time::timeout};
use tracing::warn;

/// How long to wait for the disk. One that hangs must not silence the machine, which serves without it.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How many changes there were to save, and with how many of them the disk is through.
#[derive(Clone, Copy, Default)]
struct Counts {
    sent: u64,
    tried: u64,
}

/// What the saver and those who wait for it share.
#[derive(Default)]
pub(crate) struct Progress(watch::Sender<Counts>);

impl Progress {
    /// A change is to be saved.
    pub(crate) fn sent(&self) {
        self.0.send_modify(|counts| counts.sent += 1);
    }

    /// So many more changes are saved. Those that could not be saved count too: the log says so.
    pub(crate) fn tried(&self, changes: u64) {
        self.0.send_modify(|counts| counts.tried += changes);
    }

    /// Waits until what is to be saved at the time of the call is saved; changes that come later are not waited for.
    pub(crate) async fn caught_up(&self) {
        let mut counts = self.0.subscribe();
        let sent = counts.borrow().sent;
        let is_through = counts.wait_for(|counts| counts.tried >= sent);
        if timeout(LONGEST_WAIT, is_through).await.is_err() {
            warn!(
                "what is wanted is not on disk after {} s; statuses no longer wait for it",
                LONGEST_WAIT.as_secs()
            );
        }
    }

    /// Whether somebody waits.
    #[cfg(test)]
    pub(crate) fn is_waited_for(&self) -> bool {
        self.0.receiver_count() > 0
    }
}
