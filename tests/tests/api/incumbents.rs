//! What serves goes on serving: no newcomer, no edit and no other director takes a VIP away.

use std::time::Duration;

use anyhow::Result;
use lab::{Operator, condition_of, wait_until};
use serde_json::{Value, json};

use crate::shop::{group, service, started};

/// A condition on one object.
type IsSo = Box<dyn Fn(&Value) -> bool>;

fn has(kind: &'static str, wanted: &'static str) -> IsSo {
    Box::new(move |object| condition_of(object, kind).as_deref() == Some(wanted))
}

fn with_vip(address: &str) -> Value {
    json!({"addresses": [address], "backends": []})
}

/// What of a virtual service and its bindings must not change.
fn served(operator: &Operator, name: &str) -> Result<Value> {
    let object = operator
        .admin
        .get("VirtualService", &format!("shop/{name}"))?;
    let bindings = operator.admin.list("DirectorBinding", "")?;
    let bindings = bindings
        .iter()
        .filter(|binding| binding.pointer("/spec/virtualService") == Some(&json!(name)));
    let bindings = bindings.map(
        |binding| json!({"uid": binding.pointer("/metadata/uid"), "spec": binding.get("spec")}),
    );
    Ok(json!({
        "addresses": object.pointer("/status/addresses"),
        "ready": condition_of(&object, "Ready"),
        "bindings": bindings.collect::<Vec<_>>(),
    }))
}

/// Applies a virtual service, and waits until it is served by `lvs1`.
fn serve(operator: &Operator, name: &str, changes: &Value) -> Result<Value> {
    let admin = &operator.admin;
    let path = format!("shop/{name}");
    admin.apply(&service(&path, changes))?;
    let binding = format!("shop/{name}.lvs1");
    admin.await_that("DirectorBinding", &binding, "made", |object| {
        !object.is_null()
    })?;
    operator.machine("lvs1")?.report_all()?;
    admin.await_that("VirtualService", &path, "ready", has("Ready", "True Ready"))?;
    served(operator, name)
}

#[test]
fn a_newcomer_an_older_object_and_a_second_director_take_nothing_from_what_serves() -> Result<()> {
    let operator = started()?;
    let mut controller = operator.lead("one")?;
    let admin = &operator.admin;
    let edge = |nodes: &[&str]| admin.apply(&group(&json!({"names": nodes})));
    edge(&["lvs1"])?;
    let old = serve(&operator, "old", &with_vip("10.0.0.100"))?;
    let web = serve(&operator, "web", &with_vip("10.0.0.101"))?;

    // A newcomer lists the VIP of another among its real servers, in a group that exists and in one that does not.
    for of_group in ["edge", "there-is-none"] {
        let stranger = json!({
            "directorGroup": of_group, "addresses": ["10.0.0.102"],
            "backends": [{"address": "10.0.0.101"}],
        });
        admin.apply(&service("shop/stranger", &stranger))?;
        let refused = has("Stalled", "True Conflict");
        admin.await_that("VirtualService", "shop/stranger", "refused", refused)?;
        assert_eq!(served(&operator, "web")?, web, "{of_group}");
        admin.delete("VirtualService", "shop/stranger")?;
    }

    // An older object is edited to the VIP of a younger one.
    admin.apply(&service("shop/old", &with_vip("10.0.0.101")))?;
    let refused = has("Stalled", "True Conflict");
    admin.await_that("VirtualService", "shop/old", "refused", refused)?;
    assert_eq!(served(&operator, "web")?, web);
    let kept = served(&operator, "old")?;
    assert_eq!(kept["addresses"], old["addresses"]);
    assert_eq!(kept["bindings"], old["bindings"]);

    // A second node, the first by name, joins the group and leaves it; in between, another controller starts.
    let first = || -> Result<Value> {
        let binding = admin.get("DirectorBinding", "shop/web.lvs1")?;
        Ok(json!({"uid": binding.pointer("/metadata/uid"), "spec": binding.get("spec")}))
    };
    let before = first()?;
    let directors = |count: u8| {
        move |object: &Value| object.pointer("/status/directors") == Some(&json!(count))
    };
    edge(&["lvs0", "lvs1"])?;
    admin.await_that(
        "VirtualService",
        "shop/web",
        "several directors",
        directors(2),
    )?;
    assert_eq!(first()?, before);
    controller.kill()?;
    let _second = operator.lead("two")?;
    edge(&["lvs1"])?;
    admin.await_that("VirtualService", "shop/web", "one director", directors(1))?;
    admin.await_that(
        "DirectorBinding",
        "shop/web.lvs0",
        "deleted",
        Value::is_null,
    )?;
    admin.await_that(
        "VirtualService",
        "shop/web",
        "ready",
        has("Ready", "True Ready"),
    )?;
    assert_eq!(served(&operator, "web")?, web);
    assert_eq!(served(&operator, "old")?, kept);
    Ok(())
}

#[test]
fn an_allocated_service_that_turns_invalid_leaks_no_address_of_either_family() -> Result<()> {
    let operator = started()?;
    let _controller = operator.lead("one")?;
    let admin = &operator.admin;
    operator.machine("lvs1")?.describe(&["10.8.0.1/24"], &[])?;
    admin.apply(&group(&json!({"names": ["lvs1"]})))?;
    admin.apply(&json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "AddressPool", "metadata": {"name": "shop"},
        "spec": {"addresses": ["10.9.0.1-10.9.0.3", "2001:db8:9::1-2001:db8:9::3"]},
    }))?;
    serve(&operator, "fixed", &with_vip("10.0.0.100"))?;
    let both = |backends: &Value| json!({"addresses": [], "ipFamilies": ["IPv4", "IPv6"], "backends": backends});
    let auto = serve(&operator, "auto", &both(&json!([])))?;
    assert_eq!(auto["addresses"], json!(["10.9.0.1", "2001:db8:9::1"]));

    let twice = json!([{"address": "10.0.0.11"}, {"address": "10.0.0.11"}]);
    admin.apply(&service("shop/auto", &both(&twice)))?;
    let invalid = has("Stalled", "True Invalid");
    admin.await_that("VirtualService", "shop/auto", "invalid", invalid)?;
    // An older object names both of its addresses.
    let named = json!({"addresses": ["10.9.0.1", "2001:db8:9::1"], "backends": []});
    admin.apply(&service("shop/fixed", &named))?;
    let refused = has("Stalled", "True Conflict");
    admin.await_that("VirtualService", "shop/fixed", "refused", refused)?;

    let second = serve(&operator, "second", &both(&json!([])))?;
    assert_eq!(second["addresses"], json!(["10.9.0.2", "2001:db8:9::2"]));
    let now = served(&operator, "auto")?;
    assert_eq!(now["addresses"], auto["addresses"]);
    assert_eq!(now["bindings"], auto["bindings"]);
    wait_until("the counts of the pool", Duration::from_secs(20), || {
        let pool = admin.get("AddressPool", "shop")?;
        let counts = ["ipv4", "ipv6"].map(|family| {
            let count = |name: &str| pool.pointer(&format!("/status/{family}/{name}"));
            (
                count("allocated") == Some(&json!(2)),
                count("free") == Some(&json!(1)),
            )
        });
        Ok((counts == [(true, true); 2]).then_some(()))
    })
}
