//! A controller that is killed again and again leaves the same objects as one that starts afterwards and reads them all. No
//! VIP changes or is given twice meanwhile.

#![expect(clippy::indexing_slicing, reason = "the helpers of a test may fail it")]

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use lab::{Operator, Reporter, wait_until};
use serde_json::{Value, json};

use crate::shop::is_observed;

/// How many changes the users make.
const CHANGES: usize = 200;
/// How long nothing must change until the controller counts as idle.
const REST: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(90);

#[test]
fn random_kills_leave_the_objects_of_a_fresh_controller() -> Result<()> {
    let seed = seed()?;
    println!("LAB_SEED={seed}");
    let operator = started()?;
    let agents = Agents::new(&operator)?;
    let started = Instant::now();
    let mut users = Users::new(Rng::with_seed(seed));
    let mut vips = Vips::default();
    let is_over = AtomicBool::new(false);
    let kills = thread::scope(|scope| -> Result<usize> {
        let killer = scope.spawn(|| kill_at_random(&operator, seed, &is_over));
        let changed = (0..CHANGES).try_for_each(|_| {
            users.change(&operator)?;
            // The number of kills between two changes is random.
            thread::sleep(Duration::from_millis(users.random.u64(0..120)));
            if users.random.bool() {
                agents.act(&operator)?;
            }
            vips.look(&operator)
        });
        is_over.store(true, Ordering::Relaxed);
        let kills = killer
            .join()
            .map_err(|_panic| anyhow::anyhow!("the killer panicked"))?;
        changed.and(kills)
    })?;
    println!(
        "{CHANGES} changes, {kills} kills, {:.0} s",
        started.elapsed().as_secs_f64()
    );
    assert!(kills >= 5, "only {kills} kills");

    users.make_valid(&operator)?;
    let mut last = operator.lead("one")?;
    let found = rest(&operator, &agents)?;
    vips.look(&operator)?;
    println!("{} VIPs were allocated, and none changed", vips.0.len());
    last.stop()?;
    let fresh = operator.lead("fresh")?;
    await_pass(&operator)?;
    let now = rest(&operator, &agents)?;
    vips.look(&operator)?;
    if now != found {
        let (last, fresh) = (last.log()?, fresh.log()?);
        panic!(
            "a fresh controller writes something else: {}\nthe log of the last killed controller:\n{last}\nthe log of the fresh one:\n{fresh}",
            differences(&found, &now)
        );
    }
    let count = |kind: &str| found[kind].as_object().map_or(0, serde_json::Map::len);
    println!(
        "the same {} bindings, {} LvsNodes and {} statuses",
        count("DirectorBinding"),
        count("LvsNode"),
        count("VirtualService")
    );
    Ok(())
}

fn seed() -> Result<u64> {
    match std::env::var("LAB_SEED") {
        Ok(seed) => seed.parse().context("LAB_SEED is not a number"),
        Err(_) => Ok(fastrand::u64(..)),
    }
}

/// Starts a controller and kills it after a random time, again and again. All have the same name, like the restarted
/// container of a pod, so that none waits for the lease of the one before.
fn kill_at_random(operator: &Operator, seed: u64, is_over: &AtomicBool) -> Result<usize> {
    let mut random = Rng::with_seed(!seed);
    let mut kills = 0;
    while !is_over.load(Ordering::Relaxed) {
        let mut controller = operator.start_controller("one")?;
        thread::sleep(Duration::from_millis(random.u64(150..1500)));
        controller.kill()?;
        kills += 1;
    }
    Ok(kills)
}

/// The changes of users and administrators.
struct Users {
    random: Rng,
    /// The existing virtual services, and whether the spec of each is valid.
    services: BTreeMap<String, bool>,
}

impl Users {
    fn new(random: Rng) -> Self {
        Self {
            random,
            services: BTreeMap::new(),
        }
    }

    fn change(&mut self, operator: &Operator) -> Result<()> {
        let admin = &operator.admin;
        let exists = self.random.u8(0..3) > 0;
        match self.random.u8(0..14) {
            0..=4 => self.apply_service(operator),
            5 => {
                let names: Vec<String> = self.services.keys().cloned().collect();
                let Some(name) = self.random.choice(names) else {
                    return Ok(());
                };
                self.services.remove(&name);
                admin.delete("VirtualService", &name)
            }
            6 | 7 => {
                let service = self.one_of(&["s1", "s2"]);
                let name = format!("{service}-{}", self.random.u8(0..2));
                if exists {
                    let slice = self.slice(service, &name);
                    admin.apply(&slice).map(drop)
                } else {
                    admin.delete("EndpointSlice", &format!("shop/{name}"))
                }
            }
            8 => {
                let name = self.one_of(&["s1", "s2"]);
                if exists {
                    admin.apply(&kube_service(name)).map(drop)
                } else {
                    admin.delete("Service", &format!("shop/{name}"))
                }
            }
            9 => {
                let group = self.one_of(&["edge", "inner"]);
                if exists {
                    let nodes = self.nodes();
                    admin.apply(&mk_group(group, &nodes)).map(drop)
                } else {
                    admin.delete("DirectorGroup", group)
                }
            }
            10 => {
                if exists {
                    admin.apply(&mk_node()).map(drop)
                } else {
                    admin.delete("Node", "n1")
                }
            }
            _ => {
                let name = self.one_of(&["auto/a", "auto/b", "auto/c", "auto/d"]);
                if exists {
                    let is_valid = self.random.u8(0..4) > 0;
                    let backends = self.endpoints(is_valid);
                    let spec = json!({"directorGroup": "edge", "backends": backends});
                    self.services.insert(name.to_owned(), is_valid);
                    admin.apply(&mk_service(name, &spec)).map(drop)
                } else {
                    self.services.remove(name);
                    admin.delete("VirtualService", name)
                }
            }
        }
    }

    /// Creates or edits a virtual service; one edit in ten is invalid.
    fn apply_service(&mut self, operator: &Operator) -> Result<()> {
        let name = format!("shop/{}", self.one_of(&["a", "b", "c", "d", "e"]));
        let is_valid = self.random.u8(0..10) > 0;
        let mut backends = self.endpoints(is_valid);
        if self.random.bool() {
            backends.push(json!({"service": {"name": self.one_of(&["s1", "s2"])}}));
        }
        let spec = json!({
            "directorGroup": self.one_of(&["edge", "inner"]),
            "addresses": [self.one_of(&["10.0.0.100", "10.0.0.101", "10.0.0.102"])],
            "ports": [{"port": self.random.u16(80..82)}],
            "forwarding": self.one_of(&["DR", "NAT"]),
            "backends": backends,
        });
        operator.admin.apply(&mk_service(&name, &spec))?;
        self.services.insert(name, is_valid);
        Ok(())
    }

    /// Makes all specs and groups valid, and all machines known. A service keeps its last good version after an invalid edit
    /// or without its group, and a fresh controller reads that version from the binding only.
    fn make_valid(&mut self, operator: &Operator) -> Result<()> {
        operator.admin.apply(&mk_node())?;
        for group in ["edge", "inner"] {
            let nodes = self.nodes();
            operator.admin.apply(&mk_group(group, &nodes))?;
            operator.admin.apply(&mk_pool())?;
        }
        let invalid = self.services.iter().filter(|(_, is_valid)| !**is_valid);
        for (name, _) in invalid {
            let mut spec = json!({"directorGroup": "edge"});
            if name.starts_with("shop/") {
                spec["addresses"] = json!(["10.0.0.103"]);
            }
            operator.admin.apply(&mk_service(name, &spec))?;
        }
        Ok(())
    }

    /// Returns real servers; if they are to be invalid, one is listed twice.
    fn endpoints(&mut self, is_valid: bool) -> Vec<Value> {
        if !is_valid {
            return vec![json!({"address": "10.0.0.14"}); 2];
        }
        ["10.0.0.11", "10.0.0.12", "10.0.0.13"]
            .iter()
            .filter(|_| self.random.bool())
            .map(|address| json!({"address": address}))
            .collect()
    }

    fn one_of(&mut self, all: &[&'static str]) -> &'static str {
        all[self.random.usize(0..all.len())]
    }

    fn nodes(&mut self) -> Value {
        match self.random.u8(0..4) {
            0 => json!({"names": ["lvs1"]}),
            1 => json!({"names": ["lvs2"]}),
            2 => json!({"names": ["lvs1", "lvs2"]}),
            _ => json!({"selector": {"matchLabels": {"edge": "yes"}}}),
        }
    }

    fn slice(&mut self, service: &str, name: &str) -> Value {
        let mut endpoints = Vec::new();
        for last in 21..25 {
            let (is_there, ready) = (self.random.bool(), self.random.bool());
            if is_there {
                let conditions = json!({"ready": ready, "serving": true, "terminating": !ready});
                let address = format!("10.0.0.{last}");
                endpoints.push(json!({"addresses": [address], "conditions": conditions}));
            }
        }
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": "shop", "name": name,
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": "IPv4",
            "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}],
            "endpoints": endpoints,
        })
    }
}

/// The addresses that were allocated, by the uids of the virtual services.
#[derive(Default)]
pub(crate) struct Vips(BTreeMap<String, String>);

/// Fails if the directors of two virtual services are given one VIP with one port.
fn look_at_bindings(operator: &Operator) -> Result<()> {
    let mut given = BTreeMap::new();
    for binding in operator.admin.list("DirectorBinding", "")? {
        let (namespace, spec) = (&binding["metadata"]["namespace"], &binding["spec"]);
        let service = format!("{namespace}/{}", spec["virtualService"]);
        for address in spec["addresses"].as_array().into_iter().flatten() {
            for port in spec["ports"].as_array().into_iter().flatten() {
                let key = format!("{address} {} {}", port["port"], port["protocol"]);
                let other = given.entry(key.clone()).or_insert_with(|| service.clone());
                ensure!(*other == service, "{key} is given to {other} and {service}");
            }
        }
    }
    Ok(())
}

impl Vips {
    /// Fails if a virtual service has another address than before, or two have the same.
    pub(crate) fn look(&mut self, operator: &Operator) -> Result<()> {
        look_at_bindings(operator)?;
        for object in operator.admin.list("VirtualService", "")? {
            let Some(now) = allocated(&object) else {
                continue;
            };
            let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
            let before = self.0.entry(uid.to_owned()).or_insert_with(|| now.clone());
            ensure!(
                *before == now,
                "{} had {before}: {object:#}",
                name_of(&object)
            );
        }
        Ok(())
    }
}

/// Returns the allocated address of a virtual service.
fn allocated(object: &Value) -> Option<String> {
    if object["spec"]["addresses"]
        .as_array()
        .is_some_and(|named| !named.is_empty())
    {
        return None;
    }
    object["status"]["addresses"][0].as_str().map(str::to_owned)
}

/// The agents of all machines.
struct Agents {
    machines: Vec<Reporter>,
    rs1: Reporter,
    /// The agent of a node of the cluster, with the uid of the node.
    n1: RefCell<Option<(Value, Reporter)>>,
}

impl Agents {
    fn new(operator: &Operator) -> Result<Self> {
        let machines = ["lvs1", "lvs2"].map(|machine| operator.machine(machine));
        Ok(Self {
            machines: machines.into_iter().collect::<Result<_>>()?,
            rs1: operator.machine("rs1")?,
            n1: RefCell::new(None),
        })
    }

    /// Each agent writes its statuses once.
    fn act(&self, operator: &Operator) -> Result<()> {
        for (machine, last) in self.machines.iter().zip(1..) {
            machine.describe(&[&format!("10.0.0.{last}/24")], &[])?;
            machine.report_all()?;
        }
        self.rs1.describe(&["10.0.0.11/24"], &[])?;
        let Some(node) = operator.admin.find("Node", "n1")? else {
            return Ok(());
        };
        // Its token is bound to its Node.
        let uid = node["metadata"]["uid"].clone();
        let mut known = self.n1.borrow_mut();
        if known.as_ref().is_none_or(|(known, _)| *known != uid) {
            *known = Some((uid, operator.agent("n1")?));
        }
        if let Some((_, node)) = known.as_ref() {
            node.report_all()?;
            if operator.admin.find("LvsNode", "n1")?.is_some() {
                // The controller may have deleted the LvsNode in the meantime, because the Node is a new one.
                node.describe(&["10.0.0.12/24"], &[]).ok();
            }
        }
        Ok(())
    }
}

fn started() -> Result<Operator> {
    let machines = ["lvs1", "lvs2", "rs1"];
    let operator = Operator::install(&machines)?;
    for machine in machines {
        operator.admit(machine)?;
    }
    for namespace in ["shop", "auto"] {
        operator.namespace(namespace)?;
    }
    Ok(operator)
}

/// Waits until nothing changes any more, and returns the snapshot.
fn rest(operator: &Operator, agents: &Agents) -> Result<Value> {
    let mut last = (Value::Null, Instant::now());
    wait_until("the controller to be idle", TIMEOUT, || {
        agents.act(operator)?;
        let now = snapshot(operator)?;
        if now != last.0 {
            last = (now, Instant::now());
        }
        Ok((last.1.elapsed() > REST).then(|| last.0.clone()))
    })
}

/// Waits until the controller has reconciled all that was there: something new comes after it.
fn await_pass(operator: &Operator) -> Result<()> {
    let admin = &operator.admin;
    let spec =
        json!({"directorGroup": "edge", "addresses": ["10.0.0.104"], "ports": [{"port": 1}]});
    admin.apply(&mk_service("shop/last", &spec))?;
    admin.await_that("VirtualService", "shop/last", "reconciled", is_observed)?;
    admin.delete("VirtualService", "shop/last")
}

/// Returns what the controller has written, without the names and times that the API server assigns.
fn snapshot(operator: &Operator) -> Result<Value> {
    let all = |kind: &str, part: fn(&Value) -> Value| -> Result<Value> {
        let objects = operator.admin.list(kind, "")?;
        let parts = objects.iter().map(|object| (name_of(object), part(object)));
        Ok(Value::Object(parts.collect()))
    };
    let owners = |object: &Value| -> Value {
        let owners = object["metadata"]["ownerReferences"].as_array();
        owners
            .into_iter()
            .flatten()
            .map(|owner| owner["uid"].clone())
            .collect()
    };
    Ok(json!({
        "DirectorBinding": all("DirectorBinding", written)?,
        "RealServerBinding": all("RealServerBinding", written)?,
        "LvsNode": all("LvsNode", node_spec)?,
        "VirtualService": all("VirtualService", timeless)?,
        "DirectorGroup": all("DirectorGroup", timeless)?,
        "owners": [
            operator.admin.list("DirectorBinding", "")?.iter().map(owners).collect::<Vec<_>>(),
            operator.admin.list("RealServerBinding", "")?.iter().map(owners).collect::<Vec<_>>(),
            operator.admin.list("LvsNode", "")?.iter().map(owners).collect::<Vec<_>>(),
        ],
    }))
}

/// Returns what the controller has written to a binding.
fn written(object: &Value) -> Value {
    json!({"spec": object["spec"], "labels": object["metadata"]["labels"]})
}

/// Returns the spec of an LvsNode without empty lists.
fn node_spec(object: &Value) -> Value {
    let spec: Option<lvs_crd::LvsNodeSpec> = serde_json::from_value(object["spec"].clone()).ok();
    json!(spec)
}

/// Returns a status without the times of its conditions.
fn timeless(object: &Value) -> Value {
    let mut status = object["status"].clone();
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        condition["lastTransitionTime"] = Value::Null;
    }
    status
}

/// Returns the objects that differ between two snapshots.
fn differences(one: &Value, other: &Value) -> String {
    let mut texts = Vec::new();
    for kind in [
        "DirectorBinding",
        "RealServerBinding",
        "LvsNode",
        "VirtualService",
        "DirectorGroup",
    ] {
        let (one, other) = (&one[kind], &other[kind]);
        let names = one.as_object().into_iter().chain(other.as_object());
        let mut names: Vec<&String> = names.flat_map(|map| map.keys()).collect();
        names.sort();
        names.dedup();
        let different = names.into_iter().filter(|name| one[*name] != other[*name]);
        texts.extend(different.map(|name| {
            format!(
                "\n{kind} {name} was\n{}\nand with a fresh controller\n{}",
                one[name], other[name]
            )
        }));
    }
    texts.concat()
}

fn name_of(object: &Value) -> String {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    match metadata["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

/// A virtual service with one port and the fields of `changes`.
fn mk_service(name: &str, changes: &Value) -> Value {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let mut spec = json!({"ports": [{"port": 80}]});
    if let (Some(fields), Some(changes)) = (spec.as_object_mut(), changes.as_object()) {
        fields.extend(changes.clone());
    }
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "VirtualService",
        "metadata": {"namespace": namespace, "name": name},
        "spec": spec,
    })
}

/// A pool with fewer addresses than the virtual services may need.
fn mk_pool() -> Value {
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": "auto"},
        "spec": {"addresses": ["10.9.0.1-10.9.0.3"], "namespaces": {"names": ["auto"]}},
    })
}

fn mk_group(name: &str, nodes: &Value) -> Value {
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "DirectorGroup",
        "metadata": {"name": name},
        "spec": {
            "nodes": nodes,
            "realServers": {"cidrs": ["0.0.0.0/0", "::/0"]},
        },
    })
}

fn mk_node() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "n1", "labels": {"edge": "yes"}},
    })
}

fn kube_service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]},
    })
}
