//! The real servers before a change, which the controller remembers for connections that exist.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Objects, Operator, Reporter};
use serde_json::{Value, json};

use crate::shop::service;

const WEB: &str = "shop/web";
/// How long the real servers before a change count.
const KEEP: Duration = Duration::from_secs(20);
/// The real servers before the change.
const BEFORE: &str = "10.0.0.11 10.0.0.12";
const MACHINES: [&str; 5] = ["lvs1", "lvs2", "rs1", "rs2", "rs3"];

#[test]
fn the_real_servers_before_a_change_count_over_a_restart_of_the_controller() -> Result<()> {
    let operator = Operator::install(&MACHINES)?;
    let mut controller = operator.lead("one")?;
    let admin = &operator.admin;
    let agents = lay_out(&operator)?;
    admin.apply(&web(&["10.0.0.11", "10.0.0.13"]))?;
    let binding = admin.await_that("DirectorBinding", "shop/web.lvs1", "changed", |binding| {
        servers(binding, "/spec/realServers") == "10.0.0.11 10.0.0.13:0"
    })?;
    let changed = Instant::now();
    for (machine, own) in [("rs1", "10.0.0.11"), ("rs2", ""), ("rs3", "10.0.0.13")] {
        let known = served(admin, machine)?;
        ensure!(servers(&known, "/spec/realServers") == own, "{known:#}");
        ensure!(previous(&known) == BEFORE, "{known:#}");
        ensure!(
            version(&known)? < version(&binding)?,
            "the director was first: {known:#}"
        );
    }
    let since = served(admin, "rs1")?;
    let since = since.pointer("/spec/previous/since");

    controller.stop()?;
    let _controller = operator.lead("two")?;
    admin.await_that("DirectorBinding", "shop/web.lvs1", "ready", |binding| {
        report(&agents).is_ok() && servers(binding, "/spec/realServers") == "10.0.0.11 10.0.0.13"
    })?;
    let known = served(admin, "rs1")?;
    ensure!(known.pointer("/spec/previous/since") == since, "{known:#}");
    ensure!(previous(&known) == BEFORE, "{known:#}");

    admin.await_that("RealServerBinding", "shop/web.rs1", "over", |known| {
        previous(known).is_empty()
    })?;
    ensure!(
        changed.elapsed() + Duration::from_secs(2) > KEEP,
        "too early"
    );
    admin.await_that("RealServerBinding", "shop/web.rs2", "gone", Value::is_null)?;
    Ok(())
}

/// Makes the virtual service with the real servers `BEFORE`, which have weight and agents. Returns the agents of all machines.
fn lay_out(operator: &Operator) -> Result<Vec<Reporter>> {
    operator.namespace("shop")?;
    let admin = &operator.admin;
    for machine in MACHINES {
        operator.admit(machine)?;
    }
    let agents = MACHINES.map(|machine| operator.machine(machine));
    let agents = agents.into_iter().collect::<Result<Vec<_>>>()?;
    admin.apply(&group())?;
    admin.apply(&web(&["10.0.0.11", "10.0.0.12"]))?;
    admin.await_that("DirectorBinding", "shop/web.lvs2", "made", |binding| {
        servers(binding, "/spec/realServers") == BEFORE
    })?;
    // The real servers have weight: they may have served before they had agents.
    for (number, agent) in [1, 2, 11, 12, 13].into_iter().zip(&agents) {
        agent.describe(&[&format!("10.0.0.{number}/24")], &[])?;
    }
    for machine in ["rs1", "rs2"] {
        let name = format!("{WEB}.{machine}");
        let known = admin.await_that("RealServerBinding", &name, "made", |known| {
            report(&agents).is_ok() && known.pointer("/status/observedGeneration").is_some()
        })?;
        ensure!(previous(&known).is_empty(), "{known:#}");
    }
    Ok(agents)
}

/// Every agent reports that all is done.
fn report(agents: &[Reporter]) -> Result<()> {
    for agent in agents {
        agent.report_all_served()?;
        agent.report_all()?;
    }
    Ok(())
}

fn group() -> Value {
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "DirectorGroup",
        "metadata": {"name": "edge"},
        "spec": {
            "nodes": {"names": ["lvs1", "lvs2"]}, "realServers": {"cidrs": ["10.0.0.0/8"]},
            "failover": {"keepSeconds": KEEP.as_secs()},
        },
    })
}

fn web(addresses: &[&str]) -> Value {
    let backends = addresses.iter().map(|address| json!({"address": address}));
    let changes = json!({
        "scheduler": {"name": "mh", "flags": ["Port", "Fallback"]},
        "backends": backends.collect::<Value>(),
    });
    service(WEB, &changes)
}

fn served(admin: &Objects, machine: &str) -> Result<Value> {
    admin.get("RealServerBinding", &format!("{WEB}.{machine}"))
}

fn previous(served: &Value) -> String {
    servers(served, "/spec/previous/realServers")
}

/// The addresses of real servers, each with its weight unless that is 1.
fn servers(object: &Value, pointer: &str) -> String {
    let servers = object.pointer(pointer).and_then(Value::as_array);
    let texts = servers.into_iter().flatten().map(|server| {
        let address = server["address"].as_str().unwrap_or_default().to_owned();
        let weight = server["weight"].as_i64();
        weight.map_or_else(|| address.clone(), |weight| format!("{address}:{weight}"))
    });
    texts.collect::<Vec<_>>().join(" ")
}

/// The number of the write that made this version of an object.
fn version(object: &Value) -> Result<u64> {
    let version = object.pointer("/metadata/resourceVersion");
    let version = version.and_then(Value::as_str);
    version
        .context("no resource version")?
        .parse()
        .context("a resource version")
}
