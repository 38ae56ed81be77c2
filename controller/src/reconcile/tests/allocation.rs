//! Addresses from pools.

use std::sync::Arc;

use lvs_crd::condition::ConditionType;
use serde_json::json;

use super::{
    objects::{mk_group, mk_name, mk_pool, mk_service},
    world::World,
};
use crate::cluster::Change;

#[test]
fn a_service_without_addresses_gets_one_of_its_group_and_keeps_it() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_service("auto", 1, &json!({"addresses": []})),
    ]);
    let granted = |world: &World| world.statuses[&mk_name("auto")].0.addresses.clone();
    assert_eq!(granted(&world), ["10.9.0.1"]);
    assert_eq!(
        world.bindings[&mk_name("auto.lvs1")].addresses,
        ["10.9.0.1"]
    );

    world.see(mk_service("other", 0, &json!({"addresses": []})));
    assert_eq!(world.statuses[&mk_name("other")].0.addresses, ["10.9.0.2"]);
    assert_eq!(granted(&world), ["10.9.0.1"]);

    // A controller that starts reads it from the status.
    let mut objects = world.services();
    objects.reverse();
    objects.insert(0, mk_group("lvs1"));
    let again = World::of(&objects);
    assert_eq!(
        again.bindings[&mk_name("auto.lvs1")].addresses,
        ["10.9.0.1"]
    );
}

#[test]
fn a_service_waits_for_a_free_address_and_gets_the_next_one() {
    let auto = |name, created| mk_service(name, created, &json!({"addresses": []}));
    let mut world = World::of(&[mk_group("lvs1"), auto("a", 1), auto("b", 2), auto("c", 3)]);
    assert_eq!(
        world.condition("c", ConditionType::Stalled).as_deref(),
        Some("True NoFreeAddress")
    );

    world.see(Change::VirtualService(mk_name("a"), None));

    assert_eq!(world.condition("c", ConditionType::Stalled), None);
    assert!(world.bindings.contains_key(&mk_name("c.lvs1")));
}

#[test]
fn services_keep_their_addresses_while_their_group_is_missing() {
    let auto = |name| mk_service(name, 1, &json!({"addresses": []}));
    let mut world = World::of(&[mk_group("lvs1"), auto("a"), auto("b")]);
    assert_eq!(world.addresses("a"), ["10.9.0.1"]);
    let bindings = world.bindings.clone();

    world.see(Change::DirectorGroup("default".to_owned(), None));
    assert_eq!(world.addresses("a"), ["10.9.0.1"]);
    assert_eq!(world.bindings, bindings);

    world.see(mk_group("lvs1"));
    assert_eq!(world.addresses("a"), ["10.9.0.1"]);
    assert_eq!(world.addresses("b"), ["10.9.0.2"]);
    assert_eq!(world.bindings, bindings);
}

#[test]
fn an_allocated_address_stays_when_an_older_service_names_it() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_service("auto", 2, &json!({"addresses": []})),
    ]);
    assert_eq!(world.addresses("auto"), ["10.9.0.1"]);
    let bindings = world.bindings.clone();

    world.see(mk_service("fixed", 1, &json!({"addresses": ["10.9.0.1"]})));

    assert_eq!(
        world.condition("fixed", ConditionType::Accepted).as_deref(),
        Some("False Conflict")
    );
    assert_eq!(world.bindings, bindings);
    assert_eq!(world.restart(&[]).bindings, bindings);
}

#[test]
fn of_two_statuses_with_one_address_the_one_that_serves_keeps_it() {
    let auto = |name, created| mk_service(name, created, &json!({"addresses": []}));
    let world = World::of(&[mk_group("lvs1"), auto("web", 2)]);
    // A status that was restored with the address of another object.
    let Change::VirtualService(name, Some(mut restored)) = auto("restored", 1) else {
        unreachable!()
    };
    let status = &world.cluster.objects.services[&mk_name("web")].status;
    Arc::make_mut(&mut restored).status.clone_from(status);
    let again = world.restart(&[Change::VirtualService(name, Some(restored))]);
    assert_eq!(
        again.bindings[&mk_name("web.lvs1")],
        world.bindings[&mk_name("web.lvs1")]
    );
}

#[test]
fn an_allocated_service_that_turns_invalid_takes_no_other_address() {
    for (family, [first, second]) in [
        ("IPv4", ["10.9.0.1", "10.9.0.2"]),
        ("IPv6", ["2001:db8:9::1", "2001:db8:9::2"]),
    ] {
        let allocated = json!({"addresses": [], "ipFamilies": [family], "backends": []});
        let mut invalid = allocated.clone();
        invalid["ports"] = json!([{"port": 80, "targetPort": 81}]);
        let mut world = World::of(&[
            mk_group("lvs1"),
            mk_pool("six", &json!({"addresses": ["2001:db8:9::/64"]})),
            mk_service("auto", 2, &allocated),
        ]);
        world.see(mk_service("auto", 2, &invalid));
        let named = json!({"addresses": [first], "backends": []});
        world.see(mk_service("fixed", 1, &named));
        assert_eq!(world.addresses("auto"), [first]);

        world.see(mk_service("second", 3, &allocated));
        assert_eq!(world.addresses("second"), [second], "the pool is whole");
        world.see(mk_service("auto", 2, &allocated));
        assert_eq!(world.addresses("auto"), [first]);
    }
}

#[test]
fn an_invalid_edit_keeps_an_allocated_address_without_a_binding() {
    let empty_group = |group: Change| {
        let Change::DirectorGroup(name, Some(mut object)) = group else {
            unreachable!()
        };
        Arc::make_mut(&mut object).spec.nodes.names.clear();
        Arc::make_mut(&mut object).spec.nodes.selector = Some(Default::default());
        Change::DirectorGroup(name, Some(object))
    };
    let allocated = json!({"addresses": []});
    let twice = json!({
        "addresses": [],
        "backends": [{"address": "10.0.0.11"}, {"address": "10.0.0.11"}],
    });
    let group = empty_group(mk_group("lvs1"));
    let mut world = World::of(&[group.clone(), mk_service("web", 2, &allocated)]);
    assert_eq!(world.addresses("web"), ["10.9.0.1"]);
    world.see(mk_service("web", 2, &twice));
    assert_eq!(
        world.condition("web", ConditionType::Stalled).as_deref(),
        Some("True Invalid")
    );
    assert_eq!(world.addresses("web"), ["10.9.0.1"]);
    world.see(mk_service("another", 1, &allocated));
    assert_eq!(world.addresses("another"), ["10.9.0.2"]);

    // A controller that starts has no more than the statuses.
    let mut world = World::of(&[vec![group], world.services()].concat());
    world.see(mk_service("web", 2, &allocated));
    assert_eq!(world.addresses("web"), ["10.9.0.1"]);
}

#[test]
fn a_refused_claim_takes_no_address_out_of_a_pool() {
    let evil = json!({
        "addresses": ["203.0.113.1"],
        "backends": [{"address": "10.9.0.1"}, {"address": "10.9.0.2"}],
    });
    let world = World::of(&[
        mk_group("lvs1"),
        mk_service("evil", 1, &evil),
        mk_service("auto", 2, &json!({"addresses": []})),
    ]);
    assert_eq!(world.addresses("auto"), ["10.9.0.1"]);
}
