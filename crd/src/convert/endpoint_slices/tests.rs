//! Tests of how EndpointSlices become real servers.

use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        discovery::v1::{EndpointConditions, EndpointPort},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::*;

#[test]
fn an_endpoint_without_conditions_is_ready() {
    let found = service_endpoints(
        &[mk_port(None, 80)],
        [mk_slice(&[80], &[mk_endpoint("10.0.0.1", None)])].iter(),
    );
    assert_eq!(weights(&found), [("10.0.0.1", 1)]);
}

#[test]
fn a_terminating_endpoint_that_serves_keeps_its_connections() {
    let slice = mk_slice(
        &[80],
        &[
            mk_endpoint("10.0.0.1", Some((true, true, false))),
            mk_endpoint("10.0.0.2", Some((false, true, true))),
            mk_endpoint("10.0.0.3", Some((false, false, true))),
            mk_endpoint("10.0.0.4", Some((false, false, false))),
        ],
    );
    let found = service_endpoints(&[mk_port(None, 80)], [slice].iter());
    assert_eq!(weights(&found), [("10.0.0.1", 1), ("10.0.0.2", 0)]);
}

#[test]
fn if_all_are_terminating_those_that_serve_take_new_connections() {
    let slice = mk_slice(
        &[80],
        &[
            mk_endpoint("10.0.0.2", Some((false, true, true))),
            mk_endpoint("10.0.0.3", Some((false, false, true))),
        ],
    );
    let found = service_endpoints(&[mk_port(None, 80)], [slice].iter());
    assert_eq!(weights(&found), [("10.0.0.2", 1)]);
}

#[test]
fn an_address_in_two_slices_counts_once_and_the_ready_one_wins() {
    let old = mk_slice(&[80], &[mk_endpoint("10.0.0.1", Some((false, true, true)))]);
    let new = mk_slice(
        &[80],
        &[mk_endpoint("10.0.0.1", None), mk_endpoint("10.0.0.2", None)],
    );
    for slices in [[&old, &new], [&new, &old]] {
        let found = service_endpoints(&[mk_port(None, 80)], slices.into_iter());
        assert_eq!(weights(&found), [("10.0.0.1", 1), ("10.0.0.2", 1)]);
    }
}

#[test]
fn slices_of_both_families_are_united_and_host_names_are_left_out() {
    let v4 = mk_slice(&[80], &[mk_endpoint("10.0.0.1", None)]);
    let v6 = EndpointSlice {
        address_type: "IPv6".to_owned(),
        ..mk_slice(&[80], &[mk_endpoint("2001:db8::1", None)])
    };
    let names = EndpointSlice {
        address_type: "FQDN".to_owned(),
        ..mk_slice(&[80], &[mk_endpoint("web.example", None)])
    };
    let found = service_endpoints(&[mk_port(None, 80)], [v4, v6, names].iter());
    assert_eq!(weights(&found), [("10.0.0.1", 1), ("2001:db8::1", 1)]);
}

#[test]
fn the_only_port_has_a_number_for_each_endpoint() {
    let first = mk_slice(&[8080], &[mk_endpoint("10.0.0.1", None)]);
    let second = mk_slice(&[9090], &[mk_endpoint("10.0.0.2", None)]);
    let found = service_endpoints(&[mk_port(None, 80)], [first, second].iter());
    let ports: Vec<_> = found
        .endpoints
        .iter()
        .map(|endpoint| endpoint.port)
        .collect();
    assert_eq!(ports, [Some(8080), Some(9090)]);
    assert_eq!(found.ports[0].target_port, None);
}

#[test]
fn several_ports_are_found_by_name_then_by_number() {
    let slice = mk_slice(&[8080, 8443], &[mk_endpoint("10.0.0.1", None)]);
    let ports = [mk_port(Some("p8443"), 443), mk_port(None, 8080)];
    let found = service_endpoints(&ports, [slice].iter());
    let targets: Vec<_> = found.ports.iter().map(|port| port.target_port).collect();
    assert_eq!(targets, [Some(8443), Some(8080)]);
    assert_eq!(found.endpoints[0].port, None);
    assert_eq!(found.unmatched_port, None);
}

#[test]
fn a_port_that_no_endpoint_has_is_reported() {
    let slice = mk_slice(&[8080, 8443], &[mk_endpoint("10.0.0.1", None)]);
    let found = service_endpoints(&[mk_port(Some("dns"), 53)], [slice].iter());
    assert_eq!(found.unmatched_port.as_deref(), Some("dns"));
    assert_eq!(weights(&found), []);
}

#[test]
fn pods_are_distinguished_from_machines() {
    let mut pod = mk_endpoint("10.0.0.1", None);
    pod.target_ref = Some(ObjectReference {
        kind: Some(Pod::KIND.to_owned()),
        ..ObjectReference::default()
    });
    let ports = [mk_port(None, 80)];
    assert!(service_endpoints(&ports, [mk_slice(&[80], &[pod])].iter()).has_pods);
    let machine = mk_slice(&[80], &[mk_endpoint("10.0.0.1", None)]);
    assert!(!service_endpoints(&ports, [machine].iter()).has_pods);
}

fn weights(found: &ServiceEndpoints) -> Vec<(&str, i64)> {
    let endpoints = found.endpoints.iter();
    endpoints
        .map(|endpoint| (endpoint.address.as_str(), endpoint.weight))
        .collect()
}

fn mk_port(name: Option<&str>, port: i64) -> Port {
    Port {
        name: name.map(str::to_owned),
        protocol: Protocol::Tcp,
        port,
        target_port: None,
    }
}

/// The conditions are ready, serving and terminating.
fn mk_endpoint(address: &str, conditions: Option<(bool, bool, bool)>) -> SliceEndpoint {
    SliceEndpoint {
        addresses: vec![address.to_owned()],
        conditions: conditions.map(|(ready, serving, terminating)| EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        ..SliceEndpoint::default()
    }
}

fn mk_slice(ports: &[i32], endpoints: &[SliceEndpoint]) -> EndpointSlice {
    let ports = ports.iter().map(|port| EndpointPort {
        name: Some(format!("p{port}")),
        port: Some(*port),
        protocol: Some("TCP".to_owned()),
        ..EndpointPort::default()
    });
    EndpointSlice {
        address_type: "IPv4".to_owned(),
        endpoints: endpoints.to_vec(),
        metadata: ObjectMeta::default(),
        ports: Some(ports.collect()),
    }
}
