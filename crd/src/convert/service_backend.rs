//! The real servers of a backend that is a Service.

use std::{net::IpAddr, sync::Arc};

use lvs_model::{RealServer, ServerPorts, Share, is_usable_unicast};

use super::{
    Gap,
    backend::{Context, Group, is_carried, weight},
    endpoint_slices::{Endpoints, Found, endpoints},
    findings::Findings,
    kube_services::{KubeService, KubeServices},
};
use crate::{Backend, Forwarding, ReturnPath};

/// Why an endpoint that is no pod cannot be a real server.
const NOT_PERMITTED: &str =
    "is no pod, and not in `spec.realServers` of the DirectorGroup for the namespace";

/// Why a pod is left out.
const POD_NOT_CARRIED: &str =
    "is a pod with an address of its own, which needs NAT with `returnPath: Masquerade`";

/// Reads the endpoints of a Service. What cannot be a real server is left out by itself.
///
/// While the Service or a port of it is missing, the real servers that the directors have of it stay.
pub(super) fn service_backend(
    context: &Context<'_>,
    i: usize,
    name: &str,
    findings: &mut Findings,
    gaps: &mut Vec<Gap>,
) -> Option<Group> {
    let backend = context.spec.backends.get(i)?;
    refuse_fields_of_machines(i, backend, findings);
    let weight = weight(i, backend, findings);
    let Some(cluster) = context.services else {
        let reason = "needs Kubernetes: without it, a backend must have an `address`";
        findings.refuse(format_args!("spec.backends[{i}].service"), reason);
        return None;
    };
    let service = cluster.services.get(name);
    match service.map(|service| service.spec) {
        Some(Some(spec)) if spec.is_external_name => {
            gaps.push(Gap::ExternalName(name.to_owned()));
            return None;
        }
        Some(Some(_)) => {}
        Some(None) | None => gaps.push(Gap::ServiceNotFound(name.to_owned())),
    }
    let method = backend.forwarding.unwrap_or(context.spec.forwarding);
    let all = service.map(|service| endpoints(name, &context.spec.ports, service));
    let mut all = all.unwrap_or_default();
    gaps.append(&mut all.gaps);
    let is_unknown = service.is_none_or(KubeService::is_unknown)
        || all.found.is_empty() && gaps.iter().any(|gap| gap.is_missing(name));
    let kept = is_unknown.then(|| kept_servers(context, cluster, name));
    let kept = kept.filter(|kept| !kept.is_empty());
    let servers = kept.unwrap_or_else(|| {
        let backend = ServiceBackend { name, method };
        usable_endpoints(context, cluster, &backend, all, gaps)
    });
    Some(Group {
        share: Share::Service {
            weight: weight?,
            endpoints: servers.len(),
        },
        servers,
    })
}

/// A backend that is a Service.
struct ServiceBackend<'a> {
    name: &'a str,
    method: Forwarding,
}

/// Returns the endpoints that can be real servers, and whether each takes new connections. Pods that cannot are left out; if
/// nothing else is there, that is a fault of the spec.
fn usable_endpoints(
    context: &Context<'_>,
    cluster: &KubeServices<'_>,
    backend: &ServiceBackend<'_>,
    all: Endpoints<'_>,
    gaps: &mut Vec<Gap>,
) -> Vec<(RealServer, bool)> {
    let ServiceBackend { name, method } = *backend;
    let taking = all.taking();
    let service: Arc<str> = name.into();
    let mut servers = Vec::with_capacity(all.found.len());
    let mut others = 0;
    let mut pods: Option<Gap> = None;
    for ((address, ports), found) in all.found {
        if !is_carried(context.vips, method, address) {
            others += 1;
            continue;
        }
        let forwarding = context.methods.of(method);
        let server = unweighted(address, ports, forwarding, &service);
        let pod_gap = pod_gap(context, cluster, backend, (&server, found));
        let is_permitted = found.is_pod || (cluster.may_name)(address);
        let reason = reason(context, cluster, method, &server);
        let reason = reason.or((!is_permitted).then_some(NOT_PERMITTED));
        let reason = reason.or(pod_gap.as_ref().map(|_| POD_NOT_CARRIED));
        pods = pods.or(pod_gap);
        if let Some(reason) = reason {
            gaps.push(Gap::Endpoint {
                slice: found.slice.to_owned(),
                address: address.to_string(),
                reason,
            });
            continue;
        }
        servers.push((server, found.state >= taking));
    }
    if others > 0 {
        gaps.push(Gap::OtherFamily {
            service: name.to_owned(),
            count: others,
        });
    }
    gaps.extend(pods.filter(|_| servers.is_empty()));
    servers
}

/// Returns the real servers that the directors have of a Service, and whether each takes new connections. The weight of a
/// machine that answers for the VIP follows its agent.
fn kept_servers(
    context: &Context<'_>,
    cluster: &KubeServices<'_>,
    name: &str,
) -> Vec<(RealServer, bool)> {
    let service: Arc<str> = name.into();
    let vip_ports: Vec<i64> = context.spec.ports.iter().map(|port| port.port).collect();
    let bound = (cluster.bound)(name);
    let servers = bound.iter().filter_map(|bound| {
        let method = bound.forwarding.unwrap_or(context.spec.forwarding);
        let ports = if bound.ports.is_empty() {
            &vip_ports
        } else {
            &bound.ports
        };
        let ports = ports.iter().map(|port| u16::try_from(*port));
        let ports = ports.collect::<Result<ServerPorts, _>>().ok()?;
        if context.spec.fwmark.is_none() && ports.len() != vip_ports.len() {
            return None;
        }
        let address = bound.address.parse().ok()?;
        let server = unweighted(address, ports, context.methods.of(method), &service);
        let follows_agent = method != Forwarding::Nat;
        Some((server, bound.weight > 0 || follows_agent))
    });
    servers.collect()
}

/// A real server whose weight is its share of the backend's.
fn unweighted(
    address: IpAddr,
    ports: ServerPorts,
    forwarding: lvs_model::Forwarding,
    service: &Arc<str>,
) -> RealServer {
    RealServer {
        address,
        ports,
        weight: 0,
        upper_threshold: 0,
        lower_threshold: 0,
        forwarding,
        service: Some(Arc::clone(service)),
    }
}

fn refuse_fields_of_machines(i: usize, backend: &Backend, findings: &mut Findings) {
    let fields = [
        ("port", backend.port.is_some()),
        ("upperThreshold", backend.upper_threshold != 0),
        ("lowerThreshold", backend.lower_threshold != 0),
    ];
    for (field, _) in fields.into_iter().filter(|(_, is_set)| *is_set) {
        findings.refuse(
            format_args!("spec.backends[{i}].{field}"),
            "must not be set with `service`",
        );
    }
}

/// Returns why an endpoint cannot be a real server.
fn reason(
    context: &Context<'_>,
    cluster: &KubeServices<'_>,
    method: Forwarding,
    server: &RealServer,
) -> Option<&'static str> {
    let address = server.address;
    let is_own = |text: &String| text.parse() == Ok(address);
    let gateways = context.spec.nat.iter().flat_map(|nat| &nat.gateways);
    let ports = context.spec.ports.iter().map(|port| port.port);
    if context.vips.contains(&address) {
        Some("is a VIP of the service")
    } else if cluster.directors.contains(&address) || gateways.into_iter().any(is_own) {
        Some("is an address of a director")
    } else if !is_usable_unicast(address) {
        Some("is not the unicast address of a host")
    } else if method != Forwarding::Nat && !ports.eq(server.ports.iter().copied().map(i64::from)) {
        Some("has another port than the VIP, and only NAT changes the port")
    } else {
        None
    }
}

/// Returns why a pod cannot be a real server: nothing in it is set up for DR or TUN, or for the way back of NAT. A pod on
/// the network of its machine is as good as the machine, which has an agent.
fn pod_gap(
    context: &Context<'_>,
    cluster: &KubeServices<'_>,
    backend: &ServiceBackend<'_>,
    (server, found): (&RealServer, Found<'_>),
) -> Option<Gap> {
    let service = backend.name;
    if !found.is_pod || cluster.machines.contains_key(&server.address) {
        return None;
    }
    let nat = context.spec.nat.as_ref();
    let is_masqueraded = nat.is_some_and(|nat| nat.return_path == ReturnPath::Masquerade);
    match backend.method {
        Forwarding::Dr | Forwarding::Tun => Some(Gap::PodsNeedNat(service.to_owned())),
        Forwarding::Nat if is_masqueraded => None,
        Forwarding::Nat => Some(Gap::PodsNeedMasquerade(service.to_owned())),
    }
}
