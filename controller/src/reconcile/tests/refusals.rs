//! What the API server refuses to store is a condition of the object that it is for.

use lvs_crd::condition::{ConditionType, Status};
use serde_json::json;

use super::{
    objects::{mk_generation, mk_group, mk_name},
    world::World,
};
use crate::write::Write;

const QUOTA: &str = "exceeded quota: bindings";

#[test]
fn a_binding_that_is_refused_stalls_its_service_until_it_is_stored() {
    let mut world = World::of(&[mk_group("lvs1")]);
    world.cluster.observe(mk_generation(1, &json!({})));
    // Every write of a binding is refused, every other one succeeds.
    let mut refused = None;
    for _round in 0..5 {
        for write in world.cluster.reconcile(|| {}) {
            if matches!(write, Write::ApplyBinding { .. }) {
                world.cluster.complete(&write, Some(&QUOTA.to_owned()));
                refused = Some(write);
            } else {
                world.write(write);
            }
        }
    }
    let refused = refused.unwrap();
    let of_service = |world: &World, kind| world.condition("web", kind);
    for kind in [ConditionType::Programmed, ConditionType::Ready] {
        let found = of_service(&world, kind);
        assert_eq!(found.as_deref(), Some("False WriteRefused"), "{kind:?}");
    }
    let stalled = of_service(&world, ConditionType::Stalled);
    assert_eq!(stalled.as_deref(), Some("True WriteRefused"));
    let (_, verdicts) = &world.statuses[&mk_name("web")];
    let message = "DirectorBinding shop/web.lvs1 cannot be written: exceeded quota: bindings";
    assert!(verdicts.iter().any(|verdict| verdict.message == message));

    world.cluster.complete(&refused, None);
    world.write(refused);
    world.settle();
    world.report("web.lvs1", Status::True, "");
    let ready = of_service(&world, ConditionType::Ready);
    assert_eq!(ready.as_deref(), Some("True Ready"));
    assert_eq!(of_service(&world, ConditionType::Stalled), None);
}
