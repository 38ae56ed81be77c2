//! The EndpointSlices of a Service as real servers.

use std::collections::BTreeMap;

use k8s_openapi::{
    Resource,
    api::{
        core::v1::Pod,
        discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice},
    },
};

use crate::{Endpoint, Port, Protocol};

/// The address type of slices that hold host names.
const HOST_NAMES: &str = "FQDN";

/// The endpoints of a Service as the real servers of a virtual service with given ports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceEndpoints {
    /// The endpoints, in order of their addresses.
    pub endpoints: Vec<Endpoint>,
    /// The ports, with the target port of the endpoints.
    pub ports: Vec<Port>,
    /// Whether a Pod is among them.
    pub has_pods: bool,
    /// The first port that no endpoint has, or that has different numbers in different slices.
    pub unmatched_port: Option<String>,
}

/// Converts the EndpointSlices of a Service to real servers.
///
/// 1. The slices of a Service are united; an address in two of them counts once. Slices of host names are left out.
/// 2. By default `ready` is true, `serving` equals `ready`, and `terminating` is false.
/// 3. A ready endpoint takes new connections: weight 1. One that is terminating and still serving keeps those that it
///    has: weight 0. If no endpoint is ready, those that are terminating and still serving take new ones (KEP-1669).
///    Any other endpoint that is not ready is left out.
/// 4. A port of the virtual service is the slice's port of the same name; else the one with its target port; else the
///    only one of its protocol.
#[must_use]
pub fn service_endpoints<'a>(
    ports: &[Port],
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> ServiceEndpoints {
    let mut found: BTreeMap<String, Candidate> = BTreeMap::new();
    let mut resolved: Vec<Option<i64>> = vec![None; ports.len()];
    let mut has_pods = false;
    let mut unmatched_port = None;
    for slice in slices.filter(|slice| slice.address_type != HOST_NAMES) {
        let numbers: Vec<Option<i64>> = ports.iter().map(|port| number(port, slice)).collect();
        if let Some(port) = unmatched(ports, &numbers, &resolved) {
            unmatched_port.get_or_insert(port);
            continue;
        }
        for (known, number) in resolved.iter_mut().zip(&numbers) {
            *known = known.or(*number);
        }
        let own_port = match numbers.as_slice() {
            [only] => *only,
            [..] => None,
        };
        for endpoint in &slice.endpoints {
            let state = EndpointState::of(endpoint);
            let target = endpoint.target_ref.as_ref();
            has_pods |= target.is_some_and(|target| target.kind.as_deref() == Some(Pod::KIND));
            for address in &endpoint.addresses {
                let candidate = Candidate {
                    state,
                    port: own_port,
                };
                let known = found.entry(address.clone()).or_insert(candidate);
                known.state = known.state.max(state);
            }
        }
    }
    ServiceEndpoints {
        endpoints: endpoints(found),
        ports: with_targets(ports, &resolved),
        has_pods,
        unmatched_port,
    }
}

/// An address of a slice.
#[derive(Clone, Copy)]
struct Candidate {
    state: EndpointState,
    port: Option<i64>,
}

/// Whether an endpoint answers. If slices disagree, the greatest value counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum EndpointState {
    Gone,
    Draining,
    Ready,
}

impl EndpointState {
    fn of(endpoint: &SliceEndpoint) -> Self {
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
        let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
        let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
        match (ready, serving && terminating) {
            (true, _) => Self::Ready,
            (false, true) => Self::Draining,
            (false, false) => Self::Gone,
        }
    }
}

fn endpoints(found: BTreeMap<String, Candidate>) -> Vec<Endpoint> {
    let is_any_ready = found
        .values()
        .any(|found| found.state == EndpointState::Ready);
    found
        .into_iter()
        .filter(|(_, found)| found.state != EndpointState::Gone)
        .map(|(address, found)| {
            let takes_new = found.state == EndpointState::Ready || !is_any_ready;
            Endpoint {
                address,
                port: found.port,
                weight: i64::from(takes_new),
                upper_threshold: 0,
                lower_threshold: 0,
            }
        })
        .collect()
}

/// Returns the number of a port in a slice.
fn number(port: &Port, slice: &EndpointSlice) -> Option<i64> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let alike = || {
        ports.iter().filter(|found| {
            let protocol = found.protocol.as_deref();
            protocol.unwrap_or(Protocol::default().as_str()) == port.protocol.as_str()
                && found.port.is_some()
        })
    };
    let named = port
        .name
        .as_deref()
        .and_then(|name| alike().find(|found| found.name.as_deref() == Some(name)));
    let target = port.target_port.unwrap_or(port.port);
    let numbered = || alike().find(|found| found.port.map(i64::from) == Some(target));
    let only = || {
        let mut all = alike();
        all.next().filter(|_| all.next().is_none())
    };
    let chosen = named.or_else(numbered).or_else(only)?;
    chosen.port.map(i64::from)
}

/// Returns the first port that a slice does not have, or that has another number in an earlier slice. The latter is an
/// error only with several ports: a single port may have a different number for each real server.
fn unmatched(ports: &[Port], numbers: &[Option<i64>], resolved: &[Option<i64>]) -> Option<String> {
    let several = ports.len() > 1;
    ports
        .iter()
        .zip(numbers)
        .zip(resolved)
        .find(|((_, number), known)| {
            number.is_none() || (several && known.is_some() && known != number)
        })
        .map(|((port, _), _)| {
            port.name
                .clone()
                .unwrap_or_else(|| format!("{}/{}", port.port, port.protocol.as_str()))
        })
}

/// Returns the ports with their target ports. Several ports get them from the slices; the target of a single port is in
/// each endpoint.
fn with_targets(ports: &[Port], resolved: &[Option<i64>]) -> Vec<Port> {
    let several = ports.len() > 1;
    ports
        .iter()
        .zip(resolved)
        .map(|(port, number)| Port {
            target_port: number.filter(|_| several).or(port.target_port),
            ..port.clone()
        })
        .collect()
}

#[cfg(test)]
mod tests;
