//! Allocation of VIPs: pools, namespaces, restarts, and two services that claim the same VIP.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::jiff::Timestamp;
use lab::{Operator, condition_of, message_of, wait_until};
use serde_json::{Value, json};

/// A condition on one object.
type IsSo = Box<dyn Fn(&Value) -> bool>;

#[test]
fn a_vip_comes_from_a_pool_of_its_namespace_and_outlives_controller_and_group() -> Result<()> {
    let operator = started()?;
    let mut controller = operator.lead("one")?;
    for name in ["shop/a", "shop/b", "lab/d", "else/e"] {
        operator.admin.apply(&service(name, &[]))?;
    }
    await_vips(&operator, "shop/a", &["10.9.0.1"])?;
    await_vips(&operator, "shop/b", &["10.9.0.2"])?;
    await_vips(&operator, "lab/d", &["10.9.1.1"])?;
    operator.admin.apply(&service("shop/c", &[]))?;
    let free = "no IPv4 address is free for namespace 'shop' and DirectorGroup 'edge': AddressPool shop has none left";
    let none = "no AddressPool allocates addresses to namespace 'else' and DirectorGroup 'edge'";
    for (name, word, reason) in [
        ("shop/c", "NoFreeAddress", free),
        ("else/e", "NoAddressPool", none),
    ] {
        let waiting = operator.admin.await_that(
            "VirtualService",
            name,
            "no address is free",
            stalled(word),
        )?;
        let reason = reason.to_owned();
        assert_eq!(message_of(&waiting, "Stalled"), Some(reason.clone()));
        assert_eq!(message_of(&waiting, "Accepted"), Some(reason));
    }

    let bindings = bindings(&operator)?;
    assert_eq!(bindings.len(), 3);
    controller.kill()?;
    // After a restart, a waiting service must not take an address that another service has.
    operator.admin.apply(&service("shop/0-early", &[]))?;
    let _second = operator.lead("two")?;
    operator.admin.await_that(
        "VirtualService",
        "shop/0-early",
        "no address is free",
        stalled("NoFreeAddress"),
    )?;
    await_vips(&operator, "shop/a", &["10.9.0.1"])?;
    await_vips(&operator, "shop/b", &["10.9.0.2"])?;
    assert_eq!(self::bindings(&operator)?, bindings);

    operator.admin.delete("VirtualService", "shop/0-early")?;
    operator.admin.delete("DirectorGroup", "edge")?;
    operator
        .admin
        .await_that("VirtualService", "shop/a", "its group is gone", |object| {
            condition_of(object, "ResolvedRefs").as_deref() == Some("False DirectorGroupNotFound")
                && condition_of(object, "Reconciling").is_some()
                && vips(object) == ["10.9.0.1"]
        })?;
    operator.admin.apply(&group())?;
    operator
        .admin
        .await_that("VirtualService", "shop/a", "its group is back", |object| {
            condition_of(object, "ResolvedRefs").as_deref() == Some("True ResolvedRefs")
        })?;
    await_vips(&operator, "shop/a", &["10.9.0.1"])?;
    assert_eq!(self::bindings(&operator)?, bindings);

    operator.admin.delete("VirtualService", "shop/a")?;
    await_vips(&operator, "shop/c", &["10.9.0.1"])?;
    Ok(())
}

#[test]
fn the_older_of_two_keeps_a_vip_and_the_younger_takes_over_when_it_goes() -> Result<()> {
    let operator = started()?;
    let mut controller = operator.lead("one")?;
    operator
        .admin
        .apply(&service("shop/z-old", &["10.9.0.9"]))?;
    let old = operator
        .admin
        .await_that("VirtualService", "shop/z-old", "accepted", accepted())?;
    await_next_second(&old)?;
    operator
        .admin
        .apply(&service("shop/a-young", &["10.9.0.9"]))?;
    let young = operator.admin.await_that(
        "VirtualService",
        "shop/a-young",
        "stalled",
        stalled("Conflict"),
    )?;
    let reason = "`spec.ports[0].port` must not be in use: TCP 10.9.0.9:80 belongs to VirtualService shop/z-old";
    for kind in ["Stalled", "Accepted", "Ready"] {
        assert_eq!(message_of(&young, kind).as_deref(), Some(reason), "{kind}");
    }
    assert_eq!(condition_of(&young, "Reconciling"), None);
    let of_old = bindings(&operator)?;
    assert_eq!(names(&of_old), ["z-old.lvs1"]);

    // After a start the services are reconciled in another order; the older one still keeps the
    // VIP.
    controller.kill()?;
    operator
        .admin
        .apply(&service("shop/m-other", &["10.9.0.8"]))?;
    let _second = operator.lead("two")?;
    operator
        .admin
        .await_that("DirectorBinding", "shop/m-other.lvs1", "made", |object| {
            !object.is_null()
        })?;
    let now = bindings(&operator)?;
    assert_eq!(names(&now), ["m-other.lvs1", "z-old.lvs1"]);
    assert_eq!(now.last(), of_old.first());

    operator.admin.delete("VirtualService", "shop/z-old")?;
    let young =
        operator
            .admin
            .await_that("VirtualService", "shop/a-young", "accepted", accepted())?;
    assert_eq!(condition_of(&young, "Stalled"), None);
    wait_until(
        "the younger service to get the VIP",
        Duration::from_secs(20),
        || {
            let now = bindings(&operator)?;
            Ok((names(&now) == ["a-young.lvs1", "m-other.lvs1"]).then_some(()))
        },
    )
}

fn started() -> Result<Operator> {
    let operator = Operator::install(&["lvs1"])?;
    operator.admit("lvs1")?;
    operator.machine("lvs1")?.describe(&["10.8.0.1/24"], &[])?;
    for namespace in ["shop", "lab", "else"] {
        operator.namespace(namespace)?;
    }
    operator.admin.apply(&group())?;
    operator.admin.apply(&pool("shop", "10.9.0.1-10.9.0.2"))?;
    operator.admin.apply(&pool("lab", "10.9.1.1"))?;
    Ok(operator)
}

fn group() -> Value {
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1",
        "kind": "DirectorGroup",
        "metadata": {"name": "edge"},
        "spec": {"nodes": {"names": ["lvs1"]}},
    })
}

fn pool(namespace: &str, addresses: &str) -> Value {
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1",
        "kind": "AddressPool",
        "metadata": {"name": namespace},
        "spec": {"addresses": [addresses], "directorGroups": ["edge"], "namespaces": {"names": [namespace]}},
    })
}

fn service(name: &str, addresses: &[&str]) -> Value {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1",
        "kind": "VirtualService",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"directorGroup": "edge", "addresses": addresses, "ports": [{"port": 80}]},
    })
}

fn stalled(reason: &str) -> IsSo {
    let wanted = format!("True {reason}");
    Box::new(move |object| condition_of(object, "Stalled").as_ref() == Some(&wanted))
}

fn accepted() -> IsSo {
    Box::new(|object| condition_of(object, "Accepted").as_deref() == Some("True Accepted"))
}

fn vips(object: &Value) -> Vec<&str> {
    let found = object
        .pointer("/status/addresses")
        .and_then(Value::as_array);
    found
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn await_vips(operator: &Operator, name: &str, wanted: &[&str]) -> Result<()> {
    operator
        .admin
        .await_that("VirtualService", name, &format!("{wanted:?}"), |object| {
            vips(object) == wanted
        })
        .map(drop)
}

/// Name, uid and spec of each binding.
fn bindings(operator: &Operator) -> Result<Vec<Value>> {
    let all = operator.admin.list("DirectorBinding", "")?;
    let summary = |object: &Value| {
        json!({
            "name": object.pointer("/metadata/name"),
            "uid": object.pointer("/metadata/uid"),
            "spec": object["spec"],
        })
    };
    Ok(all.iter().map(summary).collect())
}

fn names(bindings: &[Value]) -> Vec<&str> {
    bindings
        .iter()
        .filter_map(|binding| binding["name"].as_str())
        .collect()
}

/// Waits until a new object would be younger than this one: ages are in whole seconds.
fn await_next_second(object: &Value) -> Result<()> {
    let created = object.pointer("/metadata/creationTimestamp");
    let created = created
        .and_then(Value::as_str)
        .context("an object has no creation time")?;
    let created: Timestamp = created.parse()?;
    wait_until("the next second", Duration::from_secs(5), || {
        Ok((Timestamp::now().as_second() > created.as_second()).then_some(()))
    })
}
