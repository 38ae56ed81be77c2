//! How the directors of a group agree who holds the VIPs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use lvs_model::{
    DEFAULT_PRIORITY, Family, MOST_ROUTERS, NodeName, is_usable_unicast, router_priorities,
};

use super::findings::Findings;
use crate::{
    Connections, DirectorGroup, DirectorGroupSpec, DirectorPriority, Failover, MemberFailover,
    UnicastDirector, director_binding::fnv_1a,
};

/// The part of one director of `directors` in how its group agrees who holds the VIPs. Its first router id, the number of routers and whether
/// it is on standby depend on other objects too.
#[must_use]
pub fn member_failover(
    group: &DirectorGroup,
    (node, directors): (&NodeName, &BTreeSet<NodeName>),
    (virtual_router_id, routers): (i64, u8),
) -> MemberFailover {
    let failover = group.spec.failover.clone().unwrap_or_default();
    let of_nodes = directors.iter().map(|director| {
        let mut given = failover.priorities.iter();
        let given = given.find(|given| given.node == director.as_str());
        let given = given.and_then(|given| given.priority.try_into().ok());
        (director.clone(), given.unwrap_or(DEFAULT_PRIORITY))
    });
    let priorities = router_priorities(&of_nodes.collect(), routers);
    let own = priorities.get(node).into_iter().flatten();
    let own: Vec<i64> = own.map(|priority| i64::from(*priority)).collect();
    MemberFailover {
        virtual_router_id,
        advertisement_milliseconds: failover.advertisement_milliseconds,
        preempt_after_seconds: failover.preempt_after_seconds,
        priority: own.first().copied(),
        priorities: own,
        standby: false,
        unicast: failover.unicast,
        keep_seconds: (failover.connections == Connections::Keep).then_some(failover.keep_seconds),
    }
}

/// How a machine agrees with the other directors of a group, as the controller has written it.
pub(super) fn failover_of_member(
    field: &str,
    node: &NodeName,
    given: &MemberFailover,
    findings: &mut Findings,
) -> Option<lvs_model::Failover> {
    let mut number = |name: &str, value, range| {
        findings.number::<u32>(format_args!("{field}.{name}"), value, range)
    };
    let router_id: Option<u32> = number("virtualRouterId", given.virtual_router_id, 1..=255);
    let milliseconds = number(
        "advertisementMilliseconds",
        given.advertisement_milliseconds,
        10..=40_950,
    );
    let preempt_after = given
        .preempt_after_seconds
        .map(|seconds| number("preemptAfterSeconds", seconds, 0..=86_400));
    let priorities = if given.priorities.is_empty() {
        given.priority.as_slice()
    } else {
        &given.priorities
    };
    let priorities = priorities.iter().enumerate();
    let priorities =
        priorities.map(|(i, given)| number(&format!("priorities[{i}]"), *given, 1..=254));
    let priorities: Vec<Option<u32>> = priorities.collect();
    let keep_seconds = given
        .keep_seconds
        .map(|seconds| number("keepSeconds", seconds, 1..=86_400));
    let unicast = unicast(&format!("{field}.unicast"), &given.unicast, None, findings);
    let routers = u8::try_from(given.priorities.len().max(1)).ok();
    let routers = routers.filter(|routers| *routers <= MOST_ROUTERS);
    if routers.is_none() {
        let reason = format!("must hold at most {MOST_ROUTERS} priorities");
        findings.refuse(format_args!("{field}.priorities"), reason);
    }
    let router_id = router_id.and_then(|id| u8::try_from(id).ok());
    check_ids(
        &format!("{field}.virtualRouterId"),
        router_id?,
        routers?,
        findings,
    );
    let priorities = priorities.into_iter();
    let priorities = priorities.map(|priority| priority?.try_into().ok());
    Some(lvs_model::Failover {
        router_id: router_id?,
        routers: routers?,
        interval: (milliseconds? / 10).try_into().ok()?,
        preempt_after: preempt_after.flatten(),
        router_priorities: BTreeMap::from([(node.clone(), priorities.collect::<Option<_>>()?)]),
        standby: given.standby.then(|| node.clone()).into_iter().collect(),
        unicast,
        keep_seconds: keep_seconds.flatten(),
    })
}

/// How the directors agree who holds the VIPs; `None` if there is one director.
pub(super) fn failover(
    group: &str,
    spec: &DirectorGroupSpec,
    nodes: &[NodeName],
    findings: &mut Findings,
) -> Option<lvs_model::Failover> {
    let Failover {
        virtual_router_id,
        routers,
        advertisement_milliseconds,
        preempt_after_seconds,
        priorities,
        standby,
        unicast,
        connections,
        keep_seconds,
    } = spec.failover.clone().unwrap_or_default();
    let ids = virtual_routers(group, spec, (virtual_router_id, routers), findings);
    let field = "spec.failover.advertisementMilliseconds";
    let milliseconds: Option<u16> = findings.number(field, advertisement_milliseconds, 10..=40_950);
    if advertisement_milliseconds % 10 != 0 {
        findings.refuse(field, "must be a multiple of 10");
    }
    let field = "spec.failover.preemptAfterSeconds";
    let preempt_after =
        preempt_after_seconds.map(|seconds| findings.number(field, seconds, 0..=86_400));
    let keep_seconds: Option<u32> =
        findings.number("spec.failover.keepSeconds", keep_seconds, 1..=86_400);
    let priorities = self::priorities(&priorities, nodes, findings);
    let mut on_standby = BTreeSet::new();
    for (i, node) in standby.iter().enumerate() {
        let field = format_args!("spec.failover.standby[{i}]");
        on_standby.extend(named(node, nodes, field, findings));
    }
    if !nodes.is_empty() && on_standby.len() == nodes.len() {
        let reason = "must leave a director that can hold the VIPs";
        findings.refuse("spec.failover.standby", reason);
    }
    let field = "spec.failover.unicast";
    let unicast = self::unicast(field, &unicast, Some(nodes), findings);
    let (router_id, routers) = ids?;
    (nodes.len() > 1).then_some(lvs_model::Failover {
        router_id,
        routers,
        interval: milliseconds? / 10,
        preempt_after: preempt_after.flatten(),
        router_priorities: router_priorities(&priorities, routers),
        standby: on_standby,
        unicast,
        keep_seconds: keep_seconds.filter(|_| connections == Connections::Keep),
    })
}

/// The addresses between which the directors send advertisements; `None` if there are none. `nodes` are the directors, if they are known:
/// each must have addresses.
///
/// 1. A director has at most one address of each family.
/// 2. No two directors have the same address.
/// 3. All directors have addresses of the same families.
fn unicast(
    field: &str,
    given: &[UnicastDirector],
    nodes: Option<&[NodeName]>,
    findings: &mut Findings,
) -> Option<BTreeMap<NodeName, BTreeSet<IpAddr>>> {
    let (mut all, mut families, mut seen) = (BTreeMap::new(), None, BTreeSet::new());
    for (i, UnicastDirector { node, addresses }) in given.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let name = match nodes {
            Some(nodes) => named(node, nodes, format_args!("{field}.node"), findings),
            None => findings.take(format_args!("{field}.node"), node.parse()),
        };
        let field = format!("{field}.addresses");
        let count = addresses.len();
        let addresses = unicast_addresses(&field, addresses, &mut seen, findings);
        let of_director: BTreeSet<Family> = addresses.iter().copied().map(Family::of).collect();
        let is_valid = count == addresses.len() && count > 0;
        if is_valid && *families.get_or_insert_with(|| of_director.clone()) != of_director {
            let reason = "must be of the same families as those of the other directors";
            findings.refuse(&field, reason);
        }
        let Some(name) = name else { continue };
        if all.insert(name, addresses).is_some() {
            findings.refuse(&field, format!("must not repeat the director '{node}'"));
        }
    }
    let missing = nodes.filter(|_| !given.is_empty()).unwrap_or_default();
    for node in missing.iter().filter(|node| !all.contains_key(node)) {
        let reason = format!("must name every director, so '{node}' too");
        findings.refuse(field, reason);
    }
    (!given.is_empty()).then_some(all)
}

/// The addresses of one director. `seen` are those of the directors before it.
fn unicast_addresses(
    field: &str,
    given: &[String],
    seen: &mut BTreeSet<IpAddr>,
    findings: &mut Findings,
) -> BTreeSet<IpAddr> {
    let is_own = |address: &IpAddr| match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => true,
        IpAddr::V4(_) | IpAddr::V6(_) => is_usable_unicast(*address),
    };
    let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
    for (i, text) in given.iter().enumerate() {
        let field = format_args!("{field}[{i}]");
        let Some(address) = text.parse().ok().filter(is_own) else {
            let reason = format!("must be an address, such as 192.168.220.11, not '{text}'");
            findings.refuse(field, reason);
            continue;
        };
        let family = Family::of(address);
        if addresses.iter().any(|other| Family::of(*other) == family) {
            findings.refuse(field, format!("must not be a second {family} address"));
        } else if !seen.insert(address) {
            let reason = format!("must not be {address}, which another director has");
            findings.refuse(field, reason);
        } else {
            addresses.insert(address);
        }
    }
    if given.is_empty() {
        findings.refuse(field, "must hold an address");
    }
    addresses
}

/// The director with this name, which the group must name.
fn named(
    name: &str,
    nodes: &[NodeName],
    field: fmt::Arguments<'_>,
    findings: &mut Findings,
) -> Option<NodeName> {
    let found = nodes.iter().find(|known| known.as_str() == name);
    if found.is_none() {
        let reason = format!("must be one of `spec.nodes.names`, not '{name}'");
        findings.refuse(field, reason);
    }
    found.cloned()
}

/// The first id and the number of the virtual routers.
fn virtual_routers(
    group: &str,
    spec: &DirectorGroupSpec,
    (first, count): (Option<i64>, i64),
    findings: &mut Findings,
) -> Option<(u8, u8)> {
    let field = "spec.failover.virtualRouterId";
    let first = first.map_or_else(
        || Some(default_router_id(group)),
        |id| findings.number(field, id, 1..=255),
    );
    let of_count = "spec.failover.routers";
    let count: Option<u8> = findings.number(of_count, count, 1..=MOST_ROUTERS.into());
    if count.is_some_and(|count| count > 1) && !spec.gateways.is_empty() {
        let reason = "must be 1 with `gateways`, which move with all VIPs of their family";
        findings.refuse(of_count, reason);
    }
    let (first, count) = first.zip(count)?;
    check_ids(field, first, count, findings);
    Some((first, count))
}

/// The priority of each director.
fn priorities(
    given: &[DirectorPriority],
    nodes: &[NodeName],
    findings: &mut Findings,
) -> BTreeMap<NodeName, u8> {
    let all = nodes.iter().map(|node| (node.clone(), DEFAULT_PRIORITY));
    let mut all: BTreeMap<NodeName, u8> = all.collect();
    for (i, DirectorPriority { node, priority }) in given.iter().enumerate() {
        let field = format!("spec.failover.priorities[{i}]");
        let named = named(node, nodes, format_args!("{field}.node"), findings);
        let priority = findings.number(format_args!("{field}.priority"), *priority, 1..=254);
        all.extend(named.zip(priority));
    }
    all
}

/// Checks that all routers of a group have an id, from the first one on.
fn check_ids(field: &str, first: u8, routers: u8, findings: &mut Findings) {
    let highest = u8::MAX - routers.saturating_sub(1);
    if first > highest {
        let reason = format!(
            "must be given and at most {highest}, not {first}: {routers} `routers` have consecutive ids up to 255"
        );
        findings.refuse(field, reason);
    }
}

/// The virtual router id of a group that gives none, unless another group has it: made from its name, so that all directors find the
/// same.
#[must_use]
pub fn default_router_id(group: &str) -> u8 {
    u8::try_from(fnv_1a(group) % 255 + 1).unwrap_or(1)
}
