//! Health, readiness and metrics.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// The longest that the loop may be busy with one round before it counts as stuck.
const STUCK_SECONDS: u64 = 120;

/// What the loop tells of itself.
pub(crate) struct Health {
    started: Instant,
    beat: AtomicU64,
    is_busy: AtomicBool,
    /// Whether every kind has been listed once.
    pub is_synced: AtomicBool,
    /// Changes that were taken in.
    pub changes: Counter,
    /// Writes that were tried.
    pub writes: Counter,
    /// Writes that failed.
    pub failed_writes: Counter,
    /// Whether this controller leads.
    pub leads: Gauge,
    registry: Registry,
}

impl Health {
    pub(crate) fn new() -> Arc<Self> {
        let (changes, writes, failed_writes) =
            (Counter::default(), Counter::default(), Counter::default());
        let leads = Gauge::default();
        let mut registry = Registry::with_prefix("lvs_controller");
        registry.register(
            "changes",
            "Changes of objects that were taken in",
            changes.clone(),
        );
        registry.register(
            "writes",
            "Writes to the API server that were tried",
            writes.clone(),
        );
        registry.register(
            "failed_writes",
            "Writes to the API server that failed",
            failed_writes.clone(),
        );
        registry.register("leads", "Whether this controller leads", leads.clone());
        Arc::new(Self {
            started: Instant::now(),
            beat: AtomicU64::new(0),
            is_busy: AtomicBool::new(false),
            is_synced: AtomicBool::new(false),
            changes,
            writes,
            failed_writes,
            leads,
            registry,
        })
    }

    /// Notes that the loop starts or ends a round.
    pub(crate) fn set_busy(&self, is_busy: bool) {
        self.beat
            .store(self.started.elapsed().as_secs(), Ordering::Relaxed);
        self.is_busy.store(is_busy, Ordering::Relaxed);
    }

    fn is_stuck(&self) -> bool {
        let since = self.started.elapsed().as_secs() - self.beat.load(Ordering::Relaxed);
        self.is_busy.load(Ordering::Relaxed) && since > STUCK_SECONDS
    }
}

/// Serves `/livez`, `/readyz` and `/metrics` until the process ends.
///
/// # Errors
/// When the address cannot be bound.
pub(crate) async fn serve(address: SocketAddr, health: Arc<Health>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(health);
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, router).await
}

async fn livez(State(health): State<Arc<Health>>) -> (StatusCode, &'static str) {
    if health.is_stuck() {
        (StatusCode::SERVICE_UNAVAILABLE, "the loop is stuck\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

/// Ready is who knows all objects, whether it leads or stands by.
async fn readyz(State(health): State<Arc<Health>>) -> (StatusCode, &'static str) {
    if health.is_synced.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not all objects are listed yet\n",
        )
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> (StatusCode, String) {
    let mut text = String::new();
    match encode(&mut text, &health.registry) {
        Ok(()) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}
