//! Encodes and decodes links.

use std::net::IpAddr;

use lvs_model::{Interface, InterfaceName, Link, LinkKind, MacAddr, Owner};
use netlink_packet_core::DecodeError;
use netlink_packet_route::{
    IpProtocol, RouteNetlinkMessage,
    link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader, LinkLayerType, LinkMessage},
};
use rtnetlink::{LinkGre, LinkGre6, LinkIp6Tnl, LinkIpIp, LinkSit, LinkUnspec};

use super::{attributes::Attributes, mark::OUR_ALIAS};

const IFINFOMSG_LEN: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_IPTUN_LOCAL: u16 = 2;
const IFLA_IPTUN_REMOTE: u16 = 3;
const IFLA_IPTUN_PROTO: u16 = 9;
const IFLA_GRE_IFLAGS: u16 = 2;
const IFLA_GRE_OFLAGS: u16 = 3;
const IFLA_GRE_LOCAL: u16 = 6;
const IFLA_GRE_REMOTE: u16 = 7;
const IPPROTO_IPIP: u8 = 4;
const IPPROTO_IPV6: u8 = 41;
/// What `ip link` calls `mode any`.
const IPPROTO_ANY: u8 = 0;

/// A link as the kernel describes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FoundLink<'a> {
    pub(super) name: &'a str,
    pub(super) interface: Interface,
    pub(super) link: Link,
}

/// Decodes a link. A tunnel with a setting that this program never makes has kind `Foreign`.
pub(super) fn decode(payload: &[u8]) -> Result<FoundLink<'_>, DecodeError> {
    let header = LinkHeader::parse(payload)?;
    let attributes = Attributes::after(IFINFOMSG_LEN, payload)?;
    let up = header.flags.contains(LinkFlags::Up);
    let alias = attributes.text(IFLA_IFALIAS);
    Ok(FoundLink {
        name: attributes.text(IFLA_IFNAME).unwrap_or_default(),
        interface: Interface {
            index: header.index,
            up,
            mtu: attributes.u32(IFLA_MTU)?.unwrap_or_default(),
            loopback: header.flags.contains(LinkFlags::Loopback),
            tunnel: is_tunnel(header.link_layer_type),
            mac: mac(&header, &attributes),
        },
        link: Link {
            kind: tunnel(&attributes.nest(IFLA_LINKINFO)?)?.unwrap_or(LinkKind::Foreign),
            up,
            owner: if alias == Some(OUR_ALIAS) {
                Owner::Ours
            } else {
                Owner::Foreign
            },
        },
    })
}

/// Returns the MAC address under which neighbours reach a link. `None` if they cannot resolve addresses there.
fn mac(header: &LinkHeader, attributes: &Attributes<'_>) -> Option<MacAddr> {
    let without_arp = header
        .flags
        .intersects(LinkFlags::Noarp | LinkFlags::Loopback);
    if without_arp || header.link_layer_type != LinkLayerType::Ether {
        return None;
    }
    let octets = attributes.get(IFLA_ADDRESS)?;
    octets.try_into().ok().map(MacAddr)
}

/// Returns whether links of this type are tunnels.
const fn is_tunnel(kind: LinkLayerType) -> bool {
    matches!(
        kind,
        LinkLayerType::Tunnel
            | LinkLayerType::Tunnel6
            | LinkLayerType::Sit
            | LinkLayerType::Ipgre
            | LinkLayerType::Ip6gre
    )
}

fn tunnel(info: &Attributes<'_>) -> Result<Option<LinkKind>, DecodeError> {
    let kind = info.text(IFLA_INFO_KIND).unwrap_or_default();
    let data = info.nest(IFLA_INFO_DATA)?;
    Ok(match kind {
        "ipip" | "sit" | "ip6tnl" => ip_tunnel(kind, &data)?,
        "gre" | "ip6gre" => gre_tunnel(kind, &data)?,
        _ => None,
    })
}

fn ip_tunnel(kind: &str, data: &Attributes<'_>) -> Result<Option<LinkKind>, DecodeError> {
    let Some(local) = local_end(data, IFLA_IPTUN_LOCAL, IFLA_IPTUN_REMOTE)? else {
        return Ok(None);
    };
    Ok(match (kind, local, data.u8(IFLA_IPTUN_PROTO)?) {
        ("ipip", IpAddr::V4(local), None | Some(IPPROTO_IPIP)) => Some(LinkKind::Ipip { local }),
        ("sit", IpAddr::V4(local), None | Some(IPPROTO_IPV6)) => Some(LinkKind::Sit { local }),
        ("ip6tnl", IpAddr::V6(local), Some(IPPROTO_ANY)) => Some(LinkKind::Ip6Tnl { local }),
        _ => None,
    })
}

fn gre_tunnel(kind: &str, data: &Attributes<'_>) -> Result<Option<LinkKind>, DecodeError> {
    let plain = [IFLA_GRE_IFLAGS, IFLA_GRE_OFLAGS]
        .into_iter()
        .all(|flags| is_zero(data.get(flags)));
    let Some(local) = local_end(data, IFLA_GRE_LOCAL, IFLA_GRE_REMOTE)?.filter(|_| plain) else {
        return Ok(None);
    };
    Ok(match (kind, local) {
        ("gre", IpAddr::V4(local)) => Some(LinkKind::Gre { local }),
        ("ip6gre", IpAddr::V6(local)) => Some(LinkKind::Ip6Gre { local }),
        _ => None,
    })
}

/// Returns the local address of a tunnel. `None` if the tunnel accepts packets from one remote address only.
fn local_end(
    data: &Attributes<'_>,
    local: u16,
    remote: u16,
) -> Result<Option<IpAddr>, DecodeError> {
    let has_no_remote = is_zero(data.get(remote));
    Ok(data.address(local)?.filter(|_| has_no_remote))
}

fn is_zero(value: Option<&[u8]>) -> bool {
    value.is_none_or(|value| value.iter().all(|byte| *byte == 0))
}

/// Returns the request for all links, without their counters.
pub(super) fn read_all() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(message)
}

/// Returns the request for one link, without its counters.
pub(super) fn read_one(name: &InterfaceName) -> RouteNetlinkMessage {
    let mut message = LinkUnspec::new_with_name(name.as_str()).build();
    message
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(message)
}

/// Returns the request that makes a tunnel device, which receives from any director. `None` for a foreign kind.
///
/// The device is down and has no alias, since the kernel sets `IFLA_IFALIAS` only on a link that exists
/// (`rtnl_create_link`, net/core/rtnetlink.c).
pub(super) fn create(name: &InterfaceName, kind: LinkKind) -> Option<RouteNetlinkMessage> {
    let name = name.as_str();
    let message = match kind {
        LinkKind::Ipip { local } => LinkIpIp::new(name).local(local).build(),
        LinkKind::Sit { local } => LinkSit::new(name).local(local).build(),
        LinkKind::Ip6Tnl { local } => LinkIp6Tnl::new(name)
            .local(local)
            .mode(IpProtocol::from(IPPROTO_ANY))
            .build(),
        LinkKind::Gre { local } => LinkGre::new(name).local(local).build(),
        LinkKind::Ip6Gre { local } => LinkGre6::new(name).local(local).build(),
        LinkKind::Foreign => return None,
    };
    Some(RouteNetlinkMessage::NewLink(message))
}

/// Returns the request that gives a link our alias and sets it up.
pub(super) fn finish(name: &InterfaceName) -> RouteNetlinkMessage {
    let link = LinkUnspec::new_with_name(name.as_str())
        .alias(OUR_ALIAS)
        .up();
    RouteNetlinkMessage::NewLink(link.build())
}

/// Returns the request that sets a link up.
pub(super) fn set_up(name: &InterfaceName) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewLink(LinkUnspec::new_with_name(name.as_str()).up().build())
}

/// Returns the request that removes a link.
pub(super) fn remove(name: &InterfaceName) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelLink(LinkUnspec::new_with_name(name.as_str()).build())
}

/// Returns the kernel module for a kind.
pub(super) const fn module(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Ipip { .. } => "ipip",
        LinkKind::Sit { .. } => "sit",
        LinkKind::Ip6Tnl { .. } => "ip6_tunnel",
        LinkKind::Gre { .. } => "ip_gre",
        LinkKind::Ip6Gre { .. } => "ip6_gre",
        LinkKind::Foreign => "of that kind",
    }
}

#[cfg(test)]
mod tests {
    use super::{super::frame::Frame, *};

    fn read_back(kind: LinkKind) -> LinkKind {
        let name = "lvs-test".parse().unwrap();
        let message = create(&name, kind).unwrap();
        let frame = Frame::from(&message);
        let found = decode(&frame.payload).unwrap();
        assert_eq!(found.name, "lvs-test");
        found.link.kind
    }

    #[test]
    fn an_encoded_tunnel_decodes_to_itself() {
        let (v4, v6) = ("192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap());
        for kind in [
            LinkKind::Ipip { local: v4 },
            LinkKind::Sit { local: v4 },
            LinkKind::Ip6Tnl { local: v6 },
            LinkKind::Gre { local: v4 },
            LinkKind::Ip6Gre { local: v6 },
        ] {
            assert_eq!(read_back(kind), kind);
        }
    }

    #[test]
    fn a_tunnel_with_a_remote_address_is_foreign() {
        let link = LinkIpIp::new("lvs-test")
            .local("192.0.2.7".parse().unwrap())
            .remote("192.0.2.9".parse().unwrap());
        let frame = Frame::from(&RouteNetlinkMessage::NewLink(link.build()));
        assert_eq!(decode(&frame.payload).unwrap().link.kind, LinkKind::Foreign);
    }

    #[test]
    fn a_link_has_a_mac_address_if_neighbours_resolve_addresses_there() {
        let mac = |kind, flags, address: &[u8]| {
            let mut link = LinkMessage::default();
            link.header.link_layer_type = kind;
            link.header.flags = flags;
            link.attributes = vec![LinkAttribute::Address(address.to_vec())];
            let frame = Frame::from(&RouteNetlinkMessage::NewLink(link));
            decode(&frame.payload).unwrap().interface.mac
        };
        let (ether, up) = (LinkLayerType::Ether, LinkFlags::Up);
        let address = [2, 0, 0, 0, 0, 7];
        assert_eq!(mac(ether, up, &address), Some(MacAddr(address)));
        assert_eq!(
            mac(ether, LinkFlags::empty(), &address),
            Some(address.into())
        );
        assert_eq!(mac(ether, up | LinkFlags::Noarp, &address), None);
        assert_eq!(mac(LinkLayerType::Loopback, up, &[0; 6]), None);
        assert_eq!(mac(LinkLayerType::Ipgre, up, &[192, 0, 2, 7]), None);
        assert_eq!(mac(ether, up, &address[1..]), None);
    }

    #[test]
    fn a_link_is_a_tunnel_by_its_type() {
        let is_tunnel = |kind| {
            let mut link = LinkMessage::default();
            link.header.link_layer_type = kind;
            let frame = Frame::from(&RouteNetlinkMessage::NewLink(link));
            decode(&frame.payload).unwrap().interface.tunnel
        };
        // Those of tunl0, ip6tnl0, sit0, gre0 and ip6gre0.
        for kind in [
            LinkLayerType::Tunnel,
            LinkLayerType::Tunnel6,
            LinkLayerType::Sit,
            LinkLayerType::Ipgre,
            LinkLayerType::Ip6gre,
        ] {
            assert!(is_tunnel(kind), "{kind:?}");
        }
        assert!(!is_tunnel(LinkLayerType::Ether));
        assert!(!is_tunnel(LinkLayerType::Loopback));
    }

    #[test]
    fn a_link_is_ours_by_its_alias() {
        let name = "lvs-test".parse().unwrap();
        let frame = Frame::from(&finish(&name));
        let found = decode(&frame.payload).unwrap().link;
        assert_eq!((found.owner, found.up), (Owner::Ours, true));
        let frame = Frame::from(&set_up(&name));
        assert_eq!(decode(&frame.payload).unwrap().link.owner, Owner::Foreign);
    }
}
