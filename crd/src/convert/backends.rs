//! Real servers.

use std::{collections::BTreeMap, net::IpAddr};

use lvs_model::{Family, RealServer};

use super::{address::address, findings::Findings};
use crate::{Endpoint, Forwarding, Port, VirtualServiceSpec};

const MAX_ENDPOINTS: usize = 1000;
const LIST: &str = "spec.backends.endpoints";

/// What the real servers of a virtual service depend on besides their own fields.
pub(super) struct Context<'a> {
    /// The spec.
    pub(super) spec: &'a VirtualServiceSpec,
    /// The VIPs.
    pub(super) vips: &'a [IpAddr],
    /// The forwarding method of the spec.
    pub(super) forwarding: lvs_model::Forwarding,
}

/// Reads the real servers.
///
/// - Each address is that of a host, and not a VIP of the service.
/// - NAT and DR need real servers of a VIP's family; TUN carries either family in either.
/// - A port other than the service's needs NAT, and only one service port that it can belong to.
/// - No two real servers with the same address and port.
pub(super) fn real_servers(context: &Context<'_>, findings: &mut Findings) -> Vec<RealServer> {
    let backends = &context.spec.backends;
    if backends.service.is_some() {
        let reason = format!("needs Kubernetes: without it, `{LIST}` must list the real servers");
        findings.refuse("spec.backends.service", reason);
    }
    let count = backends.endpoints.len();
    if count > MAX_ENDPOINTS {
        findings.refuse(
            LIST,
            format!("must not hold more than {MAX_ENDPOINTS} endpoints, not '{count}'"),
        );
        return Vec::new();
    }
    let mut taken = BTreeMap::new();
    let mut servers = Vec::with_capacity(count);
    for (i, endpoint) in backends.endpoints.iter().enumerate() {
        let Some(server) = real_server(context, i, endpoint, findings) else {
            continue;
        };
        let key = (server.address, server.ports.clone());
        if let Some(first) = taken.get(&key) {
            findings.refuse(
                format_args!("{LIST}[{i}]"),
                format!("must not repeat `{LIST}[{first}]`"),
            );
        } else {
            taken.insert(key, i);
            servers.push(server);
        }
    }
    servers
}

fn real_server(
    context: &Context<'_>,
    i: usize,
    endpoint: &Endpoint,
    findings: &mut Findings,
) -> Option<RealServer> {
    let Context { spec, vips, .. } = context;
    let address = address(
        findings,
        format_args!("{LIST}[{i}].address"),
        &endpoint.address,
    );
    if let Some(reason) = address.and_then(|address| unreachable_reason(spec, vips, address)) {
        findings.refuse(format_args!("{LIST}[{i}].address"), reason);
    }
    let ports = ports(spec, i, endpoint, findings);
    let weight = findings.number(
        format_args!("{LIST}[{i}].weight"),
        endpoint.weight,
        0..=65535,
    );
    let (upper, lower) = thresholds(i, endpoint, findings);
    Some(RealServer {
        address: address?,
        ports: ports?,
        weight: weight?,
        upper_threshold: upper?,
        lower_threshold: lower?,
        forwarding: context.forwarding,
    })
}

/// Returns why packets to the VIPs can never reach a real server with this address.
fn unreachable_reason(
    spec: &VirtualServiceSpec,
    vips: &[IpAddr],
    address: IpAddr,
) -> Option<String> {
    if vips.contains(&address) {
        return Some(format!("must not be the VIP '{address}'"));
    }
    let family = Family::of(address);
    let served = vips.is_empty() || vips.iter().any(|vip| Family::of(*vip) == family);
    if served || spec.forwarding == Forwarding::Tun {
        return None;
    }
    Some(format!(
        "must be of a VIP's family: '{address}' is {family} and no VIP is, and only TUN mixes families"
    ))
}

/// Returns its port for each port of the service.
fn ports(
    spec: &VirtualServiceSpec,
    i: usize,
    endpoint: &Endpoint,
    findings: &mut Findings,
) -> Option<Vec<u16>> {
    let Some(value) = endpoint.port else {
        return Some(spec.ports.iter().map(target_port).collect());
    };
    let field = format_args!("{LIST}[{i}].port");
    let port = findings.port(field, value)?;
    let reason = match spec.ports.as_slice() {
        [] | [_] if spec.forwarding == Forwarding::Nat => return Some(vec![port]),
        [only] if only.port == value => return Some(vec![port]),
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

/// Returns the port of the real servers for a port of the service. One that is out of range is refused elsewhere.
fn target_port(port: &Port) -> u16 {
    let target = port.target_port.unwrap_or(port.port);
    u16::try_from(target).unwrap_or_default()
}

fn thresholds(
    i: usize,
    endpoint: &Endpoint,
    findings: &mut Findings,
) -> (Option<u32>, Option<u32>) {
    let (upper, lower) = (endpoint.upper_threshold, endpoint.lower_threshold);
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
