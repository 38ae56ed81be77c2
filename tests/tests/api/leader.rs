//! One of two controllers is the leader, and the other takes over.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::{Controller, Operator};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use crate::shop::{directed, within};

/// How long there may be no leader, after a crash and after an orderly end.
const AFTER_CRASH: Duration = Duration::from_secs(20);
const AFTER_END: Duration = Duration::from_secs(3);
/// How long a lease lasts if it is not renewed.
const LEASE: Duration = Duration::from_secs(15);
/// A part of the log line of each write.
const WRITE: &str = "writing write=";

#[test]
fn one_of_two_is_the_leader_and_the_other_takes_over() -> Result<()> {
    let operator = directed()?;
    let mut one = operator.lead("one")?;
    let mut two = standby(&operator, "two")?;
    bound(&operator, 1)?;
    assert!(one.log()?.contains(WRITE));
    assert!(!two.log()?.contains(WRITE), "two controllers write");

    // A crash.
    let killed = Instant::now();
    one.kill()?;
    bound(&operator, 2)?;
    within("another one to write after SIGKILL", killed, AFTER_CRASH)?;
    assert_eq!(operator.leader()?.as_deref(), Some("two"));

    // Several orderly ends.
    for (number, name) in [(3, "three"), (4, "four"), (5, "five")] {
        let next = standby(&operator, name)?;
        let asked = Instant::now();
        two.signal(Signal::SIGTERM)?;
        bound(&operator, number)?;
        within("another one to write after SIGTERM", asked, AFTER_END)?;
        assert_eq!(operator.leader()?.as_deref(), Some(name));
        two.stop()?;
        two = next;
    }

    // A controller that was stopped while another took over writes nothing when it continues, and exits.
    let six = standby(&operator, "six")?;
    two.signal(Signal::SIGSTOP)?;
    let stopped = Instant::now();
    bound(&operator, 6)?;
    within("another one to write after SIGSTOP", stopped, AFTER_CRASH)?;
    bound(&operator, 7)?;
    let before = two.log()?.matches(WRITE).count();
    two.signal(Signal::SIGCONT)?;
    assert_eq!(two.await_end()?, Some(1));
    let log = two.log()?;
    assert_eq!(log.matches(WRITE).count(), before, "{log}");
    assert_eq!(operator.leader()?.as_deref(), Some("six"));
    drop(six);
    Ok(())
}

/// The API server accepts connections and sends nothing, as behind a network that drops packets.
#[test]
fn a_leader_without_answers_of_the_api_server_exits_before_its_lease_ends() -> Result<()> {
    let operator = directed()?;
    let mut one = operator.lead("one")?;
    bound(&operator, 1)?;
    let processes = operator.control_plane.process_ids();
    let api_server = Pid::from_raw(i32::try_from(processes["kube-apiserver"])?);

    let silent = Instant::now();
    kill(api_server, Signal::SIGSTOP)?;
    let ended = one.await_end();
    let in_time = within("the leader to exit without answers", silent, LEASE);
    kill(api_server, Signal::SIGCONT)?;
    assert_eq!(ended?, Some(1));
    in_time?;

    let _two = operator.lead("two")?;
    bound(&operator, 2)
}

/// Starts a controller that is ready and not the leader.
fn standby(operator: &Operator, name: &str) -> Result<Controller> {
    let controller = operator.start_controller(name)?;
    controller.await_ready()?;
    ensure!(
        operator.leader()?.as_deref() != Some(name),
        "{name} is the leader"
    );
    Ok(controller)
}

/// Creates a virtual service and waits until the leader has bound it.
fn bound(operator: &Operator, number: u8) -> Result<()> {
    operator.admin.apply(&json!({
        "apiVersion": "lvs-operator.io/v1alpha1",
        "kind": "VirtualService",
        "metadata": {"namespace": "shop", "name": format!("web-{number}")},
        "spec": {"addresses": [format!("10.0.0.{number}")], "ports": [{"port": 80}]},
    }))?;
    let binding = format!("shop/web-{number}.lvs1");
    operator
        .admin
        .await_that("DirectorBinding", &binding, "made", |object| {
            !object.is_null()
        })
        .map(drop)
}
