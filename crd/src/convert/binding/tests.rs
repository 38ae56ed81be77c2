//! Tests of the conversion to bindings and back.

use std::sync::Arc;

use lvs_model::{Family, PreviousVersion, Tunnel, TunnelKind, server_sets};
use serde_json::json;

use super::*;
use crate::{
    MAX_REAL_SERVERS, RealServerBinding,
    convert::{Bound, previous_servers, previous_version, served::served_service},
    slice_name, slice_revision,
};

/// A virtual service of TUN with a real server of each kind.
fn service() -> VirtualService {
    let object = json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "VirtualService",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {
            "directorGroup": "edge", "addresses": ["192.0.2.1", "2001:db8::1"],
            "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "UDP", "port": 80}],
            "forwarding": "TUN", "tunnel": {"type": "GUE", "port": 6080, "checksum": "Outer"},
            "scheduler": {"name": "mh", "flags": ["Port"]},
            "persistence": {"timeoutSeconds": 77, "engine": "sip"},
            "onePacket": true,
        },
    });
    let object = serde_json::from_value(object).unwrap();
    let (_, mut service) = crate::convert::virtual_service(&object).unwrap();
    service.alone = true;
    let tunnel = service.forwarding;
    let server = |last: u8, ports: [u16; 2], forwarding| RealServer {
        address: [10, 0, 0, last].into(),
        ports: ports.iter().copied().collect(),
        weight: u32::from(last),
        upper_threshold: 3,
        lower_threshold: 2,
        forwarding,
        service: (last == 2).then(|| "api".into()),
    };
    service.real_servers = vec![
        server(1, [53, 80], tunnel),
        server(2, [5353, 8080], lvs_model::Forwarding::Nat),
        server(3, [53, 80], lvs_model::Forwarding::Dr),
    ];
    service
}

fn object(spec: DirectorBindingSpec) -> DirectorBinding {
    let mut object = DirectorBinding::new("web.lvs1", spec);
    object.metadata.namespace = Some("shop".to_owned());
    object
}

fn spec_of(service: &VirtualService) -> DirectorBindingSpec {
    DirectorBindingSpec {
        node: "lvs1".to_owned(),
        virtual_service: "web".to_owned(),
        ..director_binding(service)
    }
}

#[test]
fn a_virtual_service_is_read_back_from_its_binding() {
    let service = service();
    let spec = spec_of(&service);
    let text = serde_json::to_value(&spec).unwrap();
    assert_eq!(
        text["realServers"],
        json!([
            {"address": "10.0.0.1", "upperThreshold": 3, "lowerThreshold": 2},
            {"address": "10.0.0.2", "ports": [5353, 8080], "weight": 2, "upperThreshold": 3,
                "lowerThreshold": 2, "forwarding": "NAT", "service": "api"},
            {"address": "10.0.0.3", "weight": 3, "upperThreshold": 3, "lowerThreshold": 2,
                "forwarding": "DR"},
        ])
    );
    let read = serde_json::from_value(text).unwrap();
    assert_eq!(bound_service(&object(read), &[]), Ok(service));
}

#[test]
fn nat_and_marks_are_read_back_too() {
    let mut service = service();
    service.forwarding = lvs_model::Forwarding::Nat;
    service.nat = lvs_model::Nat {
        return_path: lvs_model::ReturnPath::PolicyRoute,
        gateways: vec!["10.0.0.254".parse().unwrap()],
    };
    service.frontend = Frontend::Fwmark(7.try_into().unwrap());
    service.persistence = None;
    for (server, ports) in service
        .real_servers
        .iter_mut()
        .zip([vec![], vec![8080], vec![]])
    {
        server.ports = ports.into();
        server.forwarding = lvs_model::Forwarding::Nat;
    }
    let spec = spec_of(&service);
    assert_eq!(bound_service(&object(spec), &[]), Ok(service));
}

#[test]
fn a_real_server_gets_its_own_addresses_and_no_weights() {
    let service = service();
    let own = ["10.0.0.2".parse().unwrap(), "10.0.0.3".parse().unwrap()];
    let spec = RealServerBindingSpec {
        node: "rs1".to_owned(),
        virtual_service: "web".to_owned(),
        ..real_server_binding(&service, &own)
    };
    let mut object = RealServerBinding::new("web.rs1", spec);
    object.metadata.namespace = Some("shop".to_owned());

    let served = served_service(&object).unwrap();

    assert_eq!(served.frontend, service.frontend);
    assert_eq!(served.forwarding, service.forwarding);
    let servers = served.real_servers.iter();
    let servers: Vec<_> = servers
        .map(|server| (server.address, server.weight))
        .collect();
    assert_eq!(servers, own.map(|address| (address, 1)));
    assert_eq!(served.real_servers[0].ports[..], [5353, 8080]);
    assert_eq!(
        served.real_servers[0].forwarding,
        lvs_model::Forwarding::Nat
    );
    assert_eq!(served.families(), [Family::V4, Family::V6].into());
}

/// A RealServerBinding of a former real server, which has a version from before.
fn former(version: &PreviousVersion) -> RealServerBinding {
    let spec = RealServerBindingSpec {
        node: "rs1".to_owned(),
        virtual_service: "web".to_owned(),
        previous: Some(previous_servers(version)),
        ..real_server_binding(&version.service, &[])
    };
    let mut object = RealServerBinding::new("web.rs1", spec);
    object.metadata.namespace = Some("shop".to_owned());
    object
}

#[test]
fn the_sets_before_a_change_are_read_back_from_a_real_server_binding() {
    let mut service = service();
    (service.persistence, service.one_packet) = (None, false);
    if let Frontend::Addresses { ports, .. } = &mut service.frontend {
        ports[1].protocol = lvs_model::Protocol::Tcp;
    }
    let version = PreviousVersion {
        service: Arc::new(service),
        replaced: 1_790_000_000,
        since: 1_790_000_000,
    };
    let sets = server_sets(&version.service);
    assert_eq!(sets.len(), 2, "one TCP port of two VIPs");
    let object = former(&version);
    let text = serde_json::to_value(&object.spec.previous).unwrap();
    assert_eq!(text["since"], "2026-09-21T14:13:20Z");
    assert_eq!(text["realServers"][0], json!({"address": "10.0.0.1"}));

    let served = served_service(&object).unwrap();

    assert_eq!(served.real_servers, []);
    assert_eq!(served.previous, sets);
    let again = previous_version(&object).unwrap();
    assert_eq!(
        (server_sets(&again.service), again.since),
        (sets, version.since)
    );
}

#[test]
fn a_faulty_version_from_before_is_refused_by_its_field() {
    let mut object = former(&PreviousVersion {
        service: Arc::new(service()),
        replaced: 1,
        since: 1,
    });
    let previous = object.spec.previous.as_mut().unwrap();
    previous.real_servers[1].weight = 65536;
    let rejections = served_service(&object).unwrap_err();
    assert_eq!(
        rejections[0].to_string(),
        "VirtualService shop/web: `spec.previous.realServers[1].weight` must be between 0 and 65535, not '65536'"
    );
    assert_eq!(previous_version(&object), None);
}

#[test]
fn a_tunnel_is_kept_though_only_a_real_server_uses_it() {
    let mut service = service();
    let tunnel = Tunnel {
        kind: TunnelKind::Gre,
        checksum: lvs_model::TunnelChecksum::Outer,
    };
    service.forwarding = lvs_model::Forwarding::Dr;
    service.real_servers[0].forwarding = lvs_model::Forwarding::Tun(tunnel);
    let spec = spec_of(&service);
    assert_eq!(bound_service(&object(spec), &[]), Ok(service));
}

#[test]
fn a_list_of_ports_that_does_not_fit_is_refused() {
    let mut spec = spec_of(&service());
    spec.real_servers[1].ports = vec![5353];
    spec.real_servers[2].weight = 65536;
    let rejections = bound_service(&object(spec), &[]).unwrap_err();
    let texts: Vec<_> = rejections.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "VirtualService shop/web: `spec.realServers[1].ports` must hold '2' ports, not '1'",
            "VirtualService shop/web: `spec.realServers[2].weight` must be between 0 and 65535, not '65536'",
        ]
    );
}

#[test]
fn a_set_is_used_when_all_slices_are_there_in_their_revisions() {
    let server = |number: usize| BoundServer {
        address: format!("10.0.{}.{}", number / 250, number % 250 + 1),
        ports: Vec::new(),
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
        forwarding: None,
        service: None,
    };
    let slice = |number: usize, weight: i64| {
        let range = (number - 1) * MAX_REAL_SERVERS..number * MAX_REAL_SERVERS;
        let mut real_servers: Vec<_> = range.map(server).collect();
        real_servers[0].weight = weight;
        real_servers.reverse();
        let revision = slice_revision(&real_servers).unwrap();
        let place = crate::BindingSlice {
            of: "web.lvs1".to_owned(),
            number: number.try_into().unwrap(),
            revision: revision.clone(),
        };
        let spec = DirectorBindingSpec {
            real_servers,
            slice: Some(place),
            ..DirectorBindingSpec::default()
        };
        let name = slice_name("web.lvs1", number);
        (revision, Arc::new(DirectorBinding::new(&name, spec)))
    };
    let mut spec = spec_of(&service());
    spec.real_servers = Vec::new();
    let (one, two) = (slice(1, 1), slice(2, 1));
    spec.slices = vec![one.0, two.0];
    let first = Arc::new(object(spec));
    let bound = |slices: &[&Arc<DirectorBinding>]| {
        Bound::directed(Arc::clone(&first), |name| {
            let mut slices = slices.iter();
            let found = slices.find(|slice| slice.metadata.name.as_deref() == Some(name));
            found.map(|slice| Arc::clone(slice))
        })
    };

    let whole = bound(&[&one.1, &two.1]).service.unwrap();
    assert_eq!(whole.real_servers.len(), 2 * MAX_REAL_SERVERS);
    let servers = whole.real_servers.iter();
    assert!(servers.is_sorted_by_key(|server| server.address));
    let text = "must all be there in these revisions: waiting for";
    assert_eq!(bound(&[&one.1]).waits, format!("{text} 2 of 2"));
    assert_eq!(
        bound(&[&slice(1, 9).1, &two.1]).waits,
        format!("{text} 1 of 2")
    );
    let rejections = bound(&[]).service.unwrap_err();
    assert_eq!(
        rejections[0].to_string(),
        format!("DirectorBinding shop/web.lvs1: `spec.slices` {text} 1, 2 of 2")
    );
}
