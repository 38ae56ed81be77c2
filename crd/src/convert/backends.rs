//! Real servers.

use std::{collections::BTreeMap, net::IpAddr};

use lvs_model::{Family, RealServer};

use super::{address::address, findings::Findings};
use crate::{Endpoint, Forwarding, VirtualServiceSpec};

const MAX_ENDPOINTS: usize = 1000;
const LIST: &str = "spec.backends.endpoints";

/// Reads the real servers.
///
/// - Each address is that of a host, and not a VIP of the service.
/// - NAT and DR need real servers of a VIP's family; TUN carries either family in either.
/// - A port other than the service's needs NAT, and only one service port that it can belong to.
/// - No two real servers with the same address and port.
pub(super) fn real_servers(
    spec: &VirtualServiceSpec,
    vips: &[IpAddr],
    findings: &mut Findings,
) -> Vec<RealServer> {
    if spec.backends.service.is_some() {
        let reason = format!("needs Kubernetes: without it, `{LIST}` must list the real servers");
        findings.refuse("spec.backends.service", reason);
    }
    let count = spec.backends.endpoints.len();
    if count > MAX_ENDPOINTS {
        findings.refuse(
            LIST,
            format!("must not hold more than {MAX_ENDPOINTS} endpoints, not '{count}'"),
        );
        return Vec::new();
    }
    let mut taken = BTreeMap::new();
    let mut servers = Vec::with_capacity(count);
    for (i, endpoint) in spec.backends.endpoints.iter().enumerate() {
        let Some(server) = real_server(spec, vips, i, endpoint, findings) else {
            continue;
        };
        let key = (server.address, server.port);
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
    spec: &VirtualServiceSpec,
    vips: &[IpAddr],
    i: usize,
    endpoint: &Endpoint,
    findings: &mut Findings,
) -> Option<RealServer> {
    let address = address(
        findings,
        format_args!("{LIST}[{i}].address"),
        &endpoint.address,
    );
    if let Some(reason) = address.and_then(|address| unreachable_reason(spec, vips, address)) {
        findings.refuse(format_args!("{LIST}[{i}].address"), reason);
    }
    let port = port(spec, i, endpoint, findings);
    let weight = findings.number(
        format_args!("{LIST}[{i}].weight"),
        endpoint.weight,
        0..=65535,
    );
    let (upper, lower) = thresholds(i, endpoint, findings);
    Some(RealServer {
        address: address?,
        port: port?,
        weight: weight?,
        upper_threshold: upper?,
        lower_threshold: lower?,
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

/// Returns the port; `Some(None)` if it is the service's target port.
fn port(
    spec: &VirtualServiceSpec,
    i: usize,
    endpoint: &Endpoint,
    findings: &mut Findings,
) -> Option<Option<u16>> {
    let Some(value) = endpoint.port else {
        return Some(None);
    };
    let field = format_args!("{LIST}[{i}].port");
    let port = findings.port(field, value)?;
    let nat = spec.forwarding == Forwarding::Nat;
    let target = match spec.ports.as_slice() {
        [] => None,
        [only] if nat => Some(only.target_port.unwrap_or(only.port)),
        [only] => Some(only.port),
        [..] => {
            let reason = "must not be set when the service has several ports";
            findings.refuse(format_args!("{LIST}[{i}].port"), reason);
            return None;
        }
    };
    if !nat && target != Some(value) {
        let reason = target.map_or_else(
            || "must not be set with `spec.fwmark`: only NAT changes the port".to_owned(),
            |target| {
                format!(
                    "must not differ from the service's port '{target}': only NAT changes the port"
                )
            },
        );
        findings.refuse(format_args!("{LIST}[{i}].port"), reason);
        return None;
    }
    Some((target != Some(value)).then_some(port))
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
