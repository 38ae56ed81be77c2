//! Agents that are silent.

use lvs_crd::condition::{self, ConditionType, Reason, Status};
use serde_json::json;

use super::{
    objects::{mk_group, mk_lvs_node, mk_machine, mk_name, mk_service},
    world::World,
};
use crate::cluster::Change;

/// A director with an agent that is alive, and a virtual service that is ready.
fn ready() -> World {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_lvs_node("lvs1", "10.0.0.1"),
        mk_service("web", 1, &json!({"forwarding": "NAT"})),
        agent(true),
        Change::AgentsKnown,
    ]);
    world.report("web.lvs1", Status::True, "");
    assert_eq!(of_service(&world), "True Ready");
    world
}

fn agent(is_alive: bool) -> Change {
    Change::Agent(mk_machine("lvs1"), is_alive)
}

fn of_service(world: &World) -> String {
    world.condition("web", ConditionType::Ready).unwrap()
}

/// The condition of the binding, and that of the LvsNode.
fn of_objects(world: &World) -> [String; 2] {
    let objects = &world.cluster.objects;
    let binding = objects.bindings[&mk_name("web.lvs1")].status.clone();
    let node = objects.lvs_nodes[&mk_machine("lvs1")].status.clone();
    [
        (
            binding.map(|status| status.conditions),
            ConditionType::Programmed,
        ),
        (node.map(|status| status.conditions), ConditionType::Ready),
    ]
    .map(|(conditions, kind)| {
        let conditions = conditions.unwrap_or_default();
        let found = condition::find(&conditions, kind);
        found.map_or_else(String::new, |found| {
            format!("{} {}", found.status, found.reason)
        })
    })
}

#[test]
fn what_a_silent_director_reported_is_unknown_until_it_reports_again() {
    let mut world = ready();
    let bindings = world.bindings.clone();
    world.see(agent(false));
    assert_eq!(of_service(&world), "Unknown DirectorUnreachable");
    let programmed = world.condition("web", ConditionType::Programmed);
    assert_eq!(programmed.as_deref(), Some("Unknown DirectorUnreachable"));
    assert_eq!(
        of_objects(&world),
        ["Unknown DirectorUnreachable", "Unknown AgentUnreachable"]
    );
    let status = &world.statuses[&mk_name("web")].0;
    assert_eq!(
        (status.directors_column.as_str(), &status.active_director),
        ("0/1", &None)
    );
    assert_eq!(status.failures[0].node, "lvs1");
    assert_eq!(world.bindings, bindings, "what serves stays");

    // A renewal alone is no report.
    world.see(agent(true));
    assert_eq!(of_service(&world), "Unknown DirectorUnreachable");
    world.report("web.lvs1", Status::True, "");
    assert_eq!(of_service(&world), "True Ready");
}

#[test]
fn a_controller_that_starts_judges_no_agent_before_all_are_known() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_lvs_node("lvs1", "10.0.0.1"),
        mk_service("web", 1, &json!({"forwarding": "NAT"})),
    ]);
    world.report("web.lvs1", Status::True, "");
    assert_eq!(of_service(&world), "True Ready");
    assert_eq!(of_objects(&world), ["True Programmed", ""]);
    world.see(Change::AgentsKnown);
    assert_eq!(of_service(&world), "Unknown DirectorUnreachable");
    assert_eq!(
        of_objects(&world),
        ["Unknown DirectorUnreachable", "Unknown AgentUnreachable"]
    );
}

#[test]
fn a_machine_from_which_no_agent_has_reported_is_unknown_and_unmanaged() {
    let Change::LvsNode(name, Some(mut node)) = mk_lvs_node("lvs1", "10.0.0.1") else {
        unreachable!()
    };
    std::sync::Arc::make_mut(&mut node).status = None;
    let mut world = World::of(&[
        mk_group("lvs1"),
        Change::LvsNode(name, Some(node)),
        mk_service("web", 1, &json!({"forwarding": "NAT"})),
        Change::AgentsKnown,
    ]);
    assert_eq!(of_service(&world), "Unknown NotReported");
    assert_eq!(
        of_objects(&world),
        ["Unknown NotReported", "Unknown NotReported"]
    );
    let node = &world.cluster.objects.lvs_nodes[&mk_machine("lvs1")];
    assert!(!crate::cluster::is_managed(Some(node)));
    world.see(agent(true));
    world.report("web.lvs1", Status::True, "");
    assert_eq!(of_service(&world), "True Ready");
}

#[test]
fn a_silent_real_server_is_unknown_and_keeps_its_weight() {
    let rs1 = |is_alive| Change::Agent(mk_machine("rs1"), is_alive);
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_lvs_node("lvs1", "10.0.0.1"),
        mk_lvs_node("rs1", "10.0.0.11"),
        mk_service("web", 1, &json!({})),
        agent(true),
        rs1(true),
        Change::AgentsKnown,
    ]);
    world.report("web.lvs1", Status::True, "");
    world.report_served("web.rs1", true);
    let weights = world.weights("web.lvs1");
    assert_eq!(weights, [1, 1]);
    world.see(rs1(false));
    let served = &world.cluster.objects.served[&mk_name("web.rs1")];
    let conditions = &served.status.as_ref().unwrap().conditions;
    let ready = condition::find(conditions, ConditionType::Ready).unwrap();
    assert!(condition::has_reason(ready, Reason::AgentUnreachable));
    let node = &world.cluster.objects.lvs_nodes[&mk_machine("rs1")];
    let conditions = &node.status.as_ref().unwrap().conditions;
    let ready = condition::find(conditions, ConditionType::Ready).unwrap();
    assert!(condition::has_reason(ready, Reason::AgentUnreachable));

    // It returns, and has not reported yet.
    world.see(rs1(true));
    assert_eq!(world.weights("web.lvs1"), weights);
    world.report("web.lvs1", Status::True, "");
    assert_eq!(of_service(&world), "True Ready");
}
