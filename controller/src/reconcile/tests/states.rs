//! The states of a virtual service: what is served, kept and refused.

use std::sync::Arc;

use k8s_openapi::{
    api::discovery::v1::EndpointSlice, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp,
};
use lvs_crd::{
    condition::{ConditionType, Reason, Status},
    convert::KubeServiceSpec,
};
use serde_json::{Value, json};

use super::{
    objects::{
        mk_generation, mk_group, mk_kube_service, mk_lvs_node, mk_machine, mk_name, mk_service,
        mk_slice,
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
    assert_eq!(status.directors_column, "0/1");
    assert_eq!((status.ready_directors, status.directors), (0, 1));
    assert_eq!(
        world.condition("web", ConditionType::Programmed).as_deref(),
        Some("False Invalid")
    );
}

#[test]
fn what_an_unreadable_service_has_stays_until_it_is_deleted() {
    let world = World::of(&[
        mk_group("lvs1"),
        mk_service("web", 1, &json!({})),
        mk_service("api", 2, &json!({"addresses": ["10.0.0.101"]})),
    ]);
    let web = mk_name("web");
    let mut before = World::of(&[mk_group("lvs1")]);
    before.bindings.clone_from(&world.bindings);
    for (name, object) in &world.cluster.objects.bindings {
        let change = Change::DirectorBinding(name.clone(), Some(Arc::clone(object)));
        before.cluster.observe(change);
    }
    before.see(Change::UnreadableService(web.clone()));
    assert_eq!(before.binding_names(), ["shop/web.lvs1"]);

    // A newcomer does not get its VIP, though it is older.
    before.see(mk_service("new", 0, &json!({})));
    assert_eq!(before.binding_names(), ["shop/web.lvs1"]);
    before.see(Change::VirtualService(web, None));
    assert_eq!(before.binding_names(), ["shop/new.lvs1"]);
}

/// A virtual service whose group has n2 in place of n1 now.
fn mk_move() -> World {
    let mut world = World::of(&[
        mk_group("n1"),
        mk_lvs_node("n1", "10.0.0.1"),
        mk_lvs_node("n2", "10.0.0.2"),
        mk_service("web", 1, &json!({})),
    ]);
    world.report_all();
    world.see(mk_group("n2"));
    world
}

#[test]
fn a_director_lets_go_of_a_vip_that_is_all_that_its_successor_lacks() {
    let mut world = mk_move();
    let both = ["shop/web.n1", "shop/web.n2"];

    // Another machine has the VIP, and it is not the earlier director.
    world.report("web.n1", Status::False, "no IPVS");
    world.report_in_use("web.n2", "02:00:00:00:00:01");
    assert_eq!(world.binding_names(), both);
    // The earlier director is not known at the moment.
    let n1 = world.cluster.objects.lvs_nodes[&mk_machine("n1")].clone();
    world.see(Change::LvsNode(mk_machine("n1"), None));
    world.report("web.n1", Status::True, "");
    assert_eq!(world.binding_names(), both);

    world.see(Change::LvsNode(mk_machine("n1"), Some(n1)));
    world.catch_up("n1");
    assert_eq!(world.binding_names(), ["shop/web.n2"]);
}

#[test]
fn a_director_does_not_let_go_for_a_vip_that_it_never_had() {
    let mut world = mk_move();
    world.see(mk_service("web", 1, &json!({"addresses": ["10.0.0.77"]})));
    world.report("web.n1", Status::True, "");
    world.report_in_use("web.n2", "02:00:00:00:00:01");
    assert_eq!(world.binding_names(), ["shop/web.n1", "shop/web.n2"]);
}

#[test]
fn a_director_does_not_let_go_for_a_vip_that_a_stranger_answers_for() {
    let mut world = mk_move();
    let both = ["shop/web.n1", "shop/web.n2"];
    world.catch_up("n1");
    world.report_in_use("web.n2", "02:00:00:00:00:99");
    assert_eq!(world.binding_names(), both);
    // An agent of an earlier version does not report who answers.
    world.report_with("web.n2", Status::False, Reason::VipInUse, "answered by");
    assert_eq!(world.binding_names(), both);

    world.report_in_use("web.n2", "02:00:00:00:00:01");
    assert_eq!(world.binding_names(), ["shop/web.n2"]);
}

#[test]
fn a_director_lets_go_once_its_mac_address_is_known() {
    let mut world = mk_move();
    world.report_in_use("web.n2", "02:00:00:00:00:07");
    assert_eq!(world.binding_names(), ["shop/web.n1", "shop/web.n2"]);
    // Its interface had got another one.
    world.see(mk_lvs_node("n1", "10.0.0.7"));
    assert_eq!(world.binding_names(), ["shop/web.n2"]);
}

#[test]
fn endpoints_are_followed_while_the_group_is_missing() {
    let spec = json!({
        "forwarding": "NAT", "nat": {"returnPath": "Masquerade"},
        "backends": [{"service": {"name": "web"}}],
    });
    let service = mk_kube_service();
    let mut world = World::of(&[mk_group("lvs1"), service, mk_generation(1, &spec)]);
    world.see(Change::DirectorGroup("default".to_owned(), None));
    world.see(mk_slice(true));
    assert_eq!(world.weights("web.lvs1"), [1]);
    assert_eq!(world.serving(), [""; 0]);
}

#[test]
fn what_serves_goes_on_when_its_service_or_group_is_renamed_to_one_that_is_not_there() {
    let service = |changes: Value| {
        let mut all = json!({"forwarding": "NAT", "backends": [{"service": {"name": "web"}}]});
        all.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        all
    };
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_slice(false),
        mk_kube_service(),
        mk_generation(1, &service(json!({}))),
    ]);
    world.report_all();
    let bindings = world.bindings.clone();
    for (changes, reason) in [
        (
            json!({"backends": [{"service": {"name": "other"}}]}),
            "False ServiceNotFound",
        ),
        (
            json!({"directorGroup": "other"}),
            "False DirectorGroupNotFound",
        ),
    ] {
        world.see(mk_generation(2, &service(changes)));
        let resolved = world.condition("web", ConditionType::ResolvedRefs);
        assert_eq!(resolved.as_deref(), Some(reason));
        assert_eq!(world.bindings, bindings, "{reason}");
    }
    world.see(mk_generation(1, &service(json!({}))));
    world.see(Change::Service(mk_name("web"), None));
    world.see(Change::EndpointSlice(mk_name("web-1"), None));
    assert_eq!(world.bindings, bindings);
}

#[test]
fn a_service_that_becomes_an_external_name_has_no_real_servers() {
    let spec = json!({"forwarding": "NAT", "backends": [{"service": {"name": "web"}}]});
    let changes = [mk_group("lvs1"), mk_kube_service(), mk_slice(false)];
    let mut world = World::of(&changes);
    world.see(mk_generation(1, &spec));
    assert_eq!(world.weights("web.lvs1"), [1]);

    let external = KubeServiceSpec {
        is_external_name: true,
        ..KubeServiceSpec::default()
    };
    world.see(Change::Service(mk_name("web"), Some(Arc::new(external))));

    let resolved = world.condition("web", ConditionType::ResolvedRefs);
    assert_eq!(resolved.as_deref(), Some("False ExternalName"));
    assert_eq!(world.weights("web.lvs1"), [0; 0]);
}

/// The endpoint controller of Kubernetes leaves one slice without ports and endpoints for a Service that is scaled to zero.
#[test]
fn a_service_that_is_scaled_to_zero_stays_ready_and_a_good_slice_beside_an_empty_one_serves() {
    let spec = json!({"forwarding": "NAT", "backends": [{"service": {"name": "web"}}]});
    let empty: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "web-0", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": null, "endpoints": [],
    }))
    .unwrap();
    let empty = Change::EndpointSlice(mk_name("web-0"), Some(Arc::new(empty)));
    let mut world = World::of(&[mk_group("lvs1"), mk_kube_service(), empty]);
    world.see(mk_generation(1, &spec));
    world.report_all();
    let of_service = |world: &World| {
        let kinds = [
            ConditionType::ResolvedRefs,
            ConditionType::Ready,
            ConditionType::BackendsHealthy,
            ConditionType::Stalled,
        ];
        kinds.map(|kind| world.condition("web", kind).unwrap_or_default())
    };
    let ready = ["True ResolvedRefs", "True Ready"];
    assert_eq!(of_service(&world)[..2], ready);
    assert_eq!(of_service(&world)[2..], ["False NoRealServer", ""]);

    world.see(mk_slice(false));
    world.report_all();
    assert_eq!(world.weights("web.lvs1"), [1]);
    assert_eq!(of_service(&world)[..2], ready);
    assert_eq!(of_service(&world)[2..], ["True BackendsHealthy", ""]);
}

#[test]
fn endpoints_that_are_left_out_are_counted_in_a_condition() {
    let spec = json!({"addresses": ["10.0.0.13"], "forwarding": "NAT", "backends": [{"service": {"name": "web"}}]});
    let changes = [mk_group("lvs1"), mk_kube_service(), mk_slice(false)];
    let mut world = World::of(&changes);
    world.see(mk_generation(1, &spec));
    let (_, verdicts) = &world.statuses[&mk_name("web")];
    let resolved = verdicts
        .iter()
        .find(|verdict| verdict.kind == ConditionType::ResolvedRefs);
    assert_eq!(
        resolved.map(|verdict| verdict.message.as_str()),
        Some("1 endpoint is left out: 10.0.0.13 of EndpointSlice web-1 is a VIP of the service")
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
        let mut all = json!({"backends": [{"service": {"name": "web"}}]});
        all.as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        mk_service("web", 1, &all)
    };
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_slice(true),
        mk_kube_service(),
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

#[test]
fn a_director_does_not_let_go_of_a_vip_that_another_service_keeps_there() {
    let api = |port: Value| mk_service("api", 1, &json!({"ports": [port]}));
    let mut world = World::of(&[
        mk_group("n1"),
        mk_lvs_node("n1", "10.0.0.1"),
        mk_lvs_node("n2", "10.0.0.2"),
        mk_service("web", 1, &json!({})),
        api(json!({"port": 81})),
    ]);
    world.report_all();
    let n1 = "02:00:00:00:00:01";

    world.see(mk_group("n2"));
    world.report("api.n2", Status::False, "no IPVS");
    world.report_in_use("web.n2", n1);
    let names = world.binding_names();
    assert!(names.contains(&"shop/web.n1".to_owned()), "{names:?}");

    world.report_in_use("api.n2", n1);
    world.catch_up("n1");
    assert_eq!(world.binding_names(), ["shop/api.n2", "shop/web.n2"]);
}

#[test]
fn a_kept_version_moves_with_its_group() {
    let mut world = World::of(&[mk_group("n1"), mk_generation(1, &json!({}))]);
    world.report_all();
    world.see(mk_generation(
        2,
        &json!({"ports": [{"port": 80, "targetPort": 81}]}),
    ));
    world.see(mk_group("n2"));
    assert_eq!(world.binding_names(), ["shop/web.n1", "shop/web.n2"]);
    world.report("web.n2", Status::True, "");
    assert_eq!(world.binding_names(), ["shop/web.n2"]);
}
