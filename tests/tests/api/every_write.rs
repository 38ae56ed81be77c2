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
    let machines = ["lvs1", "lvs2"];
    let operator = Operator::install(&machines)?;
    machines.iter().try_for_each(|name| operator.admit(name))?;
    operator.namespace("shop")?;
    let gate = Gate::start(&operator, 7)?;
    let agents = machines.map(|name| operator.machine(name));
    let mut stage = Stage {
        controller: Some(start(&operator, &gate)?),
        agents: agents.into_iter().collect::<Result<_>>()?,
        gate,
        operator,
        vips: Vips::default(),
        kills: Vec::new(),
    };
    for passing in 0.. {
        stage.gate.arm(passing, side);
        let run = stage.play(passing);
        run.with_context(|| stage.account(passing, side))?;
        if stage.gate.disarm() {
            println!("killed {side:?} each of these writes: {:#?}", stage.kills);
            ensure!(stage.kills.len() >= 10, "there must be more writes");
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
    agents: Vec<Reporter>,
    gate: Gate,
    operator: Operator,
    vips: Vips,
    /// The writes at which the controller was killed.
    kills: Vec<String>,
}

impl Stage {
    /// An allocated and a fixed virtual service are made and edited; their director changes; one of them is deleted, and
    /// another one takes its VIP.
    fn play(&mut self, run: usize) -> Result<()> {
        let group = format!("group-{run}");
        let [auto, fixed, heir] = ["auto", "fixed", "heir"].map(|name| format!("{name}-{run}"));
        self.apply(&pool(run))?;
        self.apply(&director(&group, "lvs1"))?;
        self.apply(&service(&auto, &group, 80, &json!({"addressPool": group})))?;
        let vip = format!("10.0.{run}.100");
        self.apply(&service(&fixed, &group, 80, &json!({"addresses": [vip]})))?;
        self.await_bound(&[&auto, &fixed], "lvs1", 80)?;

        self.apply(&service(&fixed, &group, 81, &json!({"addresses": [vip]})))?;
        self.await_bound(&[&fixed], "lvs1", 81)?;
        self.apply(&director(&group, "lvs2"))?;
        self.await_bound(&[&auto], "lvs2", 80)?;
        self.await_bound(&[&fixed], "lvs2", 81)?;

        self.operator
            .admin
            .delete("VirtualService", &format!("shop/{fixed}"))?;
        self.apply(&service(&heir, &group, 81, &json!({"addresses": [vip]})))?;
        self.await_bound(&[&heir], "lvs2", 81)
    }

    fn apply(&self, object: &Value) -> Result<()> {
        self.operator.admin.apply(object).map(drop)
    }

    /// Waits until virtual services are ready, with one binding each, on that director. Agents report meanwhile, and a controller
    /// whose write is held is killed and started again.
    fn await_bound(&mut self, names: &[&str], director: &str, port: u16) -> Result<()> {
        wait_until(&format!("{names:?} on {director}"), TIMEOUT, || {
            if let Some(write) = self.gate.reached() {
                self.kills.push(write);
                if let Some(mut controller) = self.controller.take() {
                    controller.kill()?;
                }
                self.controller = Some(start(&self.operator, &self.gate)?);
            }
            for agent in &self.agents {
                agent.report_all()?;
            }
            self.vips.look(&self.operator)?;
            let bindings = self.operator.admin.list("DirectorBinding", "")?;
            for name in names {
                let object = format!("shop/{name}");
                let object = self.operator.admin.get("VirtualService", &object)?;
                let ready = lab::condition_of(&object, "Ready");
                let own = bindings.iter().filter(|binding| {
                    binding.pointer("/spec/virtualService") == Some(&json!(name))
                });
                let own: Vec<[Option<&Value>; 2]> = own
                    .map(|own| ["/spec/node", "/spec/ports/0/port"].map(|field| own.pointer(field)))
                    .collect();
                let expected = [[Some(&json!(director)), Some(&json!(port))]];
                let is_there = own == expected && is_observed(&object);
                if !is_there || ready.as_deref() != Some("True Ready") {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
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
        "directorGroup": group, "ports": [{"port": port}], "forwarding": "NAT",
        "backends": [{"address": "10.1.0.11"}],
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
