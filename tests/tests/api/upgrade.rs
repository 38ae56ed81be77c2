//! Upgrades of the chart: from the one before with objects present, with definitions that were forgotten, and a first start from values.

use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Controller, Objects, Operator, wait_until};
use serde_json::{Value, json};

use crate::shop::is_observed;

/// The chart before the API revision.
const BEFORE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/chart/before/lvs-operator-0.1.0.tgz"
);
const DEFINITIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../dist/crds.yaml");
const TIMEOUT: Duration = Duration::from_secs(30);

/// The objects of a user and of the controller under the chart before, in the form of then.
fn objects_before() -> Vec<Value> {
    let api = "lvs-operator.io/v1alpha1";
    let spec = json!({
        "directorGroup": "edge", "addresses": ["10.0.0.100"], "ports": [{"port": 80}],
        "backends": {"endpoints": [{"address": "10.0.0.11"}]},
    });
    vec![
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}),
        json!({
            "apiVersion": api, "kind": "DirectorGroup", "metadata": {"name": "edge"},
            "spec": {"nodes": {"names": ["n1"]}},
        }),
        json!({
            "apiVersion": api, "kind": "LvsNode", "metadata": {"name": "n1"},
            "spec": {"groups": [{"name": "edge"}]},
        }),
        json!({
            "apiVersion": api, "kind": "VirtualService",
            "metadata": {"namespace": "shop", "name": "web"}, "spec": spec,
        }),
        json!({
            "apiVersion": api, "kind": "DirectorBinding",
            "metadata": {
                "namespace": "shop", "name": "web.n1", "labels": {"lvs-operator.io/node": "n1"},
            },
            "spec": {"node": "n1", "virtualService": "web", "generation": 1, "service": spec},
        }),
    ]
}

/// The chart before, with its objects, and the machine `rs1` outside the cluster.
fn installed_before() -> Result<Operator> {
    let operator = Operator::install_from(BEFORE.as_ref(), &["rs1"])?;
    for kind in [
        "VirtualService",
        "DirectorGroup",
        "DirectorBinding",
        "LvsNode",
    ] {
        wait_until(&format!("{kind} to be served"), TIMEOUT, || {
            Ok(operator.admin.list(kind, "").ok().map(drop))
        })?;
    }
    operator.namespace("shop")?;
    for object in objects_before() {
        operator.admin.apply(&object)?;
    }
    operator.admit("rs1")?;
    Ok(operator)
}

/// The uids of the objects that an upgrade must keep.
fn uids(admin: &Objects) -> Result<Vec<Value>> {
    let kept = [
        ("VirtualService", "shop/web"),
        ("DirectorGroup", "edge"),
        ("DirectorBinding", "shop/web.n1"),
        ("LvsNode", "n1"),
        ("LvsNode", "rs1"),
    ];
    let uid = |(kind, name): (&str, &str)| {
        let object = admin.get(kind, name)?;
        let uid = object.pointer("/metadata/uid").cloned();
        uid.with_context(|| format!("{kind} {name} has no uid"))
    };
    kept.into_iter().map(uid).collect()
}

fn await_log(controller: &Controller, text: &str) -> Result<()> {
    wait_until(&format!("the controller to log: {text}"), TIMEOUT, || {
        Ok(controller.log()?.contains(text).then_some(()))
    })
}

#[test]
fn an_upgrade_of_the_chart_keeps_every_object_and_the_agents_of_directors() -> Result<()> {
    let operator = installed_before()?;
    let admin = &operator.admin;
    let before = uids(admin)?;

    // Agents ran on every node. One that directs would lose its agent, which needs a label from here on.
    let refusal = operator.upgrade(&[]).err().context("it was upgraded")?;
    let refusal = format!("{refusal:#}");
    let remedy =
        "Run `kubectl label node n1 lvs-operator.io/agent=true` first, or set agent.nodes=all";
    assert!(refusal.contains(remedy), "{refusal}");
    let kubectl = |arguments: &[&str]| operator.control_plane.kubectl(arguments);
    kubectl(&["label", "node", "n1", "lvs-operator.io/agent=true"])?;
    operator.upgrade(&[])?;
    operator.await_kinds()?;

    assert_eq!(uids(admin)?, before, "an object was made anew");
    let label = "app.kubernetes.io/part-of=lvs-operator";
    let roles = kubectl(&["get", "clusterroles", "-l", label, "-o", "name"])?;
    assert!(roles.contains("/lvs-operator-machine\n"), "{roles}");
    assert!(
        !roles.contains("rs1"),
        "a machine still has its own role: {roles}"
    );
    let machine = operator.machine("rs1")?.objects;
    let status = json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "LvsNode",
        "metadata": {"name": "rs1"}, "status": {"observedGeneration": 1},
    });
    wait_until("the machine's new role", TIMEOUT, || {
        Ok(machine.apply_status("lvs-agent", &status).ok())
    })?;

    // The controller takes over; the user's object in today's form is served by the binding that was there. A list cannot be
    // applied over a map on the server's side, so the object is changed as `kubectl apply` changes it.
    let _controller = operator.lead("one")?;
    admin.apply(&json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": "edge"},
        "spec": {"addresses": ["10.0.0.100-10.0.0.110"]},
    }))?;
    let permission = json!({"spec": {"realServers": {"cidrs": ["10.0.0.0/24"]}}});
    admin.merge("DirectorGroup", "edge", &permission)?;
    let backends = json!([{"address": "10.0.0.11"}, {"address": "10.0.0.12"}]);
    let spec = json!({"spec": {"backends": backends}});
    admin.merge("VirtualService", "shop/web", &spec)?;
    admin.await_that("VirtualService", "shop/web", "reconciled", is_observed)?;
    let generation = admin.get("VirtualService", "shop/web")?["metadata"]["generation"].clone();
    admin.await_that("DirectorBinding", "shop/web.n1", "current", |object| {
        object.pointer("/spec/generation") == Some(&generation)
    })?;
    assert_eq!(uids(admin)?, before, "an object was made anew");
    Ok(())
}

#[test]
fn a_controller_waits_for_its_definitions_and_names_the_command_that_brings_them() -> Result<()> {
    let operator = installed_before()?;
    let before = uids(&operator.admin)?;
    let unread = operator.start_controller("without-the-right")?;
    await_log(
        &unread,
        "this account has no right to get it; upgrade the whole chart",
    )?;
    drop(unread);

    // The programs and roles are upgraded, the definitions are not.
    operator.upgrade(&["crds.enabled=false", "agent.nodes=all"])?;
    let controller = operator.start_controller("one")?;
    await_log(&controller, "has API revision 0, and this program needs")?;
    await_log(
        &controller,
        "kubectl apply --server-side --force-conflicts -f dist/crds.yaml",
    )?;
    assert_eq!(operator.leader()?, None);
    assert_eq!(uids(&operator.admin)?, before);

    let apply = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "-f",
        DEFINITIONS,
    ];
    operator.control_plane.kubectl(&apply)?;
    operator.await_leader("one", TIMEOUT)?;
    assert_eq!(uids(&operator.admin)?, before);
    Ok(())
}

#[test]
fn groups_of_the_values_are_made_at_the_first_start_and_never_changed_by_the_release() -> Result<()>
{
    let operator = Operator::install_with(json!({
        "directorGroups": [{"name": "edge", "nodes": {"names": ["lvs1"]}}],
    }))?;
    let first = operator.admin.get("DirectorGroup", "edge")?;
    assert_eq!(first.pointer("/spec/nodes/names"), Some(&json!(["lvs1"])));

    let values = [
        "directorGroups[0].name=edge",
        "directorGroups[0].nodes.names={lvs2}",
    ];
    let notes = operator.upgrade(&values)?;
    let note = "These objects exist, and are left as they are whatever the values say: directorgroup/edge.";
    assert!(notes.contains(note), "{notes}");
    operator.upgrade(&["directorGroups=null"])?;
    operator.uninstall()?;
    assert_eq!(operator.admin.get("DirectorGroup", "edge")?, first);
    Ok(())
}
