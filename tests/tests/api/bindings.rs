//! Bindings and LvsNodes: what the controller writes for directors and real servers, and what it deletes.

use std::time::Duration;

use anyhow::Result;
use lab::wait_until;
use serde_json::{Value, json};

use crate::shop::{group, is_observed, service, started};

const WEB: &str = "shop/web";
const BINDING: &str = "shop/web.lvs1";

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one sequence, in which each state follows from the one before"
)]
fn machines_get_their_services_and_their_reports_set_the_weights() -> Result<()> {
    let operator = started()?;
    let controller = operator.lead("one")?;
    let admin = &operator.admin;
    // A label holds 63 characters.
    let node = format!("n1.{}.example", ["long"; 20].join("."));
    for name in [node.as_str(), "rs2"] {
        admin.apply(&json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"edge": if name == node { "yes" } else { "no" }}},
        }))?;
    }
    admin.apply(&group(
        &json!({"selector": {"matchLabels": {"edge": "yes"}}}),
    ))?;
    let all = json!({"endpoints": [{"address": "10.0.0.11"}, {"address": "10.0.0.12"}, {"address": "10.0.0.13"}]});
    admin.apply(&service(WEB, &json!({"backends": all})))?;

    let made = admin.await_that("LvsNode", &node, "a director", |object| {
        object.pointer("/spec/groups/0/name") == Some(&json!("edge"))
    })?;
    let owner = made.pointer("/metadata/ownerReferences/0");
    let uid = admin.get("Node", &node)?["metadata"]["uid"].clone();
    assert_eq!(owner.map(|owner| &owner["uid"]), Some(&uid));
    let binding = format!("{WEB}.{node}");
    admin.await_that("DirectorBinding", &binding, "made", |object| {
        !object.is_null()
    })?;
    let director = operator.agent(&node)?;
    assert_eq!(director.report_all()?, 1);
    let weights = |wanted: &'static [i64]| {
        admin.await_that(
            "DirectorBinding",
            &binding,
            &format!("{wanted:?}"),
            move |object| weights_of(object) == wanted,
        )
    };
    weights(&[1, 1, 1])?;

    // Two of the real servers get agents. They keep their weight until their agents report that they cannot answer.
    let (rs1, rs2) = (operator.machine("rs1")?, operator.agent("rs2")?);
    rs1.describe(&["10.0.0.11/24"], &[])?;
    rs2.describe(&["10.0.0.12/24"], &[])?;
    let serves = |machine: &str| {
        admin.await_that("LvsNode", machine, "serves it", |object| {
            object.pointer("/spec/serves/0/name") == Some(&json!("web"))
        })
    };
    let served = serves("rs1")?;
    assert_eq!(
        served.pointer("/spec/identity"),
        Some(&json!("lvs:machine:rs1"))
    );
    assert_eq!(
        served.pointer("/spec/serves/0/endpoints/0/address"),
        Some(&json!("10.0.0.11"))
    );
    serves("rs2")?;
    let servers = |wanted: &'static str| {
        admin.await_that("VirtualService", WEB, wanted, move |object| {
            object.pointer("/status/realServers") == Some(&json!(wanted))
        })
    };
    weights(&[1, 1, 1])?;
    servers("3/3")?;
    rs1.describe(&["10.0.0.11/24"], &[])?;
    rs2.describe(&["10.0.0.12/24"], &[("web", "arp_ignore is 0")])?;
    weights(&[1, 0, 1])?;
    servers("2/3")?;
    let failures = json!([{"node": "rs2", "message": "arp_ignore is 0"}]);
    admin.await_that("VirtualService", WEB, "a complaint", |object| {
        object.pointer("/status/failures") == Some(&failures)
    })?;
    rs2.describe(&["10.0.0.12/24"], &[])?;
    weights(&[1, 1, 1])?;
    servers("3/3")?;

    // An LvsNode loses a service once the director no longer has the real server. A real server that is added later gets
    // weight when its agent reports that it can answer.
    let without_rs2 = json!({"endpoints": [{"address": "10.0.0.11"}, {"address": "10.0.0.13"}]});
    for _ in 0..2 {
        admin.apply(&service(WEB, &json!({"backends": without_rs2})))?;
        weights(&[1, 1])?;
        serves("rs2")?;
        assert_eq!(director.report_all()?, 1);
        admin.await_that("LvsNode", "rs2", "serves nothing", |object| {
            object.pointer("/spec/serves") == Some(&json!([]))
        })?;
        rs2.describe(&["10.0.0.12/24"], &[])?;
        admin.apply(&service(WEB, &json!({"backends": all})))?;
        serves("rs2")?;
        weights(&[1, 0, 1])?;
        servers("2/3")?;
        rs2.describe(&["10.0.0.12/24"], &[])?;
        weights(&[1, 1, 1])?;
        director.report_all()?;
    }

    // When a Node is deleted, its LvsNode and its reported facts go too.
    admin.delete("Node", "rs2")?;
    admin.await_that("LvsNode", "rs2", "gone", Value::is_null)?;
    admin.delete("Node", &node)?;
    admin.await_that("LvsNode", &node, "gone", Value::is_null)?;
    admin.await_that("DirectorBinding", &binding, "gone", Value::is_null)?;
    // An LvsNode that an administrator deletes is not created again.
    admin.delete("LvsNode", "rs1")?;
    admin.apply(&service(
        "shop/other",
        &json!({"addresses": ["10.0.0.101"]}),
    ))?;
    admin.await_that("VirtualService", "shop/other", "seen", is_observed)?;
    assert_eq!(admin.find("LvsNode", "rs1")?, None);
    let log = controller.log()?;
    assert!(!log.contains("writing failed; it is retried"), "{log}");
    Ok(())
}

#[test]
fn a_deleted_service_leaves_no_binding_and_a_new_one_is_bound_again() -> Result<()> {
    let operator = started()?;
    let mut controller = operator.lead("one")?;
    let admin = &operator.admin;
    admin.apply(&group(&json!({"names": ["lvs1"]})))?;
    for number in 0..20 {
        let name = format!("shop/brief-{number}");
        let address = format!("10.0.1.{number}");
        admin.apply(&service(&name, &json!({"addresses": [address]})))?;
        // Some exist long enough to be bound, others do not.
        if number % 3 == 0 {
            admin.await_that("VirtualService", &name, "seen", is_observed)?;
        }
        admin.delete("VirtualService", &name)?;
    }
    let servers = json!({"endpoints": [{"address": "10.0.0.11"}]});
    admin.apply(&service(WEB, &json!({"backends": servers})))?;
    admin.await_that("DirectorBinding", BINDING, "made", |object| {
        !object.is_null()
    })?;
    wait_until("the bindings to be gone", Duration::from_secs(20), || {
        Ok((admin.list("DirectorBinding", "")?.len() == 1).then_some(()))
    })?;

    // The service is deleted and created again while no controller runs.
    controller.kill()?;
    admin.delete("VirtualService", WEB)?;
    let created = admin.apply(&service(WEB, &json!({"backends": servers})))?;
    let _second = operator.lead("two")?;
    admin.await_that("DirectorBinding", BINDING, "the new one's", |object| {
        let owner = object.pointer("/metadata/ownerReferences/0/uid");
        owner == created.pointer("/metadata/uid")
    })?;
    Ok(())
}

fn weights_of(binding: &Value) -> Vec<i64> {
    let endpoints = binding.pointer("/spec/service/backends/endpoints");
    let endpoints = endpoints.and_then(Value::as_array).into_iter().flatten();
    endpoints
        .filter_map(|endpoint| endpoint["weight"].as_i64())
        .collect()
}
