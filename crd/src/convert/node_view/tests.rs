//! Tests of how bindings and an LvsNode become the view of one node.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use lvs_model::{Assignment, Node, assign};
use serde_json::json;

use super::*;

fn node() -> Node {
    Node {
        name: "lvs1".parse().unwrap(),
        has_served: false,
        networks: BTreeSet::new(),
        absent: BTreeSet::new(),
        has_directed: true,
        accepted: Default::default(),
        addresses: ["192.168.100.11".parse::<IpAddr>().unwrap()].into(),
    }
}

fn binding(name: &str, service: &str, spec: &serde_json::Value) -> Bound<DirectorBinding> {
    let mut object = json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "DirectorBinding",
        "metadata": {"namespace": "shop", "name": name, "labels": {"lvs-operator.io/node": "lvs1"},
            "creationTimestamp": "2026-11-01T00:00:00Z"},
        "spec": {"node": "lvs1", "virtualService": service, "generation": 3},
    });
    let fields = spec.as_object().unwrap().clone();
    object["spec"].as_object_mut().unwrap().extend(fields);
    Bound::directed(Arc::new(serde_json::from_value(object).unwrap()), |_| None)
}

fn web(vip: &str) -> serde_json::Value {
    json!({"directorGroup": "edge", "addresses": [vip], "ports": [{"port": 80}],
        "realServers": [{"address": "192.168.100.12"}]})
}

fn lvs_node(spec: &serde_json::Value) -> LvsNode {
    let object = json!({"apiVersion": "lvs-operator.io/v1alpha1", "kind": "LvsNode",
        "metadata": {"name": "lvs1"}, "spec": spec});
    serde_json::from_value(object).unwrap()
}

fn served(name: &str, vip: &str) -> Bound<RealServerBinding> {
    let object = json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "RealServerBinding",
        "metadata": {"namespace": "shop", "name": format!("{name}.lvs1"),
            "creationTimestamp": "2026-11-01T00:00:00Z"},
        "spec": {"node": "lvs1", "virtualService": name, "addresses": [vip],
            "ports": [{"port": 80}], "realServers": [{"address": "192.168.100.11"}]},
    });
    Bound::served(Arc::new(serde_json::from_value(object).unwrap()))
}

fn assigned(bindings: &[Bound<DirectorBinding>], lvs_node: Option<&LvsNode>) -> Assignment {
    assigned_with(bindings, &[], lvs_node)
}

fn assigned_with(
    bindings: &[Bound<DirectorBinding>],
    served: &[Bound<RealServerBinding>],
    lvs_node: Option<&LvsNode>,
) -> Assignment {
    let forwards = node_view(&node().name, bindings, served, lvs_node);
    let backwards = node_view(
        &node().name,
        bindings.iter().rev(),
        served.iter().rev(),
        lvs_node,
    );
    assert_eq!(forwards, backwards, "the order matters");
    assign(&forwards.view, &node())
}

fn directs(assignment: &Assignment) -> Vec<String> {
    let names = assignment.spec.directs.keys();
    names.map(ToString::to_string).collect()
}

fn serves(assignment: &Assignment) -> Vec<String> {
    let names = assignment.spec.serves.keys();
    names.map(ToString::to_string).collect()
}

#[test]
fn a_binding_is_directed_with_the_interface_and_timeouts_of_the_group() {
    let groups = json!({"groups": [{"name": "edge", "interface": "eth1",
        "timeouts": {"tcpSeconds": 901, "tcpFinSeconds": 121, "udpSeconds": 301}}]});
    let bindings = [
        binding("web-lvs1", "web", &web("192.168.220.100")),
        binding("api-lvs1", "api", &web("192.168.220.101")),
    ];

    let assignment = assigned(&bindings, Some(&lvs_node(&groups)));

    assert_eq!(directs(&assignment), ["shop/api", "shop/web"]);
    let director = assignment.spec.directs.values().next().unwrap();
    assert_eq!(director.interface.as_ref().unwrap().as_str(), "eth1");
    assert_eq!(assignment.spec.timeouts.unwrap().tcp_fin_seconds, 121);
    assert_eq!(assignment.rejections, []);
}

#[test]
fn a_service_without_a_binding_is_served_only() {
    let spec = json!({"groups": [{"name": "edge"}]});
    let bindings = [binding("web-lvs1", "web", &web("192.168.220.100"))];
    let served = [
        served("api", "192.168.220.101"),
        served("web", "192.168.220.100"),
    ];

    let assignment = assigned_with(&bindings, &served, Some(&lvs_node(&spec)));

    assert_eq!(directs(&assignment), ["shop/web"]);
    assert_eq!(serves(&assignment), ["shop/api"]);
    assert_eq!(assignment.rejections, []);
}

#[test]
fn one_of_several_directors_serves_too_and_gets_the_previous_set() {
    let failover = json!({"virtualRouterId": 51, "advertisementMilliseconds": 1000, "priority": 100, "keepSeconds": 300});
    let several = json!({"groups": [{"name": "edge", "failover": failover}]});
    let mut spec = web("192.168.220.100");
    spec["scheduler"] = json!({"name": "mh"});
    spec["realServers"] = json!([{"address": "192.168.100.11"}, {"address": "192.168.100.12"}]);
    let bindings = [binding("web-lvs1", "web", &spec)];
    let mut part = RealServerBinding::clone(&served("web", "192.168.220.100").object);
    let previous = json!({
        "since": "2026-11-01T00:00:00Z", "addresses": ["192.168.220.100"], "ports": [{"port": 80}],
        "scheduler": {"name": "mh"}, "realServers": [{"address": "192.168.100.11"}, {"address": "192.168.100.13"}],
    });
    part.spec.previous = Some(serde_json::from_value(previous).unwrap());
    let served = [Bound::served(Arc::new(part))];

    let assignment = assigned_with(&bindings, &served, Some(&lvs_node(&several)));

    assert_eq!(directs(&assignment), ["shop/web"]);
    assert_eq!(serves(&assignment), ["shop/web"]);
    let kept = assignment.spec.kept.values().next().unwrap();
    assert_eq!((kept.is_directed, kept.keep_seconds), (true, None));
    let (_, before) = &kept.service.previous[0];
    assert_eq!(before.destinations.len(), 2);
    let director = assignment.spec.directs.values().next().unwrap();
    assert_eq!(director.service.real_servers.len(), 2);

    // One that directs alone delivers to itself.
    let alone = lvs_node(&json!({"groups": [{"name": "edge"}]}));
    let assignment = assigned_with(&bindings, &served, Some(&alone));
    assert_eq!(serves(&assignment), [""; 0]);
}

#[test]
fn a_faulty_binding_rejects_only_itself() {
    let mut faulty = web("192.168.220.101");
    faulty["ports"][0]["port"] = json!(70000);
    let bindings = [
        binding("web-lvs1", "web", &web("192.168.220.100")),
        binding("api-lvs1", "api", &faulty),
    ];

    let seen = node_view(&node().name, &bindings, &[], None);

    let [rejected] = seen.rejected.as_slice() else {
        panic!("{:?}", seen.rejected)
    };
    assert_eq!(
        rejected.identity,
        Some(ObjectRef::VirtualService(
            ObjectName::new("shop", "api").unwrap()
        ))
    );
    assert_eq!(
        rejected.rejection.to_string(),
        "VirtualService shop/api: `spec.ports[0].port` must be between 1 and 65535, not '70000'"
    );
    assert_eq!(directs(&assigned(&bindings, None)), ["shop/web"]);
}

#[test]
fn a_faulty_group_rejects_its_virtual_services() {
    let spec = json!({"groups": [{"name": "edge", "interface": "eth1/2"}]});
    let bindings = [binding("web-lvs1", "web", &web("192.168.220.100"))];
    let seen = node_view(&node().name, &bindings, &[], Some(&lvs_node(&spec)));
    let identity = ObjectRef::DirectorGroup("edge".parse().unwrap());
    assert_eq!(seen.rejected[0].identity, Some(identity));
    assert_eq!(seen.rejected[0].rejection.field, "spec.groups[0].interface");
    let assignment = assigned(&bindings, Some(&lvs_node(&spec)));
    assert_eq!(directs(&assignment), [""; 0]);
    assert_eq!(assignment.rejections.len(), 1);
}

#[test]
fn bindings_of_other_machines_and_deleted_bindings_are_left_out() {
    let bindings = ["web", "api"].map(|name| binding(name, name, &web("192.168.220.100")).object);
    let [mut other, mut leaving] = bindings.map(Arc::unwrap_or_clone);
    other.spec.node = "lvs2".to_owned();
    leaving.metadata.deletion_timestamp = leaving.metadata.creation_timestamp.clone();
    let bindings = [other, leaving].map(|object| Bound::directed(Arc::new(object), |_| None));

    let seen = node_view(&node().name, &bindings, &[], None);

    assert_eq!(seen, NodeView::default());
}

#[test]
fn of_two_bindings_of_one_service_the_first_keeps_it() {
    let bindings = [
        binding("web-b", "web", &web("192.168.220.101")),
        binding("web-a", "web", &web("192.168.220.100")),
    ];
    let seen = node_view(&node().name, &bindings, &[], None);
    let name = ObjectName::new("shop", "web").unwrap();
    let vips = seen.view.services[&name].frontend.vips();
    assert_eq!(vips, ["192.168.220.100".parse::<IpAddr>().unwrap()]);
    assert_eq!(
        seen.rejected[0].rejection.to_string(),
        "DirectorBinding shop/web-b: `spec.virtualService` must not be bound twice: DirectorBinding web-a has it"
    );
    assert_eq!(seen.rejected[0].identity, None);
    assigned(&bindings, None);
}

#[test]
fn a_binding_with_an_invalid_name_is_reported() {
    let bindings = [
        binding("web-a", "web", &web("192.168.220.100")),
        binding("Web_B", "web", &web("192.168.220.101")),
    ];
    let seen = node_view(&node().name, &bindings, &[], None);
    let texts: Vec<_> = seen
        .rejected
        .iter()
        .map(|all| all.rejection.to_string())
        .collect();
    assert_eq!(
        texts,
        [
            "DirectorBinding shop/web-a: `spec.virtualService` must not be bound twice: DirectorBinding Web_B has it"
        ]
    );
    let bindings = [
        binding("web-a", "web", &web("192.168.220.100")),
        binding("web_b", "web", &web("192.168.220.101")),
    ];
    let seen = node_view(&node().name, &bindings, &[], None);
    assert_eq!(
        seen.rejected[0].rejection.to_string(),
        "DirectorBinding shop/web_b: `spec.virtualService` must not be bound twice: DirectorBinding web-a has it"
    );
}
