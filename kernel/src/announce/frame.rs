//! Encodes announcements and probes as Ethernet frames, and decodes the claims in received frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Icmpv6Type, LinkSlice, NetSlice,
    PacketBuilder, SlicedPacket, TransportSlice,
    icmpv6::{Icmpv6PayloadSlice, NeighborAdvertisementHeader},
};
use lvs_model::MacAddr;

const BROADCAST: [u8; 6] = [0xff; 6];
const NO_MAC: [u8; 6] = [0; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Receivers discard neighbour discovery packets with another hop limit: a router could have forwarded them (RFC 4861,
/// 7.1.1).
const HOP_LIMIT: u8 = 255;

/// The head of a target link-layer address option: type 2, length 1 in units of eight bytes (RFC 4861, 4.6.1).
const TARGET_LINK_LAYER_ADDRESS: [u8; 2] = [2, 1];

/// Returns the frames that announce an address to the neighbours.
///
/// For IPv4 these are a gratuitous ARP request and a gratuitous ARP reply, since some hosts accept only one of them
/// (RFC 5227, 3). For IPv6 it is an unsolicited neighbour advertisement (RFC 4861, 7.2.6).
pub(super) fn announcements(own: MacAddr, address: IpAddr) -> Vec<Vec<u8>> {
    let frames = match address {
        IpAddr::V4(v4) => vec![
            arp(own, ArpOperation::REQUEST, v4, NO_MAC, v4),
            arp(own, ArpOperation::REPLY, v4, BROADCAST, v4),
        ],
        IpAddr::V6(v6) => vec![advertisement(own, v6)],
    };
    frames.into_iter().flatten().collect()
}

/// Returns the frame that asks whether a machine has an address, without claiming it.
///
/// This is an ARP probe (RFC 5227, 2.1.1), or a neighbour solicitation as for duplicate address detection (RFC 4862,
/// 5.4.2).
pub(super) fn probe(own: MacAddr, address: IpAddr) -> Option<Vec<u8>> {
    match address {
        IpAddr::V4(v4) => arp(
            own,
            ArpOperation::REQUEST,
            Ipv4Addr::UNSPECIFIED,
            NO_MAC,
            v4,
        ),
        IpAddr::V6(v6) => solicitation(own, v6),
    }
}

fn arp(
    own: MacAddr,
    operation: ArpOperation,
    sender: Ipv4Addr,
    target_mac: [u8; 6],
    target: Ipv4Addr,
) -> Option<Vec<u8>> {
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        operation,
        &own.0,
        &sender.octets(),
        &target_mac,
        &target.octets(),
    );
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(own.0, BROADCAST).arp(packet.ok()?);
    builder.write_to_vec(&mut frame).ok().map(|_| frame)
}

fn advertisement(own: MacAddr, address: Ipv6Addr) -> Option<Vec<u8>> {
    let flags = NeighborAdvertisementHeader {
        router: false,
        solicited: false,
        r#override: true,
    };
    let kind = Icmpv6Type::NeighborAdvertisement(flags);
    let option = [&TARGET_LINK_LAYER_ADDRESS[..], &own.0].concat();
    discovery(
        own,
        (address, ALL_NODES),
        kind,
        &[&address.octets()[..], &option].concat(),
    )
}

fn solicitation(own: MacAddr, address: Ipv6Addr) -> Option<Vec<u8>> {
    let source_and_group = (Ipv6Addr::UNSPECIFIED, solicited_node(address));
    discovery(
        own,
        source_and_group,
        Icmpv6Type::NeighborSolicitation,
        &address.octets(),
    )
}

fn discovery(
    own: MacAddr,
    (source, group): (Ipv6Addr, Ipv6Addr),
    kind: Icmpv6Type,
    payload: &[u8],
) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(own.0, group_mac(group))
        .ipv6(source.octets(), group.octets(), HOP_LIMIT)
        .icmpv6(kind);
    builder.write(&mut frame, payload).ok().map(|()| frame)
}

/// Returns the solicited-node multicast address of an address (RFC 4291, 2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// Returns the Ethernet address of an IPv6 multicast group (RFC 2464, 7).
fn group_mac(group: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// Returns the address that the sender of a frame claims, with the sender's MAC address. `None` if it claims none.
///
/// These claim an address:
///
/// - an ARP packet with the address as its sender;
/// - an ARP probe for the address;
/// - a neighbour advertisement of the address;
/// - a neighbour solicitation for the address in duplicate address detection, which has no source.
pub(super) fn claim(frame: &[u8]) -> Option<(IpAddr, MacAddr)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(LinkSlice::Ethernet2(ethernet)) = packet.link else {
        return None;
    };
    match (packet.net?, packet.transport) {
        (NetSlice::Arp(arp), None) => {
            let arp = arp.to_packet().try_eth_ipv4().ok()?;
            let (sender, target) = (arp.sender_ipv4_addr(), arp.target_ipv4_addr());
            let address = if sender.is_unspecified() {
                target
            } else {
                sender
            };
            Some((IpAddr::V4(address), MacAddr(arp.sender_mac)))
        }
        (NetSlice::Ipv6(ip), Some(TransportSlice::Icmpv6(icmp))) => {
            let is_detection = ip.header().source_addr().is_unspecified();
            let payload = icmp.payload_slice().ok()?;
            let address = if let Icmpv6PayloadSlice::NeighborAdvertisement(payload) = payload {
                payload.target_address()
            } else if let Icmpv6PayloadSlice::NeighborSolicitation(payload) = payload
                && is_detection
            {
                payload.target_address()
            } else {
                return None;
            };
            Some((IpAddr::V6(address), MacAddr(ethernet.source())))
        }
        _ => None,
    }
}

/// Returns the address of the sender of an ARP packet, with its MAC address. `None` for an ARP probe, whose sender has no address yet.
pub(super) fn arp_sender(frame: &[u8]) -> Option<(IpAddr, MacAddr)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let NetSlice::Arp(arp) = packet.net? else {
        return None;
    };
    let arp = arp.to_packet().try_eth_ipv4().ok()?;
    let sender = arp.sender_ipv4_addr();
    (!sender.is_unspecified()).then_some((IpAddr::V4(sender), MacAddr(arp.sender_mac)))
}

/// Returns the address in a neighbour advertisement, with the MAC address in its option. `message` begins with the ICMPv6 header.
pub(super) fn advertised(message: &[u8]) -> Option<(IpAddr, MacAddr)> {
    const HEADER: usize = 8;
    let (target, mut options) = message.get(HEADER..)?.split_first_chunk::<16>()?;
    let target = IpAddr::V6(Ipv6Addr::from(*target));
    while let [_, length, ..] = options {
        let (option, rest) = options.split_at_checked(usize::from(*length.max(&1)) * 8)?;
        if let Some(mac) = option.strip_prefix(&TARGET_LINK_LAYER_ADDRESS) {
            return Some((target, MacAddr(mac.try_into().ok()?)));
        }
        options = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);

    #[test]
    fn an_ipv4_address_is_announced_by_a_broadcast_request_and_reply() {
        let frames = announcements(OWN, "192.0.2.7".parse().unwrap());
        let head = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 8, 6, 0, 1, 8, 0, 6, 4, 0,
        ];
        let sender = [2, 0, 0, 0, 0, 7, 192, 0, 2, 7];
        let request = [&head[..], &[1], &sender, &[0; 6], &[192, 0, 2, 7]].concat();
        let reply = [&head[..], &[2], &sender, &[0xff; 6], &[192, 0, 2, 7]].concat();
        assert_eq!(frames, [request, reply]);
    }

    #[test]
    fn an_advertisement_goes_to_all_nodes_with_only_the_override_flag() {
        let frames = announcements(OWN, "2001:db8::7".parse().unwrap());
        let [frame] = frames.as_slice() else {
            panic!("{frames:?}")
        };
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(frame[21], 255, "hop limit");
        assert_eq!(frame[54..56], [136, 0], "type and code");
        assert_eq!(frame[58..62], [0x20, 0, 0, 0], "flags");
        assert_eq!(frame[78..], [2, 1, 2, 0, 0, 0, 0, 7], "link-layer address");
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) =
            (packet.net, packet.transport)
        else {
            panic!("no ICMPv6")
        };
        assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
    }

    #[test]
    fn a_solicitation_goes_to_the_solicited_node_address() {
        let frame = probe(OWN, "2001:db8::12:3456".parse().unwrap()).unwrap();
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        assert_eq!(frame[22..38], [0; 16], "source");
    }

    #[test]
    fn announcements_and_probes_claim_their_address() {
        for address in ["192.0.2.7", "2001:db8::7"] {
            let address = address.parse().unwrap();
            let mut frames = announcements(OWN, address);
            frames.extend(probe(OWN, address));
            for frame in frames {
                assert_eq!(claim(&frame), Some((address, OWN)));
            }
        }
    }

    #[test]
    fn announcements_name_their_sender_and_probes_do_not() {
        let v4: IpAddr = "192.0.2.7".parse().unwrap();
        for frame in announcements(OWN, v4) {
            assert_eq!(arp_sender(&frame), Some((v4, OWN)));
        }
        assert_eq!(arp_sender(&probe(OWN, v4).unwrap()), None);
        let v6: IpAddr = "2001:db8::7".parse().unwrap();
        let [frame] = announcements(OWN, v6).try_into().unwrap();
        assert_eq!(arp_sender(&frame), None);
        let message = &frame[54..];
        assert_eq!(advertised(message), Some((v6, OWN)));
        // Another option before it; an advertisement without the option; one that is cut.
        let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
        let longer = [&message[..24], &nonce, &message[24..]].concat();
        assert_eq!(advertised(&longer), Some((v6, OWN)));
        assert_eq!(advertised(&message[..24]), None);
        assert_eq!(advertised(&message[..30]), None);
        assert_eq!(
            advertised(&[&message[..24], &[14, 0], &message[24..]].concat()),
            None
        );
    }

    #[test]
    fn an_ordinary_arp_request_claims_only_its_sender() {
        let (sender, target) = ("192.0.2.9".parse().unwrap(), "192.0.2.7".parse().unwrap());
        let frame = arp(OWN, ArpOperation::REQUEST, sender, NO_MAC, target).unwrap();
        assert_eq!(claim(&frame), Some((IpAddr::V4(sender), OWN)));
        assert_eq!(claim(&frame[..20]), None);
    }
}
