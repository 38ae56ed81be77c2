//! Tests of how Services become real servers.

use std::collections::{BTreeMap, BTreeSet};

use lvs_model::NodeName;
use serde_json::{Value, json};

use super::*;
use crate::{
    VirtualService,
    convert::{KubeServiceSpec, KubeServices, Resolution, UnreadableSlice, resolved_service},
};

/// A cluster with one Service, `web`.
struct Cluster {
    spec: Option<KubeServiceSpec>,
    slices: Vec<EndpointSlice>,
    unreadable: Vec<UnreadableSlice<'static>>,
    machines: BTreeMap<IpAddr, BTreeSet<NodeName>>,
}

impl Cluster {
    /// The ports of the Service are written `NAME NUMBER`.
    fn new(ports: &[&str], slices: &[Value]) -> Self {
        let ports = ports.iter().map(|text| {
            let (name, number) = text.split_once(' ').unwrap();
            KubePort {
                name: name.to_owned(),
                protocol: "TCP".to_owned(),
                port: number.parse().unwrap(),
            }
        });
        let slices = slices.iter().cloned().map(serde_json::from_value);
        Self {
            spec: Some(KubeServiceSpec {
                ports: ports.collect(),
                is_external_name: false,
                has_selector: true,
            }),
            slices: slices.collect::<Result<_, _>>().unwrap(),
            unreadable: Vec::new(),
            machines: BTreeMap::new(),
        }
    }

    /// Resolves a NAT service with masquerading; `changes` replace its fields.
    fn resolve(&self, changes: &Value) -> Resolution {
        let mut spec = json!({
            "addresses": ["10.0.0.100"],
            "ports": [{"port": 80}],
            "forwarding": "NAT",
            "nat": {"returnPath": "Masquerade"},
            "backends": [{"service": {"name": "web"}}],
        });
        let changes = changes.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(changes);
        let object = VirtualService::new("shop", serde_json::from_value(spec).unwrap());
        let slices = |reverse: bool| {
            let mut slices: Vec<_> = self.slices.iter().collect();
            if reverse {
                slices.reverse();
            }
            slices
        };
        let [one, other] = [false, true].map(|reverse| {
            let web = KubeService {
                spec: self.spec.as_ref(),
                slices: slices(reverse),
                unreadable: self.unreadable.clone(),
            };
            let cluster = KubeServices {
                services: [("web", web)].into(),
                directors: ["10.0.0.1".parse().unwrap()].into(),
                machines: &self.machines,
                may_name: Box::new(|_| true),
                bound: Box::new(|_| Vec::new()),
            };
            resolved_service(&object, &cluster).unwrap()
        });
        assert_eq!(one.service, other.service, "the order of slices matters");
        one
    }

    /// The real servers as `ADDRESS:PORT[,PORT]=WEIGHT`.
    fn servers(&self, changes: &Value) -> String {
        servers(&self.resolve(changes))
    }
}

fn servers(resolution: &Resolution) -> String {
    let servers = resolution.service.real_servers.iter().map(|server| {
        let ports: Vec<_> = server.ports.iter().map(ToString::to_string).collect();
        format!("{}:{}={}", server.address, ports.join(","), server.weight)
    });
    servers.collect::<Vec<_>>().join(" ")
}

fn gaps(resolution: &Resolution) -> Vec<String> {
    resolution.gaps.iter().map(ToString::to_string).collect()
}

/// The ports of a slice are written `NAME NUMBER`.
fn mk_slice(name: &str, ports: &[&str], endpoints: &[Value]) -> Value {
    let ports = ports.iter().map(|text| {
        let (name, number) = text.split_once(' ').unwrap();
        json!({"name": name, "port": number.parse::<u16>().unwrap(), "protocol": "TCP"})
    });
    json!({
        "metadata": {"name": name}, "addressType": "IPv4",
        "ports": ports.collect::<Vec<_>>(), "endpoints": endpoints,
    })
}

fn ready(address: &str) -> Value {
    json!({"addresses": [address]})
}

fn unready(address: &str) -> Value {
    json!({"addresses": [address], "conditions": {"ready": false}})
}

fn leaving(address: &str) -> Value {
    json!({"addresses": [address], "conditions": {"ready": false, "serving": true, "terminating": true}})
}

#[test]
fn an_endpoint_that_is_not_ready_stays_without_new_connections() {
    let endpoints = [
        ready("10.0.0.11"),
        unready("10.0.0.12"),
        leaving("10.0.0.13"),
    ];
    let cluster = Cluster::new(
        &["http 80"],
        &[mk_slice("web-1", &["http 8080"], &endpoints)],
    );
    let servers = cluster.servers(&json!({}));
    assert_eq!(
        servers,
        "10.0.0.11:8080=1 10.0.0.12:8080=0 10.0.0.13:8080=0"
    );
}

#[test]
fn if_none_is_ready_those_that_are_terminating_and_serve_take_new_connections() {
    let endpoints = [unready("10.0.0.12"), leaving("10.0.0.13")];
    let cluster = Cluster::new(
        &["http 80"],
        &[mk_slice("web-1", &["http 8080"], &endpoints)],
    );
    let servers = cluster.servers(&json!({}));
    assert_eq!(servers, "10.0.0.12:8080=0 10.0.0.13:8080=1");
}

#[test]
fn a_slice_without_ports_and_endpoints_counts_for_nothing() {
    let placeholder =
        json!({"metadata": {"name": "web-0"}, "addressType": "IPv4", "endpoints": []});
    let good = mk_slice("web-1", &["http 8080"], &[ready("10.0.0.11")]);
    let scaled_to_zero = Cluster::new(&["http 80"], std::slice::from_ref(&placeholder));
    let empty = scaled_to_zero.resolve(&json!({}));
    assert_eq!((servers(&empty), gaps(&empty)), (String::new(), vec![]));
    let cluster = Cluster::new(&["http 80"], &[placeholder, good]);
    assert_eq!(cluster.servers(&json!({})), "10.0.0.11:8080=1");
}

#[test]
fn a_port_of_another_name_is_not_taken() {
    let slices = [
        mk_slice("web-1", &["http 8080"], &[ready("10.0.0.11")]),
        mk_slice(
            "web-2",
            &["other 9"],
            &[ready("10.0.0.12"), ready("10.0.0.13")],
        ),
    ];
    let found = Cluster::new(&["http 80"], &slices).resolve(&json!({}));
    assert_eq!(servers(&found), "10.0.0.11:8080=1");
    assert_eq!(gaps(&found), ["EndpointSlice web-2 has no port '80/TCP'"]);
    assert_eq!(found.gaps[0].left_out(), 2);
}

#[test]
fn endpoints_of_a_family_without_a_vip_are_left_out() {
    let mut v6 = mk_slice("web-2", &["http 8080"], &[ready("2001:db8::11")]);
    v6["addressType"] = "IPv6".into();
    let mut names = mk_slice("web-3", &["http 8080"], &[ready("web.example")]);
    names["addressType"] = "FQDN".into();
    let v4 = mk_slice("web-1", &["http 8080"], &[ready("10.0.0.11")]);
    let cluster = Cluster::new(&["http 80"], &[v4, v6, names]);
    let found = cluster.resolve(&json!({}));
    assert_eq!(servers(&found), "10.0.0.11:8080=1");
    assert_eq!(
        gaps(&found),
        [
            "EndpointSlice web-3 holds host names, and a real server is an address",
            "1 of Service 'web' are of a family without a VIP",
        ]
    );
    assert_eq!(found.gaps.iter().map(Gap::left_out).sum::<usize>(), 2);
    let both = json!({"addresses": ["10.0.0.100", "2001:db8::100"]});
    assert_eq!(
        cluster.servers(&both),
        "10.0.0.11:8080=1 2001:db8::11:8080=1"
    );
}

#[test]
fn a_slice_that_cannot_be_decoded_is_reported_by_name_and_affects_no_other() {
    let slice = mk_slice("web-1", &["http 8080"], &[ready("10.0.0.11")]);
    let mut cluster = Cluster::new(&["http 80"], &[slice]);
    let unreadable = |name, is_kept| UnreadableSlice {
        name,
        error: "invalid type: string, expected a sequence",
        is_kept,
    };
    cluster.unreadable = vec![unreadable("web-1", true), unreadable("web-2", false)];
    let found = cluster.resolve(&json!({}));
    assert_eq!(servers(&found), "10.0.0.11:8080=1");
    assert_eq!(
        gaps(&found),
        [
            "EndpointSlice web-1 stays as it was last seen: invalid type: string, expected a sequence",
            "EndpointSlice web-2 is left out: invalid type: string, expected a sequence",
        ]
    );
}

#[test]
fn an_address_with_two_ports_is_two_real_servers() {
    let old = mk_slice("web-1", &["http 8080"], &[leaving("10.0.0.11")]);
    let new = mk_slice("web-2", &["http 9090"], &[ready("10.0.0.11")]);
    let cluster = Cluster::new(&["http 80"], &[old, new.clone()]);
    assert_eq!(
        cluster.servers(&json!({})),
        "10.0.0.11:8080=0 10.0.0.11:9090=1"
    );
    let also = mk_slice("web-1", &["http 8080"], &[ready("10.0.0.11")]);
    let cluster = Cluster::new(&["http 80"], &[also, new.clone(), new]);
    assert_eq!(
        cluster.servers(&json!({})),
        "10.0.0.11:8080=1 10.0.0.11:9090=1"
    );
}

#[test]
fn two_ports_keep_their_numbers_together_while_a_rollout_changes_both() {
    let ports = json!({"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]});
    let old = mk_slice(
        "web-1",
        &["http 8080", "admin 8090"],
        &[leaving("10.0.0.11")],
    );
    let new = mk_slice("web-2", &["http 9090", "admin 9091"], &[ready("10.0.0.12")]);
    let cluster = Cluster::new(&["http 80", "admin 81"], &[old, new]);
    assert_eq!(
        cluster.servers(&ports),
        "10.0.0.11:8080,8090=0 10.0.0.12:9090,9091=1"
    );
}

#[test]
fn ports_without_names_are_the_ports_of_the_service_with_their_numbers() {
    let slice = mk_slice("web-1", &["http 8080", "https 8443"], &[ready("10.0.0.11")]);
    let cluster = Cluster::new(&["http 80", "https 443"], &[slice]);
    let numbers = json!({"ports": [{"port": 443}, {"port": 80}]});
    assert_eq!(cluster.servers(&numbers), "10.0.0.11:8443,8080=1");
    let target =
        json!({"ports": [{"port": 8000, "targetPort": 8443}, {"name": "http", "port": 1}]});
    assert_eq!(cluster.servers(&target), "10.0.0.11:8443,8080=1");
    let missing = cluster.resolve(&json!({"ports": [{"name": "dns", "port": 53}, {"port": 80}]}));
    assert_eq!(servers(&missing), "");
    assert_eq!(
        gaps(&missing),
        ["Service 'web' has no port 'dns 53/TCP'; it has http 80/TCP, https 443/TCP"]
    );
}

#[test]
fn the_only_port_of_a_service_may_have_any_number() {
    let slice = mk_slice("web-1", &["http 8080"], &[ready("10.0.0.11")]);
    let cluster = Cluster::new(&["http 8000"], &[slice]);
    assert_eq!(cluster.servers(&json!({})), "10.0.0.11:8080=1");
}

#[test]
fn the_first_address_of_an_endpoint_counts() {
    let endpoint = json!({"addresses": ["10.0.0.11", "10.0.0.12"]});
    let cluster = Cluster::new(
        &["http 80"],
        &[mk_slice("web-1", &["http 8080"], &[endpoint])],
    );
    assert_eq!(cluster.servers(&json!({})), "10.0.0.11:8080=1");
}

#[test]
fn an_endpoint_that_cannot_be_a_real_server_is_left_out_by_itself() {
    let endpoints = ["10.0.0.100", "10.0.0.1", "127.0.0.1", "10.0.0.11"].map(ready);
    let cluster = Cluster::new(
        &["http 80"],
        &[mk_slice("web-1", &["http 8080"], &endpoints)],
    );
    let found = cluster.resolve(&json!({}));
    assert_eq!(servers(&found), "10.0.0.11:8080=1");
    assert_eq!(
        gaps(&found),
        [
            "10.0.0.1 of EndpointSlice web-1 is an address of a director",
            "10.0.0.100 of EndpointSlice web-1 is a VIP of the service",
            "127.0.0.1 of EndpointSlice web-1 is not the unicast address of a host",
        ]
    );
    let direct = cluster.resolve(&json!({"forwarding": "DR", "nat": null}));
    assert_eq!(servers(&direct), "");
    let port = "10.0.0.11 of EndpointSlice web-1 has another port than the VIP, and only NAT changes the port";
    assert!(gaps(&direct).iter().any(|gap| gap == port));
}

#[test]
fn a_name_outside_the_cluster_has_no_real_servers() {
    let slice = mk_slice("web-1", &["http 8080"], &[ready("10.0.0.11")]);
    let mut cluster = Cluster::new(&["http 80"], &[slice]);
    cluster.spec.as_mut().unwrap().is_external_name = true;
    let found = cluster.resolve(&json!({}));
    assert_eq!(servers(&found), "");
    assert_eq!(found.gaps, [Gap::ExternalName("web".to_owned())]);
}

#[test]
fn pods_need_masqueraded_nat_unless_they_are_on_the_network_of_a_machine() {
    let pod = json!({"addresses": ["10.0.0.11"], "targetRef": {"kind": "Pod"}});
    let own_port = mk_slice("web-1", &["http 80"], std::slice::from_ref(&pod));
    let mut cluster = Cluster::new(&["http 80"], &[own_port]);
    let direct = json!({"forwarding": "DR", "nat": null});
    let web = || "web".to_owned();
    assert_eq!(cluster.resolve(&json!({})).gaps, []);
    let other_port = [mk_slice(
        "web-1",
        &["http 8080"],
        std::slice::from_ref(&pod),
    )];
    for cluster in [&cluster, &Cluster::new(&["http 80"], &other_port)] {
        let last = cluster.resolve(&direct).gaps.pop();
        assert_eq!(last, Some(Gap::PodsNeedNat(web())));
    }
    let last = cluster.resolve(&json!({"nat": null})).gaps.pop();
    assert_eq!(last, Some(Gap::PodsNeedMasquerade(web())));
    let node = BTreeSet::from(["node1".parse().unwrap()]);
    cluster.machines.insert("10.0.0.11".parse().unwrap(), node);
    assert_eq!(cluster.resolve(&direct).gaps, []);
    assert_eq!(cluster.servers(&direct), "10.0.0.11:80=1");
}

#[test]
fn backends_get_connections_in_the_ratio_of_their_weights() {
    let endpoints = ["10.0.0.11", "10.0.0.12", "10.0.0.13"].map(ready);
    let cluster = Cluster::new(
        &["http 80"],
        &[mk_slice("web-1", &["http 8080"], &endpoints)],
    );
    let backends = json!({"backends": [
        {"service": {"name": "web"}, "weight": 9},
        {"address": "10.0.0.20", "port": 8081, "forwarding": "DR"},
    ]});
    let refused = {
        let spec = json!({"addresses": ["10.0.0.100"], "ports": [{"port": 80}], "backends": backends["backends"]});
        let object = VirtualService::new("shop", serde_json::from_value(spec).unwrap());
        crate::convert::virtual_service(&object).unwrap_err()
    };
    assert_eq!(
        refused.len(),
        2,
        "a Service, and a port with DR: {refused:?}"
    );
    let backends = json!({"backends": [
        {"service": {"name": "web"}, "weight": 9},
        {"address": "10.0.0.20", "forwarding": "DR"},
        {"address": "10.0.0.12", "port": 8088, "weight": 2},
    ]});
    assert_eq!(
        cluster.servers(&backends),
        "10.0.0.11:8080=9 10.0.0.13:8080=9 10.0.0.20:80=2 10.0.0.12:8088=4"
    );
    let methods = cluster.resolve(&backends).service.real_servers;
    let methods: Vec<_> = methods.iter().map(|server| server.forwarding).collect();
    let (nat, dr) = (lvs_model::Forwarding::Nat, lvs_model::Forwarding::Dr);
    assert_eq!(methods, [nat, nat, dr, nat]);
}

#[test]
fn ten_thousand_real_servers_are_served_and_the_rest_is_counted() {
    let endpoints: Vec<Value> = (0..10_001_u32)
        .map(|i| ready(&format!("10.1.{}.{}", i / 250, 1 + i % 250)))
        .collect();
    let cluster = Cluster::new(
        &["http 80"],
        &[mk_slice("web-1", &["http 8080"], &endpoints)],
    );
    let found = cluster.resolve(&json!({}));
    assert_eq!(found.service.real_servers.len(), 10_000);
    assert_eq!(found.gaps[0].left_out(), 1);
}
