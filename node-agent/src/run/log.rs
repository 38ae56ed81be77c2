//! Logs passes.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use lvs_model::{ObjectName, ObjectRef, Problem, Rejection, Severity, Subject};
use tracing::{debug, error, info, warn};

use crate::{
    log_limit::{MOST_LINES, log_limited},
    pass::Applied,
    report,
    source::Snapshot,
};

/// The faults after a pass: each is logged once when it begins and once when it is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// The digests of all faults.
    known: BTreeSet<u64>,
    /// The lines that were logged.
    logged: BTreeMap<u64, String>,
}

/// The level at which a fault is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Warning,
    Error,
}

impl Level {
    /// Returns the level of a problem. `None` for a note, which is not logged.
    const fn of(severity: Severity) -> Option<Self> {
        match severity {
            Severity::Note => None,
            Severity::Warning => Some(Self::Warning),
            Severity::Error => Some(Self::Error),
        }
    }
}

/// Logs what a pass did, and the faults that began or ended with it. A pass over some virtual services that succeeded found no
/// fault in them and did not check the others.
///
/// "All is well" is logged once no fault is left, those of VIPs included, which the holder logs.
pub(super) fn log(
    applied: &Applied,
    snapshot: &Snapshot,
    before: &Report,
    vips_failed: impl FnOnce() -> bool,
) -> Report {
    log_steps(applied);
    if applied.prepared.scope.is_of_some_services() {
        return before.clone();
    }
    let lines = lines(applied, snapshot);
    let known: BTreeSet<u64> = lines.iter().map(digest).collect();
    let is_new = |line: &&(Level, String)| !before.known.contains(&digest(line));
    let new: Vec<&(Level, String)> = lines.iter().filter(is_new).collect();
    log_limited(
        &new,
        |(level, text)| match level {
            Level::Warning => warn!("{text}"),
            Level::Error => error!("{text}"),
        },
        |more| {
            warn!(
                "{more} more lines are left out; `lvs-agent plan` prints all problems and rejections"
            );
        },
    );
    let logged = new.iter().take(MOST_LINES);
    let logged = logged.map(|line| (digest(line), line.1.clone()));
    let before_logged = before.logged.clone().into_iter();
    let (mut logged, ended): (BTreeMap<_, _>, BTreeMap<_, _>) = before_logged
        .chain(logged)
        .partition(|(digest, _)| known.contains(digest));
    while logged.len() > MOST_LOGGED {
        logged.pop_first();
    }
    log_end(&ended, lines.is_empty(), vips_failed);
    Report { known, logged }
}

/// The most lines that are kept to log their end.
const MOST_LOGGED: usize = 10 * MOST_LINES;

/// Logs which faults are over: in one line if no fault is left.
fn log_end(ended: &BTreeMap<u64, String>, is_well: bool, vips_failed: impl FnOnce() -> bool) {
    if ended.is_empty() {
        return;
    }
    if is_well && !vips_failed() {
        return info!("all is well");
    }
    let ended: Vec<&String> = ended.values().collect();
    log_limited(
        &ended,
        |text| info!("over: {text}"),
        |more| info!("{more} more faults are over"),
    );
}

/// The faults as text; errors first, so that no flood of warnings hides them.
fn lines(applied: &Applied, snapshot: &Snapshot) -> Vec<(Level, String)> {
    let rejections = rejections(applied, snapshot);
    let refused: BTreeSet<&ObjectName> = rejections.iter().filter_map(service_of).collect();
    let owners = &applied.prepared.owners;
    let problems = applied.prepared.problems.iter();
    let problems = problems.filter_map(|problem| {
        let level = Level::of(problem.severity)?;
        Some((level, sentence(problem, &refused)))
    });
    let undone = report::undone(applied).map(|(step, text)| {
        let mut owners = owners.of(&step.target()).iter();
        let owner = owners.find(|owner| refused.contains(owner));
        let mark = owner.map_or_else(String::new, |owner| {
            format!(" (VirtualService {owner}, last accepted version)")
        });
        (Level::Error, format!("{text}{mark}"))
    });
    let refusals = rejections
        .iter()
        .map(|rejection| (Level::Error, rejection.to_string()));
    let mut lines: Vec<(Level, String)> = refusals.chain(problems).chain(undone).collect();
    lines.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
    lines
}

/// Returns the virtual service that was refused.
fn service_of(rejection: &Rejection) -> Option<&ObjectName> {
    match &rejection.object {
        Some(ObjectRef::VirtualService(name)) => Some(name),
        Some(
            ObjectRef::AddressPool(_)
            | ObjectRef::DirectorBinding(_)
            | ObjectRef::RealServerBinding(_)
            | ObjectRef::DirectorGroup(_)
            | ObjectRef::LvsNode(_),
        )
        | None => None,
    }
}

/// Returns the text of a problem. If a newer version of its virtual service was refused, it is about the last accepted one.
fn sentence(problem: &Problem, refused: &BTreeSet<&ObjectName>) -> String {
    match &problem.subject {
        Subject::Service(name) | Subject::Serving(name) if refused.contains(name) => format!(
            "VirtualService {name} (last accepted version): {}",
            problem.message
        ),
        Subject::Service(_) | Subject::Serving(_) | Subject::Machine | Subject::Target(_) => {
            problem.sentence()
        }
    }
}

fn digest(line: &(Level, String)) -> u64 {
    let mut hasher = DefaultHasher::new();
    line.1.hash(&mut hasher);
    hasher.finish()
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
