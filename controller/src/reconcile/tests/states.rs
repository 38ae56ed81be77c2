//! The states of a virtual service: what is served, kept and refused.

use std::sync::Arc;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use lvs_crd::condition::ConditionType;
use serde_json::{Value, json};

use super::{
    objects::{
        mk_generation, mk_group, mk_name, mk_node, mk_selecting_group, mk_service, mk_slice,
    },
    world::World,
};
use crate::cluster::Change;

#[test]
fn an_invalid_edit_keeps_the_binding() {
    let mut world = World::of(&[mk_group("lvs1"), mk_service("web", 1, &json!({}))]);
    let before = world.bindings.clone();

    world.see(mk_service(
        "web",
        1,
        &json!({"ports": [{"port": 80, "targetPort": 81}]}),
    ));

    assert_eq!(
        world.condition("web", ConditionType::Accepted).as_deref(),
        Some("False Invalid")
    );
    assert_eq!(world.bindings, before);
}

#[test]
fn an_invalid_edit_keeps_the_programmed_generation() {
    let mut world = World::of(&[mk_group("lvs1"), mk_generation(1, &json!({}))]);
    world.see(mk_generation(
        2,
        &json!({"ports": [{"port": 80, "targetPort": 81}]}),
    ));
    assert_eq!(world.bindings[&mk_name("web.lvs1")].generation, 1);
    let status = &world.statuses[&mk_name("web")].0;
    assert_eq!(status.directors, "0/1");
    assert_eq!(
        world.condition("web", ConditionType::Programmed).as_deref(),
        Some("False Invalid")
    );
}

#[test]
fn a_group_of_several_is_refused_and_a_missing_one_is_waited_for() {
    let mut world = World::of(&[mk_service("web", 1, &json!({}))]);
    assert_eq!(
        world
            .condition("web", ConditionType::ResolvedRefs)
            .as_deref(),
        Some("False DirectorGroupNotFound")
    );
    assert_eq!(world.condition("web", ConditionType::Stalled), None);

    world.see(mk_selecting_group());
    assert_eq!(
        world
            .condition("web", ConditionType::ResolvedRefs)
            .as_deref(),
        Some("False NoDirector")
    );
    world.see(mk_node("n1"));
    assert_eq!(world.binding_names(), ["shop/web.n1"]);
    world.see(mk_node("n2"));
    assert_eq!(
        world.condition("web", ConditionType::Stalled).as_deref(),
        Some("True SeveralDirectors")
    );
}

#[test]
fn a_group_with_an_impossible_node_name_is_refused() {
    let world = World::of(&[mk_group("LVS_1"), mk_service("web", 1, &json!({}))]);
    assert_eq!(
        world.condition("web", ConditionType::Stalled).as_deref(),
        Some("True Invalid")
    );
    assert_eq!(world.bindings.len(), 0);
}

#[test]
fn pods_need_nat_with_masquerading() {
    let spec = |spec: Value| {
        let mut all = json!({"backends": {"service": {"name": "web"}}});
        all.as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        mk_service("web", 1, &all)
    };
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_slice(true),
        Change::Service(mk_name("web"), true),
        spec(json!({})),
    ]);
    assert_eq!(
        world.condition("web", ConditionType::Accepted).as_deref(),
        Some("False PodsNeedNat")
    );
    world.see(spec(json!({"forwarding": "NAT"})));
    assert_eq!(
        world.condition("web", ConditionType::Accepted).as_deref(),
        Some("False PodsNeedMasquerade")
    );
    world.see(spec(
        json!({"forwarding": "NAT", "nat": {"returnPath": "Masquerade"}}),
    ));
    assert_eq!(
        world.condition("web", ConditionType::Accepted).as_deref(),
        Some("True Accepted")
    );
    assert_eq!(world.weights("web.lvs1"), [1]);
}

#[test]
fn a_recreated_service_gets_a_binding_of_its_own() {
    let with_uid = |uid: &str| {
        let change = mk_service("web", 1, &json!({}));
        let Change::VirtualService(name, Some(mut object)) = change else {
            unreachable!()
        };
        Arc::make_mut(&mut object).metadata.uid = Some(uid.to_owned());
        Change::VirtualService(name, Some(object))
    };
    let mut world = World::of(&[mk_group("lvs1"), with_uid("first")]);
    world.see(with_uid("second"));
    let binding = &world.cluster.objects.bindings[&mk_name("web.lvs1")];
    let owner = binding.metadata.owner_references.as_ref().unwrap();
    assert_eq!(owner[0].uid, "second");
}

#[test]
fn a_service_that_waits_for_finalizers_loses_its_binding() {
    let mut world = World::of(&[mk_group("lvs1"), mk_service("web", 1, &json!({}))]);
    let Change::VirtualService(name, Some(mut object)) = mk_service("web", 1, &json!({})) else {
        unreachable!()
    };
    Arc::make_mut(&mut object).metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    world.see(Change::VirtualService(name, Some(object)));
    assert_eq!(world.bindings.len(), 0);
}
