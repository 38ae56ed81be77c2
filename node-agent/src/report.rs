//! What people and programs read: plans, outcomes, what is observed and owned.

use lvs_model::{Outcome, Plan, Problem, Rejection, Severity};
use owo_colors::{OwoColorize, Stream};
use serde::Serialize;

use crate::pass::{Applied, Prepared};

mod show;

pub(crate) use show::Shown;

/// A plan's text with its comments dimmed, for a terminal.
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

/// A plan for programs.
#[derive(Serialize)]
pub(crate) struct PlanReport<'a> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    node: &'a str,
    steps: Vec<StepReport<'a>>,
    problems: &'a [Problem],
    rejections: &'a [Rejection],
}

#[derive(Serialize)]
struct StepReport<'a> {
    command: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    step: &'a lvs_model::Step,
}

impl<'a> PlanReport<'a> {
    /// What a pass would do.
    pub(crate) fn new(node: &'a str, prepared: &'a Prepared, rejections: &'a [Rejection]) -> Self {
        let Plan { steps } = &prepared.plan;
        let steps = steps.iter().map(|step| StepReport {
            command: step.to_string(),
            reason: step.reason(),
            step,
        });
        Self {
            api_version: "lvs-operator.io/v1alpha1",
            kind: "Plan",
            node,
            steps: steps.collect(),
            problems: &prepared.problems,
            rejections,
        }
    }
}

/// Whether everything that was asked for is done.
pub(crate) fn is_complete(applied: &Applied, rejections: &[Rejection]) -> bool {
    let errors = applied
        .prepared
        .problems
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    applied.outcomes.is_complete() && !errors && rejections.is_empty()
}

/// The steps that were not done, one line each.
pub(crate) fn not_done(applied: &Applied) -> impl Iterator<Item = String> {
    applied.outcomes.not_done().filter_map(|(index, outcome)| {
        let step = applied.prepared.plan.steps.get(index)?;
        match outcome {
            Outcome::Done => None,
            Outcome::Failed(failure) => Some(format!("failed: {step}: {failure}")),
            Outcome::Skipped { because } => Some(format!("skipped: {step}: it needs {because}")),
        }
    })
}
