//! Encodes the nft table for the services to masquerade, and decodes listings of it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lvs_model::{Family, Masquerade, Protocol, ServiceKey};
use nftables::{
    batch::Batch,
    expr::{CT, CTDir, Expression, Meta, MetaKey, NamedExpression},
    schema::{Chain, NfListObject, NfObject, Nftables, Rule, Set, SetType, SetTypeValue, Table},
    stmt::{Match, Operator, Statement},
    types::{NfChainPolicy, NfChainType, NfFamily, NfHook},
};

pub(super) const TABLE: &str = "lvs-operator";
const CHAIN: &str = "postrouting";
/// The priority that nft calls `srcnat`.
const NF_IP_PRI_NAT_SRC: i32 = 100;

/// A group of services with one set and one masquerading rule in the table.
///
/// There is a group of VIPs with ports for each protocol and family, and a group of marks for each family.
///
/// The rules match the original destination from conntrack, since in `postrouting` the packet's destination is the real
/// server. They match the protocol first: without it nft cannot determine the type of `ct original proto-dst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Addresses(Protocol, Family),
    Marks(Family),
}

impl Group {
    const ALL: [Self; 8] = [
        Self::Addresses(Protocol::Tcp, Family::V4),
        Self::Addresses(Protocol::Tcp, Family::V6),
        Self::Addresses(Protocol::Udp, Family::V4),
        Self::Addresses(Protocol::Udp, Family::V6),
        Self::Addresses(Protocol::Sctp, Family::V4),
        Self::Addresses(Protocol::Sctp, Family::V6),
        Self::Marks(Family::V4),
        Self::Marks(Family::V6),
    ];

    const fn of(service: &ServiceKey) -> Self {
        match service {
            ServiceKey::Address { protocol, .. } => Self::Addresses(*protocol, service.family()),
            ServiceKey::Fwmark { family, .. } => Self::Marks(*family),
        }
    }

    /// Returns the name of its set.
    const fn name(self) -> &'static str {
        match self {
            Self::Addresses(Protocol::Tcp, Family::V4) => "tcp4",
            Self::Addresses(Protocol::Tcp, Family::V6) => "tcp6",
            Self::Addresses(Protocol::Udp, Family::V4) => "udp4",
            Self::Addresses(Protocol::Udp, Family::V6) => "udp6",
            Self::Addresses(Protocol::Sctp, Family::V4) => "sctp4",
            Self::Addresses(Protocol::Sctp, Family::V6) => "sctp6",
            Self::Marks(Family::V4) => "marks4",
            Self::Marks(Family::V6) => "marks6",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.name() == name)
    }

    fn set(self, elements: Option<Vec<Expression<'static>>>) -> NfListObject<'static> {
        NfListObject::Set(Box::new(Set {
            family: NfFamily::INet,
            table: TABLE.into(),
            name: self.name().into(),
            set_type: match self {
                Self::Addresses(_, Family::V4) => SetTypeValue::Concatenated(Cow::Owned(vec![
                    SetType::Ipv4Addr,
                    SetType::InetService,
                ])),
                Self::Addresses(_, Family::V6) => SetTypeValue::Concatenated(Cow::Owned(vec![
                    SetType::Ipv6Addr,
                    SetType::InetService,
                ])),
                Self::Marks(_) => SetTypeValue::Single(SetType::Mark),
            },
            elem: elements.map(Cow::Owned),
            ..Set::default()
        }))
    }

    fn rule(self) -> NfListObject<'static> {
        let set = || Expression::String(format!("@{}", self.name()).into());
        let [first, second] = match self {
            Self::Addresses(protocol, family) => {
                let address = match family {
                    Family::V4 => "ip daddr",
                    Family::V6 => "ip6 daddr",
                };
                let destination = vec![original(address), original("proto-dst")];
                [
                    equals(meta(MetaKey::L4proto), text(protocol.keyword())),
                    equals(
                        Expression::Named(NamedExpression::Concat(destination)),
                        set(),
                    ),
                ]
            }
            Self::Marks(family) => [
                equals(meta(MetaKey::Nfproto), text(family_name(family))),
                equals(meta(MetaKey::Mark), set()),
            ],
        };
        NfListObject::Rule(Rule {
            family: NfFamily::INet,
            table: TABLE.into(),
            chain: CHAIN.into(),
            expr: Cow::Owned(vec![first, second, Statement::Masquerade(None)]),
            ..Rule::default()
        })
    }

    /// Decodes an element of its set.
    fn service(self, element: &Expression<'_>) -> Option<ServiceKey> {
        match (self, element) {
            (
                Self::Addresses(protocol, family),
                Expression::Named(NamedExpression::Concat(parts)),
            ) => {
                let [Expression::String(address), Expression::Number(port)] = parts.as_slice()
                else {
                    return None;
                };
                let address: IpAddr = address.parse().ok()?;
                let port = u16::try_from(*port).ok()?;
                let service = ServiceKey::Address {
                    address,
                    protocol,
                    port,
                };
                (service.family() == family).then_some(service)
            }
            (Self::Marks(family), Expression::Number(mark)) => Some(ServiceKey::Fwmark {
                mark: (*mark).try_into().ok()?,
                family,
            }),
            (_, _) => None,
        }
    }
}

fn element(service: &ServiceKey) -> Expression<'static> {
    match service {
        ServiceKey::Address {
            address,
            protocol: _,
            port,
        } => {
            let parts = vec![
                Expression::String(address.to_string().into()),
                Expression::Number(u32::from(*port)),
            ];
            Expression::Named(NamedExpression::Concat(parts))
        }
        ServiceKey::Fwmark { mark, family: _ } => Expression::Number(mark.get()),
    }
}

const fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

pub(super) fn equals(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match {
        left,
        right,
        op: Operator::EQ,
    })
}

pub(super) fn text(text: &'static str) -> Expression<'static> {
    Expression::String(text.into())
}

pub(super) fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn original(key: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::CT(CT {
        key: key.into(),
        family: None,
        dir: Some(CTDir::Original),
    }))
}

fn table() -> NfListObject<'static> {
    NfListObject::Table(Table {
        family: NfFamily::INet,
        name: TABLE.into(),
        handle: None,
    })
}

fn chain() -> NfListObject<'static> {
    NfListObject::Chain(Chain {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: CHAIN.into(),
        _type: Some(NfChainType::NAT),
        hook: Some(NfHook::Postrouting),
        prio: Some(NF_IP_PRI_NAT_SRC),
        policy: Some(NfChainPolicy::Accept),
        ..Chain::default()
    })
}

/// Returns the commands that make the table cover exactly these services, in one transaction.
///
/// The table is added before it is deleted, because deleting a table that does not exist fails.
pub(super) fn replace(masquerade: &Masquerade) -> Nftables<'static> {
    let mut groups: BTreeMap<Group, Vec<Expression<'static>>> = BTreeMap::new();
    for service in &masquerade.services {
        groups
            .entry(Group::of(service))
            .or_default()
            .push(element(service));
    }
    let mut batch = Batch::new();
    batch.add(table());
    batch.delete(table());
    batch.add(table());
    batch.add(chain());
    for (group, elements) in groups {
        batch.add(group.set(Some(elements)));
        batch.add(group.rule());
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
pub(super) fn decode(listing: &Nftables<'static>) -> Option<Masquerade> {
    let mut services = BTreeSet::new();
    let mut found = Vec::new();
    for object in listing.objects.iter() {
        let NfObject::ListObject(object) = object else {
            return None;
        };
        if let NfListObject::Set(set) = object {
            let group = Group::named(&set.name)?;
            for element in set.elem.iter().flat_map(|elements| elements.iter()) {
                services.insert(group.service(element)?);
            }
        }
        found.extend(without_handle_and_elements(object.clone()));
    }
    let groups: BTreeSet<Group> = services.iter().map(Group::of).collect();
    let mut wanted = vec![table(), chain()];
    wanted.extend(
        groups
            .iter()
            .flat_map(|group| [group.set(None), group.rule()]),
    );
    let is_ours = found.len() == wanted.len() && wanted.iter().all(|object| found.contains(object));
    is_ours.then_some(Masquerade { services })
}

/// Returns an object without its handle and elements. `None` for metainformation.
pub(super) fn without_handle_and_elements(
    mut object: NfListObject<'static>,
) -> Option<NfListObject<'static>> {
    if matches!(object, NfListObject::MetainfoObject(_)) {
        return None;
    }
    if let NfListObject::Table(Table { handle, .. })
    | NfListObject::Chain(Chain { handle, .. })
    | NfListObject::Rule(Rule { handle, .. }) = &mut object
    {
        *handle = None;
    } else if let NfListObject::Set(set) = &mut object {
        (set.handle, set.elem) = (None, None);
    } else if let NfListObject::Map(map) = &mut object {
        (map.handle, map.elem) = (None, None);
    }
    Some(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masquerade() -> Masquerade {
        let service = |address: &str, protocol, port| ServiceKey::Address {
            address: address.parse().unwrap(),
            protocol,
            port,
        };
        Masquerade {
            services: BTreeSet::from([
                service("192.0.2.1", Protocol::Tcp, 80),
                service("192.0.2.1", Protocol::Udp, 53),
                service("2001:db8::1", Protocol::Sctp, 3868),
                ServiceKey::Fwmark {
                    mark: 7.try_into().unwrap(),
                    family: Family::V6,
                },
            ]),
        }
    }

    /// Returns the objects that a transaction creates, in reverse order.
    fn listing(masquerade: &Masquerade) -> Vec<NfObject<'static>> {
        let commands = replace(masquerade).objects.into_owned().into_iter().skip(2);
        let mut objects: Vec<_> = commands
            .filter_map(|object| match object {
                NfObject::CmdObject(nftables::schema::NfCmd::Add(object)) => {
                    Some(NfObject::ListObject(object))
                }
                NfObject::CmdObject(_) | NfObject::ListObject(_) => None,
            })
            .collect();
        objects.reverse();
        objects
    }

    fn decode_objects(objects: Vec<NfObject<'static>>) -> Option<Masquerade> {
        decode(&Nftables {
            objects: objects.into(),
        })
    }

    #[test]
    fn an_encoded_table_decodes_to_itself() {
        for masquerade in [masquerade(), Masquerade::default()] {
            assert_eq!(decode_objects(listing(&masquerade)), Some(masquerade));
        }
    }

    #[test]
    fn a_table_with_an_extra_or_a_missing_rule_is_not_decoded() {
        let mut more = listing(&masquerade());
        more.push(NfObject::ListObject(Group::Marks(Family::V4).rule()));
        assert_eq!(decode_objects(more), None);
        let mut less = listing(&masquerade());
        less.remove(0);
        assert_eq!(decode_objects(less), None);
    }
}
