//! The agent's answers to liveness and readiness probes, and its metrics.

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

use crate::holder::RouterMetrics;

/// How long a pass may take before the agent counts as stuck. The longest passes take seconds.
const LONGEST_PASS: Duration = Duration::from_secs(120);

/// The state of the loop, shared with the HTTP server.
pub(crate) struct Probes {
    /// The start of the current pass; `None` between passes.
    began: Mutex<Option<Instant>>,
    is_ready: AtomicBool,
    /// Why nothing can be read from the source; `None` if it can be used.
    unfit: Mutex<Option<String>>,
    passes: Counter,
    errors: Counter,
    last_duration: Gauge<f64, AtomicU64>,
    registry: Registry,
}

impl Probes {
    /// The probes of a loop that has not started.
    pub(crate) fn new(routers: &RouterMetrics) -> Self {
        let passes = Counter::default();
        let errors = Counter::default();
        let last_duration = Gauge::<f64, AtomicU64>::default();
        let mut registry = Registry::with_prefix("lvs_agent");
        registry.register("passes", "Passes made", passes.clone());
        registry.register(
            "pass_errors",
            "Passes that failed or left a step undone",
            errors.clone(),
        );
        registry.register_with_unit(
            "last_pass_duration",
            "Duration of the last pass",
            Unit::Seconds,
            last_duration.clone(),
        );
        routers.register(&mut registry);
        Self {
            began: Mutex::new(None),
            is_ready: AtomicBool::new(false),
            unfit: Mutex::default(),
            passes,
            errors,
            last_duration,
            registry,
        }
    }

    /// Records the start of a pass.
    pub(crate) fn begin(&self, now: Instant) {
        *self.began.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Records the end of the pass, and whether it did everything.
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

    /// Marks the agent ready.
    pub(crate) fn become_ready(&self) {
        self.is_ready.store(true, Ordering::Relaxed);
    }

    /// Records why nothing can be read from the source, or that it can be used.
    pub(crate) fn set_unfit(&self, reason: Option<String>) {
        *self.unfit.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// How long the current pass has been running, if that is too long.
    fn stuck_for(&self, now: Instant) -> Option<Duration> {
        let began = *self.began.lock().unwrap_or_else(PoisonError::into_inner);
        let duration = now.saturating_duration_since(began?);
        (duration > LONGEST_PASS).then_some(duration)
    }
}

impl lvs_runtime::http::Probes for Probes {
    fn stuck(&self) -> Option<String> {
        let duration = self.stuck_for(Instant::now())?;
        Some(format!(
            "a pass has been running for {} s",
            duration.as_secs()
        ))
    }

    fn unready(&self) -> Option<String> {
        let unfit = self.unfit.lock().unwrap_or_else(PoisonError::into_inner);
        if unfit.is_some() {
            return unfit.clone();
        }
        let is_ready = self.is_ready.load(Ordering::Relaxed);
        (!is_ready).then(|| "the first pass is not done yet".to_owned())
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
    fn a_pass_that_does_not_end_is_stuck_and_an_idle_agent_is_not() {
        let probes = Probes::new(&RouterMetrics::default());
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
    fn passes_and_incomplete_passes_are_counted() {
        let probes = Probes::new(&RouterMetrics::default());
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
    fn the_agent_is_ready_once_it_is_marked_so() {
        let probes = Probes::new(&RouterMetrics::default());
        assert!(probes.unready().is_some());
        probes.become_ready();
        assert_eq!(probes.unready(), None);
    }

    #[test]
    fn an_agent_whose_source_cannot_be_used_is_not_ready_and_says_why() {
        let probes = Probes::new(&RouterMetrics::default());
        probes.become_ready();
        probes.set_unfit(Some("outdated".to_owned()));
        assert_eq!(probes.unready().as_deref(), Some("outdated"));
        assert_eq!(probes.stuck(), None);
        probes.set_unfit(None);
        assert_eq!(probes.unready(), None);
    }
}
