//! Encodes and decodes routes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use lvs_model::{Family, InterfaceName, NextHop, NodeRoute, Route, RouteOrigin};
use netlink_packet_core::{DecodeError, parse_ip};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{
        RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
    },
};

use super::{attributes::Attributes, family, mark::OUR_PROTOCOL};

const RTMSG_LEN: usize = 12;
const RTNEXTHOP_LEN: usize = 8;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTNH_F_DEAD: u32 = 1;
const RTNH_F_LINKDOWN: u32 = 16;
const NOT_WORKING: u32 = RTNH_F_DEAD | RTNH_F_LINKDOWN;

/// The names of interfaces by their index.
pub(super) type Names = BTreeMap<u32, InterfaceName>;

/// A route as the kernel describes it, with only the first of its next hops.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FoundRoute {
    pub(super) family: Family,
    pub(super) table: u32,
    pub(super) kind: RouteType,
    pub(super) destination: IpNet,
    pub(super) gateway: Option<IpAddr>,
    pub(super) index: Option<u32>,
    pub(super) metric: u32,
    pub(super) origin: RouteOrigin,
    pub(super) is_ours: bool,
    /// Whether it is for packets of any type of service, and has one next hop, which works.
    pub(super) is_plain: bool,
}

impl FoundRoute {
    /// Returns whether packets are forwarded by it.
    pub(super) fn is_unicast(&self) -> bool {
        self.kind == RouteType::Unicast
    }

    /// The route as the model's type. `None` if its interface is not among the names.
    pub(super) fn on(self, names: &Names) -> Option<NodeRoute> {
        Some(NodeRoute {
            interface: names.get(&self.index?)?.clone(),
            destination: self.destination,
            gateway: self.gateway,
            metric: self.metric,
            origin: self.origin,
        })
    }
}

/// Decodes a route. `None` if its family is neither IPv4 nor IPv6.
pub(super) fn decode(payload: &[u8]) -> Result<Option<FoundRoute>, DecodeError> {
    let header = RouteHeader::parse(payload)?;
    let Some(family) = family::from_wire(header.address_family) else {
        return Ok(None);
    };
    let any = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let attributes = Attributes::after(RTMSG_LEN, payload)?;
    let destination = attributes.address(RTA_DST)?.unwrap_or(any);
    let destination = IpNet::new(destination, header.destination_prefix_length)
        .map_err(|error| DecodeError::from(error.to_string()))?;
    let (gateway, index) = match attributes.get(RTA_MULTIPATH) {
        Some(hops) => first_hop(hops)?,
        None => (gateway(&attributes)?, attributes.u32(RTA_OIF)?),
    };
    Ok(Some(FoundRoute {
        family,
        table: attributes
            .u32(RTA_TABLE)?
            .unwrap_or_else(|| u32::from(header.table)),
        kind: header.kind,
        destination,
        gateway,
        index,
        metric: attributes.u32(RTA_PRIORITY)?.unwrap_or(0),
        origin: if header.protocol == RouteProtocol::Ra {
            RouteOrigin::RouterAdvertisement
        } else {
            RouteOrigin::Other
        },
        is_ours: u8::from(header.protocol) == OUR_PROTOCOL,
        is_plain: header.tos == 0
            && attributes.get(RTA_MULTIPATH).is_none()
            && header.flags.bits() & NOT_WORKING == 0,
    }))
}

/// Decodes the gateways of all next hops of a route.
pub(super) fn gateways(payload: &[u8]) -> Result<Vec<IpAddr>, DecodeError> {
    let attributes = Attributes::after(RTMSG_LEN, payload)?;
    let mut found: Vec<IpAddr> = gateway(&attributes)?.into_iter().collect();
    let mut hops = attributes.get(RTA_MULTIPATH).unwrap_or_default();
    while let [l0, l1, _, _, ..] = *hops {
        found.extend(first_hop(hops)?.0);
        let length = usize::from(u16::from_ne_bytes([l0, l1])).max(RTNEXTHOP_LEN);
        hops = hops.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(found)
}

/// Decodes the first `struct rtnexthop`: its length (u16), flags and weight (u8 each), the interface's index (i32), and
/// attributes.
fn first_hop(hops: &[u8]) -> Result<(Option<IpAddr>, Option<u32>), DecodeError> {
    let [l0, l1, _, _, i0, i1, i2, i3, ..] = *hops else {
        return Ok((None, None));
    };
    let length = usize::from(u16::from_ne_bytes([l0, l1]));
    let attributes = hops.get(RTNEXTHOP_LEN..length).unwrap_or_default();
    let index = u32::from_ne_bytes([i0, i1, i2, i3]);
    Ok((gateway(&Attributes::read(attributes)?)?, Some(index)))
}

/// Decodes the gateway. `RTA_VIA` is a gateway of another family: the family (u16), then the address.
fn gateway(attributes: &Attributes<'_>) -> Result<Option<IpAddr>, DecodeError> {
    match attributes.get(RTA_VIA).and_then(|via| via.get(2..)) {
        Some(via) => parse_ip(via).map(Some),
        None => attributes.address(RTA_GATEWAY),
    }
}

/// Converts one of our routes. `None` if it is of a form that no version of this program makes.
pub(super) fn ours(found: &FoundRoute, interface: Option<&InterfaceName>) -> Option<Route> {
    let table = found.table;
    if found.kind == RouteType::Local && table == Route::LOCAL_TABLE {
        let route = Route::to_vip(found.destination.addr());
        let is_ours = found.metric == Route::VIP_METRIC && found.destination == route.destination();
        return is_ours.then_some(route);
    }
    if found.destination.prefix_len() != 0 {
        return None;
    }
    let next_hop = match (found.kind, found.gateway, interface) {
        (RouteType::Unicast, Some(address), Some(interface)) => NextHop::Gateway {
            address,
            interface: interface.clone(),
        },
        (RouteType::Local, None, _) => NextHop::Local {
            family: found.family,
        },
        _ => return None,
    };
    Some(Route { table, next_hop })
}

/// Returns the request for the route to an address, as the table has it: with its prefix. A kernel before 4.13 answers with a
/// route to the address alone.
pub(super) fn read_to(address: IpAddr) -> RouteNetlinkMessage {
    let of = Family::of(address);
    let mut message = RouteMessage::default();
    message.header.address_family = family::to_wire(of);
    message.header.destination_prefix_length = of.host_prefix();
    message.header.flags = RouteFlags::FibMatch;
    let destination = RouteAttribute::Destination(address.into());
    message.attributes.push(destination);
    RouteNetlinkMessage::GetRoute(message)
}

/// Returns the request for our routes of one table or of all. A kernel before 4.20 answers with all routes.
///
/// The kernel walks the tables, so one table costs nothing for the routes of others.
pub(super) fn read_ours(of: Family, table: Option<u32>) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family::to_wire(of);
    message.header.protocol = RouteProtocol::from(OUR_PROTOCOL);
    message.attributes.extend(table.map(RouteAttribute::Table));
    RouteNetlinkMessage::GetRoute(message)
}

/// Returns the request that adds a route with our protocol number.
pub(super) fn add(route: &Route, index: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewRoute(message(route, index))
}

/// Returns the request that removes the route with all these properties and our protocol number.
pub(super) fn remove(route: &Route, index: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelRoute(message(route, index))
}

fn message(route: &Route, index: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family::to_wire(route.family());
    header.protocol = RouteProtocol::from(OUR_PROTOCOL);
    let attributes = &mut message.attributes;
    attributes.extend([
        RouteAttribute::Table(route.table),
        RouteAttribute::Oif(index),
    ]);
    match &route.next_hop {
        NextHop::Gateway { address, .. } => {
            header.kind = RouteType::Unicast;
            attributes.push(RouteAttribute::Gateway((*address).into()));
        }
        NextHop::Local { .. } => {
            header.kind = RouteType::Local;
            header.scope = RouteScope::Host;
        }
        NextHop::Vip(vip) => {
            header.kind = RouteType::Local;
            header.scope = RouteScope::Host;
            header.destination_prefix_length = route.family().host_prefix();
            attributes.push(RouteAttribute::Destination((*vip).into()));
            attributes.push(RouteAttribute::Priority(Route::VIP_METRIC));
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::{super::frame::Frame, *};

    #[test]
    fn an_encoded_route_decodes_to_itself() {
        let default = |table, gateway: &str| Route {
            table,
            next_hop: NextHop::Gateway {
                address: gateway.parse().unwrap(),
                interface: "eth1".parse().unwrap(),
            },
        };
        for route in [
            default(76, "192.0.2.1"),
            default(76_000, "2001:db8::1"),
            Route {
                table: 76_001,
                next_hop: NextHop::Local { family: Family::V6 },
            },
            Route::to_vip("192.0.2.1".parse().unwrap()),
            Route::to_vip("2001:db8::1".parse().unwrap()),
        ] {
            let frame = Frame::from(&add(&route, 3));
            let found = decode(&frame.payload).unwrap().unwrap();
            assert!(found.is_ours);
            assert_eq!(found.index, Some(3));
            let interface = "eth1".parse().unwrap();
            assert_eq!(ours(&found, Some(&interface)), Some(route));
        }
    }

    #[test]
    fn the_first_of_several_next_hops_is_decoded() {
        let hop = |index: u8, gateway: [u8; 4]| {
            let mut hop = vec![16, 0, 0, 0, index, 0, 0, 0, 8, 0, 5, 0];
            hop.extend(gateway);
            hop
        };
        let hops = [hop(3, [192, 0, 2, 1]), hop(4, [192, 0, 2, 2])].concat();
        let gateway = "192.0.2.1".parse().unwrap();
        assert_eq!(first_hop(&hops).unwrap(), (Some(gateway), Some(3)));
        assert_eq!(first_hop(&[]).unwrap(), (None, None));
    }
}
