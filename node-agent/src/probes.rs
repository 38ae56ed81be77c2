//! What the agent answers to liveness and readiness probes, and its metrics.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::{Registry, Unit},
};

/// How long a pass may take before the agent counts as stuck. The longest ones take seconds.
const LONGEST_PASS: Duration = Duration::from_secs(120);

/// The state of the loop, shared with the HTTP server.
pub(crate) struct Probes {
    /// When the pass began that is being made; `None` between passes.
    began: Mutex<Option<Instant>>,
    is_ready: AtomicBool,
    passes: Counter,
    errors: Counter,
    last_duration: Gauge<f64, AtomicU64>,
    registry: Registry,
}

impl Probes {
    /// The probes of a loop that has not started.
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
}

impl lvs_runtime::http::Probes for Probes {
    fn stuck(&self) -> Option<String> {
        let lasts = self.stuck_for(Instant::now())?;
        Some(format!("a pass has been running for {} s", lasts.as_secs()))
    }

    fn unready(&self) -> Option<String> {
        let is_ready = self.is_ready.load(Ordering::Relaxed);
        (!is_ready).then(|| "no pass has been made yet".to_owned())
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }
}

#[cfg(test)]
mod tests {
    use lvs_runtime::http::Probes as _;
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn a_pass_without_end_is_stuck_and_idling_is_not() {
        let probes = Probes::new();
        let start = Instant::now();
        let later = start + LONGEST_PASS + Duration::from_secs(1);
        assert_eq!(probes.stuck_for(later), None);
        probes.begin(start);
        assert_eq!(probes.stuck_for(start + LONGEST_PASS), None);
        assert_eq!(probes.stuck_for(later), Some(later - start));
        probes.end(later, true);
        assert_eq!(probes.stuck_for(later + LONGEST_PASS * 2), None);
    }

    #[test]
    fn passes_are_counted_with_those_that_left_something_undone() {
        let probes = Probes::new();
        let start = Instant::now();
        for is_complete in [true, false, true] {
            probes.begin(start);
            probes.end(start + Duration::from_millis(1500), is_complete);
        }
        let mut text = String::new();
        encode(&mut text, probes.registry()).unwrap();
        assert!(text.contains("lvs_agent_passes_total 3\n"), "{text}");
        assert!(text.contains("lvs_agent_pass_errors_total 1\n"), "{text}");
        assert!(
            text.contains("lvs_agent_last_pass_duration_seconds 1.5\n"),
            "{text}"
        );
    }

    #[test]
    fn the_agent_is_ready_once_a_pass_was_made() {
        let probes = Probes::new();
        assert!(probes.unready().is_some());
        probes.become_ready();
        assert_eq!(probes.unready(), None);
    }
}
