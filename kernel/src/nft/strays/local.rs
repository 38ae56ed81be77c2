//! The rules by which a machine that directs services, and is a real server of them, keeps packets here.
//!
//! ```text
//! set local4 { type inet_proto . ipv4_addr . inet_service; }     # and local6
//! chain prerouting {
//!     meta l4proto . ip daddr . th dport @local4 jump local      # and ip6
//!     ...
//! }
//! chain local {
//!     fib daddr . iif type local goto held
//!     meta mark set LOCAL_MARK          # another director has sent the packet; a stray one gets another mark later
//! }
//! chain held {                          # this machine has the VIP, and IPVS balances the packet
//!     tcp flags & syn == syn accept
//!     meta l4proto tcp goto connections
//!     accept
//! }
//! chain connections {
//!     socket wildcard 0 goto kept       # an established connection of this machine
//!     socket wildcard 1 accept          # only a listening socket
//!     socket transparent 0 goto kept    # a connection that begins or has ended
//!     socket transparent 1 goto kept
//!     accept
//! }
//! chain kept { meta mark set LOCAL_MARK accept }
//! ```

use std::{borrow::Cow, collections::BTreeSet, net::IpAddr};

use lvs_model::{Family, LOCAL_MARK, Protocol, ServiceKey};
use nftables::{
    expr::{Expression, Fib, FibFlag, FibResult, MetaKey, NamedExpression, SocketAttr},
    schema::{NfListObject, Set, SetType, SetTypeValue},
    stmt::{Mangle, Statement},
    types::NfFamily,
};

use super::{
    super::ruleset::{equals, meta, text},
    parts::{FAMILIES, PREROUTING, TABLE, is_syn, jump, payload, rule, socket},
};

const LOCAL: &str = "local";
const HELD: &str = "held";
const CONNECTIONS: &str = "connections";
const KEPT: &str = "kept";

/// The chains.
pub(super) const CHAINS: [&str; 4] = [LOCAL, HELD, CONNECTIONS, KEPT];

const fn set_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "local4",
        Family::V6 => "local6",
    }
}

/// Returns the set of services of one family, with its elements if they are given.
pub(super) fn set(
    family: Family,
    services: Option<&BTreeSet<ServiceKey>>,
) -> NfListObject<'static> {
    let address = match family {
        Family::V4 => SetType::Ipv4Addr,
        Family::V6 => SetType::Ipv6Addr,
    };
    let services = services.into_iter().flatten();
    let services = services.filter(|key| key.family() == family);
    let elements: Vec<_> = services.filter_map(element).collect();
    let types = vec![SetType::InetProto, address, SetType::InetService];
    NfListObject::Set(Box::new(Set {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: set_name(family).into(),
        set_type: SetTypeValue::Concatenated(Cow::Owned(types)),
        elem: Some(elements).filter(|all| !all.is_empty()).map(Cow::Owned),
        ..Set::default()
    }))
}

/// Returns the element for a service. `None` if it has no VIP.
fn element(key: &ServiceKey) -> Option<Expression<'static>> {
    let ServiceKey::Address {
        address,
        protocol,
        port,
    } = *key
    else {
        return None;
    };
    let parts = vec![
        text(protocol.keyword()),
        Expression::String(address.to_string().into()),
        Expression::Number(u32::from(port)),
    ];
    Some(Expression::Named(NamedExpression::Concat(parts)))
}

/// Decodes an element.
pub(super) fn service(element: &Expression<'_>) -> Option<ServiceKey> {
    let Expression::Named(NamedExpression::Concat(parts)) = element else {
        return None;
    };
    let [
        Expression::String(protocol),
        Expression::String(address),
        Expression::Number(port),
    ] = parts.as_slice()
    else {
        return None;
    };
    let address: IpAddr = address.parse().ok()?;
    let protocol = Protocol::of_keyword(protocol)?;
    let port = u16::try_from(*port).ok()?;
    Some(ServiceKey::Address {
        address,
        protocol,
        port,
    })
}

/// Returns the rules of the chain of all packets.
pub(super) fn jumps() -> [NfListObject<'static>; 2] {
    FAMILIES.map(|family| {
        let services = Expression::String(format!("@{}", set_name(family)).into());
        let is_ours = equals(destination(family), services);
        rule(PREROUTING, vec![is_ours, Statement::Jump(jump(LOCAL))])
    })
}

/// Returns the rules of our own chains.
pub(super) fn rules() -> Vec<NfListObject<'static>> {
    let accept = || Statement::Accept(None);
    let goto = |chain| Statement::Goto(jump(chain));
    let mark = || {
        Statement::Mangle(Mangle {
            key: meta(MetaKey::Mark),
            value: Expression::Number(LOCAL_MARK.get()),
        })
    };
    let is_tcp = equals(meta(MetaKey::L4proto), text("tcp"));
    vec![
        rule(LOCAL, vec![is_held(), goto(HELD)]),
        rule(LOCAL, vec![mark()]),
        rule(HELD, vec![is_syn(), accept()]),
        rule(HELD, vec![is_tcp, goto(CONNECTIONS)]),
        rule(HELD, vec![accept()]),
        rule(
            CONNECTIONS,
            vec![socket(SocketAttr::Wildcard, 0), goto(KEPT)],
        ),
        rule(CONNECTIONS, vec![socket(SocketAttr::Wildcard, 1), accept()]),
        rule(
            CONNECTIONS,
            vec![socket(SocketAttr::Transparent, 0), goto(KEPT)],
        ),
        rule(
            CONNECTIONS,
            vec![socket(SocketAttr::Transparent, 1), goto(KEPT)],
        ),
        rule(CONNECTIONS, vec![accept()]),
        rule(KEPT, vec![mark(), accept()]),
    ]
}

/// Matches packets to an address of the interface on which they arrive.
fn is_held() -> Statement<'static> {
    let fib = Fib {
        result: FibResult::Type,
        flags: [FibFlag::Daddr, FibFlag::Iif].into(),
    };
    equals(Expression::Named(NamedExpression::Fib(fib)), text("local"))
}

/// Returns the expression for the protocol, the address and the port that a packet is for.
fn destination(family: Family) -> Expression<'static> {
    let protocol = match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    let parts = vec![
        meta(MetaKey::L4proto),
        payload(protocol, "daddr"),
        payload("th", "dport"),
    ];
    Expression::Named(NamedExpression::Concat(parts))
}
