//! The printed table of measurements, with their ratios to the floor.

use std::{fmt, time::Duration};

use anyhow::{Context, Result};

use super::configurations::Load;

/// The names of rows that the verdict uses.
pub(super) const READ: &str = "reading the table, one service after the other";
pub(super) const READ_KEPT: &str = "reading the table and keeping it";
pub(super) const READ_BY_IPVSADM: &str = "ipvsadm -Sn";

/// One measurement.
pub(super) struct Row {
    what: &'static str,
    value: Value,
    peak_kib: Option<u64>,
}

enum Value {
    Took(Duration),
    Share(f64),
}

impl Row {
    pub(super) const fn timed(what: &'static str, took: Duration) -> Self {
        Self {
            what,
            value: Value::Took(took),
            peak_kib: None,
        }
    }

    pub(super) const fn share(what: &'static str, share: f64) -> Self {
        Self {
            what,
            value: Value::Share(share),
            peak_kib: None,
        }
    }

    pub(super) const fn with_memory(self, peak_kib: u64) -> Self {
        Self {
            peak_kib: Some(peak_kib),
            ..self
        }
    }
}

/// The measurements of one load.
pub(super) struct Table {
    pub load: Load,
    pub rows: Vec<Row>,
}

impl Table {
    fn took(&self, start: &str) -> Result<Duration> {
        let row = self.rows.iter().find(|row| row.what.starts_with(start));
        match row.map(|row| &row.value) {
            Some(Value::Took(took)) => Ok(*took),
            Some(Value::Share(_)) | None => {
                None.with_context(|| format!("'{start}' was not measured"))
            }
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}", self.load)?;
        writeln!(
            f,
            "{:<55} {:>11} {:>10} {:>10}",
            "", "time", "x floor", "peak MiB"
        )?;
        let floor = self.took("floor").unwrap_or(Duration::MAX).as_secs_f64();
        for Row {
            what,
            value,
            peak_kib,
        } in &self.rows
        {
            let (value, ratio) = match value {
                Value::Took(took) => (
                    format!("{:.3} s", took.as_secs_f64()),
                    format!("{:.2}", took.as_secs_f64() / floor),
                ),
                Value::Share(share) => (format!("{:.2} %", share * 100.0), String::new()),
            };
            let peak = peak_kib.map_or_else(String::new, |kib| format!("{}", kib / 1024));
            writeln!(f, "{what:<55} {value:>11} {ratio:>10} {peak:>10}")?;
        }
        Ok(())
    }
}

/// Returns how the agent's programming time grows with the number of services.
pub(super) fn growth(costs: &[(Load, Duration)]) -> String {
    let cost = |(load, took): &(Load, Duration)| {
        let each =
            took.as_secs_f64() * 1e6 / f64::from(u32::try_from(load.services).unwrap_or(u32::MAX));
        format!(
            "{}: {:.3} s ({each:.1} us per service)",
            load.services,
            took.as_secs_f64()
        )
    };
    format!(
        "growth of the programming phase: {}",
        costs.iter().map(cost).collect::<Vec<_>>().join(", ")
    )
}

/// Returns the ratios that the project promises, for the largest load.
pub(super) fn verdict(tables: &[Table]) -> Result<String> {
    let table = tables.last().context("nothing was measured")?;
    let ratio = |of: &str, to: &str| -> Result<f64> {
        Ok(table.took(of)?.as_secs_f64() / table.took(to)?.as_secs_f64())
    };
    let whole = "lvs-agent, whole run";
    Ok(format!(
        "{}: programming phase {:.2} x the floor (promised: at most 1.5); whole run {:.0} x faster than ipvsadm -R (at \
         least 60) and {:.1} x faster than keepalived (at least 15); the second run, with nothing to do, {:.2} x the \
         first; the table read {:.0} x faster than by ipvsadm -Sn",
        table.load,
        ratio("lvs-agent, its programming phase", "floor")?,
        ratio("ipvsadm", whole)?,
        ratio("keepalived", whole)?,
        ratio("lvs-agent, second run", whole)?,
        ratio(READ_BY_IPVSADM, READ)?,
    ))
}
