//! A controller that is killed at any write of a grant or a binding, before or after the API server executes it, is followed by
//! one that finishes the work. Answers are delayed and events repeated. No VIP changes, and none is given twice.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Controller, Operator, Reporter, wait_until};
use serde_json::{Value, json};

use crate::{
    crashes::Vips,
    gate::{Gate, Side},
    shop::is_observed,
};

const TIMEOUT: Duration = Duration::from_secs(60);
/// The real servers, each with its address.
const SERVERS: [(&str, &str); 2] = [("rs1", "10.1.0.11"), ("rs2", "10.1.0.12")];

#[test]
fn a_controller_killed_before_any_write_of_a_grant_or_binding_is_followed_by_one_that_goes_on()
-> Result<()> {
    kill_at_each_write(Side::Before)
}

#[test]
fn a_controller_killed_after_any_write_of_a_grant_or_binding_is_followed_by_one_that_goes_on()
-> Result<()> {
    kill_at_each_write(Side::After)
}

fn kill_at_each_write(side: Side) -> Result<()> {
    let (directors, servers) = (["lvs1", "lvs2"], SERVERS.map(|(name, _)| name));
    let machines = [directors, servers].concat();
    let operator = Operator::install(&machines)?;
    machines.iter().try_for_each(|name| operator.admit(name))?;
    operator.namespace("shop")?;
    let gate = Gate::start(&operator, 7)?;
    let agents = |names: [&str; 2]| {
        let agents = names.iter().map(|name| operator.machine(name));
        agents.collect::<Result<_>>()
    };
    let mut stage = Stage {
        controller: Some(start(&operator, &gate)?),
        directors: agents(directors)?,
        servers: agents(servers)?,
        gate,
        operator,
        vips: Vips::default(),
        kills: Vec::new(),
    };
    for (server, (_, address)) in stage.servers.iter().zip(SERVERS) {
        server.describe(&[&format!("{address}/24")], &[])?;
    }
    for passing in 0.. {
        stage.gate.arm(passing, side);
        let run = stage.play(passing);
        run.with_context(|| stage.account(passing, side))?;
        if stage.gate.disarm() {
            println!("killed {side:?} each of these writes: {:#?}", stage.kills);
            ensure!(stage.kills.len() >= 10, "there must be more writes");
            for kind in ["directorbindings", "realserverbindings"] {
                let mut kills = stage.kills.iter();
                ensure!(
                    kills.any(|write| write.contains(kind)),
                    "no write of {kind}"
                );
            }
            return Ok(());
        }
    }
    Ok(())
}

fn start(operator: &Operator, gate: &Gate) -> Result<Controller> {
    Controller::start(&operator.control_plane, gate.kubeconfig(), "one")
}

/// What the runs have in common.
struct Stage {
    controller: Option<Controller>,
    directors: Vec<Reporter>,
    servers: Vec<Reporter>,
    gate: Gate,
    operator: Operator,
    vips: Vips,
    /// The writes at which the controller was killed.
    kills: Vec<String>,
}

impl Stage {
    /// An allocated and a fixed virtual service are made; the fixed one gets another port and real server; their director
    /// changes; the fixed one is deleted, and another one takes its VIP.
    fn play(&mut self, run: usize) -> Result<()> {
        let group = format!("group-{run}");
        let [auto, fixed, heir] = ["auto", "fixed", "heir"].map(|name| format!("{name}-{run}"));
        self.apply(&pool(run))?;
        self.apply(&director(&group, "lvs1"))?;
        let [(rs1, _), (rs2, other)] = SERVERS;
        self.apply(&service(&auto, &group, 80, &json!({"addressPool": group})))?;
        let vip = json!([format!("10.0.{run}.100")]);
        self.apply(&service(&fixed, &group, 80, &json!({"addresses": vip})))?;
        self.await_bound(&[&auto, &fixed], ["lvs1", rs1], 80)?;

        let edited = json!({"addresses": vip, "backends": [{"address": other}]});
        self.apply(&service(&fixed, &group, 81, &edited))?;
        self.await_bound(&[&fixed], ["lvs1", rs2], 81)?;
        self.apply(&director(&group, "lvs2"))?;
        self.await_bound(&[&auto], ["lvs2", rs1], 80)?;
        self.await_bound(&[&fixed], ["lvs2", rs2], 81)?;

        self.operator
            .admin
            .delete("VirtualService", &format!("shop/{fixed}"))?;
        self.apply(&service(&heir, &group, 81, &json!({"addresses": vip})))?;
        self.await_bound(&[&heir], ["lvs2", rs1], 81)?;
        wait_until(&format!("the end of {fixed}"), TIMEOUT, || {
            self.go_on()?;
            Ok(self.bound(&fixed)?.is_empty().then_some(()))
        })
    }

    fn apply(&self, object: &Value) -> Result<()> {
        self.operator.admin.apply(object).map(drop)
    }

    /// Waits until virtual services are ready, with one binding each, on that director, and one RealServerBinding on that real
    /// server.
    fn await_bound(&mut self, names: &[&str], machines: [&str; 2], port: u16) -> Result<()> {
        let what = format!("{names:?} on {machines:?}");
        let expected = machines.map(|machine| (machine.to_owned(), port));
        wait_until(&what, TIMEOUT, || {
            self.go_on()?;
            for name in names {
                let object = format!("shop/{name}");
                let object = self.operator.admin.get("VirtualService", &object)?;
                let is_ready = lab::condition_of(&object, "Ready").as_deref() == Some("True Ready");
                if !is_ready || !is_observed(&object) || self.bound(name)? != expected {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
    }

    /// The machines with a binding of a virtual service, each with the first port: the directors, then the real servers.
    fn bound(&self, name: &str) -> Result<Vec<(String, u16)>> {
        let mut found = Vec::new();
        for kind in ["DirectorBinding", "RealServerBinding"] {
            let bindings = self.operator.admin.list(kind, "")?;
            let own = bindings
                .iter()
                .filter(|binding| binding.pointer("/spec/virtualService") == Some(&json!(name)));
            found.extend(own.map(|binding| {
                let node = binding.pointer("/spec/node").and_then(Value::as_str);
                let port = binding
                    .pointer("/spec/ports/0/port")
                    .and_then(Value::as_u64);
                let port = port.and_then(|port| u16::try_from(port).ok());
                (
                    node.unwrap_or_default().to_owned(),
                    port.unwrap_or_default(),
                )
            }));
        }
        Ok(found)
    }

    /// The directors report their addresses, and that they have seen their LvsNodes.
    fn describe_directors(&self) -> Result<()> {
        for (director, last) in self.directors.iter().zip(1..) {
            director.describe(&[&format!("10.1.0.{last}/24")], &[])?;
        }
        Ok(())
    }

    /// Kills a controller whose write is held, and starts another. The agents report meanwhile.
    fn go_on(&mut self) -> Result<()> {
        if let Some(write) = self.gate.reached() {
            self.kills.push(write);
            if let Some(mut controller) = self.controller.take() {
                controller.kill()?;
            }
            self.controller = Some(start(&self.operator, &self.gate)?);
        }
        self.describe_directors()?;
        for director in &self.directors {
            director.report_all()?;
        }
        for server in &self.servers {
            server.report_all_served()?;
        }
        self.vips.look(&self.operator)
    }

    /// What happened so far, for a failure.
    fn account(&self, passing: usize, side: Side) -> String {
        let log = self.controller.as_ref().map(Controller::log);
        let log = log.and_then(Result::ok).unwrap_or_default();
        let kill = self.kills.last();
        format!("killed {side:?} write {passing}: {kill:?}; the log:\n{log}")
    }
}

fn pool(run: usize) -> Value {
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": format!("group-{run}")},
        "spec": {"addresses": [format!("198.51.100.{}", run + 1)]},
    })
}

fn director(group: &str, node: &str) -> Value {
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "DirectorGroup",
        "metadata": {"name": group},
        "spec": {"nodes": {"names": [node]}, "realServers": {"cidrs": ["10.0.0.0/8"]}},
    })
}

fn service(name: &str, group: &str, port: u16, changes: &Value) -> Value {
    let mut spec = json!({
        "directorGroup": group, "ports": [{"port": port}],
        "backends": [{"address": SERVERS[0].1}],
    });
    if let (Some(fields), Some(changes)) = (spec.as_object_mut(), changes.as_object()) {
        fields.extend(changes.clone());
    }
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "VirtualService",
        "metadata": {"namespace": "shop", "name": name},
        "spec": spec,
    })
}
