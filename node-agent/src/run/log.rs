//! What is logged of a pass.

use std::time::Duration;

use lvs_model::{Rejection, Severity};
use tracing::{debug, error, info, warn};

use crate::{pass::Applied, report, source::Snapshot};

/// What a pass has to say, to tell whether it is news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report(Vec<String>);

/// Logs what a pass did, and what is wrong unless it was said before.
pub(super) fn log(applied: &Applied, snapshot: &Snapshot, before: Option<&Report>) -> Report {
    log_steps(applied);
    let prepared = &applied.prepared;
    let failures: Vec<String> = report::not_done(applied).collect();
    let mut said = Vec::new();
    for rejection in rejections(applied, snapshot) {
        said.push((Severity::Error, rejection.to_string()));
    }
    said.extend(
        prepared
            .problems
            .iter()
            .map(|problem| (problem.severity, problem.to_string())),
    );
    said.extend(
        failures
            .into_iter()
            .map(|failure| (Severity::Error, failure)),
    );
    let report = Report(said.iter().map(|(_, text)| text.clone()).collect());
    if before != Some(&report) {
        for (severity, text) in &said {
            match severity {
                Severity::Warning => warn!("{text}"),
                Severity::Error => error!("{text}"),
            }
        }
        if said.is_empty() && before.is_some() {
            info!("all is well");
        }
    }
    report
}

/// Logs what a pass did.
pub(super) fn log_steps(applied: &Applied) {
    let prepared = &applied.prepared;
    let done = prepared.plan.steps.len() - applied.outcomes.not_done().count();
    if done == 0 {
        return;
    }
    let timing = applied.timing;
    info!(
        steps = done,
        services = prepared.desired.services.len(),
        prepare_ms = milliseconds(timing.prepare),
        ledger_ms = milliseconds(timing.ledger),
        execute_ms = milliseconds(timing.execute),
        "programmed"
    );
    for step in prepared.plan.steps.iter() {
        debug!(%step, "step");
    }
}

/// What was refused, by the source and by the pass.
pub(super) fn rejections(applied: &Applied, snapshot: &Snapshot) -> Vec<Rejection> {
    snapshot
        .rejections
        .iter()
        .chain(&applied.prepared.rejections)
        .cloned()
        .collect()
}

/// A time as the logs give it.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
