//! Agents that are silent: what they reported becomes unknown, and nothing else changes.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Objects, Operator, agent_program, condition_of, programmed, start_kube_agent, wait_until,
};
use serde_json::{Value, json};

use crate::{
    dead_watch::Proxy,
    shop::{directed, within},
};

const WEB: &str = "shop/web";
const BINDING: &str = "shop/web.lvs1";
/// How long it may take until a silent agent is noticed.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn the_status_of_a_director_without_power_is_unknown_within_a_minute() -> Result<()> {
    let operator = directed()?;
    let _controller = operator.lead("one")?;
    let admin = &operator.admin;
    let lvs1 = operator.machine("lvs1")?;
    admin.apply(&web())?;
    lvs1.describe(&["10.0.0.1/24"], &[])?;
    await_binding(admin)?;
    lvs1.report(BINDING, &programmed())?;
    await_condition(admin, "VirtualService", WEB, "Ready", "True Ready")?;
    let binding = admin.get("DirectorBinding", BINDING)?;

    // Its power is cut.
    drop(lvs1);
    let cut = Instant::now();
    let unknown = "Unknown DirectorUnreachable";
    let object = await_condition(admin, "VirtualService", WEB, "Ready", unknown)?;
    within("the virtual service to be unknown", cut, LIMIT)?;
    assert_eq!(
        condition_of(&object, "Programmed").as_deref(),
        Some(unknown)
    );
    assert_eq!(object.pointer("/status/activeDirector"), None);
    await_condition(admin, "DirectorBinding", BINDING, "Programmed", unknown)?;
    let silent = "Unknown AgentUnreachable";
    let node = await_condition(admin, "LvsNode", "lvs1", "Ready", silent)?;
    ensure!(
        node.pointer("/status/facts").is_some(),
        "the facts are gone: {node}"
    );
    let after = admin.get("DirectorBinding", BINDING)?;
    assert_eq!(after["spec"], binding["spec"]);

    // It is back.
    let lvs1 = operator.machine("lvs1")?;
    lvs1.describe(&["10.0.0.1/24"], &[])?;
    lvs1.report(BINDING, &programmed())?;
    await_condition(admin, "VirtualService", WEB, "Ready", "True Ready")?;
    await_condition(admin, "LvsNode", "lvs1", "Ready", "True Ready")?;
    Ok(())
}

#[test]
fn an_agent_that_is_killed_is_unknown_and_one_that_restarts_is_not() -> Result<()> {
    let operator = Operator::install(&["rs1"])?;
    operator.admit("rs1")?;
    let _controller = operator.lead("one")?;
    let lab = Lab::lay_out(&"hosts: {rs1: {}}".parse()?)?;
    // The host has a network of its own.
    let host = lab.host("rs1")?;
    let proxy = Proxy::inside(host, &operator.control_plane)?;
    let kubeconfig = proxy.kubeconfig(&operator, operator.machine_kubeconfig("rs1")?, "agent")?;
    let directory = operator.control_plane.directory();
    let (state, log) = (directory.join("agent-state"), directory.join("agent.log"));
    let start = || start_kube_agent(host, &agent_program()?, &kubeconfig, &state, &log);
    let mut agent = start()?;
    let ready = await_known(&operator.admin).with_context(|| read(&log))?;

    // A restart that takes half of the time changes nothing.
    agent.kill()?;
    std::thread::sleep(Duration::from_secs(20));
    let mut agent = start()?;
    let restarted = Instant::now();
    while restarted.elapsed() < Duration::from_secs(30) {
        let found = operator.admin.get("LvsNode", "rs1")?;
        assert_eq!(found["status"], ready["status"]);
        std::thread::sleep(Duration::from_secs(1));
    }

    agent.kill()?;
    let killed = Instant::now();
    let silent = "Unknown AgentUnreachable";
    await_condition(&operator.admin, "LvsNode", "rs1", "Ready", silent)?;
    within("the machine to be unknown", killed, LIMIT)?;
    let _agent = start()?;
    let returned = Instant::now();
    await_known(&operator.admin)?;
    within(
        "the machine to be known again",
        returned,
        Duration::from_secs(15),
    )
}

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

/// Waits until the agent has reported whether its machine is ready.
fn await_known(admin: &Objects) -> Result<Value> {
    admin.await_that("LvsNode", "rs1", "known", |object| {
        let ready = condition_of(object, "Ready").unwrap_or_default();
        object.pointer("/status/facts").is_some()
            && !ready.is_empty()
            && !ready.starts_with("Unknown")
    })
}

fn web() -> Value {
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "VirtualService",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"addresses": ["10.0.0.100"], "ports": [{"port": 80}]},
    })
}

fn await_binding(admin: &Objects) -> Result<Value> {
    admin.await_that("DirectorBinding", BINDING, "made", |object| {
        !object.is_null()
    })
}

/// Waits until a condition is as wanted, as `STATUS REASON`; for longer than an agent may be silent.
fn await_condition(
    admin: &Objects,
    kind: &str,
    name: &str,
    condition: &str,
    wanted: &str,
) -> Result<Value> {
    let mut last = Value::Null;
    let what = format!("{kind} {name}: {condition} {wanted}");
    let found = wait_until(&what, LIMIT + Duration::from_secs(30), || {
        last = admin.find(kind, name)?.unwrap_or_default();
        let is_wanted = condition_of(&last, condition).as_deref() == Some(wanted);
        Ok(is_wanted.then(|| last.clone()))
    });
    found.with_context(|| format!("it was {last:#}"))
}
