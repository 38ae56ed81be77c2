//! The loop: take in what changed, work out what follows, write it.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::{debug, info};

use crate::{
    cluster::{Cluster, Subject},
    http::Health,
    lease,
    watch::{KINDS, Notice},
    write::Writer,
};

/// How long to wait before another try of a write, at first and at most.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How many notices are taken in before the next round of writes.
const MOST_NOTICES: usize = 10_000;

/// Runs until leading is lost or `stop` is told. Everything is read by a controller that stands by as well, so that it
/// can lead at once.
pub(crate) async fn run(
    mut notices: impl Stream<Item = Notice> + Unpin,
    writer: Writer,
    health: Arc<Health>,
    mut leads: watch::Receiver<Option<std::time::Instant>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut cluster = Cluster::default();
    let mut complete = BTreeMap::new();
    let mut retries = Retries::default();
    let mut has_led = false;
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            notice = notices.next() => match notice {
                Some(notice) => take(&mut cluster, &mut complete, &health, notice),
                None => return,
            },
            changed = leads.changed() => if changed.is_err() { return },
            () = retries.due() => retries.move_due(&mut cluster),
        }
        for _ in 0..MOST_NOTICES {
            let Some(Some(notice)) = notices.next().now_or_never() else {
                break;
            };
            take(&mut cluster, &mut complete, &health, notice);
        }
        let is_leading = lease::is_leading(*leads.borrow_and_update());
        health.leads.set(i64::from(is_leading));
        if has_led && !is_leading {
            return;
        }
        has_led |= is_leading;
        if is_leading && complete.len() == KINDS {
            health.set_busy(true);
            let writes = cluster.settle();
            health
                .writes
                .inc_by(u64::try_from(writes.len()).unwrap_or(u64::MAX));
            // Whoever leads no more must not write: another may have begun.
            let failed = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = lease::ended(&mut leads) => return,
                failed = writer.execute(writes, cluster.objects()) => failed,
            };
            health
                .failed_writes
                .inc_by(u64::try_from(failed.len()).unwrap_or(u64::MAX));
            retries.add(failed);
            health.set_busy(false);
        }
    }
}

fn take(
    cluster: &mut Cluster,
    complete: &mut BTreeMap<&'static str, ()>,
    health: &Health,
    notice: Notice,
) {
    match notice {
        Notice::Changed(change) => {
            health.changes.inc();
            cluster.observe(change);
        }
        Notice::Complete(kind) => {
            debug!(kind, "all objects are known");
            complete.insert(kind, ());
            if complete.len() == KINDS && !health.is_synced.swap(true, Ordering::Relaxed) {
                info!("ready: all objects are known");
            }
        }
    }
}

/// What failed to be written, and when it is tried again.
#[derive(Default)]
struct Retries {
    waiting: BTreeMap<Subject, Instant>,
    pauses: BTreeMap<Subject, Duration>,
}

impl Retries {
    fn add(&mut self, failed: Vec<Subject>) {
        self.pauses
            .retain(|subject, _| failed.contains(subject) || self.waiting.contains_key(subject));
        for subject in failed {
            let pause = self.pauses.entry(subject.clone()).or_insert(FIRST_RETRY);
            self.waiting.insert(subject, Instant::now() + *pause);
            *pause = (*pause * 2).min(LAST_RETRY);
        }
    }

    /// Waits until one is due; for ever when none waits.
    async fn due(&self) {
        match self.waiting.values().min() {
            Some(at) => sleep_until(*at).await,
            None => std::future::pending().await,
        }
    }

    fn move_due(&mut self, cluster: &mut Cluster) {
        let now = Instant::now();
        self.waiting.retain(|subject, at| {
            let waits = *at > now;
            if !waits {
                cluster.mark(subject.clone());
            }
            waits
        });
    }
}
