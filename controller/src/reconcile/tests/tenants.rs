//! What a namespace may not have: real servers and marks that its group does not permit.

use std::sync::Arc;

use lvs_crd::condition::ConditionType;
use serde_json::{Value, json};

use super::{
    objects::{
        mk_changed_group, mk_generation, mk_group, mk_kube_service, mk_lvs_node, mk_name,
        mk_service, mk_slice,
    },
    world::World,
};
use crate::cluster::Change;

fn permitting(real_servers: &Value) -> Change {
    mk_changed_group(&json!({"realServers": real_servers}))
}

#[test]
fn an_address_that_the_group_does_not_permit_is_refused_as_a_real_server() {
    let servers = |addresses: &[&str]| {
        let endpoints = addresses.iter().map(|address| json!({"address": address}));
        let endpoints: Vec<Value> = endpoints.collect();
        mk_service("web", 1, &json!({"backends": endpoints}))
    };
    let refused = Some("True NotPermitted".to_owned());
    let stalled = |world: &World| world.condition("web", ConditionType::Stalled);
    for group in [
        json!(null),
        json!({"cidrs": ["10.0.1.0/24"]}),
        json!({"cidrs": ["10.0.0.0/24"], "namespaces": {"names": ["blog"]}}),
    ] {
        let world = World::of(&[permitting(&group), servers(&["10.0.0.11"])]);
        assert_eq!(stalled(&world), refused, "{group}");
        assert_eq!(world.bindings.len(), 0);
    }
    let mut world = World::of(&[
        permitting(&json!({"cidrs": ["10.0.0.0/24"], "namespaces": {"names": ["shop"]}})),
        servers(&["10.0.0.11"]),
    ]);
    assert_eq!(stalled(&world), None);

    // What serves stays when the group is edited; a new one is refused.
    world.see(permitting(&json!({"cidrs": ["10.0.1.0/24"]})));
    assert_eq!(stalled(&world), None);
    assert_eq!(
        world.condition("web", ConditionType::Accepted).as_deref(),
        Some("True NotPermitted")
    );
    let bindings = world.bindings.clone();
    world.see(servers(&["10.0.0.11", "10.0.0.12"]));
    assert_eq!(stalled(&world), refused);
    assert_eq!(world.bindings, bindings);
}

#[test]
fn endpoints_that_are_no_pods_must_be_permitted() {
    let spec = json!({"forwarding": "NAT", "backends": [{"service": {"name": "web"}}]});
    for (networks, count) in [("10.0.0.0/24", 1), ("10.0.1.0/24", 0)] {
        let world = World::of(&[
            permitting(&json!({"cidrs": [networks]})),
            mk_slice(false),
            mk_kube_service(),
            mk_generation(1, &spec),
        ]);
        let bindings = &world.bindings[&mk_name("web.lvs1")];
        assert_eq!(bindings.real_servers.len(), count, "{networks}");
    }
}

#[test]
fn marks_are_given_out_by_the_group() {
    let marked = |mark: u32| {
        mk_service(
            "web",
            1,
            &json!({"addresses": [], "ports": [], "fwmark": mark}),
        )
    };
    let stalled = |world: &World| world.condition("web", ConditionType::Stalled);
    let mut world = World::of(&[mk_group("lvs1"), marked(7)]);
    assert_eq!(stalled(&world).as_deref(), Some("True NotPermitted"));
    let marks = |namespace: &str| {
        mk_changed_group(&json!({
            "fwmarks": [{"from": 1, "to": 9, "namespaces": {"names": [namespace]}}],
        }))
    };
    world.see(marks("blog"));
    assert_eq!(stalled(&world).as_deref(), Some("True NotPermitted"));
    world.see(marks("shop"));
    assert_eq!(stalled(&world), None);
    assert_eq!(world.binding_names(), ["shop/web.lvs1"]);

    world.see(marks("blog"));
    assert_eq!(stalled(&world), None, "it serves");
    world.see(marked(10));
    assert_eq!(stalled(&world).as_deref(), Some("True NotPermitted"));
    assert_eq!(world.bindings[&mk_name("web.lvs1")].fwmark, Some(7));
}

#[test]
fn the_api_servers_address_is_no_vip() {
    let Change::EndpointSlice(_, Some(mut slice)) = mk_slice(false) else {
        unreachable!()
    };
    let changed = Arc::make_mut(&mut slice);
    changed.metadata.labels = Some(
        [(
            "kubernetes.io/service-name".to_owned(),
            "kubernetes".to_owned(),
        )]
        .into(),
    );
    let name = lvs_model::ObjectName::new("default", "kubernetes").unwrap();
    let world = World::of(&[
        mk_group("lvs1"),
        Change::EndpointSlice(name, Some(slice)),
        mk_service("web", 1, &json!({"addresses": ["10.0.0.13"]})),
    ]);
    assert_eq!(
        world.condition("web", ConditionType::Stalled).as_deref(),
        Some("True Conflict")
    );
}

#[test]
fn a_group_that_is_not_there_gives_no_marks_and_no_real_servers() {
    let mark = json!({"addresses": [], "ports": [], "fwmark": 7});
    let squat = json!({
        "directorGroup": "none", "addresses": [], "ports": [], "fwmark": 7,
        "backends": [{"address": "10.0.0.100"}],
    });
    let group = mk_changed_group(&json!({"fwmarks": [{"from": 1, "to": 9}]}));
    let mut world = World::of(&[group, mk_service("evil", 1, &squat)]);
    world.see(mk_service("web", 2, &json!({})));
    assert_eq!(world.condition("web", ConditionType::Stalled), None);
    world.see(mk_service("marked", 3, &mark));
    assert_eq!(world.condition("marked", ConditionType::Stalled), None);
}

#[test]
fn replies_go_through_no_gateway_that_is_not_the_directors() {
    let gateway = |address: &str| {
        let nat = json!({"returnPath": "PolicyRoute", "gateways": [address]});
        mk_service("web", 1, &json!({"forwarding": "NAT", "nat": nat}))
    };
    let mut world = World::of(&[mk_group("lvs1"), gateway("10.0.0.66")]);
    assert_eq!(world.condition("web", ConditionType::Stalled), None);
    let bindings = world.bindings.clone();

    // It is known as wrong once the director reports, and what serves goes on.
    world.see(mk_lvs_node("lvs1", "10.0.0.1"));
    world.see(gateway("10.0.0.66"));
    assert_eq!(world.bindings, bindings);
    assert_eq!(
        world.condition("web", ConditionType::Accepted).as_deref(),
        Some("True NotPermitted")
    );
    world.see(gateway("10.0.0.67"));
    assert_eq!(
        world.condition("web", ConditionType::Stalled).as_deref(),
        Some("True NotPermitted")
    );
    assert_eq!(world.bindings, bindings);
    world.see(gateway("10.0.0.1"));
    assert_eq!(world.condition("web", ConditionType::Stalled), None);
}
