//! Bindings: a virtual service of the model becomes the specs of its bindings, and these become virtual services again.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lvs_model::{
    Frontend, ObjectName, ObjectRef, RealServer, Rejection, ServerPorts, VirtualService,
};

use super::{address::address, findings::Findings, forwarding, frontend, scheduling};
use crate::{
    BoundPort, BoundServer, DirectorBinding, DirectorBindingSpec, Forwarding, Port,
    RealServerBindingSpec, ServedAddress, VirtualServiceSpec,
};

mod written;

use written::{own_forwarding, own_ports, persistence, scheduler, tunnel};

/// Returns the spec of a DirectorBinding with all real servers. The machine, the name and the generation of the virtual
/// service are empty.
#[must_use]
pub fn director_binding(service: &VirtualService) -> DirectorBindingSpec {
    let (addresses, fwmark, ports) = frontend_of(&service.frontend);
    let real_servers = service.real_servers.iter();
    DirectorBindingSpec {
        director_group: service.group.to_string(),
        addresses,
        fwmark,
        ports,
        forwarding: service.forwarding.into(),
        tunnel: tunnel(service),
        nat: written::nat(&service.nat),
        scheduler: scheduler(&service.scheduler),
        persistence: service.persistence.as_ref().map(persistence),
        one_packet: service.one_packet,
        alone: service.alone,
        real_servers: real_servers
            .map(|server| BoundServer {
                address: server.address.to_string(),
                ports: own_ports(service, server),
                weight: server.weight.into(),
                upper_threshold: server.upper_threshold.into(),
                lower_threshold: server.lower_threshold.into(),
                forwarding: own_forwarding(service, server),
                service: server.service.as_deref().map(str::to_owned),
            })
            .collect(),
        ..DirectorBindingSpec::default()
    }
}

/// Returns the spec of the RealServerBinding of a machine with some of the addresses. Weights, which may change often, do
/// not matter to it. The machine and the name of the virtual service are empty.
#[must_use]
pub fn real_server_binding(service: &VirtualService, own: &[IpAddr]) -> RealServerBindingSpec {
    let (addresses, fwmark, ports) = frontend_of(&service.frontend);
    let real_servers = service.real_servers.iter();
    let real_servers = real_servers.filter(|server| own.contains(&server.address));
    RealServerBindingSpec {
        node: String::new(),
        virtual_service: String::new(),
        addresses,
        fwmark,
        ports,
        forwarding: service.forwarding.into(),
        tunnel: tunnel(service),
        nat: written::nat(&service.nat),
        real_servers: real_servers
            .map(|server| ServedAddress {
                address: server.address.to_string(),
                ports: own_ports(service, server),
                forwarding: own_forwarding(service, server),
            })
            .collect(),
        previous: None,
    }
}

fn frontend_of(frontend: &Frontend) -> (Vec<String>, Option<i64>, Vec<BoundPort>) {
    match frontend {
        Frontend::Addresses { vips, ports } => {
            let ports = ports.iter().map(|port| BoundPort {
                protocol: port.protocol.into(),
                port: port.port.into(),
            });
            let vips = vips.iter().map(ToString::to_string);
            (vips.collect(), None, ports.collect())
        }
        Frontend::Fwmark(mark) => (Vec::new(), Some(mark.get().into()), Vec::new()),
    }
}

/// Converts a DirectorBinding with the real servers of its slices.
///
/// # Errors
/// Every violation, in the order of the fields.
pub(super) fn bound_service(
    object: &DirectorBinding,
    slices: &[&DirectorBinding],
) -> Result<VirtualService, Vec<Rejection>> {
    let DirectorBindingSpec {
        node: _,
        virtual_service,
        generation: _,
        director_group,
        addresses,
        fwmark,
        ports,
        forwarding,
        tunnel,
        nat,
        scheduler,
        persistence,
        one_packet,
        alone,
        real_servers,
        accepted_spec: _,
        slices: _,
        slice: _,
    } = &object.spec;
    let header = VirtualServiceSpec {
        director_group: director_group.clone(),
        addresses: addresses.clone(),
        fwmark: *fwmark,
        ports: ports.iter().map(plain_port).collect(),
        forwarding: *forwarding,
        tunnel: tunnel.clone(),
        nat: nat.clone(),
        scheduler: scheduler.clone(),
        persistence: persistence.clone(),
        one_packet: *one_packet,
        ..VirtualServiceSpec::default()
    };
    let sliced = slices.iter().flat_map(|slice| &slice.spec.real_servers);
    let servers = real_servers.iter().chain(sliced).map(ServerFields::of);
    let mut service = convert(&object.metadata, virtual_service, &header, servers)?;
    if !slices.is_empty() {
        // Slices do not keep the order in which real servers were added.
        service.real_servers.sort_by(RealServer::cmp_key);
    }
    Ok(VirtualService {
        alone: *alone,
        ..service
    })
}

pub(super) fn plain_port(port: &BoundPort) -> Port {
    Port {
        name: None,
        protocol: port.protocol,
        port: port.port,
        target_port: None,
    }
}

/// The fields of a real server in a binding.
pub(super) struct ServerFields<'a> {
    pub address: &'a str,
    pub ports: &'a [i64],
    pub forwarding: Option<Forwarding>,
    /// The weight, the upper and the lower threshold.
    pub numbers: [i64; 3],
    pub service: Option<&'a str>,
}

impl<'a> ServerFields<'a> {
    pub(super) fn of(server: &'a BoundServer) -> Self {
        Self {
            address: &server.address,
            ports: &server.ports,
            forwarding: server.forwarding,
            numbers: [
                server.weight,
                server.upper_threshold,
                server.lower_threshold,
            ],
            service: server.service.as_deref(),
        }
    }
}

/// Converts the fields of a binding: those that a virtual service has too, and its real servers.
pub(super) fn convert<'a>(
    metadata: &ObjectMeta,
    name: &str,
    header: &VirtualServiceSpec,
    servers: impl Iterator<Item = ServerFields<'a>>,
) -> Result<VirtualService, Vec<Rejection>> {
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    let identity = ObjectName::new(namespace, name);
    let mut findings = match &identity {
        Ok(name) => Findings::of(ObjectRef::VirtualService(name.clone())),
        Err(_) => Findings::of_unnamed(format!("VirtualService {namespace}/{name}")),
    };
    findings.take("spec.virtualService", identity);
    let service = service(metadata, header, servers, &mut findings);
    match (findings.finish(), service) {
        (Ok(()), Some(service)) => Ok(service),
        (rejections, _) => Err(rejections.err().unwrap_or_default()),
    }
}

fn service<'a>(
    metadata: &ObjectMeta,
    header: &VirtualServiceSpec,
    servers: impl Iterator<Item = ServerFields<'a>>,
    findings: &mut Findings,
) -> Option<VirtualService> {
    let group = findings.take("spec.directorGroup", header.director_group.parse());
    let vips = frontend::vips(header, findings);
    let frontend = frontend::frontend(header, &vips, findings);
    let forwarding = method(header, header.forwarding, findings);
    let scheduler = scheduling::scheduler(header, findings);
    let persistence = scheduling::persistence(header, findings);
    let (frontend, forwarding) = (frontend?, forwarding?);
    let mut own_methods: Vec<(Forwarding, Option<lvs_model::Forwarding>)> = Vec::new();
    let mut real_servers: Vec<RealServer> = Vec::new();
    for (i, fields) in servers.enumerate() {
        let own = fields.forwarding.unwrap_or(header.forwarding);
        let known = own_methods.iter().find(|(known, _)| *known == own);
        let found = match known {
            _ if own == header.forwarding => Some(forwarding),
            Some((_, found)) => *found,
            None => {
                let found = method(header, own, findings);
                own_methods.push((own, found));
                found
            }
        };
        if let Some(found) = found {
            let server = real_server(&frontend, i, &fields, found, findings);
            let service = own_service(&fields, real_servers.last());
            real_servers.extend(server.map(|server| RealServer { service, ..server }));
        }
    }
    let nat = nat(header, &vips, &real_servers, findings);
    let created = metadata.creation_timestamp.as_ref();
    Some(VirtualService {
        created: created.map(|time| time.0.as_second()),
        group: group?,
        frontend,
        forwarding,
        nat,
        scheduler,
        persistence,
        one_packet: header.one_packet,
        alone: false,
        previous: Vec::new(),
        real_servers,
    })
}

/// Reads a forwarding method. The tunnel matters to TUN only.
fn method(
    header: &VirtualServiceSpec,
    own: Forwarding,
    findings: &mut Findings,
) -> Option<lvs_model::Forwarding> {
    let header = VirtualServiceSpec {
        forwarding: own,
        tunnel: header.tunnel.clone().filter(|_| own == Forwarding::Tun),
        ports: header.ports.clone(),
        ..VirtualServiceSpec::default()
    };
    forwarding::forwarding(&header, findings)
}

/// Reads the return path, which matters to the real servers with NAT.
fn nat(
    header: &VirtualServiceSpec,
    vips: &[IpAddr],
    real_servers: &[RealServer],
    findings: &mut Findings,
) -> lvs_model::Nat {
    let header = VirtualServiceSpec {
        forwarding: Forwarding::Nat,
        nat: header.nat.clone(),
        ..VirtualServiceSpec::default()
    };
    forwarding::nat(&header, vips, real_servers, findings)
}

fn real_server(
    frontend: &Frontend,
    i: usize,
    fields: &ServerFields<'_>,
    forwarding: lvs_model::Forwarding,
    findings: &mut Findings,
) -> Option<RealServer> {
    let at = format_args!("spec.realServers[{i}]");
    let address = address(findings, format_args!("{at}.address"), fields.address);
    let ports = server_ports(frontend, i, fields.ports, findings);
    let mut number =
        |name: &str, value| findings.number(format_args!("{at}.{name}"), value, 0..=65535);
    let [weight, upper, lower] = fields.numbers;
    let weight = number("weight", weight);
    let upper_threshold = number("upperThreshold", upper);
    let lower_threshold = number("lowerThreshold", lower);
    Some(RealServer {
        address: address?,
        ports: ports?,
        weight: weight?,
        upper_threshold: upper_threshold?,
        lower_threshold: lower_threshold?,
        forwarding,
        service: None,
    })
}

/// Returns the Service of a real server. Neighbours share the name in memory.
fn own_service(fields: &ServerFields<'_>, last: Option<&RealServer>) -> Option<Arc<str>> {
    let name = fields.service?;
    let last = last.and_then(|last| last.service.as_ref());
    let same = last.filter(|last| last.as_ref() == name);
    Some(same.map_or_else(|| name.into(), Arc::clone))
}

/// Returns the ports of a real server: its own, or those of the VIPs.
fn server_ports(
    frontend: &Frontend,
    i: usize,
    own: &[i64],
    findings: &mut Findings,
) -> Option<ServerPorts> {
    if own.is_empty() {
        return Some(frontend.ports().iter().map(|port| port.port).collect());
    }
    let count = match frontend {
        Frontend::Addresses { ports, .. } => ports.len(),
        Frontend::Fwmark(_) => 1,
    };
    if own.len() != count {
        let reason = format!("must hold '{count}' ports, not '{}'", own.len());
        findings.refuse(format_args!("spec.realServers[{i}].ports"), reason);
        return None;
    }
    let ports = own.iter().enumerate();
    ports
        .map(|(j, port)| findings.port(format_args!("spec.realServers[{i}].ports[{j}]"), *port))
        .collect()
}

#[cfg(test)]
mod tests;
