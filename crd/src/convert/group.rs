//! Director groups.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    str::FromStr,
};

use ipnet::IpNet;
use lvs_model::{
    DEFAULT_SYNC_GROUP, Family, GroupName, NodeName, ObjectRef, Rejection, SyncSettings,
    default_sync_length, is_usable_unicast,
};

use super::findings::Findings;
use crate::{
    ConnectionSync, Connections, DirectorGroup, DirectorGroupSpec, DirectorPriority, Failover,
    GroupMembership, MemberFailover, Namespaces, Timeouts, UnicastDirector,
    director_binding::fnv_1a,
};

/// The kernel multiplies the seconds by HZ, at most 1000, in 31 bits.
const MAX_TIMEOUT_SECONDS: i64 = 2_147_483;

/// Converts a DirectorGroup.
///
/// # Errors
/// Every violation, in the order of the fields.
pub fn director_group(
    object: &DirectorGroup,
) -> Result<(GroupName, lvs_model::DirectorGroup), Vec<Rejection>> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let identity = GroupName::from_str(name);
    let mut findings = match &identity {
        Ok(name) => Findings::of(ObjectRef::DirectorGroup(name.clone())),
        Err(_) => Findings::of_unnamed(format!("DirectorGroup {name}")),
    };
    let identity = findings.take("metadata.name", identity);
    if object.spec.nodes.selector.is_some() {
        let reason = "needs Kubernetes: without it, `spec.nodes.names` must name the director";
        findings.refuse("spec.nodes.selector", reason);
    }
    let nodes = nodes(&object.spec.nodes.names, &mut findings);
    tenancy(&object.spec, &mut findings);
    let interface = object.spec.interface.as_deref();
    let interface = interface.map(|name| findings.take("spec.interface", name.parse()));
    let timeouts = object
        .spec
        .timeouts
        .as_ref()
        .map(|timeouts| self::timeouts("spec.timeouts", timeouts, &mut findings));
    let failover = failover(name, &object.spec, &nodes, &mut findings);
    let gateways = gateways("spec.gateways", &object.spec.gateways, &mut findings);
    let sync = object.spec.connection_sync.as_ref();
    let sync = connection_sync("spec.connectionSync", sync, &mut findings);
    match (findings.finish(), identity) {
        (Ok(()), Some(identity)) => {
            let (interface, timeouts) = (interface.flatten(), timeouts.flatten());
            let connection_sync = sync.unwrap_or_default();
            Ok((
                identity,
                lvs_model::DirectorGroup {
                    nodes,
                    interface,
                    gateways,
                    failover,
                    connection_sync,
                    timeouts,
                },
            ))
        }
        (rejections, _) => Err(rejections.err().unwrap_or_default()),
    }
}

/// Converts an entry of `spec.groups` of an LvsNode: a group that the machine directs for.
pub(super) fn membership(
    node: &NodeName,
    i: usize,
    membership: &GroupMembership,
) -> Result<(GroupName, lvs_model::DirectorGroup), Vec<Rejection>> {
    let mut findings = Findings::of(ObjectRef::LvsNode(node.clone()));
    let field = format!("spec.groups[{i}]");
    let name = findings.take(format_args!("{field}.name"), membership.name.parse());
    let interface = membership.interface.as_deref();
    let interface =
        interface.map(|name| findings.take(format_args!("{field}.interface"), name.parse()));
    let timeouts = membership
        .timeouts
        .as_ref()
        .map(|given| timeouts(&format!("{field}.timeouts"), given, &mut findings));
    let failover = membership.failover.as_ref();
    let failover = failover
        .map(|given| failover_of_member(&format!("{field}.failover"), node, given, &mut findings));
    let gateways = gateways(
        &format!("{field}.gateways"),
        &membership.gateways,
        &mut findings,
    );
    let sync = membership.connection_sync.as_ref();
    let sync = connection_sync(&format!("{field}.connectionSync"), sync, &mut findings);
    let group = lvs_model::DirectorGroup {
        nodes: vec![node.clone()],
        interface: interface.flatten(),
        gateways,
        failover: failover.flatten(),
        connection_sync: sync.unwrap_or_default(),
        timeouts: timeouts.flatten(),
    };
    match (findings.finish(), name) {
        (Ok(()), Some(name)) => Ok((name, group)),
        (rejections, _) => Err(rejections.err().unwrap_or_default()),
    }
}

/// The part of one director in how its group agrees who holds the VIPs. Its router id and whether it is on standby depend on other
/// objects too.
#[must_use]
pub fn member_failover(
    group: &DirectorGroup,
    node: &NodeName,
    virtual_router_id: i64,
) -> MemberFailover {
    let failover = group.spec.failover.clone().unwrap_or_default();
    let mut priorities = failover.priorities.iter();
    let priority = priorities.find(|priority| priority.node == node.as_str());
    MemberFailover {
        virtual_router_id,
        advertisement_milliseconds: failover.advertisement_milliseconds,
        preempt_after_seconds: failover.preempt_after_seconds,
        priority: priority.map_or_else(
            || lvs_model::DEFAULT_PRIORITY.into(),
            |priority| priority.priority,
        ),
        standby: false,
        unicast: failover.unicast,
        keep_seconds: (failover.connections == Connections::Keep).then_some(failover.keep_seconds),
    }
}

fn failover_of_member(
    field: &str,
    node: &NodeName,
    given: &MemberFailover,
    findings: &mut Findings,
) -> Option<lvs_model::Failover> {
    let mut number = |name: &str, value, range| {
        findings.number::<u32>(format_args!("{field}.{name}"), value, range)
    };
    let router_id = number("virtualRouterId", given.virtual_router_id, 1..=255);
    let milliseconds = number(
        "advertisementMilliseconds",
        given.advertisement_milliseconds,
        10..=40_950,
    );
    let preempt_after = given
        .preempt_after_seconds
        .map(|seconds| number("preemptAfterSeconds", seconds, 0..=86_400));
    let priority = number("priority", given.priority, 1..=254);
    let keep_seconds = given
        .keep_seconds
        .map(|seconds| number("keepSeconds", seconds, 1..=86_400));
    let unicast = unicast(&format!("{field}.unicast"), &given.unicast, None, findings);
    Some(lvs_model::Failover {
        router_id: router_id?.try_into().ok()?,
        interval: (milliseconds? / 10).try_into().ok()?,
        preempt_after: preempt_after.flatten(),
        priorities: BTreeMap::from([(node.clone(), priority?.try_into().ok()?)]),
        standby: given.standby.then(|| node.clone()).into_iter().collect(),
        unicast,
        keep_seconds: keep_seconds.flatten(),
    })
}

/// How the directors agree who holds the VIPs; `None` if there is one director.
fn failover(
    group: &str,
    spec: &DirectorGroupSpec,
    nodes: &[NodeName],
    findings: &mut Findings,
) -> Option<lvs_model::Failover> {
    let Failover {
        virtual_router_id,
        advertisement_milliseconds,
        preempt_after_seconds,
        priorities,
        standby,
        unicast,
        connections,
        keep_seconds,
    } = spec.failover.clone().unwrap_or_default();
    let router_id = virtual_router_id.map_or_else(
        || Some(default_router_id(group)),
        |id| findings.number("spec.failover.virtualRouterId", id, 1..=255),
    );
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
    let mut of_nodes = BTreeMap::new();
    for (i, DirectorPriority { node, priority }) in priorities.iter().enumerate() {
        let field = format!("spec.failover.priorities[{i}]");
        let named = named(node, nodes, format_args!("{field}.node"), findings);
        let priority = findings.number(format_args!("{field}.priority"), *priority, 1..=254);
        of_nodes.extend(named.zip(priority));
    }
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
    (nodes.len() > 1).then_some(lvs_model::Failover {
        router_id: router_id?,
        interval: milliseconds? / 10,
        preempt_after: preempt_after.flatten(),
        priorities: of_nodes,
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

/// The virtual router id of a group that gives none, unless another group has it: made from its name, so that all directors find the
/// same.
#[must_use]
pub fn default_router_id(group: &str) -> u8 {
    u8::try_from(fnv_1a(group) % 255 + 1).unwrap_or(1)
}

/// Checks what the namespaces of a cluster may name. Files may name anything.
fn tenancy(spec: &DirectorGroupSpec, findings: &mut Findings) {
    if let Some(servers) = &spec.real_servers {
        for (i, network) in servers.cidrs.iter().enumerate() {
            let field = format_args!("spec.realServers.cidrs[{i}]");
            if network.parse::<IpNet>().is_err() || !network.contains('/') {
                findings.refuse(field, format!("must be a network, not '{network}'"));
            }
        }
        let set = servers.namespaces.as_ref();
        namespaces("spec.realServers.namespaces", set, findings);
    }
    for (i, range) in spec.fwmarks.iter().enumerate() {
        let field = format!("spec.fwmarks[{i}]");
        let mut mark = |name: &str, value| {
            findings.number::<u32>(
                format_args!("{field}.{name}"),
                value,
                1..=i64::from(u32::MAX),
            )
        };
        let (from, to) = (mark("from", range.from), mark("to", range.to));
        if from.zip(to).is_some_and(|(from, to)| from > to) {
            findings.refuse(
                format_args!("{field}.from"),
                "must not be greater than `to`",
            );
        }
        let set = range.namespaces.as_ref();
        namespaces(&format!("{field}.namespaces"), set, findings);
    }
}

/// Checks a set of namespaces.
pub(super) fn namespaces(field: &str, set: Option<&Namespaces>, findings: &mut Findings) {
    if set.is_some_and(|set| set.names.is_empty() && set.selector.is_none()) {
        findings.refuse(field, "must hold `names` or a `selector`");
    }
}

/// Reads the names.
fn nodes(names: &[String], findings: &mut Findings) -> Vec<NodeName> {
    let list = "spec.nodes.names";
    if names.is_empty() {
        findings.refuse(list, "must hold the name of a node");
    }
    let (mut nodes, mut seen) = (Vec::new(), BTreeSet::new());
    for (i, name) in names.iter().enumerate() {
        let field = format_args!("{list}[{i}]");
        if !seen.insert(name) {
            findings.refuse(field, format!("must not repeat '{name}'"));
        } else {
            nodes.extend(findings.take::<NodeName, _>(field, name.parse()));
        }
    }
    nodes
}

fn gateways(field: &str, given: &[String], findings: &mut Findings) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for (i, gateway) in given.iter().enumerate() {
        match gateway.parse() {
            Ok(address) if is_usable_unicast(address) => addresses.push(address),
            Ok(_) | Err(_) => findings.refuse(
                format_args!("{field}[{i}]"),
                format!("must be an address, such as 192.168.100.1, not '{gateway}'"),
            ),
        }
    }
    addresses
}

/// How the directors tell each other their connections.
fn connection_sync(
    field: &str,
    given: Option<&ConnectionSync>,
    findings: &mut Findings,
) -> Option<lvs_model::ConnectionSync> {
    let ConnectionSync {
        interface,
        sync_id,
        max_message_bytes,
        multicast_group,
        port,
        ttl,
    } = given.cloned().unwrap_or_default();
    let interface =
        interface.map(|name| findings.take(format_args!("{field}.interface"), name.parse()));
    let sync_id = findings.number(format_args!("{field}.syncId"), sync_id, 0..=255);
    let group = multicast_group.map_or(Some(DEFAULT_SYNC_GROUP), |group| {
        let address: Option<IpAddr> = group.parse().ok();
        let address = address.filter(IpAddr::is_multicast);
        if address.is_none() {
            let reason = format!("must be a multicast address, such as 224.0.0.81, not '{group}'");
            findings.refuse(format_args!("{field}.multicastGroup"), reason);
        }
        address
    });
    let max_length = max_message_bytes.map_or_else(
        || group.map(default_sync_length),
        |bytes| {
            findings.number(
                format_args!("{field}.maxMessageBytes"),
                bytes,
                1024..=65_487,
            )
        },
    );
    let port = findings.number(format_args!("{field}.port"), port, 1..=65_535);
    let ttl = findings.number(format_args!("{field}.ttl"), ttl, 1..=255);
    Some(lvs_model::ConnectionSync {
        interface: interface.flatten(),
        settings: SyncSettings {
            sync_id: sync_id?,
            max_length: max_length?,
            group: group?,
            port: port?,
            ttl: ttl?,
        },
    })
}

fn timeouts(
    field: &str,
    timeouts: &Timeouts,
    findings: &mut Findings,
) -> Option<lvs_model::Timeouts> {
    let mut seconds = |name: &str, value| {
        findings.number(
            format_args!("{field}.{name}"),
            value,
            1..=MAX_TIMEOUT_SECONDS,
        )
    };
    let tcp = seconds("tcpSeconds", timeouts.tcp_seconds);
    let tcp_fin = seconds("tcpFinSeconds", timeouts.tcp_fin_seconds);
    let udp = seconds("udpSeconds", timeouts.udp_seconds);
    Some(lvs_model::Timeouts {
        tcp_seconds: tcp?,
        tcp_fin_seconds: tcp_fin?,
        udp_seconds: udp?,
    })
}
