//! Encodes and decodes addresses.

use std::net::IpAddr;

use lvs_model::{AddressConfig, AddressKey, Family, Owner, VIP_LIFETIME_SECONDS};
use netlink_packet_core::DecodeError;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{
        AddressAttribute, AddressFlags, AddressHeader, AddressMessage, AddressProtocol,
        AddressScope, CacheInfo,
    },
};

use super::{attributes::Attributes, family, frame::Frame, mark::OUR_PROTOCOL};

const IFADDRMSG_LEN: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_PROTO: u16 = 11;
const FOREVER: u32 = u32::MAX;

/// An address as the kernel describes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FoundAddress {
    pub(super) index: u32,
    pub(super) address: IpAddr,
    pub(super) prefix: u8,
    pub(super) config: AddressConfig,
    /// Whether it carries a mark, ours or another: then the kernel stores marks.
    pub(super) is_marked: bool,
}

/// Decodes an address. `None` if its family is neither IPv4 nor IPv6.
pub(super) fn decode(payload: &[u8]) -> Result<Option<FoundAddress>, DecodeError> {
    let header = AddressHeader::parse(payload)?;
    if family::from_wire(header.family).is_none() {
        return Ok(None);
    }
    let attributes = Attributes::after(IFADDRMSG_LEN, payload)?;
    // On a point-to-point link `IFA_ADDRESS` is the peer's address.
    let address = match attributes.address(IFA_LOCAL)? {
        Some(address) => Some(address),
        None => attributes.address(IFA_ADDRESS)?,
    };
    let lifetimes = attributes
        .get(IFA_CACHEINFO)
        .map(CacheInfo::parse)
        .transpose()?;
    let mark = attributes.u8(IFA_PROTO)?;
    Ok(address.map(|address| FoundAddress {
        index: header.index,
        address,
        prefix: header.prefix_len,
        config: AddressConfig {
            deprecated: address.is_ipv6()
                && lifetimes
                    .as_ref()
                    .is_some_and(|found| found.ifa_preferred == 0),
            expires: lifetimes.is_some_and(|found| found.ifa_valid != FOREVER),
            owner: if mark == Some(OUR_PROTOCOL) {
                Owner::Ours
            } else {
                Owner::Foreign
            },
        },
        is_marked: mark.is_some(),
    }))
}

/// The address of a notification. `None` if it cannot be decoded.
pub(crate) fn address_of(frame: &Frame) -> Option<IpAddr> {
    let found = decode(&frame.payload).ok()??;
    Some(found.address)
}

/// Returns the request for all addresses.
pub(super) fn read_all() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

/// Returns the request that adds an address with our mark. A kernel before 5.18 ignores the mark.
///
/// IPv6 addresses are added without duplicate address detection: a director probes for a VIP before it is added, and a
/// real server has a VIP that the director holds too.
pub(super) fn add(key: &AddressKey, config: AddressConfig, index: u32) -> RouteNetlinkMessage {
    let mut message = identity(key, index);
    message.header.scope = scope(key);
    let attributes = &mut message.attributes;
    attributes.push(AddressAttribute::Protocol(AddressProtocol::from(
        OUR_PROTOCOL,
    )));
    if key.address.is_ipv6() {
        attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    if config.deprecated || config.expires {
        let mut lifetimes = CacheInfo::default();
        lifetimes.ifa_valid = if config.expires {
            VIP_LIFETIME_SECONDS
        } else {
            FOREVER
        };
        lifetimes.ifa_preferred = if config.deprecated {
            0
        } else {
            lifetimes.ifa_valid
        };
        attributes.push(AddressAttribute::CacheInfo(lifetimes));
    }
    RouteNetlinkMessage::NewAddress(message)
}

/// Returns the request that removes exactly this address with this prefix.
///
/// With a primary IPv4 address the kernel also removes the secondary addresses of its subnet, unless
/// `promote_secondaries` is set. Our addresses have prefix 32 and so no secondary ones.
pub(super) fn remove(key: &AddressKey, index: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelAddress(identity(key, index))
}

fn identity(key: &AddressKey, index: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family::to_wire(Family::of(key.address));
    message.header.prefix_len = key.prefix;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(key.address),
        AddressAttribute::Address(key.address),
    ];
    message
}

/// Returns the scope of an IPv4 address. For IPv6 the kernel derives it from the address.
///
/// A VIP on lo has scope host, so that the kernel never chooses it as the source of a connection to another machine
/// (`inet_select_addr`, net/ipv4/devinet.c). It would choose one of scope global if the outgoing interface has no
/// address. Replies still carry the VIP: a socket's own address is used whatever its scope.
fn scope(key: &AddressKey) -> AddressScope {
    match key.address {
        IpAddr::V4(_) if key.interface.is_loopback() => AddressScope::Host,
        IpAddr::V4(v4) if v4.is_link_local() => AddressScope::Link,
        IpAddr::V4(_) | IpAddr::V6(_) => AddressScope::Universe,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::frame::Frame, *};

    fn key(interface: &str, address: &str, prefix: u8) -> AddressKey {
        let (interface, address) = (interface.parse().unwrap(), address.parse().unwrap());
        AddressKey {
            interface,
            address,
            prefix,
        }
    }

    #[test]
    fn an_encoded_address_decodes_to_itself() {
        for (address, prefix, deprecated, expires) in [
            ("192.168.220.100", 32, false, false),
            ("192.168.220.100", 32, false, true),
            ("2001:db8::64", 128, true, false),
            ("2001:db8::64", 128, true, true),
            ("2001:db8::65", 64, false, false),
        ] {
            let config = AddressConfig {
                deprecated,
                expires,
                owner: Owner::Ours,
            };
            let frame = Frame::from(&add(&key("eth1", address, prefix), config, 7));
            let found = decode(&frame.payload).unwrap().unwrap();
            let address = address.parse().unwrap();
            assert_eq!(
                found,
                FoundAddress {
                    index: 7,
                    address,
                    prefix,
                    config,
                    is_marked: true,
                }
            );
        }
    }

    #[test]
    fn on_a_link_with_a_peer_the_local_address_is_decoded() {
        let mut message = identity(&key("ppp0", "192.0.2.1", 32), 7);
        message.attributes = vec![
            AddressAttribute::Address("192.0.2.2".parse().unwrap()),
            message.attributes.remove(0),
        ];
        let frame = Frame::from(&RouteNetlinkMessage::NewAddress(message));
        let found = decode(&frame.payload).unwrap().unwrap();
        assert_eq!(found.address.to_string(), "192.0.2.1");
        assert_eq!(found.config.owner, Owner::Foreign);
    }

    #[test]
    fn a_vip_on_lo_has_scope_host() {
        assert_eq!(scope(&key("lo", "192.168.220.100", 32)), AddressScope::Host);
        assert_eq!(
            scope(&key("eth1", "192.168.220.100", 32)),
            AddressScope::Universe
        );
        assert_eq!(
            scope(&key("lvs-ipip-1", "169.254.76.83", 32)),
            AddressScope::Link
        );
    }
}
