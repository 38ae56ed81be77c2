//! Liveness, readiness and metrics over HTTP.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, gauge::Gauge},
    registry::{Registry, Unit},
};
use tokio::net::TcpListener;
use tracing::{info, warn};

/// How long a pass may take before the agent counts as stuck. The longest ones take seconds.
const LONGEST_PASS: Duration = Duration::from_secs(120);

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Nobody can ask.
#[derive(Debug, thiserror::Error)]
#[error("listening on {address} for --health-address")]
pub(crate) struct HealthError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// How the loop does.
pub(crate) struct Health {
    /// When the pass began that is being made; `None` between passes.
    began: Mutex<Option<Instant>>,
    is_ready: AtomicBool,
    passes: Counter,
    errors: Counter,
    last_duration: Gauge<f64, AtomicU64>,
    registry: Registry,
}

impl Health {
    /// A loop that has not begun.
    pub(crate) fn new() -> Self {
        let passes = Counter::default();
        let errors = Counter::default();
        let last_duration = Gauge::<f64, AtomicU64>::default();
        let mut registry = Registry::with_prefix("lvs_agent");
        registry.register("passes", "Passes that were made", passes.clone());
        registry.register(
            "pass_errors",
            "Passes that could not be made, or left a step undone",
            errors.clone(),
        );
        registry.register_with_unit(
            "last_pass_duration",
            "How long the last pass took",
            Unit::Seconds,
            last_duration.clone(),
        );
        Self {
            began: Mutex::new(None),
            is_ready: AtomicBool::new(false),
            passes,
            errors,
            last_duration,
            registry,
        }
    }

    /// Notes that a pass begins.
    pub(crate) fn begin(&self, now: Instant) {
        *self.began.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Notes that the pass is over, and whether it did all there was to do.
    pub(crate) fn end(&self, now: Instant, is_complete: bool) {
        let mut began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(began) = began.take() {
            let duration = now.saturating_duration_since(began);
            self.last_duration.set(duration.as_secs_f64());
        }
        self.passes.inc();
        if !is_complete {
            self.errors.inc();
        }
    }

    /// Notes that what is wanted was programmed once.
    pub(crate) fn become_ready(&self) {
        self.is_ready.store(true, Ordering::Relaxed);
    }

    /// Says since when a pass has been going on for too long.
    fn stuck_for(&self, now: Instant) -> Option<Duration> {
        let began = *self.began.lock().unwrap_or_else(PoisonError::into_inner);
        let lasts = now.saturating_duration_since(began?);
        (lasts > LONGEST_PASS).then_some(lasts)
    }

    fn metrics(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Answers `/livez`, `/readyz` and `/metrics` from here on.
///
/// # Errors
/// When the address cannot be had.
pub(crate) async fn serve(address: SocketAddr, health: Arc<Health>) -> Result<(), HealthError> {
    let failed = |source| HealthError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(health);
    info!(%address, "health is told");
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            warn!(%error, "health is not told any more");
        }
    });
    Ok(())
}

async fn livez(State(health): State<Arc<Health>>) -> (StatusCode, String) {
    match health.stuck_for(Instant::now()) {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(lasts) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("a pass has been going on for {} s\n", lasts.as_secs()),
        ),
    }
}

async fn readyz(State(health): State<Arc<Health>>) -> (StatusCode, &'static str) {
    if health.is_ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "nothing that is wanted is known yet\n",
        )
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> impl IntoResponse {
    match health.metrics() {
        Ok(text) => (StatusCode::OK, [(CONTENT_TYPE, METRICS_TYPE)], text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(CONTENT_TYPE, "text/plain")],
            error.to_string(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_without_end_is_stuck_and_idling_is_not() {
        let health = Health::new();
        let start = Instant::now();
        let later = start + LONGEST_PASS + Duration::from_secs(1);
        assert_eq!(health.stuck_for(later), None);
        health.begin(start);
        assert_eq!(health.stuck_for(start + LONGEST_PASS), None);
        assert_eq!(health.stuck_for(later), Some(later - start));
        health.end(later, true);
        assert_eq!(health.stuck_for(later + LONGEST_PASS * 2), None);
    }

    #[test]
    fn passes_are_counted_with_those_that_left_something_undone() {
        let health = Health::new();
        let start = Instant::now();
        for is_complete in [true, false, true] {
            health.begin(start);
            health.end(start + Duration::from_millis(1500), is_complete);
        }
        let text = health.metrics().unwrap();
        assert!(text.contains("lvs_agent_passes_total 3\n"), "{text}");
        assert!(text.contains("lvs_agent_pass_errors_total 1\n"), "{text}");
        assert!(
            text.contains("lvs_agent_last_pass_duration_seconds 1.5\n"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn the_agent_is_ready_when_what_is_wanted_was_programmed_once() {
        let health = Arc::new(Health::new());
        assert_eq!(
            readyz(State(Arc::clone(&health))).await.0,
            StatusCode::SERVICE_UNAVAILABLE
        );
        health.become_ready();
        assert_eq!(readyz(State(health)).await.0, StatusCode::OK);
    }
}
