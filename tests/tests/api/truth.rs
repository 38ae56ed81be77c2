//! A status that is true: refusals of the API server are conditions, and many machines fit into one status.

use std::time::Duration;

use anyhow::Result;
use lab::{Operator, condition_of, message_of, programmed, wait_until};
use serde_json::json;

use crate::shop::{directed, group, service, started};

const WEB: &str = "shop/web";
const BINDING: &str = "shop/web.lvs1";

#[test]
fn a_quota_that_refuses_a_binding_is_a_condition_of_its_service() -> Result<()> {
    let operator = directed()?;
    let admin = &operator.admin;
    let quota = forbid(&operator, "directorbindings")?;
    let _controller = operator.lead("one")?;
    admin.apply(&json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "VirtualService",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"addresses": ["10.0.0.100"], "ports": [{"port": 80}]},
    }))?;
    let reason = "exceeded quota: no-directorbindings";
    await_refusal(&operator, "DirectorBinding shop/web.lvs1", reason)?;

    admin.delete("ResourceQuota", &quota)?;
    admin.await_that("DirectorBinding", BINDING, "made", |object| {
        !object.is_null()
    })?;
    operator.machine("lvs1")?.report(BINDING, &programmed())?;
    await_ready(&operator)
}

#[test]
fn a_quota_that_refuses_a_real_server_binding_is_a_condition_of_its_service() -> Result<()> {
    let operator = started()?;
    let admin = &operator.admin;
    let quota = forbid(&operator, "realserverbindings")?;
    let _controller = operator.lead("one")?;
    let (lvs1, rs1) = (operator.machine("lvs1")?, operator.machine("rs1")?);
    rs1.describe(&["10.0.0.11/24"], &[])?;
    admin.apply(&group(&json!({"names": ["lvs1"]})))?;
    let servers = json!([{"address": "10.0.0.11"}, {"address": "10.0.0.12"}]);
    admin.apply(&service(WEB, &json!({"backends": servers})))?;
    admin.await_that("DirectorBinding", BINDING, "made", |object| {
        !object.is_null()
    })?;
    lvs1.report(BINDING, &programmed())?;
    let reason = "exceeded quota: no-realserverbindings";
    await_refusal(&operator, "RealServerBinding shop/web.rs1", reason)?;

    admin.delete("ResourceQuota", &quota)?;
    admin.await_that("RealServerBinding", "shop/web.rs1", "made", |object| {
        !object.is_null()
    })?;
    await_ready(&operator)
}

#[test]
fn a_policy_that_refuses_an_lvs_node_is_a_condition_of_the_service_that_waits_for_it() -> Result<()>
{
    let operator = started()?;
    let admin = &operator.admin;
    operator.control_plane.apply(POLICY)?;
    let controller = operator.account("lvs-operator-controller")?;
    let lvs_node = json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "LvsNode",
        "metadata": {"name": "tried"}, "spec": {},
    });
    wait_until("the policy to be in force", Duration::from_secs(30), || {
        Ok(controller.try_to_create(&lvs_node).err())
    })?;
    let _controller = operator.lead("one")?;
    admin.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}))?;
    let agent = operator.agent("n1")?;
    admin.apply(&group(&json!({"names": ["n1"]})))?;
    let servers = json!([{"address": "10.0.0.12"}]);
    admin.apply(&service(WEB, &json!({"backends": servers})))?;
    await_refusal(&operator, "LvsNode n1", "no machines today")?;
    admin.await_that("DirectorGroup", "edge", "refused", |object| {
        condition_of(object, "Stalled").as_deref() == Some("True WriteRefused")
    })?;

    let policy = ["delete", "validatingadmissionpolicybinding", "no-machines"];
    operator.control_plane.kubectl(&policy)?;
    admin.await_that("DirectorBinding", "shop/web.n1", "made", |object| {
        !object.is_null()
    })?;
    agent.report("shop/web.n1", &programmed())?;
    await_ready(&operator)
}

#[test]
fn what_a_director_reports_as_wrong_between_directors_is_a_condition_of_its_group() -> Result<()> {
    const PROBLEM: &str = "a connection-sync master runs on eth1 and was not started by lvs-agent";
    let operator = started()?;
    let _controller = operator.lead("one")?;
    let admin = &operator.admin;
    let (lvs1, rs1) = (operator.machine("lvs1")?, operator.machine("rs1")?);
    admin.apply(&group(&json!({"names": ["lvs1", "rs1"]})))?;
    let reports = |problem: Option<&str>, wanted: &str| {
        lvs1.stand_by("edge", None)?;
        rs1.stand_by("edge", problem)?;
        admin.await_that("DirectorGroup", "edge", wanted, |object| {
            condition_of(object, "Ready").as_deref() == Some(wanted)
        })
    };
    reports(None, "True Ready")?;
    let object = reports(Some(PROBLEM), "True RouterProblem")?;
    let message = format!("rs1, IPv4 on eth0: {PROBLEM}");
    assert_eq!(message_of(&object, "Ready"), Some(message));
    reports(None, "True Ready")?;
    Ok(())
}

#[test]
fn a_group_whose_selector_matches_many_nodes_has_a_status() -> Result<()> {
    let operator = started()?;
    let _controller = operator.lead("one")?;
    let admin = &operator.admin;
    for number in 0..120 {
        admin.apply(&json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": format!("node-{number:03}.example.net"), "labels": {"edge": "yes"}},
        }))?;
    }
    admin.apply(&group(
        &json!({"selector": {"matchLabels": {"edge": "yes"}}}),
    ))?;
    admin.await_that("DirectorGroup", "edge", "with a status", |object| {
        let directors = object
            .pointer("/status/directors")
            .and_then(|found| found.as_str());
        let is_cut =
            |text: &str| text.starts_with("node-000.example.net,") && text.ends_with(" more");
        directors.is_some_and(is_cut) && condition_of(object, "Ready").is_some()
    })?;
    Ok(())
}

/// Refuses that the controller creates an LvsNode.
const POLICY: &str = r"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-machines}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [lvs-operator.io], apiVersions: ['*'], operations: [CREATE], resources: [lvsnodes]}
  validations:
  - {expression: 'false', message: no machines today}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-machines}
spec: {policyName: no-machines, validationActions: [Deny]}
";

/// Forbids objects of a kind in the namespace `shop` by a quota. Returns its name.
fn forbid(operator: &Operator, plural: &str) -> Result<String> {
    let admin = &operator.admin;
    let name = format!("no-{plural}");
    let hard = json!({format!("count/{plural}.lvs-operator.io"): "0"});
    admin.apply(&json!({
        "apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"hard": hard},
    }))?;
    // The controller manager, which does not run, would write this.
    let status = json!({"hard": hard, "used": hard});
    let name = format!("shop/{name}");
    admin.replace_status("ResourceQuota", &name, &status)?;
    Ok(name)
}

/// Waits until the conditions of the virtual service say which object cannot be written, and why.
fn await_refusal(operator: &Operator, object: &str, reason: &str) -> Result<()> {
    let refused = operator
        .admin
        .await_that("VirtualService", WEB, "refused", |object| {
            condition_of(object, "Stalled").as_deref() == Some("True WriteRefused")
        })?;
    for kind in ["Programmed", "Ready"] {
        let found = condition_of(&refused, kind);
        assert_eq!(found.as_deref(), Some("False WriteRefused"), "{kind}");
    }
    let message = message_of(&refused, "Ready").unwrap_or_default();
    let start = format!("{object} cannot be written: ");
    assert!(
        message.starts_with(&start) && message.contains(reason),
        "{message}"
    );
    Ok(())
}

fn await_ready(operator: &Operator) -> Result<()> {
    operator
        .admin
        .await_that("VirtualService", WEB, "ready", |object| {
            condition_of(object, "Ready").as_deref() == Some("True Ready")
                && condition_of(object, "Stalled").is_none()
        })
        .map(drop)
}
