//! Logs passes.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use lvs_model::{Rejection, Severity};
use tracing::{debug, error, info, warn};

use crate::{log_limit::log_limited, pass::Applied, report, source::Snapshot};

/// A digest of the faults after a pass, so that the same faults are logged once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report(u64);

/// Logs what a pass did, and its faults unless they were logged before. A pass over some virtual services that succeeded
/// found no fault in them and did not check the others.
///
/// "All is well" is logged once no fault is left, those of VIPs included, which the holder logs.
pub(super) fn log(
    applied: &Applied,
    snapshot: &Snapshot,
    before: Option<Report>,
    vips_failed: impl FnOnce() -> bool,
) -> Report {
    log_steps(applied);
    if let Some(before) = before
        && applied.prepared.scope.is_of_some_services()
    {
        return before;
    }
    let lines = lines(applied, snapshot);
    let report = digest(&lines);
    if before == Some(report) {
        return report;
    }
    let log_line = |(severity, text): &(Severity, String)| match severity {
        Severity::Warning => warn!("{text}"),
        Severity::Error => error!("{text}"),
    };
    log_limited(&lines, log_line, |more| {
        warn!(
            "{more} more lines are left out; `lvs-agent plan` prints all problems and rejections"
        );
    });
    if lines.is_empty() && before.is_some() && !vips_failed() {
        info!("all is well");
    }
    report
}

/// The faults as text; errors first, so that no flood of warnings hides them.
fn lines(applied: &Applied, snapshot: &Snapshot) -> Vec<(Severity, String)> {
    let rejections = rejections(applied, snapshot).into_iter();
    let problems = applied.prepared.problems.iter();
    let undone = report::undone(applied);
    let mut lines: Vec<(Severity, String)> = rejections
        .map(|rejection| (Severity::Error, rejection.to_string()))
        .chain(problems.map(|problem| (problem.severity, problem.sentence())))
        .chain(undone.map(|(_, text)| (Severity::Error, text)))
        .collect();
    lines.sort_by_key(|(severity, _)| std::cmp::Reverse(*severity));
    lines
}

fn digest(lines: &[(Severity, String)]) -> Report {
    let mut hasher = DefaultHasher::new();
    for (_, text) in lines {
        text.hash(&mut hasher);
    }
    Report(hasher.finish())
}

/// Logs the steps that a pass took.
fn log_steps(applied: &Applied) {
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
    for step in &prepared.plan.steps {
        debug!(%step, "step");
    }
}

/// The rejections by the source and by the pass.
pub(super) fn rejections(applied: &Applied, snapshot: &Snapshot) -> Vec<Rejection> {
    let found = snapshot.rejections.iter();
    found.chain(&applied.prepared.rejections).cloned().collect()
}

/// A duration in milliseconds, as logged.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests;
