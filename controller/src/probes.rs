//! The liveness and readiness probes of the controller, and its metrics.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// How long the loop may make no progress before it counts as stuck. An idle loop makes progress each [`BEAT`], and a busy one
/// with each object that it reconciles, however many there are.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
/// How often an idle loop reports progress.
pub(crate) const BEAT: Duration = Duration::from_secs(10);

/// The state of the loop, shared with the HTTP server.
pub(crate) struct Probes {
    started: Instant,
    /// The last progress of the loop, in milliseconds since the start.
    progress: AtomicU64,
    /// Why the definitions of the API types do not fit; `None` if they do.
    unfit: Mutex<Option<String>>,
    /// Whether every watch has synced.
    pub is_synced: AtomicBool,
    /// Changes of objects that were observed.
    pub changes: Counter,
    /// Writes that were started.
    pub writes: Counter,
    /// Writes that failed.
    pub failed_writes: Counter,
    /// Whether this controller is the leader.
    pub leads: Gauge,
    registry: Registry,
}

impl Probes {
    pub(crate) fn new() -> Arc<Self> {
        let (changes, writes, failed_writes) =
            (Counter::default(), Counter::default(), Counter::default());
        let leads = Gauge::default();
        let mut registry = Registry::with_prefix("lvs_controller");
        registry.register(
            "changes",
            "Changes of objects that were observed",
            changes.clone(),
        );
        registry.register(
            "writes",
            "Writes to the API server that were started",
            writes.clone(),
        );
        registry.register(
            "failed_writes",
            "Writes to the API server that failed",
            failed_writes.clone(),
        );
        registry.register(
            "leads",
            "Whether this controller is the leader",
            leads.clone(),
        );
        Arc::new(Self {
            started: Instant::now(),
            progress: AtomicU64::new(0),
            unfit: Mutex::default(),
            is_synced: AtomicBool::new(false),
            changes,
            writes,
            failed_writes,
            leads,
            registry,
        })
    }

    /// Records that the loop makes progress.
    pub(crate) fn progress(&self) {
        self.progress
            .store(self.milliseconds(Instant::now()), Ordering::Relaxed);
    }

    /// Records why the definitions of the API types do not fit, or that they do.
    pub(crate) fn set_unfit(&self, reason: Option<String>) {
        *self.unfit.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn unfit(&self) -> Option<String> {
        let unfit = self.unfit.lock();
        unfit.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records progress until it is dropped, for a wait that may take any time. A restart would not end it sooner.
    pub(crate) async fn beat(&self) -> Infallible {
        loop {
            self.progress();
            tokio::time::sleep(BEAT).await;
        }
    }

    /// How long the loop has made no progress, if that is too long.
    fn stuck_for(&self, now: Instant) -> Option<Duration> {
        let last = self.progress.load(Ordering::Relaxed);
        let silence = Duration::from_millis(self.milliseconds(now).saturating_sub(last));
        (silence > LONGEST_SILENCE).then_some(silence)
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

impl lvs_runtime::http::Probes for Probes {
    fn stuck(&self) -> Option<String> {
        let silence = self.stuck_for(Instant::now())?;
        Some(format!(
            "the loop has made no progress for {} s",
            silence.as_secs()
        ))
    }

    /// Ready once the definitions fit and every watch has synced, whether or not this controller is the leader.
    fn unready(&self) -> Option<String> {
        if let Some(reason) = self.unfit() {
            return Some(reason);
        }
        let is_synced = self.is_synced.load(Ordering::Relaxed);
        (!is_synced).then(|| "not every watch has synced yet".to_owned())
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_without_progress_is_stuck_until_it_makes_progress() {
        let probes = Probes::new();
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert_eq!(probes.stuck_for(later(59)), None);
        assert!(probes.stuck_for(later(62)).is_some());
        probes.progress();
        assert_eq!(probes.stuck_for(later(59)), None);
    }
}
