//! A Service's EndpointSlices become the real servers of a virtual service.

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};
use lvs_crd::{Endpoint, Port, Protocol};

/// The endpoints of a Service as the real servers of a virtual service with given ports.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Backends {
    /// The endpoints, in order of their addresses.
    pub endpoints: Vec<Endpoint>,
    /// The ports, with the target port that the endpoints have.
    pub ports: Vec<Port>,
    /// Whether a Pod is among them.
    pub has_pods: bool,
    /// The first port that no endpoint has, or has at different numbers in different slices.
    pub unmatched_port: Option<String>,
}

/// Works out the real servers that the slices of a Service are.
///
/// 1. The slices of a Service are united; an address that stands in two of them counts once. Slices of names instead of
///    addresses are left out.
/// 2. `ready` counts as true when it is absent, `serving` as `ready`, `terminating` as false.
/// 3. A ready endpoint takes new connections: weight 1. One that is terminating and still serving keeps those that it
///    has: weight 0. When no endpoint is ready, those that are terminating and still serving take new ones (KEP-1669).
/// 4. A port of the virtual service is the slice's port of the same name; or the one with its target port; or the only
///    one of its protocol.
pub(super) fn from_slices<'a>(
    ports: &[Port],
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> Backends {
    let mut found: BTreeMap<String, Candidate> = BTreeMap::new();
    let mut resolved: Vec<Option<i64>> = vec![None; ports.len()];
    let mut has_pods = false;
    let mut unmatched_port = None;
    for slice in slices.filter(|slice| slice.address_type != "FQDN") {
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
            let state = State::of(endpoint);
            has_pods |= endpoint
                .target_ref
                .as_ref()
                .is_some_and(|target| target.kind.as_deref() == Some("Pod"));
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
    Backends {
        endpoints: endpoints(found),
        ports: with_targets(ports, &resolved),
        has_pods,
        unmatched_port,
    }
}

/// An address of a slice.
#[derive(Clone, Copy)]
struct Candidate {
    state: State,
    port: Option<i64>,
}

/// Whether an endpoint answers; the better state wins where slices disagree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Gone,
    Draining,
    Ready,
}

impl State {
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
    let is_any_ready = found.values().any(|found| found.state == State::Ready);
    found
        .into_iter()
        .filter(|(_, found)| found.state != State::Gone)
        .map(|(address, found)| {
            let takes_new = found.state == State::Ready || !is_any_ready;
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

/// The number of a port in a slice.
fn number(port: &Port, slice: &EndpointSlice) -> Option<i64> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let alike = || {
        ports.iter().filter(|found| {
            found.protocol.as_deref().unwrap_or("TCP") == protocol(port.protocol)
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

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

/// The first port that a slice does not have, or has at another number than an earlier slice while there are several:
/// a real server has one number for all, except for the only port.
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
                .unwrap_or_else(|| format!("{}/{}", port.port, protocol(port.protocol)))
        })
}

/// Several ports get their target port from the slices; the only port's stands at each endpoint.
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
