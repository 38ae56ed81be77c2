//! What the API server refuses to store is a condition of the object that it is for.

use lvs_crd::condition::{ConditionType, Status};
use serde_json::json;

use super::{
    objects::{mk_generation, mk_group, mk_lvs_node, mk_name, mk_node},
    world::World,
};
use crate::write::Write;

const QUOTA: &str = "exceeded quota: bindings";

#[test]
fn a_binding_that_is_refused_stalls_its_service_until_it_is_stored() {
    let mut world = World::of(&[mk_group("lvs1")]);
    world.cluster.observe(mk_generation(1, &json!({})));
    let refused = refuse(&mut world, |write| {
        matches!(write, Write::ApplyBinding { .. })
    });
    is_stalled(
        &world,
        "DirectorBinding shop/web.lvs1 cannot be written: exceeded quota: bindings",
    );

    accept(&mut world, refused);
    world.report("web.lvs1", Status::True, "");
    is_ready(&world);
}

#[test]
fn a_real_server_binding_that_is_refused_stalls_its_service_until_it_is_stored() {
    let mut world = World::of(&[mk_group("lvs1"), mk_lvs_node("rs1", "10.0.0.11")]);
    world.cluster.observe(mk_generation(1, &json!({})));
    let refused = refuse(&mut world, |write| {
        matches!(write, Write::ApplyServed { .. })
    });
    is_stalled(
        &world,
        "RealServerBinding shop/web.rs1 cannot be written: exceeded quota: bindings",
    );

    accept(&mut world, refused);
    world.report("web.lvs1", Status::True, "");
    is_ready(&world);
}

#[test]
fn an_lvs_node_that_is_refused_stalls_the_services_that_wait_for_it_until_it_is_stored() {
    let mut world = World::of(&[mk_group("n1")]);
    world.cluster.observe(mk_node("n1"));
    world.cluster.observe(mk_generation(1, &json!({})));
    let refused = refuse(&mut world, |write| matches!(write, Write::ApplyNode { .. }));
    assert_eq!(world.binding_names(), [""; 0]);
    is_stalled(
        &world,
        "LvsNode n1 cannot be written: exceeded quota: bindings",
    );
    let reason = "denied by a policy".to_owned();
    world.cluster.complete(&refused, Some(&reason));
    for write in world.cluster.reconcile(|| {}) {
        if !matches!(write, Write::ApplyNode { .. }) {
            world.write(write);
        }
    }
    is_stalled(&world, "LvsNode n1 cannot be written: denied by a policy");

    accept(&mut world, refused);
    world.report("web.n1", Status::True, "");
    is_ready(&world);
}

/// What serves is ready; the group says that its director's LvsNode is refused.
#[test]
fn an_lvs_node_that_is_refused_leaves_a_service_that_has_its_bindings() {
    let mut world = World::of(&[mk_group("n1"), mk_generation(1, &json!({}))]);
    world.report("web.n1", Status::True, "");
    world.cluster.observe(mk_node("n1"));
    refuse(&mut world, |write| matches!(write, Write::ApplyNode { .. }));
    is_ready(&world);
}

/// Lets the API server refuse some writes, and no others. Returns the last one that was refused.
fn refuse(world: &mut World, is_refused: fn(&Write) -> bool) -> Write {
    let mut refused = None;
    for _round in 0..5 {
        for write in world.cluster.reconcile(|| {}) {
            if is_refused(&write) {
                world.cluster.complete(&write, Some(&QUOTA.to_owned()));
                refused = Some(write);
            } else {
                world.write(write);
            }
        }
    }
    refused.unwrap()
}

/// Lets the API server store what it has refused.
fn accept(world: &mut World, refused: Write) {
    world.cluster.complete(&refused, None);
    world.write(refused);
    world.settle();
}

fn is_stalled(world: &World, message: &str) {
    for kind in [ConditionType::Programmed, ConditionType::Ready] {
        let found = world.condition("web", kind);
        assert_eq!(found.as_deref(), Some("False WriteRefused"), "{kind:?}");
    }
    let stalled = world.condition("web", ConditionType::Stalled);
    assert_eq!(stalled.as_deref(), Some("True WriteRefused"));
    let (_, verdicts) = &world.statuses[&mk_name("web")];
    assert!(
        verdicts.iter().any(|verdict| verdict.message == message),
        "{verdicts:?}"
    );
}

fn is_ready(world: &World) {
    let ready = world.condition("web", ConditionType::Ready);
    assert_eq!(ready.as_deref(), Some("True Ready"));
    assert_eq!(world.condition("web", ConditionType::Stalled), None);
}
