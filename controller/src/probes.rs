//! The liveness and readiness probes of the controller, and its metrics.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// How long one round of the loop may take before the loop counts as stuck.
const STUCK_SECONDS: u64 = 120;

/// The state of the loop, shared with the HTTP server.
pub(crate) struct Probes {
    started: Instant,
    beat: AtomicU64,
    is_busy: AtomicBool,
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
            beat: AtomicU64::new(0),
            is_busy: AtomicBool::new(false),
            unfit: Mutex::default(),
            is_synced: AtomicBool::new(false),
            changes,
            writes,
            failed_writes,
            leads,
            registry,
        })
    }

    /// Records that the loop starts or ends a round.
    pub(crate) fn set_busy(&self, is_busy: bool) {
        self.beat
            .store(self.started.elapsed().as_secs(), Ordering::Relaxed);
        self.is_busy.store(is_busy, Ordering::Relaxed);
    }

    /// Records why the definitions of the API types do not fit, or that they do.
    pub(crate) fn set_unfit(&self, reason: Option<String>) {
        *self.unfit.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn is_stuck(&self) -> bool {
        let since = self.started.elapsed().as_secs() - self.beat.load(Ordering::Relaxed);
        self.is_busy.load(Ordering::Relaxed) && since > STUCK_SECONDS
    }
}

impl lvs_runtime::http::Probes for Probes {
    fn stuck(&self) -> Option<String> {
        self.is_stuck().then(|| "the loop is stuck".to_owned())
    }

    /// Ready once the definitions fit and every watch has synced, whether or not this controller is the leader.
    fn unready(&self) -> Option<String> {
        let unfit = self.unfit.lock().unwrap_or_else(PoisonError::into_inner);
        if unfit.is_some() {
            return unfit.clone();
        }
        let is_synced = self.is_synced.load(Ordering::Relaxed);
        (!is_synced).then(|| "not every watch has synced yet".to_owned())
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }
}
