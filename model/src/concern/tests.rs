//! Tests of which services a step concerns.

use std::sync::Arc;

use super::*;
use crate::{
    AddressConfig, AddressKey, Destination, DestinationKey, LinkKind, Nat, Owner, Port, Protocol,
    Scheduler, Tunnel, TunnelChecksum, VirtualService,
};

fn director(vip: &str, port: u16) -> Director {
    let service = VirtualService {
        created: None,
        group: "edge".parse().unwrap(),
        frontend: Frontend::Addresses {
            vips: vec![vip.parse().unwrap()],
            ports: vec![Port {
                protocol: Protocol::Tcp,
                port,
                target_port: port,
            }],
        },
        forwarding: Forwarding::Dr,
        nat: Nat::default(),
        scheduler: Scheduler::default(),
        persistence: None,
        one_packet: false,
        real_servers: Vec::new(),
    };
    Director {
        service: Arc::new(service),
        interface: None,
    }
}

fn role(forwarding: Forwarding) -> RealServerRole {
    RealServerRole {
        vips: vec!["192.168.220.100".parse().unwrap()],
        own: ["192.168.220.12".parse().unwrap()].into(),
        forwarding,
        nat: Nat::default(),
        ports: [(Protocol::Tcp, 80)].into(),
        families: [Family::V4].into(),
    }
}

fn add_address(interface: &str, address: &str) -> Step {
    let key = AddressKey::host(&interface.parse().unwrap(), address.parse().unwrap());
    Step::AddAddress {
        key,
        config: AddressConfig {
            deprecated: false,
            owner: Owner::Ours,
        },
        announce: false,
    }
}

#[test]
fn a_destination_is_for_the_service_with_its_port() {
    let step = Step::AddDestination {
        service: ServiceKey::Address {
            address: "192.168.220.100".parse().unwrap(),
            protocol: Protocol::Tcp,
            port: 80,
        },
        key: DestinationKey {
            address: "192.168.220.12".parse().unwrap(),
            port: 80,
        },
        destination: Destination {
            forwarding: Forwarding::Dr,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        },
    };
    assert!(director("192.168.220.100", 80).needs(&step));
    assert!(!director("192.168.220.100", 443).needs(&step));
    assert!(!role(Forwarding::Dr).needs(&step, &BTreeMap::new()));
}

#[test]
fn a_vip_is_for_every_service_that_has_it() {
    let step = add_address("eth0", "192.168.220.100");
    assert!(director("192.168.220.100", 80).needs(&step));
    assert!(director("192.168.220.100", 443).needs(&step));
    assert!(!director("192.168.220.101", 80).needs(&step));
}

#[test]
fn arp_settings_are_for_who_hides_a_vip() {
    let step = Step::SetSysctl {
        sysctl: Sysctl::ArpIgnore(None),
        value: 1,
        previous: Some(0),
    };
    assert!(role(Forwarding::Dr).needs(&step, &BTreeMap::new()));
    assert!(!role(Forwarding::Nat).needs(&step, &BTreeMap::new()));
    assert!(!director("192.168.220.100", 80).needs(&step));
}

#[test]
fn a_tunnel_device_is_for_who_has_its_address() {
    let name: InterfaceName = "lvs-ipip-1".parse().unwrap();
    let link = |local: &str| Link {
        kind: LinkKind::Ipip {
            local: local.parse().unwrap(),
        },
        up: true,
        owner: Owner::Ours,
    };
    let tunnel = Forwarding::Tun(Tunnel {
        kind: TunnelKind::Ipip,
        checksum: TunnelChecksum::None,
    });
    let step = add_address("lvs-ipip-1", "169.254.76.83");
    let own = [(name.clone(), link("192.168.220.12"))].into();
    let other = [(name, link("192.168.220.13"))].into();
    assert!(role(tunnel).needs(&step, &own));
    assert!(!role(tunnel).needs(&step, &other));
    assert!(!role(Forwarding::Dr).needs(&step, &own));
}

#[test]
fn what_is_removed_is_nobodys() {
    let key = AddressKey::host(&"lo".parse().unwrap(), "192.168.220.100".parse().unwrap());
    let step = Step::RemoveAddress(key);
    assert!(!director("192.168.220.100", 80).needs(&step));
    assert!(!role(Forwarding::Dr).needs(&step, &BTreeMap::new()));
}
