//! Tests of the address from which advertisements are sent.

use std::collections::BTreeSet;

use lvs_model::{Candidacy, Unicast};

use super::*;

fn mk_key(address: &str, prefix: u8) -> AddressKey {
    AddressKey {
        interface: "eth0".parse().unwrap(),
        address: address.parse().unwrap(),
        prefix,
    }
}

/// The address of a router with the VIP 192.0.2.100, among these addresses with their prefixes; true: it expires.
fn found(own: Option<&str>, addresses: &[(&str, u8, bool)]) -> Option<String> {
    let router = VirtualRouter {
        candidacy: Candidacy {
            router_id: 51,
            routers: 1,
            interval: 100,
            preempt_after: None,
            priorities: vec![100],
            standby: false,
            unicast: own.map(|own| Unicast {
                own: [own.parse().unwrap()].into(),
                peers: BTreeSet::new(),
            }),
        },
        groups: BTreeSet::new(),
        vips: [mk_key("192.0.2.100", 24)].into(),
    };
    let observed = addresses.iter().map(|(address, prefix, expires)| {
        let config = AddressConfig {
            deprecated: false,
            expires: *expires,
            owner: Owner::Foreign,
        };
        (mk_key(address, *prefix), config)
    });
    let key = RouterKey {
        interface: "eth0".parse().unwrap(),
        family: Family::V4,
        router_id: 51,
    };
    own_address(&key, &router, &observed.collect()).map(|address| address.to_string())
}

#[test]
fn an_address_of_dhcp_is_an_own_one_and_a_vip_is_none() {
    let dhcp = [("192.0.2.11", 24, true), ("192.0.2.100", 24, true)];
    for own in [None, Some("192.0.2.11")] {
        assert_eq!(found(own, &dhcp).as_deref(), Some("192.0.2.11"));
    }
    assert_eq!(found(None, &dhcp[1..]), None);
    assert_eq!(found(Some("192.0.2.12"), &dhcp), None);
    // One that stays comes first: the other may be a VIP of another group.
    let both = [("192.0.2.11", 24, true), ("192.0.2.12", 24, false)];
    assert_eq!(found(None, &both).as_deref(), Some("192.0.2.12"));
}
