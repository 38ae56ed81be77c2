//! The EndpointSlices of a Service as endpoints with a port for each port of a virtual service.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    Resource,
    api::{
        core::v1::Pod,
        discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
    },
};

use lvs_model::{ServerPorts, abridged};

use super::{
    Gap,
    kube_services::{KubePort, KubeService, protocol},
};
use crate::Port;

/// The address type of slices that hold host names.
const HOST_NAMES: &str = "FQDN";
/// How long the text may be that says why a slice cannot be decoded. It may quote a value of any length.
const LONGEST_ERROR: usize = 200;

/// The endpoints of a Service.
#[derive(Debug, Default)]
pub(super) struct Endpoints<'a> {
    /// The endpoints by address and ports: one for each port of the virtual service.
    pub(super) found: BTreeMap<(IpAddr, ServerPorts), Found<'a>>,
    /// What is left out.
    pub(super) gaps: Vec<Gap>,
}

/// An endpoint of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    /// Whether it answers.
    pub(super) state: EndpointState,
    /// Whether it is a pod.
    pub(super) is_pod: bool,
    /// The first slice that has it.
    pub(super) slice: &'a str,
}

/// Whether an endpoint answers. If slices disagree, the greatest value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EndpointState {
    /// It does not take new connections.
    Unready,
    /// It is terminating and still serves.
    Leaving,
    /// It takes new connections.
    Ready,
}

impl EndpointState {
    /// By default `ready` is true, `serving` equals `ready`, and `terminating` is false.
    fn of(endpoint: &Endpoint) -> Self {
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
        let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
        let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
        match (ready, serving && terminating) {
            (true, _) => Self::Ready,
            (false, true) => Self::Leaving,
            (false, false) => Self::Unready,
        }
    }
}

impl Endpoints<'_> {
    /// Returns the least state of the endpoints that take new connections: if none is ready, those that are terminating and
    /// still serve do (KEP-1669).
    pub(super) fn taking(&self) -> EndpointState {
        let states = self.found.values().map(|found| found.state);
        states
            .max()
            .unwrap_or(EndpointState::Ready)
            .max(EndpointState::Leaving)
    }
}

/// Reads the slices of a Service.
///
/// 1. Each port of the virtual service is one port of the Service: [`port_of_service`]. In a slice it is the port of that
///    name and protocol. A port of another name is never taken.
/// 2. A slice without endpoints counts for nothing. The endpoints of a slice that holds host names, or lacks one of the ports,
///    are left out.
/// 3. The first address of an endpoint counts, as the API of Kubernetes defines it.
/// 4. An endpoint is known by its address and its ports. If two slices have it, it counts once, with the better state. With
///    other ports, as while a rollout changes them, it is another endpoint.
/// 5. Every endpoint that is listed stays: one that is not ready gets no new connections and keeps those that it has.
pub(super) fn endpoints<'a>(
    name: &str,
    ports: &[Port],
    service: &KubeService<'a>,
) -> Endpoints<'a> {
    let mut all = Endpoints::default();
    let unreadable = service.unreadable.iter().map(|slice| Gap::Unreadable {
        slice: slice.name.to_owned(),
        error: abridged(&[slice.error], "; ", LONGEST_ERROR),
        is_kept: slice.is_kept,
    });
    all.gaps.extend(unreadable);
    let known = known_ports(service);
    let mut chosen = Vec::with_capacity(ports.len());
    for port in ports {
        match port_of_service(port, ports, &known, service) {
            Some(found) => chosen.push(found),
            None => {
                all.gaps.push(Gap::PortNotFound {
                    service: name.to_owned(),
                    port: title(port),
                    has: known.iter().map(ToString::to_string).collect(),
                });
                return all;
            }
        }
    }
    for slice in &service.slices {
        if slice.endpoints.is_empty() {
            continue;
        }
        if slice.address_type == HOST_NAMES {
            all.gaps.push(Gap::HostNames {
                slice: slice_name(slice).to_owned(),
                count: slice.endpoints.len(),
            });
            continue;
        }
        let numbers = ports
            .iter()
            .zip(&chosen)
            .map(|(port, chosen)| number(slice, port, chosen).ok_or_else(|| title(port)));
        match numbers.collect::<Result<ServerPorts, String>>() {
            Ok(numbers) => all.add(slice, &numbers),
            Err(port) => all.gaps.push(Gap::Slice {
                slice: slice_name(slice).to_owned(),
                port,
                count: slice.endpoints.len(),
            }),
        }
    }
    all
}

impl<'a> Endpoints<'a> {
    fn add(&mut self, slice: &'a EndpointSlice, ports: &[u16]) {
        for endpoint in &slice.endpoints {
            let first = endpoint.addresses.first();
            let Some(Ok(address)) = first.map(|address| address.parse()) else {
                self.gaps.push(Gap::Endpoint {
                    slice: slice_name(slice).to_owned(),
                    address: first.cloned().unwrap_or_default(),
                    reason: "is not an address",
                });
                continue;
            };
            let target = endpoint.target_ref.as_ref();
            let now = Found {
                state: EndpointState::of(endpoint),
                is_pod: target.is_some_and(|target| target.kind.as_deref() == Some(Pod::KIND)),
                slice: slice_name(slice),
            };
            let known = self.found.entry((address, ports.into())).or_insert(now);
            known.state = known.state.max(now.state);
            known.is_pod |= now.is_pod;
            known.slice = known.slice.min(now.slice);
        }
    }
}

fn slice_name(slice: &EndpointSlice) -> &str {
    slice.metadata.name.as_deref().unwrap_or_default()
}

fn title(port: &Port) -> String {
    let protocol = port.protocol.as_str();
    match &port.name {
        Some(name) => format!("{name} {}/{protocol}", port.port),
        None => format!("{}/{protocol}", port.port),
    }
}

/// The ports of a Service; those of its slices if it is not there. Their numbers are not the Service's, so they are 0.
fn known_ports(service: &KubeService<'_>) -> Vec<KubePort> {
    if let Some(spec) = service.spec {
        return spec.ports.clone();
    }
    let mut known = Vec::new();
    for found in service.slices.iter().flat_map(|slice| ports_of(slice)) {
        let port = KubePort {
            name: found.name.clone().unwrap_or_default(),
            protocol: protocol(found.protocol.as_deref()).to_owned(),
            port: 0,
        };
        if !known.contains(&port) {
            known.push(port);
        }
    }
    known
}

/// Returns the name of the Service's port that a port of a virtual service stands for:
///
/// 1. the one with its name,
/// 2. the one with its number,
/// 3. the one that has its target port, or without that its number, in a slice,
/// 4. if the virtual service has one port of the protocol, the Service's only one.
fn port_of_service(
    port: &Port,
    ports: &[Port],
    known: &[KubePort],
    service: &KubeService<'_>,
) -> Option<String> {
    let protocol = port.protocol.as_str();
    let alike = || known.iter().filter(|found| found.protocol == protocol);
    let named = || {
        let name = port.name.as_deref()?;
        alike().find(|found| found.name == name)
    };
    let numbered = || alike().find(|found| found.port == port.port);
    let target = port.target_port.unwrap_or(port.port);
    let in_slices = || {
        alike().find(|found| {
            let mut ports = service.slices.iter().flat_map(|slice| ports_of(slice));
            ports.any(|own| is_same(own, found) && own.port.map(i64::from) == Some(target))
        })
    };
    let only = || {
        let others = ports.iter().filter(|other| other.protocol == port.protocol);
        let mut alike = alike();
        let first = alike.next()?;
        (others.count() == 1 && alike.next().is_none()).then_some(first)
    };
    let found = named().or_else(numbered).or_else(in_slices).or_else(only)?;
    Some(found.name.clone())
}

/// Returns the number of a port in a slice.
fn number(slice: &EndpointSlice, port: &Port, name: &str) -> Option<u16> {
    let wanted = KubePort {
        name: name.to_owned(),
        protocol: port.protocol.as_str().to_owned(),
        port: 0,
    };
    let found = ports_of(slice).iter().find(|own| is_same(own, &wanted))?;
    u16::try_from(found.port?).ok().filter(|port| *port > 0)
}

fn is_same(own: &EndpointPort, port: &KubePort) -> bool {
    own.name.as_deref().unwrap_or_default() == port.name
        && protocol(own.protocol.as_deref()) == port.protocol
}

fn ports_of(slice: &EndpointSlice) -> &[EndpointPort] {
    slice.ports.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
