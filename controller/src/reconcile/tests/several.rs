//! Groups with several directors.

use std::collections::BTreeMap;

use lvs_crd::{
    DirectorBindingSpec, IpFamily, StandingState,
    condition::{self, ConditionType, Status},
    convert::default_router_id,
};
use serde_json::{Value, json};

use super::{
    objects::{
        mk_bare_node, mk_changed_group, mk_group, mk_lvs_node, mk_machine, mk_name, mk_named_group,
        mk_node, mk_selecting_group, mk_service, mk_uid_node,
    },
    world::World,
};
use crate::cluster::Change;

const ACTIVE: &[(IpFamily, StandingState)] = &[(IpFamily::V4, StandingState::Active)];
const STANDBY: &[(IpFamily, StandingState)] = &[(IpFamily::V4, StandingState::Standby)];

/// The virtual service `web` on n1 and n2, which a group selects.
fn mk_pair() -> World {
    let mut world = World::of(&[
        mk_selecting_group(),
        mk_uid_node("n1"),
        mk_uid_node("n2"),
        mk_service("web", 1, &json!({})),
    ]);
    world.report_all();
    assert_eq!(world.binding_names(), ["shop/web.n1", "shop/web.n2"]);
    world
}

fn ready(world: &World) -> String {
    world.condition("web", ConditionType::Ready).unwrap()
}

fn group_ready(world: &World) -> String {
    let group = world.cluster.objects.groups["default"].status.clone();
    let conditions = group.unwrap().conditions;
    let ready = condition::find(&conditions, ConditionType::Ready).unwrap();
    format!("{} {}", ready.status, ready.reason)
}

fn failover_of(world: &World, machine: &str) -> Vec<bool> {
    let node = &world.cluster.objects.lvs_nodes[&mk_machine(machine)];
    let groups = node.spec.groups.iter();
    groups.map(|group| group.failover.is_some()).collect()
}

#[test]
fn a_machine_that_joins_directs_too_and_the_first_goes_on() {
    let mut world = World::of(&[mk_service("web", 1, &json!({}))]);
    let resolved = |world: &World| world.condition("web", ConditionType::ResolvedRefs).unwrap();
    assert_eq!(resolved(&world), "False DirectorGroupNotFound");
    assert_eq!(world.condition("web", ConditionType::Stalled), None);
    world.see(mk_selecting_group());
    assert_eq!(resolved(&world), "False NoDirector");
    world.see(mk_node("n2"));
    assert_eq!(world.binding_names(), ["shop/web.n2"]);
    assert_eq!(failover_of(&world, "n2"), [false]);
    world.report_all();
    assert_eq!(ready(&world), "True Ready");
    let first = world.bindings[&mk_name("web.n2")].clone();

    world.see(mk_node("n1"));
    assert_eq!(world.binding_names(), ["shop/web.n1", "shop/web.n2"]);
    assert_eq!(world.bindings[&mk_name("web.n2")], first);
    for machine in ["n1", "n2"] {
        assert_eq!(failover_of(&world, machine), [true], "{machine}");
    }
    let nodes: Vec<Change> = ["n1", "n2"].map(mk_node).into();
    assert_eq!(world.restart(&nodes).bindings, world.bindings);
}

#[test]
fn the_settings_of_a_group_reach_each_director() {
    let mut world = mk_pair();
    world.see(mk_changed_group(&json!({
        "nodes": {"names": ["n1", "n2"]},
        "failover": {
            "virtualRouterId": 51, "advertisementMilliseconds": 100, "preemptAfterSeconds": 5,
            "priorities": [{"node": "n2", "priority": 150}],
            "unicast": [{"node": "n1", "addresses": ["10.0.0.1"]}, {"node": "n2", "addresses": ["10.0.0.2"]}],
        },
    })));
    for (machine, priority) in [("n1", 100), ("n2", 150)] {
        let node = &world.cluster.objects.lvs_nodes[&mk_machine(machine)];
        let failover = node.spec.groups[0].failover.clone().unwrap();
        assert_eq!(failover.virtual_router_id, 51);
        assert_eq!(failover.advertisement_milliseconds, 100);
        assert_eq!(failover.preempt_after_seconds, Some(5));
        assert_eq!(failover.priorities, [priority], "{machine}");
        let listed = failover.unicast.iter();
        let listed: Vec<_> = listed.map(|one| (&*one.node, &*one.addresses)).collect();
        let addresses = [["10.0.0.1".to_owned()], ["10.0.0.2".to_owned()]];
        let [first, second] = &addresses;
        assert_eq!(listed, [("n1", &first[..]), ("n2", &second[..])]);
    }
}

/// The machines that are on standby, of n1 and n2.
fn on_standby(world: &World) -> Vec<&'static str> {
    let is_on_standby = |machine: &&str| {
        let node = &world.cluster.objects.lvs_nodes[&mk_machine(machine)];
        node.spec.groups[0].failover.as_ref().unwrap().standby
    };
    ["n1", "n2"].into_iter().filter(is_on_standby).collect()
}

#[test]
fn a_cordoned_director_is_on_standby_unless_all_are() {
    let mut world = mk_pair();
    let cordon = |world: &mut World, machine: &str, is_cordoned| {
        world.see(Change::Cordoned(mk_machine(machine), is_cordoned));
    };
    assert_eq!(on_standby(&world), [""; 0]);
    cordon(&mut world, "n1", true);
    assert_eq!(on_standby(&world), ["n1"]);
    cordon(&mut world, "n2", true);
    assert_eq!(on_standby(&world), [""; 0]);
    cordon(&mut world, "n1", false);
    assert_eq!(on_standby(&world), ["n2"]);
    cordon(&mut world, "n2", false);
    assert_eq!(on_standby(&world), [""; 0]);

    world.see(mk_changed_group(&json!({
        "nodes": {"names": ["n1", "n2"]},
        "failover": {"standby": ["n2"]},
    })));
    assert_eq!(on_standby(&world), ["n2"]);
    // What the group says counts more.
    cordon(&mut world, "n1", true);
    assert_eq!(on_standby(&world), ["n2"]);
}

#[test]
fn a_group_without_a_router_id_gets_a_free_one_and_keeps_it() {
    let group = |name: &str, failover: Value| {
        let spec = json!({"nodes": {"names": ["n1", "n2"]}, "failover": failover});
        mk_named_group(name, &spec)
    };
    let ids = |world: &World| -> BTreeMap<String, i64> {
        let groups = world.cluster.objects.lvs_nodes[&mk_machine("n1")]
            .spec
            .groups
            .iter();
        let ids = groups.map(|group| (group.name.clone(), group.failover.as_ref().unwrap()));
        ids.map(|(name, failover)| (name, failover.virtual_router_id))
            .collect()
    };
    let preferred = i64::from(default_router_id("b"));
    let mut world = World::of(&[
        group("b", json!({})),
        mk_lvs_node("n1", "10.0.0.1"),
        mk_lvs_node("n2", "10.0.0.2"),
    ]);
    assert_eq!(ids(&world)["b"], preferred);
    // One that comes later and gives the same id does not move it.
    world.see(group("c", json!({"virtualRouterId": preferred})));
    assert_eq!(ids(&world)["b"], preferred);

    // One that comes later and would have the id of another.
    let mut world = World::of(&[
        group("c", json!({"virtualRouterId": preferred})),
        mk_lvs_node("n1", "10.0.0.1"),
        mk_lvs_node("n2", "10.0.0.2"),
    ]);
    world.see(group("b", json!({})));
    assert_eq!(ids(&world)["b"], preferred % 255 + 1);
    world.see(group("c", json!({"virtualRouterId": preferred % 254 + 2})));
    assert_eq!(ids(&world)["b"], preferred % 255 + 1);
}

#[test]
fn a_pair_is_ready_once_one_of_them_holds_the_vip() {
    let mut world = mk_pair();
    assert_eq!(ready(&world), "False NoActiveDirector");
    assert_eq!(group_ready(&world), "False NoActiveDirector");

    world.stand("n1", STANDBY);
    world.stand("n2", ACTIVE);
    assert_eq!(ready(&world), "True Ready");
    assert_eq!(group_ready(&world), "True Ready");
    let status = &world.statuses[&mk_name("web")].0;
    assert_eq!(status.active_director.as_deref(), Some("n2"));
    assert!(status.active_since.is_some());
    assert_eq!(status.directors_column, "2/2");
    let group = world.cluster.objects.groups["default"].status.clone();
    assert_eq!(group.unwrap().active, "n2");

    // n2 may have lost its power. After the duration of its Lease, that is known.
    world.stand("n1", ACTIVE);
    assert_eq!(ready(&world), "True Ready");
    let status = &world.statuses[&mk_name("web")].0;
    assert_eq!(status.active_director.as_deref(), Some("n1"));
    world.confirm_contests();
    assert_eq!(ready(&world), "False SeveralActive");
    assert_eq!(group_ready(&world), "False SeveralActive");
    world.stand("n2", STANDBY);
    assert_eq!(ready(&world), "True Ready");
}

#[test]
fn directors_whose_tables_differ_are_named() {
    let mut world = mk_pair();
    world.stand("n1", ACTIVE);
    world.report_table("web.n1", "0123456789abcdef");
    world.report_table("web.n2", "0123456789abcdef");
    assert_eq!(ready(&world), "True Ready");

    world.report_table("web.n2", "fedcba9876543210");
    assert_eq!(ready(&world), "True DirectorsDiffer");
    let (_, verdicts) = &world.statuses[&mk_name("web")];
    let programmed = verdicts
        .iter()
        .find(|verdict| verdict.kind == ConditionType::Programmed)
        .unwrap();
    assert!(
        programmed
            .message
            .starts_with("the IPVS tables of n1 and n2 differ"),
        "{programmed:?}"
    );

    // Until both have reported on a new version, nothing is known.
    world.see(mk_service("web", 1, &json!({"ports": [{"port": 81}]})));
    world.report_table("web.n1", "0000000000000000");
    assert_eq!(ready(&world), "False Pending");
    world.report_table("web.n2", "0000000000000000");
    assert_eq!(ready(&world), "True Ready");
}

#[test]
fn tables_are_compared_once_all_directors_have_reported_on_the_same_real_servers() {
    let mut world = mk_pair();
    world.see(mk_lvs_node("rs1", "10.0.0.11"));
    world.stand("n1", ACTIVE);
    for binding in ["web.n1", "web.n2"] {
        world.report_table(binding, "0123456789abcdef");
    }
    assert_eq!(ready(&world), "True Ready");

    world.report_served("web.rs1", false);
    world.report_table("web.n1", "0000000000000000");
    assert_eq!(ready(&world), "True Ready");
    world.report_table("web.n2", "0000000000000000");
    assert_eq!(ready(&world), "True Ready");
}

#[test]
fn an_agent_that_reports_no_router_id_counts_for_the_first_router() {
    let mut world = mk_pair();
    world.stand("n1", STANDBY);
    world.stand("n2", ACTIVE);
    let name = mk_machine("n2");
    let mut node = world.cluster.objects.lvs_nodes[&name].as_ref().clone();
    node.status.as_mut().unwrap().standings[0].router_id = 0;
    world.see(Change::LvsNode(name, Some(node.into())));
    assert_eq!(ready(&world), "True Ready");
    assert_eq!(group_ready(&world), "True Ready");
}

#[test]
fn one_directs_while_an_agent_cannot_tell_packets_of_other_directors() {
    let serving = json!({"backends": [{"address": "10.0.0.9"}, {"address": "10.0.0.1"}]});
    let old = {
        let Change::LvsNode(name, Some(object)) = mk_lvs_node("n1", "10.0.0.1") else {
            unreachable!()
        };
        let mut object = object.as_ref().clone();
        let facts = object.status.as_mut().unwrap().facts.as_mut();
        facts.unwrap().serves_what_it_directs = false;
        Change::LvsNode(name, Some(object.into()))
    };
    let mut world = World::of(&[
        mk_changed_group(&json!({"nodes": {"names": ["n1", "n2"]}})),
        old,
        mk_lvs_node("n2", "10.0.0.2"),
        mk_service("web", 1, &serving),
    ]);
    assert_eq!(world.binding_names().len(), 1);

    world.see(mk_lvs_node("n1", "10.0.0.1"));
    world.report_all();
    assert_eq!(world.binding_names(), ["shop/web.n1", "shop/web.n2"]);
}

#[test]
fn the_vip_of_each_family_needs_a_holder() {
    let mut world = World::of(&[
        mk_changed_group(&json!({"nodes": {"names": ["n1", "n2"]}})),
        mk_lvs_node("n1", "10.0.0.1"),
        mk_lvs_node("n2", "10.0.0.2"),
        mk_service(
            "web",
            1,
            &json!({"addresses": ["10.0.0.100", "2001:db8::100"]}),
        ),
    ]);
    world.report_all();
    world.stand("n1", ACTIVE);
    assert_eq!(ready(&world), "False NoActiveDirector");
    world.stand("n2", &[(IpFamily::V6, StandingState::Active)]);
    assert_eq!(ready(&world), "True Ready");
    let status = &world.statuses[&mk_name("web")].0;
    assert_eq!(status.active_director.as_deref(), Some("n1,n2"));
}

#[test]
fn a_pair_stays_ready_when_the_standby_is_silent_and_is_unknown_when_the_active_one_is() {
    let mut world = mk_pair();
    world.stand("n1", ACTIVE);
    world.stand("n2", STANDBY);
    for machine in ["n1", "n2"] {
        world.see(Change::Agent(mk_machine(machine), true));
    }
    world.see(Change::AgentsKnown);
    assert_eq!(ready(&world), "True Ready");

    world.see(Change::Agent(mk_machine("n2"), false));
    assert_eq!(ready(&world), "True Ready");
    let (_, verdicts) = &world.statuses[&mk_name("web")];
    let ready_verdict = verdicts
        .iter()
        .find(|verdict| verdict.kind == ConditionType::Ready);
    let message = &ready_verdict.unwrap().message;
    assert!(message.starts_with("n2: its agent"), "{message}");
    assert_eq!(world.statuses[&mk_name("web")].0.directors_column, "1/2");

    world.see(Change::Agent(mk_machine("n2"), true));
    world.report("web.n2", Status::True, "");
    world.see(Change::Agent(mk_machine("n1"), false));
    assert_eq!(ready(&world), "Unknown DirectorUnreachable");
    assert_eq!(group_ready(&world), "Unknown DirectorUnreachable");
    // The standby has taken over.
    world.stand("n2", ACTIVE);
    assert_eq!(ready(&world), "True Ready");
    assert_eq!(group_ready(&world), "True Ready");

    world.see(Change::Agent(mk_machine("n2"), false));
    assert_eq!(ready(&world), "Unknown DirectorUnreachable");
}

#[test]
fn a_director_goes_on_while_its_node_is_missing_or_registered_anew() {
    let mut world = mk_pair();
    world.see(Change::Agent(mk_machine("n1"), true));
    world.see(Change::Agent(mk_machine("n2"), true));
    world.see(Change::AgentsKnown);
    let both = ["shop/web.n1", "shop/web.n2"];
    let still_both = |world: &World, nodes: &[Change]| {
        assert_eq!(world.binding_names(), both);
        assert_eq!(
            world.condition("web", ConditionType::Accepted).as_deref(),
            Some("True LostDirector")
        );
        assert_eq!(world.restart(nodes).binding_names(), both);
    };
    world.see(Change::Node(mk_machine("n1"), None));
    still_both(&world, &[mk_uid_node("n2")]);
    let anew = mk_bare_node("n1", "anew");
    world.see(anew.clone());
    still_both(&world, &[mk_uid_node("n2"), anew]);

    world.see(Change::Agent(mk_machine("n1"), false));
    assert_eq!(world.binding_names(), ["shop/web.n2"]);
    assert_eq!(failover_of(&world, "n2"), [false]);
}

#[test]
fn a_label_that_is_removed_from_a_node_ends_its_part() {
    let mut world = mk_pair();
    // A Node that was registered anew before has its labels back.
    world.see(mk_bare_node("n1", "anew"));
    world.see(mk_uid_node("n1"));
    assert_eq!(world.binding_names(), ["shop/web.n1", "shop/web.n2"]);

    world.see(mk_bare_node("n1", "uid of n1"));
    assert_eq!(world.binding_names(), ["shop/web.n2"]);
    assert_eq!(failover_of(&world, "n2"), [false]);
}

#[test]
fn the_last_director_is_alone_once_no_other_takes_part() {
    let mut world = mk_pair();
    world.stand("n1", STANDBY);
    world.stand("n2", ACTIVE);
    world.see(mk_bare_node("n1", "uid of n1"));
    assert_eq!(world.binding_names(), ["shop/web.n2"]);
    // Its agent has not yet seen that its binding is deleted.
    assert_eq!(failover_of(&world, "n2"), [true]);
    let nodes = [mk_bare_node("n1", "uid of n1"), mk_uid_node("n2")];
    assert_eq!(failover_of(&world.restart(&nodes), "n2"), [true]);

    world.stand("n1", &[]);
    assert_eq!(failover_of(&world, "n2"), [false]);
}

#[test]
fn a_director_that_is_replaced_hands_over_to_its_successor() {
    let mut world = World::of(&[
        mk_group("n1"),
        mk_lvs_node("n1", "10.0.0.1"),
        mk_lvs_node("n2", "10.0.0.2"),
        mk_service("web", 1, &json!({})),
    ]);
    world.report_all();
    let first = world.bindings[&mk_name("web.n1")].clone();

    world.see(mk_group("n2"));
    assert_eq!(world.binding_names(), ["shop/web.n1", "shop/web.n2"]);
    assert_eq!(world.bindings[&mk_name("web.n1")], first);
    // They agree who holds the VIP until the first has let go.
    assert_eq!(failover_of(&world, "n1"), [true]);
    assert_eq!(failover_of(&world, "n2"), [true]);
    world.report("web.n2", Status::False, "no");
    assert_eq!(world.binding_names(), ["shop/web.n1", "shop/web.n2"]);

    world.report("web.n2", Status::True, "");
    assert_eq!(world.binding_names(), ["shop/web.n1", "shop/web.n2"]);
    // It has seen that it is on standby, and takes part in no virtual router.
    world.catch_up("n1");
    assert_eq!(world.binding_names(), ["shop/web.n2"]);
    world.catch_up("n1");
    assert_eq!(failover_of(&world, "n2"), [false]);
}

#[test]
fn a_director_that_leaves_hands_its_vips_over_before_its_bindings_are_deleted() {
    let mut world = mk_pair();
    world.see(mk_service("api", 1, &json!({"addresses": ["10.0.0.101"]})));
    world.stand("n1", ACTIVE);
    world.stand("n2", STANDBY);
    let both = ["shop/api.n1", "shop/api.n2", "shop/web.n1", "shop/web.n2"];
    assert_eq!(world.binding_names(), both);

    // One service is not yet there.
    world.see(mk_changed_group(&json!({"nodes": {"names": ["n2"]}})));
    assert_eq!(on_standby(&world), [""; 0]);
    world.report_all();
    assert_eq!(on_standby(&world), ["n1"]);
    assert_eq!(world.binding_names(), both);

    // It is the same if the two do not hear each other.
    world.stand("n2", ACTIVE);
    world.catch_up("n1");
    assert_eq!(world.binding_names(), ["shop/api.n2", "shop/web.n2"]);
    world.stand("n1", &[]);
    assert_eq!(failover_of(&world, "n2"), [false]);
}

#[test]
fn a_director_that_leaves_is_released_when_it_reports_although_its_standing_is_the_same() {
    let mut world = mk_pair();
    world.stand("n1", ACTIVE);
    world.stand("n2", STANDBY);
    world.see(mk_changed_group(&json!({"nodes": {"names": ["n2"]}})));
    world.report_all();
    assert_eq!(on_standby(&world), ["n1"]);
    let name = mk_machine("n1");
    let seen = |world: &mut World, state, written, observed| {
        let mut node = world.cluster.objects.lvs_nodes[&name].as_ref().clone();
        node.metadata.generation = Some(written);
        let status = node.status.as_mut().unwrap();
        status.observed_generation = Some(observed);
        status.standings[0].state = state;
        world.see(Change::LvsNode(name.clone(), Some(node.into())));
    };
    seen(&mut world, StandingState::Standby, 9, 8);
    world.stand("n2", ACTIVE);
    assert_eq!(world.binding_names(), ["shop/web.n1", "shop/web.n2"]);

    seen(&mut world, StandingState::Standby, 9, 9);
    assert_eq!(world.binding_names(), ["shop/web.n2"]);
}

#[test]
fn a_director_that_leaves_and_is_silent_is_not_waited_for() {
    let mut world = mk_pair();
    world.stand("n1", ACTIVE);
    world.stand("n2", STANDBY);
    world.see(mk_changed_group(&json!({"nodes": {"names": ["n2"]}})));
    assert_eq!(world.binding_names(), ["shop/web.n1", "shop/web.n2"]);
    world.see(Change::AgentsKnown);
    world.see(Change::Agent(mk_machine("n2"), true));
    assert_eq!(world.binding_names(), ["shop/web.n2"]);
}

#[test]
fn the_last_director_that_lives_keeps_its_bindings_although_it_was_to_leave() {
    let mut world = mk_pair();
    world.stand("n2", STANDBY);
    world.stand("n1", ACTIVE);
    world.see(mk_changed_group(&json!({"nodes": {"names": ["n2"]}})));
    world.see(Change::Agent(mk_machine("n1"), true));
    world.see(Change::AgentsKnown);
    assert_eq!(world.binding_names(), ["shop/web.n1", "shop/web.n2"]);
    // One that is deleted has no successor to wait for.
    world.see(Change::VirtualService(mk_name("web"), None));
    assert_eq!(world.binding_names(), [""; 0]);
}

#[test]
fn a_cordoned_successor_takes_over_from_a_director_that_leaves() {
    let mut world = mk_pair();
    world.stand("n2", STANDBY);
    world.stand("n1", ACTIVE);
    world.see(Change::Cordoned(mk_machine("n2"), true));
    world.see(mk_changed_group(&json!({"nodes": {"names": ["n2"]}})));
    assert_eq!(on_standby(&world), ["n1"]);
}

#[test]
fn the_group_reports_a_problem_between_directors() {
    let mut world = mk_pair();
    world.stand("n2", STANDBY);
    world.stand("n1", ACTIVE);
    assert_eq!(group_ready(&world), "True Ready");
    let name = mk_machine("n2");
    let mut node = world.cluster.objects.lvs_nodes[&name].as_ref().clone();
    node.status.as_mut().unwrap().standings[0].problem = Some("something".to_owned());
    world.see(Change::LvsNode(name, Some(node.into())));
    assert_eq!(group_ready(&world), "True RouterProblem");
    assert_eq!(ready(&world), "True Ready");
}

/// Each of them tells packets of clients from those of the other director.
#[test]
fn directors_that_are_real_servers_get_both_bindings_and_weight_when_they_are_ready() {
    let backends = json!({"backends": [{"address": "10.0.0.1"}, {"address": "10.0.0.2"}]});
    let mut world = World::of(&[
        mk_changed_group(&json!({"nodes": {"names": ["n1", "n2"]}})),
        mk_lvs_node("n1", "10.0.0.1"),
        mk_lvs_node("n2", "10.0.0.2"),
        mk_service("web", 1, &backends),
    ]);
    let bindings = ["shop/web.n1", "shop/web.n2"];
    assert_eq!(world.binding_names(), bindings);
    assert_eq!(world.serving(), ["web.n1 10.0.0.1", "web.n2 10.0.0.2"]);
    let weights = |world: &World| ["web.n1", "web.n2"].map(|binding| world.weights(binding));
    assert_eq!(weights(&world), [[0, 0], [0, 0]]);

    world.report_served("web.n1", true);
    assert_eq!(weights(&world), [[1, 0], [1, 0]]);
    world.report_served("web.n2", true);
    assert_eq!(weights(&world), [[1, 1], [1, 1]]);
    assert!(!world.bindings[&mk_name("web.n1")].alone);
    world.report_all();
    world.stand("n2", STANDBY);
    world.stand("n1", ACTIVE);
    assert_eq!(ready(&world), "True Ready");

    // It goes on directing.
    let first = json!({"backends": [{"address": "10.0.0.1"}]});
    world.see(mk_service("web", 1, &first));
    world.report_all();
    assert_eq!(world.binding_names(), bindings);
    assert_eq!(world.serving(), ["web.n1 10.0.0.1"]);

    // NAT brings it packets to its own address.
    let nat = json!({"backends": [{"address": "10.0.0.1"}], "forwarding": "NAT"});
    world.see(mk_service("web", 1, &nat));
    world.report_all();
    assert_eq!(world.binding_names(), bindings);
    assert_eq!(world.serving(), [""; 0]);
}

/// It has the VIPs all the time then, and delivers to itself.
#[test]
fn the_last_director_of_a_group_is_no_real_server_among_others() {
    let backends = json!({"backends": [{"address": "10.0.0.1"}, {"address": "10.0.0.2"}]});
    let mut world = World::of(&[
        mk_group("n1"),
        mk_lvs_node("n1", "10.0.0.1"),
        mk_lvs_node("n2", "10.0.0.2"),
        mk_service("web", 1, &backends),
    ]);
    world.report_served("web.n2", true);
    assert_eq!(world.serving(), ["web.n2 10.0.0.2"]);
    assert_eq!(world.weights("web.n1"), [1, 1]);

    // The first one keeps its weight until it reports on its part as a real server.
    world.see(mk_changed_group(&json!({"nodes": {"names": ["n1", "n2"]}})));
    world.report_all();
    assert_eq!(world.serving(), ["web.n1 10.0.0.1", "web.n2 10.0.0.2"]);
    assert_eq!(world.weights("web.n1"), [1, 1]);
    world.report_served("web.n1", false);
    assert_eq!(world.weights("web.n1"), [0, 1]);
}

#[test]
fn one_directs_a_service_with_a_mark_of_which_a_director_is_a_real_server() {
    let backends = |last: &str| {
        json!({
            "addresses": [], "ports": [], "fwmark": 7,
            "backends": [{"address": "10.0.0.9"}, {"address": last}],
        })
    };
    let group = |nodes: &[&str]| {
        mk_changed_group(&json!({"nodes": {"names": nodes}, "fwmarks": [{"from": 1, "to": 9}]}))
    };
    let mut world = World::of(&[
        group(&["n2"]),
        mk_lvs_node("n1", "10.0.0.1"),
        mk_lvs_node("n2", "10.0.0.2"),
        mk_service("web", 1, &backends("10.0.0.1")),
        mk_service("api", 1, &json!({"addresses": ["10.0.0.101"]})),
    ]);
    world.report_all();
    let first = world.bindings[&mk_name("web.n2")].clone();
    world.see(group(&["n1", "n2"]));
    world.report_all();
    let names = ["shop/api.n1", "shop/api.n2", "shop/web.n2"];
    assert_eq!(world.binding_names(), names);
    let alone = DirectorBindingSpec {
        alone: true,
        ..first
    };
    assert_eq!(world.bindings[&mk_name("web.n2")], alone);
    assert_eq!(
        world.condition("web", ConditionType::Accepted).as_deref(),
        Some("True SingleDirector")
    );
    // It needs no holder by VRRP.
    assert_eq!(ready(&world), "True Ready");

    world.see(mk_service("web", 1, &backends("10.0.0.8")));
    assert_eq!(world.binding_names().len(), 4);
    assert!(!world.bindings[&mk_name("web.n2")].alone);
    world.see(mk_service("web", 1, &backends("10.0.0.2")));
    world.report("web.n1", Status::True, "");
    assert_eq!(world.binding_names().len(), 3);
}
