//! The objects that several tests start with.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::Operator;
use serde_json::{Value, json};

/// An operator with the machine `lvs1` as the director of the group `default`, and the namespace `shop`.
pub(crate) fn directed() -> Result<Operator> {
    let operator = Operator::install(&["lvs1"])?;
    operator.admit("lvs1")?;
    operator.namespace("shop")?;
    operator.admin.apply(&json!({
        "apiVersion": "lvs-operator.io/v1alpha1",
        "kind": "DirectorGroup",
        "metadata": {"name": "default"},
        "spec": {"nodes": {"names": ["lvs1"]}, "realServers": {"cidrs": ["0.0.0.0/0", "::/0"]}},
    }))?;
    Ok(operator)
}

/// A DR service of the group `edge` with the endpoints of a Service; `changes` replace its fields.
pub(crate) fn service(name: &str, changes: &Value) -> Value {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let mut spec = json!({
        "directorGroup": "edge",
        "addresses": ["10.0.0.100"],
        "ports": [{"port": 80}],
        "backends": [{"service": {"name": "web"}}],
    });
    if let (Some(fields), Some(changes)) = (spec.as_object_mut(), changes.as_object()) {
        fields.extend(changes.clone());
    }
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1",
        "kind": "VirtualService",
        "metadata": {"namespace": namespace, "name": name},
        "spec": spec,
    })
}

/// The Service of that name.
pub(crate) fn kube_service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"ports": [{"port": 80}]},
    })
}

/// An operator with the machines `lvs1` and `rs1`, and the namespace `shop`.
pub(crate) fn started() -> Result<Operator> {
    let operator = Operator::install(&["lvs1", "rs1"])?;
    operator.admit("lvs1")?;
    operator.admit("rs1")?;
    operator.namespace("shop")?;
    Ok(operator)
}

/// The group `edge` of these nodes.
pub(crate) fn group(nodes: &Value) -> Value {
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1",
        "kind": "DirectorGroup",
        "metadata": {"name": "edge"},
        "spec": {"nodes": nodes, "realServers": {"cidrs": ["0.0.0.0/0", "::/0"]}},
    })
}

/// Returns whether the status is about the current generation.
pub(crate) fn is_observed(object: &Value) -> bool {
    let observed = object.pointer("/status/observedGeneration");
    observed.is_some() && observed == object.pointer("/metadata/generation")
}

/// Prints the time since an instant, and fails if it is too long.
pub(crate) fn within(what: &str, since: Instant, limit: Duration) -> Result<()> {
    let taken = since.elapsed();
    println!("{what}: {:.1} s", taken.as_secs_f64());
    ensure!(taken < limit, "{what}: {taken:?} is too long");
    Ok(())
}
