//! Real servers.

use std::{collections::BTreeMap, net::IpAddr};

use lvs_model::{Family, RealServer, ServerPorts, Share, spread};

use super::{
    address::address,
    backend::{Context, Group, LIST, is_carried, weight},
    findings::Findings,
    service_backend::service_backend,
};
use crate::{Backend, Forwarding, Port, VirtualServiceSpec, convert::Gap};

const MAX_BACKENDS: usize = 1000;
/// The number of real servers of a virtual service, above which endpoints are left out.
const MAX_REAL_SERVERS: usize = 10_000;

/// Reads the real servers, and what is left out.
///
/// - A backend is a machine or a Service.
/// - Each address is that of a host, and not a VIP of the service.
/// - NAT and DR need real servers of a VIP's family; TUN carries either family in either.
/// - A port other than the service's needs NAT, and only one service port that it can belong to.
/// - No two machines with the same address and port, no Service twice, and no address with two forwarding methods.
pub(super) fn real_servers(
    context: &Context<'_>,
    findings: &mut Findings,
) -> (Vec<RealServer>, Vec<Gap>) {
    let backends = &context.spec.backends;
    let count = backends.len();
    if count > MAX_BACKENDS {
        findings.refuse(
            LIST,
            format!("must not hold more than {MAX_BACKENDS} backends, not '{count}'"),
        );
        return (Vec::new(), Vec::new());
    }
    let mut gaps = Vec::new();
    let mut groups = Vec::with_capacity(count);
    let mut taken = Taken::default();
    for (i, backend) in backends.iter().enumerate() {
        let group = match (&backend.address, &backend.service) {
            (Some(address), None) => machine(context, i, backend, address, findings)
                .filter(|server| taken.is_new(i, server, findings))
                .map(|server| Group {
                    share: Share::Machine(server.weight),
                    servers: vec![(server, true)],
                }),
            (None, Some(service)) if taken.is_new_service(i, &service.name, findings) => {
                service_backend(context, i, &service.name, findings, &mut gaps)
            }
            (None, Some(_)) => None,
            (Some(_), Some(_)) | (None, None) => {
                let reason = "must have either `address` or `service`, and not both";
                findings.refuse(format_args!("{LIST}[{i}]"), reason);
                None
            }
        };
        groups.extend(group);
    }
    (united(groups, &taken.methods, &mut gaps), gaps)
}

/// Returns the real servers of all backends with their weights.
///
/// A machine takes precedence over an endpoint with its address. An endpoint of two Services gets the sum of its weights.
fn united(
    mut groups: Vec<Group>,
    machines: &BTreeMap<IpAddr, (lvs_model::Forwarding, usize)>,
    gaps: &mut Vec<Gap>,
) -> Vec<RealServer> {
    for group in &mut groups {
        if let Share::Service { endpoints, .. } = &mut group.share {
            let servers = &mut group.servers;
            servers.retain(|(server, _)| !machines.contains_key(&server.address));
            *endpoints = servers.iter().filter(|(_, takes_new)| *takes_new).count();
        }
    }
    let shares: Vec<Share> = groups.iter().map(|group| group.share).collect();
    let count: usize = groups.iter().map(|group| group.servers.len()).sum();
    let mut servers: Vec<RealServer> = Vec::with_capacity(count.min(MAX_REAL_SERVERS));
    let mut known: BTreeMap<(IpAddr, ServerPorts), usize> = BTreeMap::new();
    let mut surplus = 0;
    for (group, weight) in groups.into_iter().zip(spread(&shares)) {
        for (mut server, takes_new) in group.servers {
            server.weight = if takes_new { weight } else { 0 };
            let key = (server.address, server.ports.clone());
            if let Some(same) = known.get(&key).and_then(|at| servers.get_mut(*at)) {
                same.weight = (same.weight + server.weight).min(65_535);
            } else if servers.len() == MAX_REAL_SERVERS {
                surplus += 1;
            } else {
                known.insert(key, servers.len());
                servers.push(server);
            }
        }
    }
    if surplus > 0 {
        gaps.push(Gap::Surplus {
            limit: MAX_REAL_SERVERS,
            count: surplus,
        });
    }
    servers
}

/// The backends so far, to find repetitions.
#[derive(Default)]
struct Taken<'a> {
    machines: BTreeMap<(IpAddr, ServerPorts), usize>,
    methods: BTreeMap<IpAddr, (lvs_model::Forwarding, usize)>,
    services: BTreeMap<&'a str, usize>,
}

impl<'a> Taken<'a> {
    fn is_new(&mut self, i: usize, server: &RealServer, findings: &mut Findings) -> bool {
        let key = (server.address, server.ports.clone());
        if let Some(first) = self.machines.get(&key) {
            refuse_repetition(i, *first, findings);
            return false;
        }
        self.machines.insert(key, i);
        let (method, first) = *self
            .methods
            .entry(server.address)
            .or_insert((server.forwarding, i));
        if method != server.forwarding {
            findings.refuse(
                format_args!("{LIST}[{i}].forwarding"),
                format!("must be that of `{LIST}[{first}]`, which has the same address"),
            );
        }
        true
    }

    fn is_new_service(&mut self, i: usize, name: &'a str, findings: &mut Findings) -> bool {
        let first = *self.services.entry(name).or_insert(i);
        if first != i {
            refuse_repetition(i, first, findings);
        }
        first == i
    }
}

fn refuse_repetition(i: usize, first: usize, findings: &mut Findings) {
    findings.refuse(
        format_args!("{LIST}[{i}]"),
        format!("must not repeat `{LIST}[{first}]`"),
    );
}

fn machine(
    context: &Context<'_>,
    i: usize,
    backend: &Backend,
    text: &str,
    findings: &mut Findings,
) -> Option<RealServer> {
    let address = address(findings, format_args!("{LIST}[{i}].address"), text);
    let method = backend.forwarding.unwrap_or(context.spec.forwarding);
    if let Some(reason) = address.and_then(|address| unreachable_reason(context, method, address)) {
        findings.refuse(format_args!("{LIST}[{i}].address"), reason);
    }
    let ports = ports(context.spec, i, backend, findings);
    let weight = weight(i, backend, findings);
    let (upper, lower) = thresholds(i, backend, findings);
    Some(RealServer {
        address: address?,
        ports: ports?,
        weight: weight?,
        upper_threshold: upper?,
        lower_threshold: lower?,
        forwarding: context.methods.of(method),
        service: None,
    })
}

/// Returns why packets to the VIPs can never reach a real server with this address.
fn unreachable_reason(
    context: &Context<'_>,
    method: Forwarding,
    address: IpAddr,
) -> Option<String> {
    if context.vips.contains(&address) {
        return Some(format!("must not be the VIP '{address}'"));
    }
    if is_carried(context.vips, method, address) {
        return None;
    }
    let family = Family::of(address);
    Some(format!(
        "must be of a VIP's family: '{address}' is {family} and no VIP is, and only TUN mixes families"
    ))
}

/// Returns the port of a machine for each port of the service.
fn ports(
    spec: &VirtualServiceSpec,
    i: usize,
    backend: &Backend,
    findings: &mut Findings,
) -> Option<ServerPorts> {
    let is_nat = backend.forwarding.unwrap_or(spec.forwarding) == Forwarding::Nat;
    let Some(value) = backend.port else {
        let ports = spec.ports.iter();
        return Some(ports.map(|port| target_port(port, is_nat)).collect());
    };
    let field = format_args!("{LIST}[{i}].port");
    let port = findings.port(field, value)?;
    let reason = match spec.ports.as_slice() {
        [] | [_] if is_nat => return Some(ServerPorts::from_iter([port])),
        [only] if only.port == value => return Some(ServerPorts::from_iter([port])),
        [] => "must not be set with `spec.fwmark`: only NAT changes the port".to_owned(),
        [only] => format!(
            "must not differ from the service's port '{}': only NAT changes the port",
            only.port
        ),
        [..] => "must not be set when the service has several ports".to_owned(),
    };
    findings.refuse(format_args!("{LIST}[{i}].port"), reason);
    None
}

/// Returns the port of the real servers for a port of the service: with NAT its target port. One that is out of range is
/// refused elsewhere.
fn target_port(port: &Port, is_nat: bool) -> u16 {
    let target = port.target_port.filter(|_| is_nat).unwrap_or(port.port);
    u16::try_from(target).unwrap_or_default()
}

fn thresholds(i: usize, backend: &Backend, findings: &mut Findings) -> (Option<u32>, Option<u32>) {
    let (upper, lower) = (backend.upper_threshold, backend.lower_threshold);
    if lower > upper {
        let reason = if upper == 0 {
            "must not be set without `upperThreshold`".to_owned()
        } else {
            format!("must not be greater than `upperThreshold`: '{lower}' is more than '{upper}'")
        };
        findings.refuse(format_args!("{LIST}[{i}].lowerThreshold"), reason);
    }
    let mut number =
        |name: &str, value| findings.number(format_args!("{LIST}[{i}].{name}"), value, 0..=65535);
    (
        number("upperThreshold", upper),
        number("lowerThreshold", lower),
    )
}
