//! The text that the agent prints and logs about a pass.

use lvs_model::{Outcome, Rejection, Severity, Step};
use owo_colors::{OwoColorize, Stream};

use crate::pass::Applied;

/// Dims the comments in a plan's text, for a terminal.
pub(crate) fn dim_comments(plan: &str) -> String {
    let dim = |line: &str| match line.split_once("  # ") {
        Some((command, comment)) => {
            let comment = format!("# {comment}");
            format!(
                "{command}  {}\n",
                comment.if_supports_color(Stream::Stdout, |text| text.dimmed())
            )
        }
        None => format!("{line}\n"),
    };
    plan.lines().map(dim).collect()
}

/// Returns whether a pass did everything, apart from the VIPs, which the holder reports.
pub(crate) fn is_complete(applied: &Applied, rejections: &[Rejection]) -> bool {
    let mut problems = applied.prepared.problems.iter();
    let has_errors = problems.any(|problem| problem.severity == Severity::Error);
    applied.is_complete() && !has_errors && rejections.is_empty()
}

/// The steps that failed or were skipped, each with a line that says why.
pub(crate) fn undone(applied: &Applied) -> impl Iterator<Item = (&Step, String)> {
    let steps = &applied.prepared.plan.steps;
    let not_done = applied.outcomes.not_done();
    not_done.filter_map(|(index, outcome)| {
        let step = steps.get(index)?;
        match outcome {
            Outcome::Done => None,
            Outcome::Failed(failure) => Some((step, format!("failed: {step}: {failure}"))),
            Outcome::Skipped { because } => Some((
                step,
                format!("skipped: {step}: it needs `{because}`, which was not done"),
            )),
        }
    })
}
