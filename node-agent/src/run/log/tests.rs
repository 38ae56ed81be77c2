//! Tests of what a pass logs.

use std::{
    io,
    sync::{Arc, Mutex},
};

use lvs_model::{Problem, Subject};
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::log_limit::MOST_LINES;
use crate::pass::{Prepared, Scope};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// What is logged about a pass with this many warnings and one error.
fn logged(warnings: usize, scope: Scope, before: Option<Report>) -> (Vec<String>, Report) {
    let warning = |number| Problem::warning(Subject::Machine, format!("warning {number}"));
    let error = Problem::error(Subject::Machine, "an error");
    let prepared = Prepared {
        scope,
        problems: (0..warnings).map(warning).chain([error]).collect(),
        ..Prepared::default()
    };
    let applied = Applied {
        prepared,
        ..Applied::default()
    };
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(lines.clone())
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .finish();
    let report = tracing::subscriber::with_default(subscriber, || {
        log(&applied, &Snapshot::default(), before, || false)
    });
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    (
        text.lines().map(str::trim).map(str::to_owned).collect(),
        report,
    )
}

#[test]
fn the_lines_of_a_pass_are_limited_with_errors_first_and_the_rest_counted() {
    let (lines, _) = logged(100_000, Scope::Everything, None);
    assert_eq!(lines.len(), MOST_LINES + 1);
    assert_eq!(lines[0], "ERROR an error");
    assert_eq!(lines[1], "WARN warning 0");
    let rest =
        "WARN 99951 more lines are left out; `lvs-agent plan` prints all problems and rejections";
    assert_eq!(lines[MOST_LINES], rest);
}

#[test]
fn the_same_faults_are_logged_once() {
    let (first, report) = logged(1, Scope::Everything, None);
    assert_eq!(first.len(), 2);
    let (again, same) = logged(1, Scope::Objects, Some(report));
    assert_eq!((again, same), (Vec::new(), report));
    let (other, _) = logged(2, Scope::Network, Some(report));
    assert_eq!(other.len(), 3);
}

#[test]
fn a_pass_over_some_virtual_services_logs_nothing_about_the_others() {
    let (_, report) = logged(1, Scope::Everything, None);
    let (lines, same) = logged(0, Scope::default(), Some(report));
    assert_eq!((lines, same), (Vec::new(), report));
}
