//! Tests of what a pass logs.

use std::{
    io,
    sync::{Arc, Mutex},
};

use lvs_crd::convert;
use lvs_model::{
    Director, Extent, Keeping, KernelState, Ledger, NodeFacts, NodeSpec, Outcomes, Problem,
    StepFailure, Subject, desired, diff,
};
use serde_json::json;
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
fn logged(warnings: usize, scope: Scope, before: &Report) -> (Vec<String>, Report) {
    let warning = |number| Problem::warning(Subject::Machine, format!("warning {number}"));
    let error = Problem::error(Subject::Machine, "an error");
    let problems = (0..warnings).map(warning).chain([error]).collect();
    logged_of(problems, scope, &Snapshot::default(), before)
}

fn logged_of(
    problems: Vec<Problem>,
    scope: Scope,
    snapshot: &Snapshot,
    before: &Report,
) -> (Vec<String>, Report) {
    let prepared = Prepared {
        scope,
        problems,
        ..Prepared::default()
    };
    let applied = Applied {
        prepared,
        ..Applied::default()
    };
    logged_about(&applied, snapshot, before)
}

fn logged_about(applied: &Applied, snapshot: &Snapshot, before: &Report) -> (Vec<String>, Report) {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(lines.clone())
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .finish();
    let report =
        tracing::subscriber::with_default(subscriber, || log(applied, snapshot, before, || false));
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    (
        text.lines().map(str::trim).map(str::to_owned).collect(),
        report,
    )
}

#[test]
fn the_lines_of_a_pass_are_limited_with_errors_first_and_the_rest_counted() {
    let (lines, _) = logged(100_000, Scope::Everything, &Report::default());
    assert_eq!(lines.len(), MOST_LINES + 1);
    assert_eq!(lines[0], "ERROR an error");
    assert_eq!(lines[1], "WARN warning 0");
    let rest =
        "WARN 99951 more lines are left out; `lvs-agent plan` prints all problems and rejections";
    assert_eq!(lines[MOST_LINES], rest);
}

#[test]
fn a_fault_is_logged_when_it_begins_and_when_it_is_over() {
    let (first, report) = logged(1, Scope::Everything, &Report::default());
    assert_eq!(first, ["ERROR an error", "WARN warning 0"]);
    let (again, same) = logged(1, Scope::Objects, &report);
    assert_eq!((again, &same), (Vec::new(), &report));
    let (more, report) = logged(2, Scope::Network, &same);
    assert_eq!(more, ["WARN warning 1"]);
    let (less, report) = logged(1, Scope::Network, &report);
    assert_eq!(less, ["INFO over: warning 1"]);
    let (none, _) = logged_of(Vec::new(), Scope::Network, &Snapshot::default(), &report);
    assert_eq!(none, ["INFO all is well"]);
}

#[test]
fn a_pass_over_some_virtual_services_logs_nothing_about_the_others() {
    let (_, report) = logged(1, Scope::Everything, &Report::default());
    let (lines, same) = logged(0, Scope::default(), &report);
    assert_eq!((lines, same), (Vec::new(), report));
}

fn web() -> ObjectName {
    ObjectName::new("shop", "web").unwrap()
}

/// A newer version of the virtual service is refused.
fn with_refused_web() -> Snapshot {
    let object = ObjectRef::VirtualService(web());
    Snapshot {
        rejections: vec![Rejection::new(object, "spec.addresses[0]", "must be new")],
        ..Snapshot::default()
    }
}

#[test]
fn a_fault_of_the_last_accepted_version_is_marked_as_such() {
    let problem = Problem::error(Subject::Service(web()), "no interface for VIP 192.0.2.1");

    let (lines, _) = logged_of(
        vec![problem],
        Scope::Everything,
        &with_refused_web(),
        &Report::default(),
    );

    let expected = [
        "ERROR VirtualService shop/web: `spec.addresses[0]` must be new",
        "ERROR VirtualService shop/web (last accepted version): no interface for VIP 192.0.2.1",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_failed_step_of_the_last_accepted_version_is_marked_as_such() {
    let object = json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "VirtualService",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"fwmark": 7, "forwarding": "TUN", "backends": [{"address": "192.0.2.11"}]},
    });
    let object = serde_json::from_value(object).unwrap();
    let (name, service) = convert::virtual_service(&object).unwrap();
    let director = Director {
        service: service.into(),
        interface: None,
        candidacy: None,
        keeping: Keeping::Nothing,
    };
    let spec = NodeSpec {
        directs: [(name, director)].into(),
        ..NodeSpec::default()
    };
    let wanted = desired(&spec, &NodeFacts::default());
    let (observed, ledger) = (KernelState::default(), Ledger::default());
    let plan = diff(&wanted.state, &observed, &ledger, &Extent::ALL).plan;
    let mut outcomes = Outcomes::default();
    for (index, step) in plan.steps.iter().enumerate() {
        if step.to_string() == "ipvsadm -A -f 7 -s wlc" {
            outcomes.fail(index, step, StepFailure::refused("File exists"));
        }
    }
    let applied = Applied {
        prepared: Prepared {
            scope: Scope::Everything,
            owners: wanted.owners,
            plan,
            ..Prepared::default()
        },
        outcomes,
        ..Applied::default()
    };

    let (lines, _) = logged_about(&applied, &with_refused_web(), &Report::default());

    let failed = "ERROR failed: ipvsadm -A -f 7 -s wlc: File exists (VirtualService shop/web, last accepted version)";
    assert!(lines.iter().any(|line| line == failed), "{lines:?}");
}
