//! Encodes the nft table that marks stray packets, and decodes listings of it.
//!
//! ```text
//! map marks4 { type ipv4_addr . inet_service : mark; }           # and marks6
//! chain prerouting {
//!     type filter hook prerouting priority mangle;
//!     tcp flags & syn == syn return
//!     ip daddr . tcp dport @marks4 jump strays                   # and ip6
//! }
//! chain strays {
//!     socket wildcard 0 return          # an established connection
//!     socket wildcard 1 goto marks      # only a listening socket
//!     socket transparent 0 return       # a connection that begins or has ended: without the property `wildcard`
//!     socket transparent 1 return
//!     goto marks                        # no socket: no expression with `socket` matches
//! }
//! chain marks {
//!     meta mark set ip daddr . tcp dport map @marks4             # and ip6
//! }
//! ```
//!
//! A lookup finds established connections, those that begin or have ended, and listening sockets, in this order
//! (`nft_socket_eval`, net/netfilter/nft_socket.c).

use std::{borrow::Cow, collections::BTreeSet, net::IpAddr};

use lvs_model::{Family, Protocol, ServiceKey, StrayMark, Strays};
use nftables::{
    batch::Batch,
    expr::{
        BinaryOperation, Expression, Map as Lookup, MetaKey, NamedExpression, Payload,
        PayloadField, Socket, SocketAttr,
    },
    schema::{Chain, Map, NfListObject, NfObject, Nftables, Rule, SetType, SetTypeValue, Table},
    stmt::{JumpTarget, Mangle, Statement},
    types::{NfChainPolicy, NfChainType, NfFamily, NfHook},
};

use super::ruleset::{equals, meta, text, without_handle_and_elements};

pub(super) const TABLE: &str = "lvs-operator-strays";
const PREROUTING: &str = "prerouting";
const STRAYS: &str = "strays";
const MARKS: &str = "marks";
/// The priority that nft calls `mangle`.
const NF_IP_PRI_MANGLE: i32 = -150;
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Returns the commands that make the table set exactly these marks, in one transaction.
///
/// The table is added before it is deleted, because deleting a table that does not exist fails.
pub(super) fn replace(strays: &Strays) -> Nftables<'static> {
    let mut batch = Batch::new();
    batch.add(table());
    batch.delete(table());
    batch.add(table());
    for family in FAMILIES {
        let marks = strays.marks.iter();
        let marks = marks.filter(|mark| mark.service.family() == family);
        let elements: Vec<_> = marks.filter_map(element).collect();
        batch.add(map(family, Some(elements).filter(|all| !all.is_empty())));
    }
    for object in chains().into_iter().chain(rules()) {
        batch.add(object);
    }
    batch.to_nftables()
}

/// Returns the commands that remove the table, whether or not it exists.
pub(super) fn remove() -> Nftables<'static> {
    let mut batch = Batch::new();
    batch.add(table());
    batch.delete(table());
    batch.to_nftables()
}

/// Decodes a listing of the table. `None` if it differs from what [`replace`] writes.
pub(super) fn decode(listing: &Nftables<'static>) -> Option<Strays> {
    let mut marks = BTreeSet::new();
    let (mut rules_found, mut others_found) = (Vec::new(), Vec::new());
    for object in listing.objects.iter() {
        let NfObject::ListObject(object) = object else {
            return None;
        };
        if let NfListObject::Map(map) = object {
            for element in map.elem.iter().flat_map(|elements| elements.iter()) {
                marks.insert(stray_mark(element)?);
            }
        }
        let Some(object) = without_handle_and_elements(object.clone()) else {
            continue;
        };
        if matches!(object, NfListObject::Rule(_)) {
            rules_found.push(object);
        } else {
            others_found.push(object);
        }
    }
    let maps = FAMILIES.map(|family| map(family, None));
    let others: Vec<_> = [table()].into_iter().chain(maps).chain(chains()).collect();
    // The order of the rules counts.
    let is_ours = rules_found == rules()
        && others_found.len() == others.len()
        && others.iter().all(|object| others_found.contains(object));
    is_ours.then_some(Strays { marks })
}

fn table() -> NfListObject<'static> {
    NfListObject::Table(Table {
        family: NfFamily::INet,
        name: TABLE.into(),
        handle: None,
    })
}

const fn map_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "marks4",
        Family::V6 => "marks6",
    }
}

fn map(family: Family, elements: Option<Vec<Expression<'static>>>) -> NfListObject<'static> {
    let address = match family {
        Family::V4 => SetType::Ipv4Addr,
        Family::V6 => SetType::Ipv6Addr,
    };
    NfListObject::Map(Box::new(Map {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: map_name(family).into(),
        set_type: SetTypeValue::Concatenated(Cow::Owned(vec![address, SetType::InetService])),
        map: SetTypeValue::Single(SetType::Mark),
        elem: elements.map(Cow::Owned),
        ..Map::default()
    }))
}

/// Returns the element for a mark. `None` if it is not of a VIP with a TCP port.
fn element(mark: &StrayMark) -> Option<Expression<'static>> {
    let ServiceKey::Address { address, port, .. } = mark.service else {
        return None;
    };
    let key = vec![
        Expression::String(address.to_string().into()),
        Expression::Number(u32::from(port)),
    ];
    let key = Expression::Named(NamedExpression::Concat(key));
    let value = Expression::Number(mark.mark.get());
    Some(Expression::List(vec![key, value]))
}

fn stray_mark(element: &Expression<'_>) -> Option<StrayMark> {
    let Expression::List(pair) = element else {
        return None;
    };
    let [
        Expression::Named(NamedExpression::Concat(key)),
        Expression::Number(mark),
    ] = pair.as_slice()
    else {
        return None;
    };
    let [Expression::String(address), Expression::Number(port)] = key.as_slice() else {
        return None;
    };
    let address: IpAddr = address.parse().ok()?;
    Some(StrayMark {
        service: ServiceKey::Address {
            address,
            protocol: Protocol::Tcp,
            port: u16::try_from(*port).ok()?,
        },
        mark: (*mark).try_into().ok()?,
    })
}

fn chains() -> [NfListObject<'static>; 3] {
    let chain = |name: &'static str| Chain {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: name.into(),
        ..Chain::default()
    };
    [
        Chain {
            _type: Some(NfChainType::Filter),
            hook: Some(NfHook::Prerouting),
            prio: Some(NF_IP_PRI_MANGLE),
            policy: Some(NfChainPolicy::Accept),
            ..chain(PREROUTING)
        },
        chain(STRAYS),
        chain(MARKS),
    ]
    .map(NfListObject::Chain)
}

fn rules() -> Vec<NfListObject<'static>> {
    let rule = |chain: &'static str, statements: Vec<Statement<'static>>| {
        NfListObject::Rule(Rule {
            family: NfFamily::INet,
            table: TABLE.into(),
            chain: chain.into(),
            expr: Cow::Owned(statements),
            ..Rule::default()
        })
    };
    let jump = |target: &'static str| JumpTarget {
        target: target.into(),
    };
    let return_ = || Statement::Return(None);
    let goto_marks = || Statement::Goto(jump(MARKS));
    let socket = |key, value| equals(socket(key), Expression::Number(value));
    let flags = BinaryOperation::AND(payload("tcp", "flags"), text("syn"));
    let flags = Expression::BinaryOperation(Box::new(flags));
    let mut rules = vec![rule(
        PREROUTING,
        vec![equals(flags, text("syn")), return_()],
    )];
    rules.extend(FAMILIES.map(|family| {
        let is_ours = equals(destination(family), reference(family));
        rule(PREROUTING, vec![is_ours, Statement::Jump(jump(STRAYS))])
    }));
    rules.extend([
        rule(STRAYS, vec![socket(SocketAttr::Wildcard, 0), return_()]),
        rule(STRAYS, vec![socket(SocketAttr::Wildcard, 1), goto_marks()]),
        rule(STRAYS, vec![socket(SocketAttr::Transparent, 0), return_()]),
        rule(STRAYS, vec![socket(SocketAttr::Transparent, 1), return_()]),
        rule(STRAYS, vec![goto_marks()]),
    ]);
    rules.extend(FAMILIES.map(|family| {
        let lookup = Lookup {
            key: destination(family),
            data: reference(family),
        };
        let mangle = Mangle {
            key: meta(MetaKey::Mark),
            value: Expression::Named(NamedExpression::Map(Box::new(lookup))),
        };
        rule(MARKS, vec![Statement::Mangle(mangle)])
    }));
    rules
}

fn reference(family: Family) -> Expression<'static> {
    Expression::String(format!("@{}", map_name(family)).into())
}

/// Returns the expression for the address and the TCP port that a packet is for.
fn destination(family: Family) -> Expression<'static> {
    let protocol = match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    let parts = vec![payload(protocol, "daddr"), payload("tcp", "dport")];
    Expression::Named(NamedExpression::Concat(parts))
}

fn payload(protocol: &'static str, field: &'static str) -> Expression<'static> {
    let field = PayloadField {
        protocol: protocol.into(),
        field: field.into(),
    };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

fn socket(key: SocketAttr) -> Expression<'static> {
    Expression::Named(NamedExpression::Socket(Socket {
        key: Cow::Owned(key),
    }))
}

#[cfg(test)]
mod tests {
    use nftables::schema::NfCmd;

    use super::*;

    fn strays() -> Strays {
        let mark = |address: &str, port, mark: u32| StrayMark {
            service: ServiceKey::Address {
                address: address.parse().unwrap(),
                protocol: Protocol::Tcp,
                port,
            },
            mark: mark.try_into().unwrap(),
        };
        Strays {
            marks: [
                mark("192.0.2.1", 80, 7),
                mark("192.0.2.1", 443, 8),
                mark("2001:db8::1", 80, 9),
            ]
            .into(),
        }
    }

    /// Returns the objects that a transaction creates.
    fn listing(strays: &Strays) -> Vec<NfObject<'static>> {
        let commands = replace(strays).objects.into_owned().into_iter().skip(2);
        let objects = commands.filter_map(|object| match object {
            NfObject::CmdObject(NfCmd::Add(object)) => Some(NfObject::ListObject(object)),
            NfObject::CmdObject(_) | NfObject::ListObject(_) => None,
        });
        objects.collect()
    }

    fn decode_objects(objects: Vec<NfObject<'static>>) -> Option<Strays> {
        decode(&Nftables {
            objects: objects.into(),
        })
    }

    #[test]
    fn an_encoded_table_decodes_to_itself() {
        for strays in [strays(), Strays::default()] {
            assert_eq!(decode_objects(listing(&strays)), Some(strays));
        }
    }

    #[test]
    fn a_table_with_a_missing_or_a_moved_rule_is_not_decoded() {
        let mut less = listing(&strays());
        less.pop();
        assert_eq!(decode_objects(less), None);
        let mut moved = listing(&strays());
        let last = moved.len() - 1;
        moved.swap(last, last - 4);
        assert_eq!(decode_objects(moved), None);
    }
}
