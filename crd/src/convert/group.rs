//! Director groups.

use std::{collections::BTreeSet, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use lvs_model::{
    DEFAULT_SYNC_GROUP, GroupName, NodeName, ObjectRef, Rejection, SyncSettings,
    default_sync_length, is_usable_unicast,
};

use super::{
    failover::{failover, failover_of_member},
    findings::Findings,
};
use crate::{
    ConnectionSync, DirectorGroup, DirectorGroupSpec, GroupMembership, Namespaces, Timeouts,
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
    let routers = membership.failover.as_ref();
    let routers = routers.map_or(1, |failover| failover.priorities.len());
    if routers > 1 && !gateways.is_empty() {
        let field = format_args!("{field}.gateways");
        findings.refuse(field, "must be empty with several virtual routers");
    }
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
