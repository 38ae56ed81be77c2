//! A change reaches the agents that it concerns, and no other.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lab::{
    Controller, Lab, Operator, Process, Reporter, agent_program, condition_of, start_kube_agent,
    wait_until,
};
use serde_json::{Value, json};

use crate::{
    gate::Gate,
    shop::{group, kube_service, service},
};

const CHANGES: u16 = 104;
/// How long an agent must receive nothing until it counts as idle.
const REST: Duration = Duration::from_secs(3);
const NETWORK: &str = "
networks: [servers]
hosts: {rs1: {links: {eth0: {network: servers, addresses: [10.7.0.21/24]}}}}
";

/// The answers to the renewals of its Lease, and bookmarks, reach every agent.
#[test]
fn an_agent_receives_nothing_of_changes_that_do_not_concern_it() -> Result<()> {
    let site = Site::lay_out()?;
    let before = site.await_rest()?;
    for number in 0..CHANGES {
        site.change(number)?;
        site.lvs1.report_all()?;
        site.rs2.report_all_served()?;
    }
    site.await_last_change()?;
    let received = site.received();
    let strange = received.get(before..).unwrap_or_default();
    assert_eq!(strange, [""; 0], "of {CHANGES} changes");

    // The watches still deliver what concerns it.
    let own = json!({"addresses": ["10.0.0.101"], "ports": [{"port": 81}], "backends": [{"address": "10.7.0.21"}]});
    site.operator.admin.apply(&service("shop/own", &own))?;
    wait_until("the agent to follow", Duration::from_secs(30), || {
        let received = site.received();
        let mut new = received.get(before..).unwrap_or_default().iter();
        let is_own = |event: &String| {
            event.starts_with("MODIFIED ") && event.ends_with("/realserverbindings")
        };
        Ok(new.any(is_own).then_some(()))
    })
}

/// The director `lvs1` has `shop/own`, of which `rs1` is a real server, and `shop/web`, of which it is none and `rs2` is one.
/// The agent of `rs1` runs; the others only report.
struct Site {
    operator: Operator,
    gate: Gate,
    lvs1: Reporter,
    rs2: Reporter,
    _agent: Process,
    _controller: Controller,
    _lab: Lab,
}

impl Site {
    fn lay_out() -> Result<Self> {
        let machines = ["lvs1", "rs1", "rs2"];
        let operator = Operator::install(&machines)?;
        machines.iter().try_for_each(|name| operator.admit(name))?;
        operator.namespace("shop")?;
        let lab = Lab::lay_out(&NETWORK.parse()?)?;
        let host = lab.host("rs1")?;
        let listener = host.in_namespace(|| TcpListener::bind("127.0.0.1:0"))??;
        let direct = operator.machine_kubeconfig("rs1")?;
        let gate = Gate::listen(&operator, direct, listener, 7)?;
        let directory = operator.control_plane.directory();
        let (state, log) = (directory.join("agent-state"), directory.join("agent.log"));
        let program = agent_program()?;
        let agent = start_kube_agent(host, &program, gate.kubeconfig(), &state, &log)?;
        let site = Self {
            lvs1: operator.machine("lvs1")?,
            rs2: operator.machine("rs2")?,
            _controller: operator.lead("one")?,
            _agent: agent,
            _lab: lab,
            operator,
            gate,
        };
        site.rs2.describe(&["10.7.0.22/24"], &[])?;
        let admin = &site.operator.admin;
        admin.apply(&group(&json!({"names": ["lvs1"]})))?;
        admin.apply(&kube_service())?;
        admin.apply(&slice(0))?;
        admin.apply(&service("shop/web", &web(0)))?;
        let own = json!({"addresses": ["10.0.0.101"], "backends": [{"address": "10.7.0.21"}]});
        admin.apply(&service("shop/own", &own))?;
        for (kind, name) in [
            ("DirectorBinding", "shop/web.lvs1"),
            ("DirectorBinding", "shop/own.lvs1"),
            ("RealServerBinding", "shop/web.rs2"),
        ] {
            admin.await_that(kind, name, "made", |object| !object.is_null())?;
        }
        admin.await_that("RealServerBinding", "shop/own.rs1", "ready", |object| {
            condition_of(object, "Ready").as_deref() == Some("True Ready")
        })?;
        Ok(site)
    }

    /// One of the changes of `web`, of its endpoints, of its group, and of virtual services beside it.
    fn change(&self, number: u16) -> Result<()> {
        let admin = &self.operator.admin;
        match number % 4 {
            0 => drop(admin.apply(&slice(number))?),
            1 => drop(admin.apply(&service("shop/web", &web(number)))?),
            2 => {
                let mut edge = group(&json!({"names": ["lvs1"]}));
                if let Some(spec) = edge.get_mut("spec").and_then(Value::as_object_mut) {
                    let timeouts = json!({"tcpSeconds": 900 + u32::from(number)});
                    spec.insert("timeouts".to_owned(), timeouts);
                }
                admin.apply(&edge)?;
            }
            _ if number % 8 == 3 => {
                let beside = json!({"addresses": ["10.0.0.102"], "ports": [{"port": number + 1}]});
                admin.apply(&service("shop/beside", &beside))?;
            }
            _ => admin.delete("VirtualService", "shop/beside")?,
        }
        Ok(())
    }

    /// Waits until the director has the last change of each kind.
    fn await_last_change(&self) -> Result<()> {
        let [endpoints, edit, timeouts] = [4, 3, 2].map(|before| CHANGES - before);
        let admin = &self.operator.admin;
        admin.await_that("DirectorBinding", "shop/web.lvs1", "the last", |object| {
            let text = object.to_string();
            text.contains(&endpoint(endpoints))
                && object.pointer("/spec/ports/0/port") == Some(&json!(8000 + edit))
        })?;
        admin.await_that("LvsNode", "lvs1", "the last timeouts", |object| {
            let found = object.pointer("/spec/groups/0/timeouts/tcpSeconds");
            found == Some(&json!(900 + u32::from(timeouts)))
        })?;
        admin.await_that(
            "DirectorBinding",
            "shop/beside.lvs1",
            "gone",
            Value::is_null,
        )?;
        let bound = admin.get("RealServerBinding", "shop/own.rs1")?;
        ensure!(condition_of(&bound, "Ready").as_deref() == Some("True Ready"));
        self.await_rest().map(drop)
    }

    /// Waits until the agent of `rs1` receives nothing; returns how much it has received.
    fn await_rest(&self) -> Result<usize> {
        let mut last = (usize::MAX, Instant::now());
        wait_until("the agent to rest", Duration::from_secs(60), || {
            let count = self.received().len();
            if count != last.0 {
                last = (count, Instant::now());
            }
            Ok((last.1.elapsed() >= REST).then_some(count))
        })
    }

    /// What the agent of `rs1` has received, without bookmarks and answers to the renewals of its Lease.
    fn received(&self) -> Vec<String> {
        let mut received = self.gate.received();
        received.retain(|what| !what.starts_with("BOOKMARK ") && !what.contains("/leases/"));
        received
    }
}

/// The fields of `web` after a change.
fn web(number: u16) -> Value {
    json!({
        "addresses": ["10.0.0.100"], "forwarding": "NAT", "ports": [{"port": 8000 + number}],
        "backends": [{"service": {"name": "web"}}, {"address": "10.7.0.22"}],
    })
}

/// The endpoints of `web` after a change.
fn slice(number: u16) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"port": 80}],
        "endpoints": [{"addresses": [endpoint(number)], "conditions": {"ready": number.is_multiple_of(8)}}],
    })
}

fn endpoint(number: u16) -> String {
    format!("10.6.0.{}", number + 1)
}
