//! Bindings and LvsNodes: what the controller writes for directors and real servers, and what it deletes.

use std::time::Duration;

use anyhow::Result;
use lab::{condition_of, wait_until};
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
    let all = json!([{"address": "10.0.0.11"}, {"address": "10.0.0.12"}, {"address": "10.0.0.13"}]);
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
        let name = format!("{WEB}.{machine}");
        admin.await_that("RealServerBinding", &name, "made", |object| {
            !object.is_null()
        })
    };
    let served = serves("rs1")?;
    assert_eq!(
        served.pointer("/spec/realServers"),
        Some(&json!([{"address": "10.0.0.11"}]))
    );
    let owner = served.pointer("/metadata/ownerReferences/0/kind");
    assert_eq!(owner, Some(&json!("VirtualService")));
    serves("rs2")?;
    let servers = |wanted: &'static str| {
        admin.await_that("VirtualService", WEB, wanted, move |object| {
            object.pointer("/status/realServersColumn") == Some(&json!(wanted))
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

    // A machine stops serving once the director no longer has the real server. A real server that is added later stands last,
    // and gets weight when its agent reports that it can answer.
    let without_rs2 = json!([{"address": "10.0.0.11"}, {"address": "10.0.0.13"}]);
    for _ in 0..2 {
        admin.apply(&service(WEB, &json!({"backends": without_rs2})))?;
        weights(&[1, 1])?;
        serves("rs2")?;
        assert_eq!(director.report_all()?, 1);
        let name = format!("{WEB}.rs2");
        admin.await_that("RealServerBinding", &name, "gone", Value::is_null)?;
        rs2.describe(&["10.0.0.12/24"], &[])?;
        admin.apply(&service(WEB, &json!({"backends": all})))?;
        serves("rs2")?;
        weights(&[1, 1, 0])?;
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
    // What serves goes on serving until the virtual service is deleted.
    admin.await_that("VirtualService", WEB, "without a director", |object| {
        condition_of(object, "ResolvedRefs").as_deref() == Some("False NoDirector")
    })?;
    assert!(admin.find("DirectorBinding", &binding)?.is_some());
    admin.delete("VirtualService", WEB)?;
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
    let servers = json!([{"address": "10.0.0.11"}]);
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
    let servers = binding.pointer("/spec/realServers");
    let servers = servers.and_then(Value::as_array).into_iter().flatten();
    servers
        .map(|server| server["weight"].as_i64().unwrap_or(1))
        .collect()
}

#[test]
fn many_real_servers_are_in_slices_and_one_change_writes_one_of_them() -> Result<()> {
    let operator = started()?;
    let _controller = operator.lead("one")?;
    let admin = &operator.admin;
    admin.apply(&group(&json!({"names": ["lvs1"]})))?;
    let servers = |count: usize, weight: usize| -> Vec<Value> {
        let address = |number: usize| format!("10.2.{}.{}", number / 250, number % 250 + 1);
        let weight = |number: usize| if number == 7 { weight } else { 1 };
        (0..count)
            .map(|number| json!({"address": address(number), "weight": weight(number)}))
            .collect()
    };
    let apply = |count: usize, weight: usize| {
        let nat = json!({"forwarding": "NAT", "backends": servers(count, weight)});
        admin.apply(&service(WEB, &nat))
    };
    let has_slices = |count: usize| {
        admin.await_that("DirectorBinding", BINDING, "slices", move |object| {
            let slices = object.pointer("/spec/slices").and_then(Value::as_array);
            slices.map_or(0, Vec::len) == count && !object.is_null()
        })
    };
    let generations = || -> Result<Vec<i64>> {
        let bindings = admin.list("DirectorBinding", "")?;
        let slices = bindings
            .iter()
            .filter(|object| object["spec"]["slice"].is_object());
        let generations = slices.map(|object| object["metadata"]["generation"].as_i64());
        Ok(generations.flatten().collect())
    };
    apply(1000, 1)?;
    let before = has_slices(2)?;
    assert_eq!(generations()?, [1, 1]);
    let lvs1 = operator.machine("lvs1")?;
    assert_eq!(lvs1.report_all()?, 1, "a slice has no status");

    apply(1000, 2)?;
    let revisions = before["spec"]["slices"].clone();
    admin.await_that(
        "DirectorBinding",
        BINDING,
        "a new revision",
        move |object| object["spec"]["slices"] != revisions,
    )?;
    let mut generations = generations()?;
    generations.sort_unstable();
    assert_eq!(generations, [1, 2]);

    apply(400, 1)?;
    has_slices(0)?;
    lvs1.report_all()?;
    wait_until("the slices to be gone", Duration::from_secs(20), || {
        Ok((admin.list("DirectorBinding", "")?.len() == 1).then_some(()))
    })?;
    Ok(())
}

#[test]
fn a_machine_with_many_addresses_services_and_endpoints_is_written() -> Result<()> {
    let operator = started()?;
    let controller = operator.lead("one")?;
    let admin = &operator.admin;
    admin.apply(&group(&json!({"names": ["lvs1"]})))?;
    let addresses: Vec<String> = (0..300)
        .map(|number| format!("10.3.{}.{}", number / 250, number % 250 + 1))
        .collect();
    let networks: Vec<String> = addresses.iter().map(|own| format!("{own}/16")).collect();
    let networks: Vec<&str> = networks.iter().map(String::as_str).collect();
    let rs1 = operator.machine("rs1")?;
    rs1.describe(&networks, &[])?;
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|own| json!({"address": own}))
        .collect();
    for (number, count) in [(0, 300), (1, 17)]
        .into_iter()
        .chain((2..40).map(|number| (number, 1)))
    {
        let changes = json!({
            "addresses": [format!("10.4.0.{}", number + 1)],
            "backends": endpoints[..count],
        });
        admin.apply(&service(&format!("shop/s{number}"), &changes))?;
    }
    let served = |name: &str, count: usize| {
        admin.await_that("RealServerBinding", name, "all addresses", move |object| {
            let servers = object
                .pointer("/spec/realServers")
                .and_then(Value::as_array);
            servers.map(Vec::len) == Some(count)
        })
    };
    served("shop/s0.rs1", 300)?;
    served("shop/s1.rs1", 17)?;
    served("shop/s39.rs1", 1)?;
    rs1.describe(&networks, &[])?;
    admin.await_that("VirtualService", "shop/s0", "all ready", |object| {
        object.pointer("/status/realServersColumn") == Some(&json!("300/300"))
    })?;
    let log = controller.log()?;
    assert!(!log.contains("writing failed; it is retried"), "{log}");
    Ok(())
}
