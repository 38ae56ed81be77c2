//! Packets as they are on the wire: captured from keepalived 2.2.7, written by hand from the RFC, and damaged.

use proptest::prelude::*;

use super::*;
use crate::{Counters, GROUP_V4, GROUP_V6};

/// keepalived, IPv4 multicast, `advert_int 0.25`, two addresses. Its checksum covers a pseudo-header.
const MULTICAST_V4: &str = "3133 9602 0019 1148 c000 0264 c000 0265";
/// The same router at its stop.
const RESIGNATION_V4: &str = "3133 0002 0019 a748 c000 0264 c000 0265";
/// keepalived, IPv4 unicast from 192.0.2.11 to 192.0.2.12.
const UNICAST_V4: &str = "3134 c801 0032 bf94 c000 026e";
/// keepalived, IPv6 multicast from its link-local address.
const MULTICAST_V6: &str = "3135 7802 0064 2b9f
    fe80 0000 0000 0000 0000 0000 0000 0053 2001 0db8 0000 0000 0000 0000 0000 0100";
/// The same router at its stop.
const RESIGNATION_V6: &str = "3135 0002 0064 a39f
    fe80 0000 0000 0000 0000 0000 0000 0053 2001 0db8 0000 0000 0000 0000 0000 0100";
/// keepalived, IPv6 unicast from 2001:db8::11 to 2001:db8::12, with the hop limit 64.
const UNICAST_V6: &str = "3136 6302 00ff e0fc
    fe80 0000 0000 0000 0000 0000 0000 0054 2001 0db8 0000 0000 0000 0000 0000 0110";
/// keepalived, version 2.
const VERSION_2: &str = "2137 6e01 0001 ae4d c000 0278 0000 0000 0000 0000";
/// By hand from RFC 9568, section 5.2.8: `MULTICAST_V4` with a checksum of the message alone.
const RFC_9568_V4: &str = "3133 9602 0019 b3e6 c000 0264 c000 0265";

const SOURCE_V4: &str = "192.0.2.11";
const SOURCE_V6: &str = "fe80::ff:fe00:a";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn packet<'a>(source: &str, destination: &str, payload: &'a [u8]) -> Packet<'a> {
    Packet {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        hop_limit: HOP_LIMIT,
        payload,
    }
}

fn multicast(payload: &[u8]) -> Packet<'_> {
    packet(SOURCE_V4, &GROUP_V4.to_string(), payload)
}

fn advertisement(vrid: u8, priority: u8, centiseconds: u16, addresses: &[&str]) -> Advertisement {
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Advertisement {
        vrid: Vrid::new(vrid).unwrap(),
        priority: Priority::new(priority).ok(),
        interval: Interval::from_centiseconds(centiseconds).unwrap(),
        addresses: Addresses::new(&addresses).unwrap(),
    }
}

/// Checks bytes → struct → the same bytes.
fn check(captured: &str, packet: &Packet<'_>, least: u8, expected: &Advertisement) {
    let received = parse(packet, least).unwrap();
    assert_eq!(&received.advertisement, expected, "{captured}");
    assert_eq!(received.source, packet.source);
    let checksum = received.checksum.unwrap_or_default();
    let encoded = expected.encode(packet.source, packet.destination, checksum);
    assert_eq!(encoded.unwrap(), bytes(captured));
}

#[test]
fn captured_ipv4_packets_are_read_and_written() {
    let group = GROUP_V4.to_string();
    let list = ["192.0.2.100", "192.0.2.101"];
    let cases = [
        (
            MULTICAST_V4,
            group.as_str(),
            advertisement(51, 150, 25, &list),
        ),
        (RESIGNATION_V4, &group, advertisement(51, 0, 25, &list)),
        (
            UNICAST_V4,
            "192.0.2.12",
            advertisement(52, 200, 50, &["192.0.2.110"]),
        ),
        (RFC_9568_V4, &group, advertisement(51, 150, 25, &list)),
    ];
    for (captured, destination, expected) in cases {
        let payload = bytes(captured);
        check(
            captured,
            &packet(SOURCE_V4, destination, &payload),
            HOP_LIMIT,
            &expected,
        );
    }
}

#[test]
fn captured_ipv6_packets_are_read_and_written() {
    let group = GROUP_V6.to_string();
    let list = ["fe80::53", "2001:db8::100"];
    let unicast = advertisement(54, 99, 255, &["fe80::54", "2001:db8::110"]);
    let cases = [
        (
            MULTICAST_V6,
            SOURCE_V6,
            group.as_str(),
            advertisement(53, 120, 100, &list),
        ),
        (
            RESIGNATION_V6,
            SOURCE_V6,
            &group,
            advertisement(53, 0, 100, &list),
        ),
        (UNICAST_V6, "2001:db8::11", "2001:db8::12", unicast),
    ];
    for (captured, source, destination, expected) in cases {
        let payload = bytes(captured);
        check(
            captured,
            &packet(source, destination, &payload),
            HOP_LIMIT,
            &expected,
        );
    }
}

#[test]
fn it_is_known_what_the_checksum_covers() {
    let keepalived = bytes(MULTICAST_V4);
    let rfc = bytes(RFC_9568_V4);
    let v6 = bytes(MULTICAST_V6);
    let covers = |packet: Packet<'_>| packet.parse().unwrap().checksum;
    assert_eq!(
        covers(multicast(&keepalived)),
        Some(Ipv4Checksum::PseudoHeader)
    );
    assert_eq!(covers(multicast(&rfc)), Some(Ipv4Checksum::Message));
    assert_eq!(covers(packet(SOURCE_V6, "ff02::12", &v6)), None);
}

#[test]
fn a_packet_that_a_router_forwarded_is_refused() {
    let payload = bytes(UNICAST_V6);
    let keepalived = Packet {
        hop_limit: 64,
        ..packet("2001:db8::11", "2001:db8::12", &payload)
    };
    let refused = ParseError::HopLimit {
        found: 64,
        least: 255,
    };
    assert_eq!(keepalived.parse(), Err(refused));
    assert!(parse(&keepalived, 64).is_ok());
    let refused = ParseError::HopLimit {
        found: 64,
        least: 65,
    };
    assert_eq!(parse(&keepalived, 65), Err(refused));
}

/// Returns a packet whose bytes are changed by `change`, with a checksum that is right again.
fn repaired(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut payload = bytes(RFC_9568_V4);
    change(&mut payload);
    payload[6..8].fill(0);
    let checksum = Sum::of(&payload[..message_length(Family::V4, payload[3]).min(payload.len())]);
    payload[6..8].copy_from_slice(&checksum.complement().to_be_bytes());
    payload
}

#[test]
fn each_malformed_packet_has_its_own_error() {
    let short = |found, least| ParseError::Length { found, least };
    let hop_limit = ParseError::HopLimit {
        found: 1,
        least: 255,
    };
    let version_2 = ParseError::Version2 {
        vrid: 55,
        priority: 110,
    };
    let intact = bytes(MULTICAST_V4);
    let changed = [
        (repaired(|p| p[3] = 255), short(16, 8 + 255 * 4)),
        (bytes(VERSION_2), version_2),
        (repaired(|p| p[0] = 0x41), ParseError::Version(4)),
        (repaired(|p| p[0] = 0x11), ParseError::Version(1)),
        (repaired(|p| p[0] = 0x32), ParseError::Type(2)),
        (repaired(|p| p[0] = 0x30), ParseError::Type(0)),
        (repaired(|p| p[1] = 0), ParseError::Vrid),
        (repaired(|p| p[3] = 0), ParseError::NoAddress),
        (repaired(|p| p[4..6].fill(0)), ParseError::Interval),
        (
            repaired(|p| p[4..6].copy_from_slice(&[0xf0, 0])),
            ParseError::Interval,
        ),
    ];
    let changed = changed
        .iter()
        .map(|(payload, error)| (multicast(payload), *error));
    let cases = [
        (packet(SOURCE_V4, "ff02::12", &intact), ParseError::Family),
        (
            Packet {
                hop_limit: 1,
                ..multicast(&intact)
            },
            hop_limit,
        ),
        (multicast(&[]), short(0, 8)),
        (multicast(&intact[..7]), short(7, 8)),
        (multicast(&intact[..8]), short(8, 16)),
        (multicast(&intact[..15]), short(15, 16)),
        (
            packet("192.0.2.13", "224.0.0.18", &intact),
            ParseError::Checksum(0x1148),
        ),
        (
            packet(SOURCE_V4, "224.0.0.19", &intact),
            ParseError::Checksum(0x1148),
        ),
    ];
    let mut counters = Counters::default();
    for (packet, expected) in cases.into_iter().chain(changed) {
        let error = packet.parse().unwrap_err();
        assert_eq!(error, expected, "{packet:02x?}");
        counters.count(&error);
    }
    for (kind, count) in counters.iter() {
        assert!(count > 0, "no packet is refused for {kind}");
    }
}

#[test]
fn every_damaged_bit_of_a_checked_packet_is_noticed() {
    for (captured, source, destination) in [
        (MULTICAST_V4, SOURCE_V4, "224.0.0.18"),
        (RFC_9568_V4, SOURCE_V4, "224.0.0.18"),
        (MULTICAST_V6, SOURCE_V6, "ff02::12"),
    ] {
        let intact = bytes(captured);
        for bit in 0..intact.len() * 8 {
            let mut payload = intact.clone();
            payload[bit / 8] ^= 1 << (bit % 8);
            let result = packet(source, destination, &payload).parse();
            assert!(result.is_err(), "bit {bit} of {captured}");
        }
    }
}

#[test]
fn reserved_bits_and_trailing_bytes_are_ignored() {
    let expected = multicast(&bytes(RFC_9568_V4)).parse().unwrap();
    let reserved = repaired(|payload| payload[4] |= 0xf0);
    assert_eq!(multicast(&reserved).parse().unwrap(), expected);
    let mut trailing = bytes(RFC_9568_V4);
    trailing.extend([0xde, 0xad, 0xbe]);
    assert_eq!(multicast(&trailing).parse().unwrap(), expected);
    let mut trailing = bytes(MULTICAST_V4);
    trailing.extend([0xde, 0xad, 0xbe]);
    assert!(multicast(&trailing).parse().is_ok());
}

#[test]
fn an_ipv6_list_without_a_link_local_address_is_read_but_noticed() {
    let source: IpAddr = SOURCE_V6.parse().unwrap();
    let sent = advertisement(53, 120, 100, &["2001:db8::100"]);
    let payload = sent
        .encode(source, GROUP_V6.into(), Ipv4Checksum::Message)
        .unwrap();
    let received = packet(SOURCE_V6, "ff02::12", &payload).parse().unwrap();
    assert!(received.advertisement.addresses.lacks_link_local());
    let captured = bytes(MULTICAST_V6);
    let received = packet(SOURCE_V6, "ff02::12", &captured).parse().unwrap();
    assert!(!received.advertisement.addresses.lacks_link_local());
}

#[test]
fn an_advertisement_is_not_sent_in_another_family() {
    let sent = advertisement(51, 150, 25, &["192.0.2.100"]);
    let (v4, v6) = (SOURCE_V4.parse().unwrap(), SOURCE_V6.parse().unwrap());
    for (source, destination) in [
        (v4, GROUP_V6.into()),
        (v6, GROUP_V4.into()),
        (v6, GROUP_V6.into()),
    ] {
        assert!(
            sent.encode(source, destination, Ipv4Checksum::Message)
                .is_err()
        );
    }
}

fn addresses() -> impl Strategy<Value = Addresses> {
    let v4 = prop::collection::vec(any::<std::net::Ipv4Addr>().prop_map(IpAddr::V4), 1..=255);
    let v6 = prop::collection::vec(any::<std::net::Ipv6Addr>().prop_map(IpAddr::V6), 1..=255);
    prop_oneof![v4, v6].prop_map(|list| Addresses::new(&list).unwrap())
}

fn advertisements() -> impl Strategy<Value = Advertisement> {
    (1..=255u8, any::<u8>(), 1..=4095u16, addresses()).prop_map(
        |(vrid, priority, centiseconds, addresses)| Advertisement {
            vrid: Vrid::new(vrid).unwrap(),
            priority: Priority::new(priority).ok(),
            interval: Interval::from_centiseconds(centiseconds).unwrap(),
            addresses,
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(sent in advertisements(), with_header: bool) {
        let (source, destination): (IpAddr, IpAddr) = match sent.addresses.family() {
            Family::V4 => (SOURCE_V4.parse().unwrap(), GROUP_V4.into()),
            Family::V6 => (SOURCE_V6.parse().unwrap(), GROUP_V6.into()),
        };
        let checksum = if with_header { Ipv4Checksum::PseudoHeader } else { Ipv4Checksum::Message };
        let payload = sent.encode(source, destination, checksum).unwrap();
        let packet = Packet { source, destination, hop_limit: HOP_LIMIT, payload: &payload };
        let received = packet.parse().unwrap();
        prop_assert_eq!(received.advertisement, sent);
    }

    #[test]
    fn no_bytes_make_it_panic(payload in prop::collection::vec(any::<u8>(), 0..600), v6: bool) {
        let packet = if v6 { packet(SOURCE_V6, "ff02::12", &payload) } else { multicast(&payload) };
        let _ = packet.parse();
    }
}
