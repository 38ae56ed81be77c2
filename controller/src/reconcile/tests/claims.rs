//! VIPs and ports that more than one virtual service asks for.

use lvs_crd::condition::ConditionType;
use serde_json::json;

use super::{
    objects::{mk_group, mk_lvs_node, mk_machine, mk_name, mk_service},
    world::World,
};
use crate::{
    cluster::{Change, Cluster},
    write::Write,
};

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
fn a_vip_that_is_a_real_servers_or_another_machines_address_is_refused() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_service("web", 1, &json!({"addresses": ["10.0.0.100"]})),
    ]);
    assert_eq!(world.condition("web", ConditionType::Stalled), None);

    world.see(mk_lvs_node("other", "10.0.0.100", None));
    assert_eq!(
        world.condition("web", ConditionType::Stalled).as_deref(),
        Some("True Conflict")
    );
    world.see(Change::LvsNode(mk_machine("other"), None));
    assert_eq!(world.condition("web", ConditionType::Stalled), None);

    world.see(mk_service(
        "api",
        2,
        &json!({
            "addresses": ["10.0.0.101"], "backends": {"endpoints": [{"address": "10.0.0.100"}]},
        }),
    ));
    assert_eq!(
        world.condition("web", ConditionType::Stalled).as_deref(),
        Some("True Conflict")
    );
}

#[test]
fn a_service_that_loses_its_key_in_the_same_round_gets_no_binding() {
    let mut cluster = Cluster::default();
    cluster.observe(mk_group("lvs1"));
    cluster.observe(mk_service("a-young", 2, &json!({})));
    cluster.observe(mk_service("b-old", 1, &json!({})));

    let writes = cluster.reconcile();

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
    let vips = |addresses: &[&str]| json!({"addresses": addresses, "backends": {}});
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_lvs_node("other", "10.0.0.100", None),
        mk_service("old", 1, &vips(&["10.0.0.100", "2001:db8::1"])),
        mk_service("young", 2, &vips(&["2001:db8::1"])),
    ]);
    assert_eq!(world.binding_names(), ["shop/young.lvs1"]);

    world.see(Change::LvsNode(mk_machine("other"), None));

    assert_eq!(world.binding_names(), ["shop/old.lvs1"]);
    let conflict = world.condition("young", ConditionType::Stalled);
    assert_eq!(conflict.as_deref(), Some("True Conflict"));
}
