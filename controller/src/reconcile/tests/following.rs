//! The endpoints of Services are followed whatever is refused or missing beside them.

use std::sync::Arc;

use lvs_crd::{
    condition::{ConditionType, Status},
    convert::KubeServiceSpec,
};
use lvs_runtime::guarded::Undecodable;
use serde_json::{Value, json};

use super::{
    objects::{mk_generation, mk_group, mk_lvs_node, mk_name, mk_pods, mk_service, mk_service_of},
    world::World,
};
use crate::cluster::Change;

/// The real servers of `web` as `ADDRESS=WEIGHT`.
fn servers(world: &World) -> Vec<String> {
    let servers = &world.bindings[&mk_name("web.lvs1")].real_servers;
    let servers = servers.iter();
    servers
        .map(|server| format!("{}={}", server.address, server.weight))
        .collect()
}

fn of_services(names: &[&str], port: u16) -> Value {
    let backends = names.iter().map(|name| json!({"service": {"name": name}}));
    json!({
        "ports": [{"port": port}], "forwarding": "NAT", "nat": {"returnPath": "Masquerade"},
        "backends": backends.collect::<Value>(),
    })
}

/// `web` has the Services `web` and `api`, with one pod each.
fn mk_two_services() -> World {
    World::of(&[
        mk_group("lvs1"),
        mk_service_of("web"),
        mk_service_of("api"),
        mk_pods("web", &["10.0.0.13"]),
        mk_pods("api", &["10.0.0.14"]),
        mk_generation(1, &of_services(&["web", "api"], 80)),
    ])
}

#[test]
fn a_service_that_goes_missing_keeps_its_real_servers_and_the_others_are_followed() {
    for (change, reason) in [
        (Change::Service(mk_name("web"), None), "ServiceNotFound"),
        (
            Change::Service(mk_name("web"), Some(Arc::new(KubeServiceSpec::default()))),
            "PortNotFound",
        ),
    ] {
        let mut world = mk_two_services();
        assert_eq!(servers(&world), ["10.0.0.13=1", "10.0.0.14=1"]);
        world.see(change);
        world.see(Change::EndpointSlice(mk_name("web-1"), None));
        world.see(mk_pods("api", &["10.0.0.15", "10.0.0.16"]));
        let expected = ["10.0.0.13=2", "10.0.0.15=1", "10.0.0.16=1"];
        assert_eq!(servers(&world), expected, "{reason}");
        let resolved = world.condition("web", ConditionType::ResolvedRefs);
        assert_eq!(resolved, Some(format!("False {reason}")));
        let others = [
            mk_service_of("api"),
            mk_pods("api", &["10.0.0.15", "10.0.0.16"]),
        ];
        assert_eq!(world.restart(&others).bindings, world.bindings);

        world.see(mk_service_of("web"));
        world.see(mk_pods("web", &["10.0.0.17"]));
        assert_eq!(
            servers(&world),
            ["10.0.0.15=1", "10.0.0.16=1", "10.0.0.17=2"]
        );
    }
}

#[test]
fn pods_are_followed_while_an_edit_is_refused_or_names_a_missing_service() {
    for (edit, reason) in [
        (of_services(&["web", "api", "web"], 80), "Invalid"),
        (of_services(&["web", "absent"], 81), "ServiceNotFound"),
    ] {
        let mut world = mk_two_services();
        world.see(mk_generation(2, &edit));
        world.see(mk_pods("web", &["10.0.0.18"]));
        world.see(mk_pods("api", &["10.0.0.19"]));
        assert_eq!(servers(&world), ["10.0.0.18=1", "10.0.0.19=1"], "{reason}");
        let binding = &world.bindings[&mk_name("web.lvs1")];
        assert_eq!((binding.generation, binding.ports[0].port), (1, 80));

        let mut others = vec![mk_service_of("web"), mk_service_of("api")];
        others.push(mk_pods("web", &["10.0.0.18"]));
        others.push(mk_pods("api", &["10.0.0.20"]));
        let fresh = world.restart(&others);
        assert_eq!(servers(&fresh), ["10.0.0.18=1", "10.0.0.20=1"], "{reason}");

        world.see(Change::Service(mk_name("api"), None));
        world.see(Change::EndpointSlice(mk_name("api-1"), None));
        assert_eq!(servers(&world), ["10.0.0.18=1", "10.0.0.19=1"], "{reason}");
    }
}

#[test]
fn a_refused_edit_does_not_take_the_vip_of_another_as_a_new_pod() {
    let mut world = mk_two_services();
    world.see(mk_service(
        "other",
        0,
        &json!({"addresses": ["10.0.0.120"]}),
    ));
    world.see(mk_generation(2, &of_services(&["web", "api", "web"], 80)));
    world.see(mk_pods("web", &["10.0.0.120", "10.0.0.121"]));
    assert_eq!(servers(&world), ["10.0.0.14=2", "10.0.0.121=1"]);
    assert_eq!(
        world.condition("other", ConditionType::Accepted).as_deref(),
        Some("True Accepted")
    );
}

#[test]
fn the_real_servers_of_a_service_stay_while_it_and_its_slices_go_or_are_made_anew() {
    let mut world = mk_two_services();
    world.see(Change::EndpointSlice(mk_name("web-1"), None));
    assert_eq!(
        servers(&world),
        ["10.0.0.13=1", "10.0.0.14=1"],
        "new slices will come"
    );
    world.see(mk_pods("web", &[]));
    assert_eq!(servers(&world), ["10.0.0.14=1"], "scaled to 0");

    world.see(mk_pods("web", &["10.0.0.15", "10.0.0.16"]));
    world.see(Change::Service(mk_name("web"), None));
    // The garbage collector removes the slices one by one.
    world.see(mk_pods("web", &["10.0.0.16"]));
    assert_eq!(
        servers(&world),
        ["10.0.0.14=2", "10.0.0.15=1", "10.0.0.16=1"]
    );
}

#[test]
fn a_pod_that_dr_cannot_reach_is_left_out_until_it_is_the_address_of_a_machine() {
    let spec = json!({"backends": [{"service": {"name": "web"}}]});
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_lvs_node("n1", "10.0.0.13"),
        mk_service_of("web"),
        mk_pods("web", &["10.0.0.13", "10.0.0.14"]),
        mk_generation(1, &spec),
    ]);
    let names = |world: &World| -> Vec<String> {
        let servers = &world.bindings[&mk_name("web.lvs1")].real_servers;
        servers
            .iter()
            .map(|server| server.address.clone())
            .collect()
    };
    assert_eq!(names(&world), ["10.0.0.13"]);
    world.see(mk_lvs_node("n2", "10.0.0.14"));
    assert_eq!(names(&world), ["10.0.0.13", "10.0.0.14"]);
}

/// The first slice of a Service, in a form that cannot be decoded.
fn mk_unreadable(service: &str) -> Change {
    let metadata = json!({"labels": {"kubernetes.io/service-name": service}});
    let object = Undecodable {
        error: "invalid type: string".to_owned(),
        metadata: serde_json::from_value(metadata).unwrap(),
    };
    Change::UnreadableSlice(mk_name(&format!("{service}-1")), Arc::new(object))
}

#[test]
fn a_slice_that_cannot_be_decoded_stays_as_it_was_and_is_counted_in_a_condition() {
    let mut world = mk_two_services();
    world.see(mk_unreadable("web"));
    assert_eq!(
        resolved_message(&world),
        "1 EndpointSlice cannot be decoded: EndpointSlice web-1 stays as it was last seen: invalid type: string"
    );

    world.see(mk_pods("api", &["10.0.0.15"]));
    assert_eq!(servers(&world), ["10.0.0.13=1", "10.0.0.15=1"]);

    world.see(mk_pods("web", &["10.0.0.16"]));
    assert_eq!(servers(&world), ["10.0.0.15=1", "10.0.0.16=1"]);
    assert_eq!(resolved_message(&world), "");

    world.see(mk_unreadable("web"));
    world.see(Change::EndpointSlice(mk_name("web-1"), None));
    assert_eq!(resolved_message(&world), "");
}

#[test]
fn the_real_servers_of_slices_that_could_never_be_decoded_stay_after_a_restart() {
    let world = mk_two_services();
    // A Service whose slices Kubernetes does not write.
    let Change::Service(name, Some(mut web)) = mk_service_of("web") else {
        panic!();
    };
    Arc::make_mut(&mut web).has_selector = false;
    let mut world = world.restart(&[
        Change::Service(name, Some(web)),
        mk_service_of("api"),
        mk_unreadable("web"),
        mk_pods("api", &["10.0.0.14"]),
    ]);
    world.see(mk_pods("api", &["10.0.0.15"]));
    assert_eq!(servers(&world), ["10.0.0.13=1", "10.0.0.15=1"]);
    assert_eq!(
        resolved_message(&world),
        "1 EndpointSlice cannot be decoded: EndpointSlice web-1 is left out: invalid type: string"
    );
}

/// What the condition `ResolvedRefs` of `web` says, which is true.
fn resolved_message(world: &World) -> String {
    let (_, verdicts) = &world.statuses[&mk_name("web")];
    let mut verdicts = verdicts.iter();
    let resolved = verdicts.find(|verdict| verdict.kind == ConditionType::ResolvedRefs);
    let resolved = resolved.unwrap();
    assert_eq!(resolved.status, Status::True, "{}", resolved.message);
    resolved.message.clone()
}
