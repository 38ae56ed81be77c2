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
use tracing::{debug, info, warn};

use crate::{
    cluster::{Cluster, Subject},
    lease,
    probes::Probes,
    watch::{KINDS, Notice},
    write_queue::{Done, Outbox},
    writer::{self, Writer},
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
    probes: Arc<Probes>,
    mut leads: watch::Receiver<Option<std::time::Instant>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut cluster = Cluster::default();
    let mut complete = BTreeMap::new();
    let mut outbox = Outbox::new(writer);
    let mut retries = Retries::default();
    let mut has_led = false;
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            is_over = next_of(&mut leads, has_led) => if is_over { return },
            done = outbox.done() => settle(done, &mut retries, &probes),
            notice = notices.next() => match notice {
                Some(notice) => take(&mut cluster, &mut complete, &probes, notice),
                None => return,
            },
            () = retries.due() => retries.move_due(&mut cluster),
        }
        for _ in 0..MOST_NOTICES {
            let Some(Some(notice)) = notices.next().now_or_never() else {
                break;
            };
            take(&mut cluster, &mut complete, &probes, notice);
        }
        while let Some(done) = outbox.done().now_or_never() {
            settle(done, &mut retries, &probes);
        }
        let is_leading = lease::is_leading(*leads.borrow_and_update());
        probes.leads.set(i64::from(is_leading));
        if has_led && !is_leading {
            return;
        }
        has_led |= is_leading;
        if is_leading && complete.len() == KINDS {
            probes.set_busy(true);
            let writes = cluster.settle();
            let sent = outbox.send(writes, cluster.objects());
            probes
                .writes
                .inc_by(u64::try_from(sent).unwrap_or(u64::MAX));
            probes.set_busy(false);
        }
    }
}

/// Waits for news of leading; returns whether it is over. Whoever leads no more must not write: another may have begun.
async fn next_of(leads: &mut watch::Receiver<Option<std::time::Instant>>, has_led: bool) -> bool {
    if has_led {
        lease::ended(leads).await;
        true
    } else {
        leads.changed().await.is_err()
    }
}

/// Has a write that failed tried again.
fn settle(done: Done, retries: &mut Retries, probes: &Probes) {
    let subject = writer::subject(&done.write);
    match done.result {
        Ok(()) => retries.forget(&subject),
        Err(error) => {
            warn!(?subject, error = %lvs_runtime::error::chain(&error), "not written; another try follows");
            probes.failed_writes.inc();
            retries.add(subject);
        }
    }
}

fn take(
    cluster: &mut Cluster,
    complete: &mut BTreeMap<&'static str, ()>,
    probes: &Probes,
    notice: Notice,
) {
    match notice {
        Notice::Changed(change) => {
            probes.changes.inc();
            cluster.observe(change);
        }
        Notice::Complete(kind) => {
            debug!(kind, "all objects are known");
            complete.insert(kind, ());
            if complete.len() == KINDS && !probes.is_synced.swap(true, Ordering::Relaxed) {
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
    fn add(&mut self, subject: Subject) {
        let pause = self.pauses.entry(subject.clone()).or_insert(FIRST_RETRY);
        self.waiting.insert(subject, Instant::now() + *pause);
        *pause = (*pause * 2).min(LAST_RETRY);
    }

    /// A write has succeeded, so the next failure is the first.
    fn forget(&mut self, subject: &Subject) {
        if !self.waiting.contains_key(subject) {
            self.pauses.remove(subject);
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
