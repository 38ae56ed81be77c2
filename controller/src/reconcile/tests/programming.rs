//! What the agents of directors report.

use lvs_crd::condition::{ConditionType, Status};
use serde_json::json;

use super::{
    objects::{mk_generation, mk_group, mk_kube_service, mk_name, mk_slice},
    world::World,
};
use crate::{cluster::Change, write::Write};

#[test]
fn a_new_generation_is_programmed_when_its_director_reports_it() {
    let edited = |port: u16| json!({"ports": [{"port": port}]});
    let mut world = World::of(&[mk_group("lvs1"), mk_generation(1, &edited(80))]);
    let programmed = |world: &World| world.condition("web", ConditionType::Programmed).unwrap();
    assert_eq!(programmed(&world), "False Pending");
    world.report("web.lvs1", Status::True, "");
    assert_eq!(programmed(&world), "True Programmed");
    assert_eq!(
        world.condition("web", ConditionType::Ready).as_deref(),
        Some("True Ready")
    );

    world.cluster.observe(mk_generation(2, &edited(81)));
    let first = world.cluster.reconcile(|| {});
    assert_eq!(programmed_in(&first), Some(Status::False));
    for write in first {
        world.write(write);
    }
    world.settle();
    assert_eq!(programmed(&world), "False Pending");

    world.report("web.lvs1", Status::True, "");
    assert_eq!(programmed(&world), "True Programmed");
}

#[test]
fn ready_outlasts_changes_of_real_servers_until_a_director_reports() {
    let spec = json!({"forwarding": "NAT", "backends": [{"service": {"name": "web"}}]});
    let mut world = World::of(&[mk_group("lvs1"), mk_kube_service(), mk_generation(1, &spec)]);
    world.report("web.lvs1", Status::True, "");
    assert_eq!(
        world.condition("web", ConditionType::Ready).as_deref(),
        Some("True Ready")
    );

    world.see(mk_slice(false));
    assert_eq!(world.weights("web.lvs1"), [1]);
    assert_eq!(
        world.condition("web", ConditionType::Ready).as_deref(),
        Some("True Ready")
    );

    world.report("web.lvs1", Status::False, "no");
    let failed = Some("False ProgrammingFailed");
    assert_eq!(
        world.condition("web", ConditionType::Ready).as_deref(),
        failed
    );
    world.see(Change::EndpointSlice(mk_name("web-1"), None));
    assert_eq!(
        world.condition("web", ConditionType::Ready).as_deref(),
        failed
    );
}

#[test]
fn the_warning_of_a_director_is_that_of_the_virtual_service() {
    let mut world = World::of(&[mk_group("lvs1"), mk_generation(1, &json!({}))]);
    world.report("web.lvs1", Status::True, "another machine answers");
    let (_, verdicts) = &world.statuses[&mk_name("web")];
    for kind in [ConditionType::Programmed, ConditionType::Ready] {
        let verdict = verdicts.iter().find(|verdict| verdict.kind == kind);
        let message = &verdict.unwrap().message;
        assert_eq!(message, "lvs1: another machine answers", "{kind:?}");
    }
}

#[test]
fn the_report_of_a_director_does_not_count_for_its_successor() {
    let mut world = World::of(&[mk_group("lvs1"), mk_generation(1, &json!({}))]);
    world.report("web.lvs1", Status::True, "");
    world.cluster.observe(mk_group("lvs2"));
    let writes = world.cluster.reconcile(|| {});
    assert_eq!(programmed_in(&writes), Some(Status::False));
}

/// The status of Programmed in the first status among writes.
fn programmed_in(writes: &[Write]) -> Option<Status> {
    let verdicts = writes.iter().find_map(|write| {
        if let Write::ServiceStatus { verdicts, .. } = write {
            Some(verdicts)
        } else {
            None
        }
    });
    let mut verdicts = verdicts?.iter();
    let programmed = verdicts.find(|verdict| verdict.kind == ConditionType::Programmed)?;
    Some(programmed.status)
}
