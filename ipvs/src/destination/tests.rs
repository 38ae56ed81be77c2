//! Tests of destinations: captured ones, and encoding and decoding.

use std::{hint::black_box, net::Ipv4Addr, time::Instant};

use netlink_packet_core::{DefaultNla, Emitable, ParseableParametrized};
use proptest::prelude::*;

use super::*;
use crate::wire::{StatsAttribute, tests::answers};

#[test]
fn captured_destinations_are_decoded() {
    let [masqueraded, tunnelled] = answers::destinations();

    let destination = Destination::parse_with_param(&masqueraded, Family::V4).unwrap();
    assert_eq!(destination.key.to_string(), "10.0.0.5:5061");
    assert_eq!(destination.config, weighing(0, Forwarding::Masquerade));
    assert_eq!(destination.connections, Connections::default());

    let destination = Destination::parse_with_param(&tunnelled, Family::V6).unwrap();
    assert_eq!(destination.key.to_string(), "[fd00::5]:443");
    let tunnel = Tunnel {
        kind: TunnelKind::Gue { port: 6080 },
        checksum: TunnelChecksum::Checksum,
    };
    assert_eq!(destination.config, weighing(1, Forwarding::Tunnel(tunnel)));
}

#[test]
fn a_destination_without_family_has_that_of_its_service() {
    let key = DestinationKey {
        address: Ipv4Addr::new(192, 0, 2, 7).into(),
        port: 8080,
    };
    let nlas = key
        .attributes()
        .filter(|nla| !matches!(nla, DestinationAttribute::AddressFamily(_)))
        .chain(weighing(5, Forwarding::Route).attributes());

    let destination = Destination::parse_with_param(&emit(nlas), Family::V4).unwrap();
    assert_eq!(destination.key, key);
}

#[test]
fn wide_counters_are_preferred_in_any_order() {
    let narrow = DestinationAttribute::Stats(vec![StatsAttribute::Connections(1)]);
    let wide = DestinationAttribute::Stats64(vec![
        StatsAttribute::Other(DefaultNla::new(11, Vec::new())),
        StatsAttribute::Connections(1 << 40),
    ]);
    for stats in [
        vec![narrow.clone(), wide.clone()],
        vec![wide, narrow.clone()],
    ] {
        assert_eq!(read_with(stats).stats.connections, 1 << 40);
    }

    assert_eq!(read_with(vec![narrow]).stats.connections, 1);
}

#[test]
fn only_the_method_bits_of_the_flags_count() {
    let nlas = [
        DestinationAttribute::ForwardingMethod(0x0100 | 3),
        DestinationAttribute::ActiveConnections(4),
        DestinationAttribute::InactiveConnections(5),
        DestinationAttribute::PersistentConnections(6),
    ];

    let destination = read_with(nlas.to_vec());
    assert_eq!(destination.config.forwarding, Forwarding::Route);
    let expected = Connections {
        active: 4,
        inactive: 5,
        persistent: 6,
    };
    assert_eq!(destination.connections, expected);
}

proptest! {
    #[test]
    fn a_destination_is_decoded_as_it_was_encoded(key in key(), config in config()) {
        let nlas = emit(key.attributes().chain(config.attributes()));

        let destination = Destination::parse_with_param(&nlas, Family::V4).unwrap();
        prop_assert_eq!(destination.key, key);
        prop_assert_eq!(destination.config, config);
    }
}

/// Any key of a destination.
pub(crate) fn key() -> impl Strategy<Value = DestinationKey> {
    any::<(IpAddr, u16)>().prop_map(|(address, port)| DestinationKey { address, port })
}

/// Any settings of a destination, those without a name included.
pub(crate) fn config() -> impl Strategy<Value = DestinationConfig> {
    let kind = prop_oneof![
        Just(TunnelKind::Ipip),
        any::<u16>().prop_map(|port| TunnelKind::Gue { port }),
        Just(TunnelKind::Gre),
        (3_u8.., any::<u16>()).prop_map(|(number, port)| TunnelKind::Other { number, port }),
    ];
    let checksum = prop_oneof![
        Just(TunnelChecksum::None),
        Just(TunnelChecksum::Checksum),
        Just(TunnelChecksum::Remote),
        (3_u16..).prop_map(TunnelChecksum::Other),
    ];
    let tunnel = (kind, checksum).prop_map(|(kind, checksum)| Tunnel { kind, checksum });
    let forwarding = prop_oneof![
        Just(Forwarding::Masquerade),
        Just(Forwarding::Route),
        tunnel.prop_map(Forwarding::Tunnel),
        Just(Forwarding::Local),
        Just(Forwarding::Bypass),
        (5_u8..=7).prop_map(Forwarding::Other),
    ];
    (forwarding, any::<u32>(), any::<u32>(), any::<u32>()).prop_map(
        |(forwarding, weight, upper_threshold, lower_threshold)| DestinationConfig {
            forwarding,
            weight,
            upper_threshold,
            lower_threshold,
        },
    )
}

fn weighing(weight: u32, forwarding: Forwarding) -> DestinationConfig {
    DestinationConfig {
        forwarding,
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
    }
}

/// Reads a destination to which these attributes were added.
fn read_with(nlas: Vec<DestinationAttribute>) -> Destination {
    let key = DestinationKey {
        address: Ipv4Addr::new(192, 0, 2, 7).into(),
        port: 8080,
    };
    let base = key
        .attributes()
        .chain(weighing(1, Forwarding::Masquerade).attributes());
    Destination::parse_with_param(&emit(base.chain(nlas)), Family::V4).unwrap()
}

fn emit(nlas: impl Iterator<Item = DestinationAttribute>) -> Vec<u8> {
    let nlas: Vec<_> = nlas.collect();
    let mut bytes = vec![0; nlas.as_slice().buffer_len()];
    nlas.as_slice().emit(&mut bytes);
    bytes
}

/// Prints nanoseconds for each destination; run it with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "measures, asserts nothing"]
fn decoding_speed() {
    let [nlas, _] = answers::destinations();
    for round in 0..5 {
        let start = Instant::now();
        for _ in 0..100_000 {
            black_box(Destination::parse_with_param(black_box(&nlas), Family::V4).unwrap());
        }
        let each = start.elapsed().as_nanos() / 100_000;
        println!("round {round}: {each} ns each");
    }
}
