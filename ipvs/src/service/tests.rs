//! Tests of virtual services: captured ones, and encoding and decoding.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
};

use netlink_packet_core::{Emitable, Parseable};
use proptest::prelude::*;

use super::*;
use crate::{
    Family, Name,
    wire::{ServiceAttribute, tests::answers},
};

#[test]
fn captured_services_are_decoded() {
    let [persistent, v6, fwmark] = answers::services().map(|nlas| Service::parse(&nlas).unwrap());

    let mut config = ServiceConfig::new(name("wlc"));
    config.persistence = Some(Persistence {
        timeout_seconds: 300,
        granularity: Granularity::Prefix(24),
        engine: Some(name("sip")),
    });
    assert_eq!(persistent.config, config);
    assert_eq!(persistent.key.to_string(), "TCP 10.1.1.1:80");
    assert_eq!(persistent.stats, Stats::default());

    let mut config = ServiceConfig::new(name("mh"));
    config.flags = SchedulerFlags::FALLBACK | SchedulerFlags::PORT;
    assert_eq!(v6.config, config);
    assert_eq!(v6.key.to_string(), "TCP [fd00::100]:443");

    assert_eq!(fwmark.config, ServiceConfig::new(name("rr")));
    assert_eq!(fwmark.key.to_string(), "FWM 7");
}

#[test]
fn an_ipv4_prefix_is_sent_as_a_netmask_in_network_order() {
    let mut config = ServiceConfig::new(name("rr"));
    config.persistence = Some(persistence(Granularity::Prefix(22)));

    assert_eq!(netmask(config, Family::V4), [255, 255, 252, 0]);
}

#[test]
fn an_ipv6_prefix_is_sent_as_a_number_in_host_order() {
    let mut config = ServiceConfig::new(name("rr"));
    config.persistence = Some(persistence(Granularity::Prefix(64)));

    assert_eq!(netmask(config, Family::V6), 64_u32.to_ne_bytes());
}

#[test]
fn without_persistence_the_netmask_is_the_full_length() {
    let config = ServiceConfig::new(name("rr"));

    assert_eq!(netmask(config, Family::V4), [255; 4]);
    assert_eq!(netmask(config, Family::V6), 128_u32.to_ne_bytes());
}

#[test]
fn a_foreign_netmask_with_gaps_survives() {
    let mask = Ipv4Addr::new(255, 0, 255, 0);
    let granularity = Granularity::from_wire(mask.octets(), Family::V4);
    assert_eq!(granularity, Granularity::Netmask(mask));

    let mut config = ServiceConfig::new(name("rr"));
    config.persistence = Some(persistence(granularity));
    assert_eq!(netmask(config, Family::V4), mask.octets());
}

#[test]
fn a_service_without_its_scheduler_is_refused() {
    let key = ServiceKey::Address {
        protocol: Protocol::Tcp,
        address: Ipv4Addr::LOCALHOST.into(),
        port: 80,
    };

    let error = Service::parse(&emit(key.attributes())).unwrap_err();
    assert!(
        error.to_string().contains("IPVS_SVC_ATTR_SCHED_NAME"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn a_service_is_decoded_as_it_was_encoded(key in key(), config in config()) {
        let config = fit(config, key.family());

        let nlas = emit(key.attributes().chain(config.attributes(key.family())));
        let service = Service::parse(&nlas).unwrap();
        prop_assert_eq!(service, Service { key, config, stats: Stats::default() });
    }

    #[test]
    fn any_netmask_survives(bytes in any::<[u8; 4]>()) {
        let mut config = ServiceConfig::new(name("rr"));
        config.persistence = Some(persistence(Granularity::from_wire(bytes, Family::V4)));

        prop_assert_eq!(netmask(config, Family::V4), bytes);
    }
}

/// Any key of a service.
pub(crate) fn key() -> impl Strategy<Value = ServiceKey> {
    let protocol = prop_oneof![
        Just(Protocol::Tcp),
        Just(Protocol::Udp),
        Just(Protocol::Sctp),
        Just(Protocol::Other(50)),
    ];
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    prop_oneof![
        (protocol, any::<IpAddr>(), any::<u16>()).prop_map(|(protocol, address, port)| {
            ServiceKey::Address {
                protocol,
                address,
                port,
            }
        }),
        (any::<NonZeroU32>(), family)
            .prop_map(|(mark, family)| ServiceKey::Fwmark { mark, family }),
    ]
}

/// Any settings of a service; prefix lengths are of either family.
pub(crate) fn config() -> impl Strategy<Value = ServiceConfig> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(first, second, third)| {
        let mut flags = SchedulerFlags::NONE;
        for (given, flag) in [
            (first, SchedulerFlags::SCHED_1),
            (second, SchedulerFlags::SCHED_2),
            (third, SchedulerFlags::SCHED_3),
        ] {
            if given {
                flags |= flag;
            }
        }
        flags
    });
    let scheduler = "[a-z]{1,15}".prop_map(|text| name(&text));
    let engine = proptest::option::of(Just(name("sip")));
    let persistence =
        (any::<u32>(), 1_u8..=128, engine).prop_map(|(timeout_seconds, length, engine)| {
            let granularity = Granularity::Prefix(length);
            Persistence {
                timeout_seconds,
                granularity,
                engine,
            }
        });
    (
        scheduler,
        flags,
        any::<bool>(),
        proptest::option::of(persistence),
    )
        .prop_map(
            |(scheduler, flags, one_packet, persistence)| ServiceConfig {
                scheduler,
                flags,
                one_packet,
                persistence,
            },
        )
}

/// Limits the prefix length to that of the family.
fn fit(mut config: ServiceConfig, family: Family) -> ServiceConfig {
    if let Some(persistence) = &mut config.persistence {
        let length = persistence.granularity.prefix_length().unwrap();
        persistence.granularity = Granularity::Prefix(length.min(family.bits()));
    }
    config
}

fn persistence(granularity: Granularity) -> Persistence {
    Persistence {
        timeout_seconds: 360,
        granularity,
        engine: None,
    }
}

fn netmask(config: ServiceConfig, family: Family) -> [u8; 4] {
    config
        .attributes(family)
        .find_map(|nla| {
            let ServiceAttribute::Netmask(bytes) = nla else {
                return None;
            };
            Some(bytes)
        })
        .unwrap()
}

fn emit(nlas: impl Iterator<Item = ServiceAttribute>) -> Vec<u8> {
    let nlas: Vec<_> = nlas.collect();
    let mut bytes = vec![0; nlas.as_slice().buffer_len()];
    nlas.as_slice().emit(&mut bytes);
    bytes
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}
