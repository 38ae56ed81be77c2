//! The loop: observe what has changed, reconcile, write.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt};
use lvs_crd::AGENT_LEASE_DURATION;
use lvs_runtime::clock::seconds_since_1970;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, info, warn};

use crate::{
    cluster::{Cluster, ReconcileRequest},
    lease,
    probes::{BEAT, Probes},
    watch::{WATCHES, WatchEvent},
    write_queue::{Completed, WriteQueue},
    writer::Writer,
};

/// How long to wait before the first retry of a write; each further one waits twice as long, up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_secs(1);
/// How long to wait before a retry at most.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// The same for a write that the API server refuses, and will probably refuse again.
const MAX_REFUSED_BACKOFF: Duration = Duration::from_secs(120);
/// How long two directors must report that they hold the same VIPs until that counts: longer than the silence of an agent goes unnoticed.
const CONTEST: Duration = AGENT_LEASE_DURATION.saturating_add(Duration::from_secs(5));
/// The most events that are observed before the next round of writes.
const MAX_EVENTS: usize = 10_000;

/// Runs until the lease is lost or `stop` becomes true. A controller that is not the leader observes everything as well, so
/// that it can lead at once.
pub(crate) async fn run(
    mut events: impl Stream<Item = WatchEvent> + Unpin,
    writer: Writer,
    probes: Arc<Probes>,
    mut leader_until: watch::Receiver<Option<std::time::Instant>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut cluster = Cluster::default();
    let mut synced = BTreeSet::new();
    let mut queue = WriteQueue::new(writer);
    let mut retries = Retries::default();
    let mut contests = Confirmations::default();
    let mut has_led = false;
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            is_over = lease_change(&mut leader_until, has_led) => if is_over { return },
            completed = queue.completed() => complete(&mut cluster, completed, &mut retries, &probes),
            event = events.next() => match event {
                Some(event) => observe(&mut cluster, &mut synced, &probes, event),
                None => return,
            },
            () = retries.timers.due() => {
                for request in retries.timers.take_due() {
                    queue.retry(&request);
                    cluster.enqueue(request);
                }
            }
            () = contests.due() => {
                for (group, number) in contests.take_due() {
                    cluster.confirm_contest(&group, number);
                }
            }
            () = sleep(idle_time(&cluster)) => {}
        }
        probes.progress();
        for _ in 0..MAX_EVENTS {
            let Some(Some(event)) = events.next().now_or_never() else {
                break;
            };
            observe(&mut cluster, &mut synced, &probes, event);
        }
        while let Some(completed) = queue.completed().now_or_never() {
            complete(&mut cluster, completed, &mut retries, &probes);
        }
        contests.follow(&cluster);
        let is_leader = lease::is_leader(*leader_until.borrow_and_update());
        probes.leads.set(i64::from(is_leader));
        if has_led && !is_leader {
            return;
        }
        has_led |= is_leader;
        if is_leader && synced.len() == WATCHES {
            cluster.tick(seconds_since_1970());
            let writes = cluster.reconcile(|| probes.progress());
            let sent = queue.send(writes, &cluster.objects);
            probes
                .writes
                .inc_by(u64::try_from(sent).unwrap_or(u64::MAX));
        }
    }
}

/// How long the loop waits at most if nothing happens: until a virtual service is due.
fn idle_time(cluster: &Cluster) -> Duration {
    let first = cluster.deadlines.first();
    let left = first.map(|first| first.saturating_sub(seconds_since_1970()));
    // The clock may be in the middle of a second, and a virtual service that is due waits for this controller to lead.
    left.map_or(BEAT, |left| BEAT.min(Duration::from_secs(left + 1)))
}

/// Waits for a change of the lease. Returns whether it is lost: then another controller may write, and this one must not.
async fn lease_change(
    leader_until: &mut watch::Receiver<Option<std::time::Instant>>,
    has_led: bool,
) -> bool {
    if has_led {
        lease::lost(leader_until).await;
        true
    } else {
        leader_until.changed().await.is_err()
    }
}

/// Records the result of a write, and schedules a retry if it failed.
fn complete(cluster: &mut Cluster, completed: Completed, retries: &mut Retries, probes: &Probes) {
    let Completed { write, result } = completed;
    let request = write.request();
    let Err(error) = result else {
        cluster.complete(&write, None);
        return retries.reset(&request);
    };
    probes.failed_writes.inc();
    let refusal = error.refusal().map(str::to_owned);
    let error = lvs_runtime::error::chain(&error);
    if let Some(refusal) = refusal {
        warn!(?request, %error, "the API server refuses a write; it is tried again");
        cluster.complete(&write, Some(&refusal));
        retries.add(request, MAX_REFUSED_BACKOFF);
    } else {
        warn!(?request, %error, "writing failed; it is retried");
        retries.add(request, MAX_BACKOFF);
    }
}

fn observe(
    cluster: &mut Cluster,
    synced: &mut BTreeSet<&'static str>,
    probes: &Probes,
    event: WatchEvent,
) {
    match event {
        WatchEvent::Changed(change) => {
            probes.changes.inc();
            cluster.observe(change);
        }
        WatchEvent::Synced(kind) => {
            debug!(kind, "the watch has synced");
            synced.insert(kind);
            if synced.len() == WATCHES && !probes.is_synced.swap(true, Ordering::Relaxed) {
                info!("ready: every watch has synced");
            }
        }
    }
}

/// What is due, and when.
struct Timers<K>(BTreeMap<K, Instant>);

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Timers<K> {
    /// Waits until something is due; forever if there is nothing.
    async fn due(&self) {
        match self.0.values().min() {
            Some(at) => sleep_until(*at).await,
            None => std::future::pending().await,
        }
    }

    /// Takes what is due.
    fn take_due(&mut self) -> Vec<K> {
        let now = Instant::now();
        let due = self.0.extract_if(.., |_, at| *at <= now);
        due.map(|(key, _)| key).collect()
    }
}

/// When each contest between two directors is confirmed.
type Confirmations = Timers<(String, u64)>;

impl Confirmations {
    /// Adds the contests that are new, and forgets those that have ended.
    fn follow(&mut self, cluster: &Cluster) {
        let unconfirmed = cluster.contests.unconfirmed();
        let unconfirmed = unconfirmed.map(|(group, number)| {
            let contest = (group.to_owned(), number);
            let known = self.0.get(&contest).copied();
            (contest, known.unwrap_or_else(|| Instant::now() + CONTEST))
        });
        self.0 = unconfirmed.collect();
    }
}

/// The requests whose writes failed, and when each is reconciled again.
#[derive(Default)]
struct Retries {
    timers: Timers<ReconcileRequest>,
    backoff: BTreeMap<ReconcileRequest, Duration>,
}

impl Retries {
    fn add(&mut self, request: ReconcileRequest, longest: Duration) {
        let backoff = self.backoff.entry(request.clone()).or_insert(MIN_BACKOFF);
        self.timers.0.insert(request, Instant::now() + *backoff);
        *backoff = (*backoff * 2).min(longest);
    }

    /// Resets the backoff of a request after a write that succeeded, unless another of its writes is to be retried.
    fn reset(&mut self, request: &ReconcileRequest) {
        if !self.timers.0.contains_key(request) {
            self.backoff.remove(request);
        }
    }
}
