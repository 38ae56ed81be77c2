//! A status that is true: refusals of the API server are conditions, and many machines fit into one status.

use anyhow::Result;
use lab::{condition_of, message_of, programmed};
use serde_json::json;

use crate::shop::{directed, group, started};

#[test]
fn a_quota_that_refuses_a_binding_is_a_condition_of_its_service() -> Result<()> {
    let operator = directed()?;
    let admin = &operator.admin;
    let hard = json!({"count/directorbindings.lvs-operator.io": "0"});
    admin.apply(&json!({
        "apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"namespace": "shop", "name": "no-bindings"},
        "spec": {"hard": hard},
    }))?;
    // The controller manager, which does not run, would write this.
    let status = json!({"hard": hard, "used": hard});
    admin.replace_status("ResourceQuota", "shop/no-bindings", &status)?;
    let _controller = operator.lead("one")?;
    admin.apply(&json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "VirtualService",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"addresses": ["10.0.0.100"], "ports": [{"port": 80}]},
    }))?;
    let refused = admin.await_that("VirtualService", "shop/web", "refused", |object| {
        condition_of(object, "Stalled").as_deref() == Some("True WriteRefused")
    })?;
    for kind in ["Programmed", "Ready"] {
        let found = condition_of(&refused, kind);
        assert_eq!(found.as_deref(), Some("False WriteRefused"), "{kind}");
    }
    let message = message_of(&refused, "Ready").unwrap_or_default();
    assert!(
        message.starts_with("DirectorBinding shop/web.lvs1 cannot be written: ")
            && message.contains("exceeded quota: no-bindings"),
        "{message}"
    );

    admin.delete("ResourceQuota", "shop/no-bindings")?;
    admin.await_that("DirectorBinding", "shop/web.lvs1", "made", |object| {
        !object.is_null()
    })?;
    operator
        .machine("lvs1")?
        .report("shop/web.lvs1", &programmed())?;
    admin.await_that("VirtualService", "shop/web", "ready", |object| {
        condition_of(object, "Ready").as_deref() == Some("True Ready")
            && condition_of(object, "Stalled").is_none()
    })?;
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
