//! Addresses from pools.

use std::sync::Arc;

use lvs_crd::condition::ConditionType;
use serde_json::json;

use super::{
    objects::{mk_group, mk_lvs_node, mk_name, mk_pool, mk_service},
    world::World,
};
use crate::cluster::Change;

#[test]
fn a_service_without_addresses_gets_one_of_its_group_and_keeps_it() {
    let mut world = World::directed(&[mk_service("auto", 1, &json!({"addresses": []}))]);
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
fn no_address_is_allocated_before_a_director_has_reported_its_own() {
    let auto = mk_service("auto", 1, &json!({"addresses": []}));
    let mut world = World::of(&[auto, mk_group("lvs1")]);
    let ready = |world: &World| world.condition("auto", ConditionType::Ready).unwrap();
    let verdicts = |world: &World| world.statuses[&mk_name("auto")].1.clone();
    assert_eq!(ready(&world), "False NotReported");
    assert_eq!(
        verdicts(&world)[0].message,
        "no director of DirectorGroup 'default' has reported its addresses yet; an address is allocated once one has"
    );
    let reconciling = world.condition("auto", ConditionType::Reconciling);
    assert_eq!(reconciling.as_deref(), Some("True NotReported"));
    assert!(world.addresses("auto").is_empty());

    world.see(mk_lvs_node("lvs1", "10.9.0.1"));
    assert_eq!(world.addresses("auto"), ["10.9.0.2"]);
    assert!(world.bindings.contains_key(&mk_name("auto.lvs1")));

    // A controller that starts may see the agent's report last.
    let again = World::of(&[vec![mk_group("lvs1")], world.services()].concat());
    assert_eq!(
        again.bindings[&mk_name("auto.lvs1")].addresses,
        ["10.9.0.2"]
    );
}

#[test]
fn a_service_waits_for_the_directors_of_its_group() {
    let auto = mk_service("auto", 1, &json!({"addresses": []}));
    let mut world = World::of(&[auto, mk_lvs_node("lvs1", "10.9.0.1")]);
    let ready = |world: &World| world.condition("auto", ConditionType::Ready).unwrap();
    let resolved = |world: &World| world.condition("auto", ConditionType::ResolvedRefs);
    assert_eq!(ready(&world), "False DirectorGroupNotFound");
    let reconciling = world.condition("auto", ConditionType::Reconciling);
    assert_eq!(reconciling.as_deref(), Some("True DirectorGroupNotFound"));
    assert_eq!(
        resolved(&world).as_deref(),
        Some("False DirectorGroupNotFound")
    );
    world.see(mk_group("lvs2"));
    assert_eq!(ready(&world), "False NotReported", "no report of lvs2");
    world.see(mk_group("lvs1"));
    assert_eq!(world.addresses("auto"), ["10.9.0.2"]);
}

#[test]
fn a_service_that_waits_gets_the_address_that_a_machine_no_longer_has() {
    let auto = mk_service("auto", 1, &json!({"addresses": [], "addressPool": "own"}));
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_pool("own", &json!({"addresses": ["10.9.1.1"]})),
        mk_lvs_node("lvs1", "10.0.0.9"),
        mk_lvs_node("n1", "10.9.1.1"),
        auto,
    ]);
    let stalled = world.condition("auto", ConditionType::Stalled);
    assert_eq!(stalled.as_deref(), Some("True NoFreeAddress"));
    world.see(mk_lvs_node("n1", "10.9.1.2"));
    assert_eq!(world.addresses("auto"), ["10.9.1.1"]);
}

#[test]
fn a_service_that_waits_gets_the_address_of_a_real_server_that_is_removed() {
    let auto = mk_service("auto", 1, &json!({"addresses": [], "addressPool": "own"}));
    let served = |server: &str| {
        mk_service(
            "web",
            1,
            &json!({"addresses": ["10.0.0.100"], "backends": [{"address": server}]}),
        )
    };
    let mut world = World::directed(&[
        mk_pool("own", &json!({"addresses": ["10.0.0.13"]})),
        served("10.0.0.13"),
    ]);
    world.see(auto);
    let stalled = world.condition("auto", ConditionType::Stalled);
    assert_eq!(stalled.as_deref(), Some("True NoFreeAddress"));
    world.see(served("10.0.0.14"));
    assert_eq!(world.addresses("auto"), ["10.0.0.13"]);
}

#[test]
fn a_service_waits_for_a_free_address_and_gets_the_next_one() {
    let auto = |name, created| mk_service(name, created, &json!({"addresses": []}));
    let mut world = World::directed(&[auto("a", 1), auto("b", 2), auto("c", 3)]);
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
    let mut world = World::directed(&[auto("a"), auto("b")]);
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
    let mut world = World::directed(&[mk_service("auto", 2, &json!({"addresses": []}))]);
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
    let world = World::directed(&[auto("web", 2)]);
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
        let mut world = World::directed(&[
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
    let granted = World::directed(&[mk_service("web", 2, &allocated)]).services();
    let mut world = World::of(&[vec![group.clone()], granted].concat());
    world.see(mk_service("web", 2, &twice));
    assert_eq!(
        world.condition("web", ConditionType::Stalled).as_deref(),
        Some("True Invalid")
    );
    assert_eq!(world.addresses("web"), ["10.9.0.1"]);
    assert!(world.bindings.is_empty());
    // A controller that starts has no more than the statuses.
    let statuses = world.services();
    world.see(mk_lvs_node("lvs1", "10.0.0.250"));
    world.see(mk_group("lvs1"));
    world.see(mk_service("another", 1, &allocated));
    assert_eq!(world.addresses("another"), ["10.9.0.2"]);

    let mut world = World::of(&[vec![group], statuses].concat());
    world.see(mk_service("web", 2, &allocated));
    assert_eq!(world.addresses("web"), ["10.9.0.1"]);
}

#[test]
fn a_refused_claim_takes_no_address_out_of_a_pool() {
    let evil = json!({
        "addresses": ["203.0.113.1"],
        "backends": [{"address": "10.9.0.1"}, {"address": "10.9.0.2"}],
    });
    let world = World::directed(&[
        mk_service("evil", 1, &evil),
        mk_service("auto", 2, &json!({"addresses": []})),
    ]);
    assert_eq!(world.addresses("auto"), ["10.9.0.1"]);
}
