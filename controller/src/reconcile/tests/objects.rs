//! Objects of the API for tests.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    Resource,
    api::{
        core::v1::{Node, Pod},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
    jiff::Timestamp,
};
use kube::core::PartialObjectMeta;
use lvs_crd::{
    AddressPool, DirectorGroup, Facts, InterfaceAddress, LvsNode, LvsNodeStatus, VirtualService,
    convert::{KubePort, KubeServiceSpec},
};
use lvs_model::{NodeName, ObjectName};
use serde_json::{Value, json};

use crate::cluster::Change;

pub(super) fn mk_owner(kind: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        kind: kind.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    }
}

pub(super) fn mk_machine(name: &str) -> NodeName {
    name.parse().unwrap()
}

pub(super) fn mk_name(name: &str) -> ObjectName {
    ObjectName::new("shop", name).unwrap()
}

/// A DR service with two real servers. `changes` replace fields of its spec.
pub(super) fn mk_service(name: &str, created: i64, changes: &Value) -> Change {
    let mut spec = json!({
        "addresses": ["10.0.0.100"],
        "ports": [{"port": 80}],
        "backends": [{"address": "10.0.0.11"}, {"address": "10.0.0.12"}],
    });
    spec.as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    let mut object = VirtualService::new(name, serde_json::from_value(spec).unwrap());
    object.metadata.namespace = Some("shop".to_owned());
    object.metadata.creation_timestamp = Some(Time(Timestamp::from_second(created).unwrap()));
    Change::VirtualService(mk_name(name), Some(Arc::new(object)))
}

/// A generation of `shop/web`.
pub(super) fn mk_generation(generation: i64, changes: &Value) -> Change {
    let Change::VirtualService(name, Some(mut object)) = mk_service("web", 1, changes) else {
        unreachable!()
    };
    Arc::make_mut(&mut object).metadata.generation = Some(generation);
    Change::VirtualService(name, Some(object))
}

pub(super) fn mk_uid_node(name: &str) -> Change {
    let Change::Node(name, Some(mut node)) = mk_node(name) else {
        unreachable!()
    };
    Arc::make_mut(&mut node).metadata.uid = Some(format!("uid of {name}"));
    Change::Node(name, Some(node))
}

pub(super) fn mk_group(node: &str) -> Change {
    mk_changed_group(&json!({"nodes": {"names": [node]}}))
}

/// The group `default`, which permits 10.0.0.0/8 as real servers. `changes` replace fields of its spec.
pub(super) fn mk_changed_group(changes: &Value) -> Change {
    mk_named_group("default", changes)
}

/// The same with another name.
pub(super) fn mk_named_group(name: &str, changes: &Value) -> Change {
    let mut spec = json!({
        "nodes": {"names": ["lvs1"]},
        "realServers": {"cidrs": ["10.0.0.0/8"]},
    });
    spec.as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    let object = DirectorGroup::new(name, serde_json::from_value(spec).unwrap());
    Change::DirectorGroup(name.to_owned(), Some(Arc::new(object)))
}

pub(super) fn mk_pool(name: &str, spec: &Value) -> Change {
    let object = AddressPool::new(name, serde_json::from_value(spec.clone()).unwrap());
    Change::AddressPool(name.parse().unwrap(), Some(Arc::new(object)))
}

pub(super) fn mk_selecting_group() -> Change {
    mk_changed_group(&json!({"nodes": {"selector": {"matchLabels": {"edge": "yes"}}}}))
}

pub(super) fn mk_node(name: &str) -> Change {
    let node = PartialObjectMeta::<Node> {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([("edge".to_owned(), "yes".to_owned())])),
            ..ObjectMeta::default()
        },
        ..PartialObjectMeta::default()
    };
    Change::Node(mk_machine(name), Some(Arc::new(node)))
}

/// A node without labels.
pub(super) fn mk_bare_node(name: &str, uid: &str) -> Change {
    let node = PartialObjectMeta::<Node> {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectMeta::default()
        },
        ..PartialObjectMeta::default()
    };
    Change::Node(mk_machine(name), Some(Arc::new(node)))
}

/// A machine with an agent. Its MAC address ends in the last number of its address.
pub(super) fn mk_lvs_node(name: &str, address: &str) -> Change {
    let mut object = LvsNode::new(name, Default::default());
    object.status = Some(LvsNodeStatus {
        observed_generation: Some(1),
        facts: Some(Facts {
            addresses: vec![InterfaceAddress {
                interface: "eth0".to_owned(),
                address: format!("{address}/24"),
            }],
            mac_addresses: vec![mk_mac(address)],
            serves_what_it_directs: true,
            ..Facts::default()
        }),
        ..LvsNodeStatus::default()
    });
    Change::LvsNode(mk_machine(name), Some(Arc::new(object)))
}

fn mk_mac(address: &str) -> String {
    let last: u8 = address.rsplit('.').next().unwrap().parse().unwrap();
    format!("02:00:00:00:00:{last:02x}")
}

/// The Service `shop/web` with port 80.
pub(super) fn mk_kube_service() -> Change {
    mk_service_of("web")
}

/// A Service with port 80.
pub(super) fn mk_service_of(name: &str) -> Change {
    let spec = KubeServiceSpec {
        ports: vec![KubePort {
            name: String::new(),
            protocol: "TCP".to_owned(),
            port: 80,
        }],
        is_external_name: false,
        has_selector: true,
    };
    Change::Service(mk_name(name), Some(Arc::new(spec)))
}

pub(super) fn mk_slice(is_pod: bool) -> Change {
    let kind = if is_pod { Pod::KIND } else { Node::KIND };
    mk_slice_of("web", kind, &["10.0.0.13"])
}

/// The slice of a Service whose endpoints are pods.
pub(super) fn mk_pods(service: &str, addresses: &[&str]) -> Change {
    mk_slice_of(service, Pod::KIND, addresses)
}

fn mk_slice_of(service: &str, kind: &str, addresses: &[&str]) -> Change {
    mk_numbered_slice(service, 1, kind, addresses)
}

/// One of several slices of a Service.
pub(super) fn mk_numbered_slice(
    service: &str,
    number: usize,
    kind: &str,
    addresses: &[&str],
) -> Change {
    let endpoints = addresses.iter();
    let endpoints =
        endpoints.map(|address| json!({"addresses": [address], "targetRef": {"kind": kind}}));
    let name = format!("{service}-{number}");
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"port": 80}],
        "endpoints": endpoints.collect::<Value>(),
    }))
    .unwrap();
    Change::EndpointSlice(mk_name(&name), Some(Arc::new(slice)))
}
