//! VIPs and ports that more than one virtual service asks for.

use std::sync::Arc;

use lvs_crd::condition::ConditionType;
use lvs_model::ObjectName;
use serde_json::json;

use super::{
    objects::{mk_group, mk_lvs_node, mk_machine, mk_name, mk_service},
    world::World,
};
use crate::{cluster::Change, write::Write};

#[test]
fn the_older_of_two_on_one_key_keeps_it_and_the_younger_follows_when_it_goes() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_service("young", 2, &json!({})),
        mk_service("old", 1, &json!({})),
    ]);
    assert_eq!(
        world.condition("young", ConditionType::Stalled).as_deref(),
        Some("True Conflict")
    );
    assert_eq!(
        world.condition("old", ConditionType::Accepted).as_deref(),
        Some("True Accepted")
    );
    assert_eq!(world.binding_names(), ["shop/old.lvs1"]);

    world.see(Change::VirtualService(mk_name("old"), None));

    assert_eq!(world.condition("young", ConditionType::Stalled), None);
    assert_eq!(world.binding_names(), ["shop/young.lvs1"]);
}

#[test]
fn a_vip_that_is_another_machines_address_is_refused_and_one_that_serves_stays() {
    let vip = |created| mk_service("web", created, &json!({"addresses": ["10.0.0.100"]}));
    let mut world = World::of(&[mk_group("lvs1"), mk_lvs_node("other", "10.0.0.100"), vip(1)]);
    let refused = Some("True Conflict");
    assert_eq!(
        world.condition("web", ConditionType::Stalled).as_deref(),
        refused
    );
    // Its LvsNode may be about to be made anew.
    world.see(Change::LvsNode(mk_machine("other"), None));
    assert_eq!(
        world.condition("web", ConditionType::Stalled).as_deref(),
        refused
    );
    world.see(Change::AgentsKnown);
    assert_eq!(world.condition("web", ConditionType::Stalled), None);
    let bindings = world.bindings.clone();

    world.see(mk_lvs_node("other", "10.0.0.100"));

    assert_eq!(world.bindings, bindings);
    assert_eq!(world.condition("web", ConditionType::Stalled), None);
    assert_eq!(
        world.condition("web", ConditionType::Accepted).as_deref(),
        Some("True Conflict")
    );
}

#[test]
fn a_service_that_lists_the_vip_of_another_among_its_endpoints_is_refused() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_service("web", 5, &json!({"addresses": ["10.0.0.100"]})),
    ]);
    world.report_all();
    let (bindings, status) = (
        world.bindings.clone(),
        world.statuses[&mk_name("web")].clone(),
    );

    for group in ["default", "there-is-none"] {
        let stranger = json!({
            "directorGroup": group, "addresses": ["10.0.0.101"],
            "backends": [{"address": "10.0.0.100"}],
        });
        world.see(mk_service("stranger", 1, &stranger));
        assert_eq!(world.bindings, bindings, "{group}");
        assert_eq!(world.statuses[&mk_name("web")], status, "{group}");
        assert_eq!(
            world
                .condition("stranger", ConditionType::Stalled)
                .as_deref(),
            Some("True Conflict")
        );
        let again = world.restart(&[]);
        assert_eq!(again.bindings, bindings, "{group}");
        assert_eq!(again.statuses, world.statuses, "{group}");
    }
}

#[test]
fn an_older_object_that_is_edited_to_the_vip_of_a_younger_one_is_refused_and_keeps_its_own() {
    let vip = |address: &str| json!({"addresses": [address]});
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_service("old", 1, &vip("10.0.0.100")),
        mk_service("young", 2, &vip("10.0.0.101")),
    ]);
    world.report_all();
    let bindings = world.bindings.clone();

    world.see(mk_service("old", 1, &vip("10.0.0.101")));

    assert_eq!(world.bindings, bindings);
    assert_eq!(
        world.condition("old", ConditionType::Stalled).as_deref(),
        Some("True Conflict")
    );
    assert_eq!(world.addresses("old"), ["10.0.0.100"]);
    assert_eq!(world.condition("young", ConditionType::Stalled), None);
    assert_eq!(world.restart(&[]).bindings, bindings);

    // It has the VIP once the other one is gone; the VIP that it had is free then.
    world.see(Change::VirtualService(mk_name("young"), None));
    assert_eq!(world.addresses("old"), ["10.0.0.101"]);
    world.see(mk_service("third", 3, &vip("10.0.0.100")));
    assert_eq!(world.condition("third", ConditionType::Stalled), None);
}

#[test]
fn a_vip_is_not_shared_with_another_namespace() {
    let mut world = World::of(&[mk_group("lvs1"), mk_service("web", 1, &json!({}))]);
    let Change::VirtualService(_, Some(mut object)) =
        mk_service("web", 2, &json!({"ports": [{"port": 81}]}))
    else {
        unreachable!()
    };
    Arc::make_mut(&mut object).metadata.namespace = Some("blog".to_owned());
    let name = ObjectName::new("blog", "web").unwrap();
    world.see(Change::VirtualService(name, Some(object)));
    assert_eq!(world.binding_names(), ["shop/web.lvs1"]);
    world.see(mk_service("api", 3, &json!({"ports": [{"port": 82}]})));
    assert_eq!(world.binding_names(), ["shop/api.lvs1", "shop/web.lvs1"]);
}

#[test]
fn no_binding_has_a_vip_before_its_grant_is_stored() {
    let mut cluster = World::default().cluster;
    cluster.observe(mk_group("lvs1"));
    cluster.observe(mk_service("web", 1, &json!({})));
    let is_binding = |write: &Write| matches!(write, Write::ApplyBinding { .. });
    assert!(!cluster.reconcile(|| {}).iter().any(is_binding));

    // Meanwhile an older object asks for it: it is granted already.
    cluster.observe(mk_service("older", 0, &json!({})));
    assert!(!cluster.reconcile(|| {}).iter().any(is_binding));
    assert!(cluster.claims.is_granted(&mk_name("web")));
}

#[test]
fn a_service_that_loses_its_key_in_the_same_round_gets_no_binding() {
    let mut cluster = World::default().cluster;
    cluster.observe(mk_group("lvs1"));
    cluster.observe(mk_service("a-young", 2, &json!({})));
    cluster.observe(mk_service("b-old", 1, &json!({})));

    let writes = cluster.reconcile(|| {});

    let of_young = writes.iter().filter(
        |write| matches!(write, Write::ApplyBinding { name, .. } if name.name() == "a-young.lvs1"),
    );
    assert_eq!(of_young.count(), 0);
    let statuses = writes
        .iter()
        .filter(|write| matches!(write, Write::ServiceStatus { .. }));
    assert_eq!(statuses.count(), 2);
}

#[test]
fn a_service_that_is_refused_for_one_vip_does_not_block_another() {
    let vips = |addresses: &[&str]| json!({"addresses": addresses, "backends": []});
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_lvs_node("other", "10.0.0.100"),
        mk_service("old", 1, &vips(&["10.0.0.100", "2001:db8::1"])),
        mk_service("young", 2, &vips(&["2001:db8::1"])),
    ]);
    assert_eq!(world.binding_names(), ["shop/young.lvs1"]);

    world.see(Change::LvsNode(mk_machine("other"), None));

    assert_eq!(world.binding_names(), ["shop/young.lvs1"], "it serves");
    let conflict = world.condition("old", ConditionType::Stalled);
    assert_eq!(conflict.as_deref(), Some("True Conflict"));
}
