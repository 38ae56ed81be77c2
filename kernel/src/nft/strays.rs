//! Encodes the nft table that marks packets to VIPs, and decodes listings of it.
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
//! If this machine is a director of services and a real server of them at once, the rules of `local` come first.
//!
//! A lookup finds established connections, those that begin or have ended, and listening sockets, in this order
//! (`nft_socket_eval`, net/netfilter/nft_socket.c).

mod local;
mod parts;

use std::{borrow::Cow, net::IpAddr};

use lvs_model::{Family, Protocol, ServiceKey, StrayMark, Strays};
use nftables::{
    batch::Batch,
    expr::{Expression, Map as Lookup, MetaKey, NamedExpression, SocketAttr},
    schema::{Chain, Map, NfListObject, NfObject, Nftables, SetType, SetTypeValue, Table},
    stmt::{Mangle, Statement},
    types::{NfChainPolicy, NfChainType, NfFamily, NfHook},
};

use self::parts::{FAMILIES, PREROUTING, is_syn, jump, payload, rule, socket};
use super::ruleset::{equals, meta, without_handle_and_elements};

pub(super) use self::parts::TABLE;

const STRAYS: &str = "strays";
const MARKS: &str = "marks";
/// The priority that nft calls `mangle`.
const NF_IP_PRI_MANGLE: i32 = -150;

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
    let has_local = !strays.local.is_empty();
    if has_local {
        for family in FAMILIES {
            batch.add(local::set(family, Some(&strays.local)));
        }
    }
    for object in chains(has_local).into_iter().chain(rules(has_local)) {
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
    let mut found = Strays::default();
    let (mut rules_found, mut others_found) = (Vec::new(), Vec::new());
    for object in listing.objects.iter() {
        let NfObject::ListObject(object) = object else {
            return None;
        };
        if let NfListObject::Map(map) = object {
            for element in map.elem.iter().flat_map(|elements| elements.iter()) {
                found.marks.insert(stray_mark(element)?);
            }
        }
        if let NfListObject::Set(set) = object {
            for element in set.elem.iter().flat_map(|elements| elements.iter()) {
                found.local.insert(local::service(element)?);
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
    let has_local = !found.local.is_empty();
    let maps = FAMILIES.map(|family| map(family, None));
    let sets = FAMILIES.map(|family| local::set(family, None));
    let sets = sets.into_iter().filter(|_| has_local);
    let others = [table()].into_iter().chain(maps).chain(sets);
    let others: Vec<_> = others.chain(chains(has_local)).collect();
    // The order of the rules counts.
    let is_ours = rules_found == rules(has_local)
        && others_found.len() == others.len()
        && others.iter().all(|object| others_found.contains(object));
    is_ours.then_some(found)
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

fn chains(has_local: bool) -> Vec<NfListObject<'static>> {
    let chain = |name: &'static str| Chain {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: name.into(),
        ..Chain::default()
    };
    let prerouting = Chain {
        _type: Some(NfChainType::Filter),
        hook: Some(NfHook::Prerouting),
        prio: Some(NF_IP_PRI_MANGLE),
        policy: Some(NfChainPolicy::Accept),
        ..chain(PREROUTING)
    };
    let of_local = local::CHAINS.into_iter().filter(|_| has_local);
    let others = [STRAYS, MARKS].into_iter().chain(of_local).map(chain);
    let chains = [prerouting].into_iter().chain(others);
    chains.map(NfListObject::Chain).collect()
}

/// Returns the rules in the order in which nft lists them: chain by chain.
fn rules(has_local: bool) -> Vec<NfListObject<'static>> {
    let return_ = || Statement::Return(None);
    let goto_marks = || Statement::Goto(jump(MARKS));
    let jumps = local::jumps().into_iter().filter(|_| has_local);
    let mut rules: Vec<_> = jumps.collect();
    rules.push(rule(PREROUTING, vec![is_syn(), return_()]));
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
    rules.extend(local::rules().into_iter().filter(|_| has_local));
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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
            local: BTreeSet::new(),
        }
    }

    fn with_local() -> Strays {
        let key = |address: &str, protocol, port| ServiceKey::Address {
            address: address.parse().unwrap(),
            protocol,
            port,
        };
        Strays {
            local: [
                key("192.0.2.1", Protocol::Tcp, 80),
                key("192.0.2.1", Protocol::Udp, 53),
                key("2001:db8::1", Protocol::Sctp, 3868),
            ]
            .into(),
            ..strays()
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
        for strays in [strays(), with_local(), Strays::default()] {
            assert_eq!(decode_objects(listing(&strays)), Some(strays));
        }
    }

    /// What nft 1.0.6 says on a kernel that has all modules.
    #[test]
    fn the_listing_of_a_kernel_is_decoded() {
        let listing = include_str!("strays/listing.json");
        let decoded = decode(&serde_json::from_str(listing).unwrap());
        assert_eq!(decoded, Some(with_local()));
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
        let set = |object: &NfObject<'static>| {
            !matches!(object, NfObject::ListObject(NfListObject::Set(_)))
        };
        let mut without_sets = listing(&with_local());
        without_sets.retain(set);
        assert_eq!(decode_objects(without_sets), None);
    }
}
