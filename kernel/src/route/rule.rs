//! Encodes and decodes policy routing rules.

use lvs_model::{Family, PolicyRule, Protocol, RuleSelector};
use netlink_packet_core::DecodeError;
use netlink_packet_route::{
    IpProtocol, RouteNetlinkMessage,
    route::RouteProtocol,
    rule::{RuleAction, RuleAttribute, RuleHeader, RuleMessage, RulePortRange},
};

use super::{attributes::Attributes, family, mark::OUR_PROTOCOL};

const FIB_RULE_HDR_LEN: usize = 12;
const FRA_SRC: u16 = 2;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
const FRA_IP_PROTO: u16 = 22;
const FRA_SPORT_RANGE: u16 = 23;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
/// The priority and the table of the rules that the kernel makes (`fib_default_rules_init`, net/ipv4/fib_rules.c, and
/// `fib6_rules_net_init`, net/ipv6/fib6_rules.c).
const STANDARD: [(u32, u32); 3] = [(0, 255), (32766, 254), (32767, 253)];
/// What the kernel says of them. The suppressed prefix length is always there; it limits nothing in these rules.
const STANDARD_ATTRIBUTES: [u16; 4] = [
    FRA_PRIORITY,
    FRA_TABLE,
    FRA_SUPPRESS_PREFIXLEN,
    FRA_PROTOCOL,
];
const RT_TABLE_UNSPEC: u8 = 0;
const RT_TABLE_MAX_IN_HEADER: u32 = 255;

/// A rule with our protocol number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OurRule {
    /// A rule that this program makes.
    Known(PolicyRule),
    /// A rule of a form that no version of this program makes. It is ignored.
    Unknown,
}

/// Decodes a rule. `None` if it does not have our protocol number.
pub(super) fn decode(payload: &[u8]) -> Result<Option<OurRule>, DecodeError> {
    let header = RuleHeader::parse(payload)?;
    let attributes = Attributes::after(FIB_RULE_HDR_LEN, payload)?;
    if attributes.u8(FRA_PROTOCOL)? != Some(OUR_PROTOCOL) {
        return Ok(None);
    }
    let Some(family) = family::from_wire(header.family) else {
        return Ok(None);
    };
    let selector = selector(family, &header, &attributes)?;
    let is_standard = attributes.u32(FRA_PRIORITY)? == Some(PolicyRule::PRIORITY)
        && header.action == RuleAction::ToTable
        && header.dst_len == 0;
    let table = attributes
        .u32(FRA_TABLE)?
        .unwrap_or_else(|| u32::from(header.table));
    let rule = selector
        .filter(|_| is_standard)
        .map(|selector| PolicyRule { selector, table });
    Ok(Some(rule.map_or(OurRule::Unknown, OurRule::Known)))
}

/// Returns whether a rule is one of the three that the kernel makes, or one of multicast routing.
pub(super) fn is_standard(payload: &[u8]) -> Result<bool, DecodeError> {
    let header = RuleHeader::parse(payload)?;
    let attributes = Attributes::after(FIB_RULE_HDR_LEN, payload)?;
    let priority = attributes.u32(FRA_PRIORITY)?.unwrap_or(0);
    let table = attributes
        .u32(FRA_TABLE)?
        .unwrap_or_else(|| u32::from(header.table));
    let is_of_unicast = family::from_wire(header.family).is_some();
    Ok(!is_of_unicast
        || STANDARD.contains(&(priority, table))
            && header.action == RuleAction::ToTable
            && header.dst_len == 0
            && header.src_len == 0
            && header.tos == 0
            && header.flags.is_empty()
            && attributes.are_among(&STANDARD_ATTRIBUTES))
}

fn selector(
    family: Family,
    header: &RuleHeader,
    attributes: &Attributes<'_>,
) -> Result<Option<RuleSelector>, DecodeError> {
    let mark = attributes
        .u32(FRA_FWMARK)?
        .and_then(std::num::NonZeroU32::new);
    let source = attributes.address(FRA_SRC)?;
    let protocol = attributes.u8(FRA_IP_PROTO)?.map(transport);
    let ports = attributes.get(FRA_SPORT_RANGE).map(one_port);
    Ok(match (source, protocol, ports, mark) {
        (Some(source), Some(Some(protocol)), Some(Some(port)), None)
            if header.src_len == family.host_prefix() =>
        {
            Some(RuleSelector::Replies {
                source,
                protocol,
                port,
            })
        }
        (None, None, None, Some(mark)) if attributes.u32(FRA_FWMASK)? == Some(u32::MAX) => {
            Some(RuleSelector::Fwmark { family, mark })
        }
        _ => None,
    })
}

fn one_port(range: &[u8]) -> Option<u16> {
    let [first, last] = range.as_chunks::<2>().0 else {
        return None;
    };
    (first == last).then(|| u16::from_ne_bytes(*first))
}

fn transport(protocol: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|known| u8::from(ip_protocol(*known)) == protocol)
}

const fn ip_protocol(protocol: Protocol) -> IpProtocol {
    match protocol {
        Protocol::Tcp => IpProtocol::Tcp,
        Protocol::Udp => IpProtocol::Udp,
        Protocol::Sctp => IpProtocol::Sctp,
    }
}

/// Returns the request for the rules of all families.
pub(super) fn read_all() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetRule(RuleMessage::default())
}

/// Returns the request that adds a rule with our protocol number.
pub(super) fn add(rule: &PolicyRule) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewRule(message(rule))
}

/// Returns the request that removes the rule with all these properties and our protocol number.
pub(super) fn remove(rule: &PolicyRule) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelRule(message(rule))
}

fn message(rule: &PolicyRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family::to_wire(rule.family());
    message.header.action = RuleAction::ToTable;
    message.header.table = match u8::try_from(rule.table) {
        Ok(table) => table,
        Err(_) => RT_TABLE_UNSPEC,
    };
    let attributes = &mut message.attributes;
    if rule.table > RT_TABLE_MAX_IN_HEADER {
        attributes.push(RuleAttribute::Table(rule.table));
    }
    attributes.push(RuleAttribute::Protocol(RouteProtocol::from(OUR_PROTOCOL)));
    attributes.push(RuleAttribute::Priority(PolicyRule::PRIORITY));
    match rule.selector {
        RuleSelector::Replies {
            source,
            protocol,
            port,
        } => {
            message.header.src_len = Family::of(source).host_prefix();
            attributes.extend([
                RuleAttribute::Source(source),
                RuleAttribute::IpProtocol(ip_protocol(protocol)),
                RuleAttribute::SourcePortRange(RulePortRange {
                    start: port,
                    end: port,
                }),
            ]);
        }
        RuleSelector::Fwmark { family: _, mark } => attributes.extend([
            RuleAttribute::FwMark(mark.get()),
            RuleAttribute::FwMask(u32::MAX),
        ]),
    }
    message
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::AddressFamily;

    use super::{super::frame::Frame, *};

    #[test]
    fn an_encoded_rule_decodes_to_itself() {
        let replies = |source: &str, protocol| RuleSelector::Replies {
            source: source.parse().unwrap(),
            protocol,
            port: 8080,
        };
        let mark = 7.try_into().unwrap();
        for (selector, table) in [
            (replies("192.0.2.7", Protocol::Tcp), 76_000),
            (replies("2001:db8::7", Protocol::Sctp), 76),
            (
                RuleSelector::Fwmark {
                    family: Family::V4,
                    mark,
                },
                255,
            ),
            (
                RuleSelector::Fwmark {
                    family: Family::V6,
                    mark,
                },
                256,
            ),
        ] {
            let rule = PolicyRule { selector, table };
            let frame = Frame::from(&add(&rule));
            assert_eq!(decode(&frame.payload).unwrap(), Some(OurRule::Known(rule)));
        }
    }

    #[test]
    fn a_rule_without_our_protocol_number_is_not_ours() {
        let mut foreign = RuleMessage::default();
        foreign.header.family = AddressFamily::Inet;
        let frame = Frame::from(&RouteNetlinkMessage::NewRule(foreign));
        assert_eq!(decode(&frame.payload).unwrap(), None);
    }
}
