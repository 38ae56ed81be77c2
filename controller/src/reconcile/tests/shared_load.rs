//! Groups with several virtual routers, so that all directors carry load.

use std::collections::BTreeMap;

use lvs_crd::{
    IpFamily, StandingState,
    condition::{self, ConditionType},
    convert::default_router_id,
};
use serde_json::{Value, json};

use super::{
    objects::{mk_changed_group, mk_lvs_node, mk_machine, mk_name, mk_named_group, mk_service},
    world::World,
};
use crate::cluster::Change;

const FIRST: i64 = 51;
const SECOND: i64 = 52;
/// The VIPs of `web`, which belongs to the second of two routers, and of `api`, which belongs to the first.
const WEB: &str = "10.0.0.100";
const API: &str = "10.0.0.102";

fn mk_shared_group(routers: i64) -> Change {
    mk_changed_group(&json!({
        "nodes": {"names": ["n1", "n2"]},
        "failover": {"virtualRouterId": FIRST, "routers": routers, "preemptAfterSeconds": 60},
    }))
}

/// Two directors and two virtual services in a group with two virtual routers.
fn mk_pair() -> World {
    let mut world = World::of(&[
        mk_shared_group(2),
        mk_lvs_node("n1", "10.0.0.1"),
        mk_lvs_node("n2", "10.0.0.2"),
        mk_service("web", 1, &json!({"addresses": [WEB]})),
        mk_service("api", 1, &json!({"addresses": [API]})),
    ]);
    world.report_all();
    world
}

/// A director reports what it is in the two routers.
fn stand(world: &mut World, machine: &str, states: [StandingState; 2]) {
    let states = [FIRST, SECOND].into_iter().zip(states);
    let states: Vec<_> = states
        .map(|(id, state)| (id, IpFamily::V4, state))
        .collect();
    world.stand_in(machine, &states);
}

/// The condition Ready of a virtual service, and who holds its VIP.
fn of_service(world: &World, name: &str) -> (String, Vec<String>) {
    let status = &world.statuses[&mk_name(name)].0;
    let holders = status.holders.iter();
    let holders = holders.map(|holder| format!("{} {}", holder.address, holder.director));
    let ready = world.condition(name, ConditionType::Ready).unwrap();
    (ready, holders.collect())
}

/// The condition Ready of the group, and what it says.
fn group_ready(world: &World) -> (String, String) {
    let status = world.cluster.objects.groups["default"].status.clone();
    let conditions = status.unwrap().conditions;
    let ready = condition::find(&conditions, ConditionType::Ready).unwrap();
    let text = format!("{} {}", ready.status, ready.reason);
    (text, ready.message.clone())
}

/// The active directors of the group, and those of each router.
fn group_active(world: &World) -> (String, Vec<(i64, String)>) {
    let status = world.cluster.objects.groups["default"].status.clone();
    let status = status.unwrap();
    let routers = status.routers.into_iter();
    let routers = routers.map(|router| (router.router_id, router.active));
    (status.active, routers.collect())
}

/// The first router id and the number of routers of each group of a machine.
fn routers(world: &World, machine: &str) -> BTreeMap<String, (i64, usize)> {
    let node = &world.cluster.objects.lvs_nodes[&mk_machine(machine)];
    let groups = node.spec.groups.iter();
    let routers = groups.map(|group| {
        let failover = group.failover.as_ref().unwrap();
        let routers = (failover.virtual_router_id, failover.priorities.len());
        (group.name.clone(), routers)
    });
    routers.collect()
}

fn priorities(world: &World, machine: &str) -> Vec<i64> {
    let node = &world.cluster.objects.lvs_nodes[&mk_machine(machine)];
    let failover = node.spec.groups[0].failover.clone();
    failover.unwrap().priorities
}

use StandingState::{Active, Standby};

#[test]
fn each_router_prefers_another_director() {
    let mut world = mk_pair();
    assert_eq!(priorities(&world, "n1"), [100, 99]);
    assert_eq!(priorities(&world, "n2"), [99, 100]);
    world.see(mk_changed_group(&json!({
        "nodes": {"names": ["n1", "n2", "n3"]},
        "failover": {"virtualRouterId": FIRST, "routers": 3, "priorities": [{"node": "n3", "priority": 150}]},
    })));
    world.see(mk_lvs_node("n3", "10.0.0.3"));
    assert_eq!(priorities(&world, "n3"), [150, 99, 100]);
    assert_eq!(priorities(&world, "n1"), [100, 150, 99]);
    assert_eq!(priorities(&world, "n2"), [99, 100, 150]);
}

#[test]
fn the_status_names_the_holder_of_each_router_and_of_each_vip() {
    let mut world = mk_pair();
    stand(&mut world, "n1", [Active, Standby]);
    stand(&mut world, "n2", [Standby, Active]);
    let ready = |holder: &str| ("True Ready".to_owned(), vec![holder.to_owned()]);
    assert_eq!(of_service(&world, "web"), ready("10.0.0.100 n2"));
    assert_eq!(of_service(&world, "api"), ready("10.0.0.102 n1"));
    let active = |names: &str, [first, second]: [&str; 2]| {
        let routers = vec![(FIRST, first.to_owned()), (SECOND, second.to_owned())];
        (names.to_owned(), routers)
    };
    assert_eq!(group_active(&world), active("n1,n2", ["n1", "n2"]));
    assert_eq!(group_ready(&world).0, "True Ready");

    stand(&mut world, "n2", [Active, Active]);
    stand(&mut world, "n1", [Standby, Standby]);
    assert_eq!(of_service(&world, "api"), ready("10.0.0.102 n2"));
    assert_eq!(group_active(&world), active("n2", ["n2", "n2"]));
    let status = &world.statuses[&mk_name("api")].0;
    assert_eq!(status.active_director.as_deref(), Some("n2"));
}

#[test]
fn a_router_without_a_holder_is_named_and_concerns_its_own_vips() {
    let mut world = mk_pair();
    stand(&mut world, "n1", [Active, Standby]);
    stand(&mut world, "n2", [Standby, Standby]);
    let (ready, message) = group_ready(&world);
    assert_eq!(ready, "False NoActiveDirector");
    assert!(
        message.contains("the IPv4 VIPs of virtual router 52"),
        "{message}"
    );
    assert_eq!(of_service(&world, "web").0, "False NoActiveDirector");
    assert_eq!(of_service(&world, "api").0, "True Ready");

    // The one that held it is silent.
    stand(&mut world, "n2", [Standby, Active]);
    for machine in ["n1", "n2"] {
        world.see(Change::Agent(mk_machine(machine), true));
    }
    world.see(Change::AgentsKnown);
    assert_eq!(group_ready(&world).0, "True Ready");
    world.see(Change::Agent(mk_machine("n2"), false));
    let (ready, message) = group_ready(&world);
    assert_eq!(ready, "Unknown DirectorUnreachable");
    assert!(message.contains("virtual router 52"), "{message}");
    assert_eq!(of_service(&world, "web").0, "Unknown DirectorUnreachable");
    assert_eq!(of_service(&world, "api").0, "True Ready");
}

#[test]
fn two_holders_of_one_router_are_a_contest_and_of_two_routers_are_none() {
    let mut world = mk_pair();
    stand(&mut world, "n1", [Active, Standby]);
    stand(&mut world, "n2", [Standby, Active]);
    world.confirm_contests();
    assert_eq!(group_ready(&world).0, "True Ready");

    stand(&mut world, "n2", [Active, Active]);
    world.confirm_contests();
    let (ready, message) = group_ready(&world);
    assert_eq!(ready, "False SeveralActive");
    assert!(message.contains("of virtual router 51"), "{message}");
    assert_eq!(of_service(&world, "api").0, "False SeveralActive");
    assert_eq!(of_service(&world, "web").0, "True Ready");
}

#[test]
fn a_vip_of_a_router_that_no_agent_knows_yet_is_where_it_was() {
    let mut world = World::of(&[
        mk_shared_group(1),
        mk_lvs_node("n1", "10.0.0.1"),
        mk_lvs_node("n2", "10.0.0.2"),
        mk_service("web", 1, &json!({"addresses": [WEB]})),
    ]);
    world.report_all();
    world.stand("n1", &[(IpFamily::V4, Active)]);
    world.stand("n2", &[(IpFamily::V4, Standby)]);
    let ready = |holder: &str| ("True Ready".to_owned(), vec![holder.to_owned()]);
    assert_eq!(of_service(&world, "web"), ready("10.0.0.100 n1"));

    world.see(mk_shared_group(2));
    assert_eq!(of_service(&world, "web"), ready("10.0.0.100 n1"));
    stand(&mut world, "n1", [Standby, Active]);
    assert_eq!(of_service(&world, "web"), ready("10.0.0.100 n1"));
}

#[test]
fn a_director_that_leaves_hands_all_routers_over_first() {
    let mut world = mk_pair();
    stand(&mut world, "n1", [Active, Active]);
    stand(&mut world, "n2", [Standby, Standby]);
    world.see(mk_changed_group(&json!({
        "nodes": {"names": ["n2"]},
        "failover": {"virtualRouterId": FIRST, "routers": 2},
    })));
    world.report_all();
    stand(&mut world, "n2", [Active, Standby]);
    assert_eq!(world.binding_names().len(), 4);
    stand(&mut world, "n2", [Active, Active]);
    assert_eq!(world.binding_names(), ["shop/api.n2", "shop/web.n2"]);
}

#[test]
fn a_group_gets_consecutive_ids_that_no_other_group_has() {
    let group = |name: &str, failover: Value| {
        let spec = json!({"nodes": {"names": ["n1", "n2"]}, "failover": failover});
        mk_named_group(name, &spec)
    };
    let preferred = i64::from(default_router_id("b"));
    assert!(preferred < 240, "{preferred}");
    let mut world = World::of(&[
        group("c", json!({"virtualRouterId": preferred + 2, "routers": 2})),
        mk_lvs_node("n1", "10.0.0.1"),
        mk_lvs_node("n2", "10.0.0.2"),
    ]);
    // The preferred id and the next one are free, but not the third.
    world.see(group("b", json!({"routers": 3})));
    assert_eq!(routers(&world, "n1")["b"], (preferred + 4, 3));
    assert_eq!(routers(&world, "n2")["b"], (preferred + 4, 3));
    assert_eq!(routers(&world, "n1")["c"], (preferred + 2, 2));
}

#[test]
fn more_routers_than_there_are_free_ids_move_no_group_and_are_reported() {
    let group_of = |name: &str, nodes: [&str; 2], failover: Value| {
        let spec = json!({"nodes": {"names": nodes}, "failover": failover});
        mk_named_group(name, &spec)
    };
    let group = |name: &str, failover: Value| group_of(name, ["n1", "n2"], failover);
    let mut world = World::of(&[
        group("default", json!({"virtualRouterId": FIRST})),
        group_of("other", ["n8", "n9"], json!({"virtualRouterId": FIRST + 2})),
        mk_lvs_node("n1", "10.0.0.1"),
        mk_lvs_node("n2", "10.0.0.2"),
    ]);
    world.see(group(
        "default",
        json!({"virtualRouterId": FIRST, "routers": 4}),
    ));
    assert_eq!(routers(&world, "n1")["default"], (FIRST, 2));
    let (ready, message) = group_ready(&world);
    assert_eq!(ready, "False Conflict");
    assert!(
        message.contains("the id 53 is of DirectorGroup 'other'"),
        "{message}"
    );
    assert!(
        message.contains("2 virtual routers instead of 4"),
        "{message}"
    );
    assert_eq!(routers(&world.restart(&[]), "n1")["default"], (FIRST, 2));

    // Another group that comes later takes none of those that are in use.
    world.see(group(
        "third",
        json!({"virtualRouterId": FIRST + 1, "routers": 3}),
    ));
    assert_eq!(routers(&world, "n1")["default"], (FIRST, 2));
    assert_eq!(routers(&world, "n1")["third"], (FIRST + 1, 1));

    world.see(Change::DirectorGroup("third".to_owned(), None));
    assert_eq!(routers(&world, "n1")["default"], (FIRST, 2));
    world.see(Change::DirectorGroup("other".to_owned(), None));
    assert_eq!(routers(&world, "n1")["default"], (FIRST, 4));
    assert_eq!(group_ready(&world).0, "True Ready");

    // A group that gets another id gives its own one up once its machines know.
    let third = |first: i64| group_of("third", ["n3", "n4"], json!({"virtualRouterId": first}));
    world.see(group("default", json!({"virtualRouterId": FIRST})));
    world.see(mk_lvs_node("n3", "10.0.0.3"));
    world.see(mk_lvs_node("n4", "10.0.0.4"));
    world.see(third(FIRST + 1));
    world.see(group(
        "default",
        json!({"virtualRouterId": FIRST, "routers": 2}),
    ));
    assert_eq!(routers(&world, "n1")["default"], (FIRST, 1));
    world.see(third(90));
    assert_eq!(routers(&world, "n1")["default"], (FIRST, 2));

    // They end at 255.
    world.see(group("last", json!({"virtualRouterId": 254, "routers": 3})));
    assert_eq!(routers(&world, "n1")["last"], (254, 2));
}

#[test]
fn a_group_with_gateways_has_one_router() {
    let mut world = mk_pair();
    world.see(mk_changed_group(&json!({
        "nodes": {"names": ["n1", "n2"]},
        "gateways": ["10.0.0.254"],
        "failover": {"virtualRouterId": FIRST, "routers": 2},
    })));
    assert_eq!(routers(&world, "n1")["default"], (FIRST, 1));
}
