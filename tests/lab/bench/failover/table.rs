//! The table of failures and what they cost.

use std::{fmt, time::Duration};

use super::failure::Failure;
use crate::pair::Program;

/// What one failure cost.
pub(super) struct Cost {
    /// The longest time without an answer for the client, until the failed director has recovered.
    pub gap: Duration,
    /// For how long both directors held the VIP.
    pub both: Duration,
}

/// What one failure cost with one program, each time.
pub(super) struct FailoverRow {
    failure: Failure,
    program: Program,
    gaps: Vec<Duration>,
    both: Vec<Duration>,
}

impl FailoverRow {
    pub(super) fn new(failure: Failure, program: Program, costs: Vec<Cost>) -> Self {
        let (mut gaps, mut both): (Vec<_>, Vec<_>) = costs
            .into_iter()
            .map(|Cost { gap, both }| (gap, both))
            .unzip();
        gaps.sort();
        both.sort();
        Self {
            failure,
            program,
            gaps,
            both,
        }
    }
}

/// Prints the rows of both programs, one failure after the other.
pub(super) fn print(rows: &[FailoverRow]) -> String {
    let mut rows: Vec<&FailoverRow> = rows.iter().collect();
    rows.sort_by_key(|row| row.failure as u8);
    let mut text = format!(
        "{:<26} {:<11} {:>5} {:>9} {:>9} {:>14} {:>14}\n",
        "failure", "", "count", "gap p50", "gap max", "two hold p50", "two hold max"
    );
    for FailoverRow {
        failure,
        program,
        gaps,
        both,
    } in rows
    {
        text += &format!(
            "{failure:<26} {program:<11} {:>5} {:>9} {:>9} {:>14} {:>14}\n",
            gaps.len(),
            seconds(median(gaps)),
            seconds(gaps.last()),
            seconds(median(both)),
            seconds(both.last())
        );
    }
    text
}

fn median(sorted: &[Duration]) -> Option<&Duration> {
    sorted.get(sorted.len() / 2)
}

fn seconds(duration: Option<&Duration>) -> String {
    duration.map_or_else(
        || "-".to_owned(),
        |duration| format!("{:.3} s", duration.as_secs_f64()),
    )
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gap, both } = self;
        write!(
            f,
            "gap {:.3} s, two held the VIP for {:.2} s",
            gap.as_secs_f64(),
            both.as_secs_f64()
        )
    }
}
