//! AddressPools: which VIPs a namespace may have, and what becomes of those that it has.

use std::{collections::BTreeMap, sync::Arc};

use lvs_crd::{
    Facts,
    condition::{self, ConditionType},
};
use serde_json::{Value, json};

use super::{
    objects::{mk_group, mk_lvs_node, mk_name, mk_pool, mk_service},
    world::World,
};
use crate::cluster::Change;

fn stalled(world: &World, name: &str) -> Option<String> {
    world.condition(name, ConditionType::Stalled)
}

fn pool_of(world: &World, name: &str) -> lvs_crd::AddressPoolStatus {
    let object = &world.cluster.objects.pools[&name.parse().unwrap()];
    object.status.clone().unwrap()
}

#[test]
fn a_vip_in_no_pool_of_the_namespace_is_refused_with_the_pools_of_the_namespace() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_pool(
            "blog",
            &json!({"addresses": ["192.0.2.0/24"], "namespaces": {"names": ["blog"]}}),
        ),
        mk_service("web", 1, &json!({"addresses": ["192.0.2.9"]})),
    ]);
    assert_eq!(stalled(&world, "web").as_deref(), Some("True OutsidePools"));
    let (status, verdicts) = &world.statuses[&mk_name("web")];
    assert_eq!(status.addresses, [""; 0]);
    assert_eq!(
        verdicts[0].message,
        "`spec.addresses[0]` must be in an AddressPool that serves namespace 'shop' and DirectorGroup 'default': \
         '192.0.2.9' is not in fixed, public"
    );
    assert_eq!(world.bindings.len(), 0);

    world.see(Change::Namespace(
        "shop".to_owned(),
        Some(BTreeMap::from([("tier".to_owned(), "front".to_owned())])),
    ));
    let selecting = json!({
        "addresses": ["192.0.2.0/24"],
        "namespaces": {"selector": {"matchLabels": {"tier": "front"}}},
    });
    world.see(mk_pool("front", &selecting));
    assert_eq!(stalled(&world, "web"), None);
}

#[test]
fn a_pool_that_is_edited_or_deleted_under_a_vip_keeps_it_with_a_condition() {
    let slice = |address: &str| json!({"addresses": [], "backends": [{"address": address}]});
    let mut world = World::directed(&[mk_service("auto", 1, &slice("10.0.0.11"))]);
    let accepted = |world: &World| world.condition("auto", ConditionType::Accepted).unwrap();
    let pools: [Change; 2] = [
        mk_pool("public", &json!({"addresses": ["10.9.0.7"]})),
        Change::AddressPool("public".parse().unwrap(), None),
    ];
    for (pool, server) in pools.into_iter().zip(["10.0.0.12", "10.0.0.13"]) {
        world.see(pool);
        assert_eq!(accepted(&world), "True OutsidePools");
        assert_eq!(world.addresses("auto"), ["10.9.0.1"]);
        // Changes of the spec still reach the director.
        world.see(mk_service("auto", 1, &slice(server)));
        let servers = &world.bindings[&mk_name("auto.lvs1")].real_servers;
        assert_eq!(servers[0].address, server);
        assert_eq!(world.restart(&[]).addresses("auto"), ["10.9.0.1"]);
    }
}

#[test]
fn addresses_of_machines_gateways_networks_and_real_servers_are_not_allocated() {
    let auto = |name, server: &str| {
        let backends = json!([{"address": server}]);
        mk_service(name, 1, &json!({"addresses": [], "backends": backends}))
    };
    let Change::LvsNode(name, Some(mut machine)) = mk_lvs_node("n1", "10.9.1.2") else {
        unreachable!()
    };
    let status = Arc::make_mut(&mut machine).status.as_mut().unwrap();
    let facts: &mut Facts = status.facts.as_mut().unwrap();
    facts.gateways.push("10.9.1.1".to_owned());
    let mut world = World::directed(&[
        mk_pool("public", &json!({"addresses": ["10.9.1.0-10.9.1.6"]})),
        Change::LvsNode(name, Some(machine)),
        auto("a", "10.9.1.3"),
        auto("b", "10.0.0.11"),
    ]);
    assert_eq!(world.addresses("a"), ["10.9.1.4"]);
    assert_eq!(world.addresses("b"), ["10.9.1.5"]);
    for vip in ["10.9.1.0", "10.9.1.1", "10.9.1.2", "10.9.1.3"] {
        world.see(mk_service("fixed", 2, &json!({"addresses": [vip]})));
        let refused = stalled(&world, "fixed").unwrap();
        assert!(
            ["True Conflict", "True OutsidePools"].contains(&&*refused),
            "{vip} {refused}"
        );
    }
    let status = pool_of(&world, "public");
    assert_eq!(
        (status.ipv4.total, status.ipv4.allocated, status.ipv4.free),
        (4, 2, 2)
    );
}

#[test]
fn a_directors_own_address_is_a_vip_if_a_pool_lists_it_but_for_its_own_ports() {
    let web = |port: u16| {
        mk_service(
            "web",
            1,
            &json!({"addresses": ["10.0.0.9"], "ports": [{"port": port}]}),
        )
    };
    let mut world = World::of(&[mk_group("lvs1"), mk_lvs_node("lvs1", "10.0.0.9"), web(80)]);
    assert_eq!(stalled(&world, "web").as_deref(), Some("True OutsidePools"));
    world.see(mk_pool("own", &json!({"addresses": ["10.0.0.9"]})));
    assert_eq!(stalled(&world, "web"), None);
    for port in [22, 6443, 10250] {
        world.see(web(port));
        assert_eq!(
            stalled(&world, "web").as_deref(),
            Some("True NotPermitted"),
            "{port}"
        );
        assert_eq!(world.bindings[&mk_name("web.lvs1")].ports[0].port, 80);
    }
}

#[test]
fn two_families_are_allocated_when_asked_for() {
    let both = json!({"addresses": [], "ipFamilies": ["IPv6", "IPv4"]});
    let mut world = World::directed(&[mk_service("web", 1, &both)]);
    assert_eq!(
        stalled(&world, "web").as_deref(),
        Some("True NoFreeAddress")
    );
    world.see(mk_pool("six", &json!({"addresses": ["2001:db8:9::/64"]})));
    assert_eq!(stalled(&world, "web").as_deref(), None);
    assert_eq!(world.addresses("web"), ["2001:db8:9::1", "10.9.0.1"]);
    assert_eq!(
        world.restart(&[]).addresses("web"),
        ["2001:db8:9::1", "10.9.0.1"]
    );
    assert_eq!(pool_of(&world, "six").ipv6.allocated, 1);
}

#[test]
fn a_named_pool_is_used_and_one_that_does_not_serve_the_namespace_is_refused() {
    let named = |pool: &str| mk_service("web", 1, &json!({"addresses": [], "addressPool": pool}));
    let mut world = World::directed(&[
        mk_pool(
            "blog",
            &json!({"addresses": ["192.0.2.1"], "namespaces": {"names": ["blog"]}}),
        ),
        named("blog"),
    ]);
    assert_eq!(
        stalled(&world, "web").as_deref(),
        Some("True NoAddressPool")
    );
    world.see(named("fixed"));
    assert_eq!(world.addresses("web"), ["10.0.0.1"]);
}

#[test]
fn wrong_ranges_and_overlaps_are_stated_by_the_pool_and_the_rest_of_it_is_used() {
    let mut world = World::of(&[mk_group("lvs1")]);
    let reason = |world: &World, name: &str| -> Value {
        let conditions = pool_of(world, name).conditions;
        let stalled = condition::find(&conditions, ConditionType::Stalled);
        json!(stalled.map(|stalled| stalled.reason.clone()))
    };
    world.see(mk_pool(
        "wrong",
        &json!({"addresses": ["192.0.2.9-192.0.2.1", "192.0.2.20"]}),
    ));
    assert_eq!(reason(&world, "wrong"), "Invalid");
    assert_eq!(pool_of(&world, "wrong").ipv4.total, 1);
    assert_eq!(reason(&world, "public"), Value::Null);
    world.see(mk_pool("more", &json!({"addresses": ["10.9.0.0/24"]})));
    assert_eq!(reason(&world, "public"), "Overlap");
    assert_eq!(reason(&world, "more"), "Overlap");
    world.see(Change::AddressPool("more".parse().unwrap(), None));
    assert_eq!(reason(&world, "public"), Value::Null);
}

#[test]
fn the_holder_of_a_lost_address_is_named() {
    let auto = |name, created| mk_service(name, created, &json!({"addresses": []}));
    let mut world = World::directed(&[auto("web", 2)]);
    world.see(auto("other", 3));
    let Change::VirtualService(name, Some(mut restored)) = auto("restored", 1) else {
        unreachable!()
    };
    let status = &world.cluster.objects.services[&mk_name("web")].status;
    Arc::make_mut(&mut restored).status.clone_from(status);
    let again = world.restart(&[Change::VirtualService(name, Some(restored))]);
    assert_eq!(again.addresses("web"), ["10.9.0.1"]);
    let (_, verdicts) = &again.statuses[&mk_name("restored")];
    let message = &verdicts[0].message;
    assert!(
        message.ends_with("'10.9.0.1', which it had, is held by VirtualService shop/web"),
        "{message}"
    );
}
