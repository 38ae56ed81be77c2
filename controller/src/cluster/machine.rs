//! What the agent of a machine has reported.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::Ipv4Net;
use k8s_openapi::{
    Resource,
    api::core::v1::Node,
    apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference},
};
use lvs_crd::{
    LvsNode, RealServerBinding, Standing,
    condition::{self, ConditionType},
};
use lvs_model::Readiness;

/// Returns whether a machine's agent has reported its addresses.
pub(crate) fn has_facts(node: Option<&LvsNode>) -> bool {
    let status = node.and_then(|node| node.status.as_ref());
    status.is_some_and(|status| status.facts.is_some())
}

/// The addresses that a machine's agent has reported.
pub(crate) fn addresses(node: Option<&LvsNode>) -> BTreeSet<IpAddr> {
    let facts = node.and_then(|node| node.status.as_ref()?.facts.as_ref());
    facts
        .into_iter()
        .flat_map(|facts| &facts.addresses)
        .filter_map(|found| found.address.split('/').next()?.parse().ok())
        .collect()
}

/// The MAC addresses that a machine's agent has reported.
pub(crate) fn macs(node: Option<&LvsNode>) -> BTreeSet<&str> {
    let facts = node.and_then(|node| node.status.as_ref()?.facts.as_ref());
    let macs = facts.into_iter().flat_map(|facts| &facts.mac_addresses);
    macs.map(String::as_str).collect()
}

/// The addresses round a machine that no VIP may have: its gateways, and the ends of its IPv4 networks.
pub(crate) fn reserved(node: Option<&LvsNode>) -> BTreeSet<IpAddr> {
    let facts = node.and_then(|node| node.status.as_ref()?.facts.as_ref());
    let gateways = facts.into_iter().flat_map(|facts| &facts.gateways);
    let gateways = gateways.filter_map(|gateway| gateway.parse().ok());
    let networks = facts.into_iter().flat_map(|facts| &facts.addresses);
    let networks = networks.filter_map(|found| found.address.parse::<Ipv4Net>().ok());
    let networks = networks.filter(|network| network.prefix_len() < 31);
    let ends = networks.flat_map(|network| [network.network(), network.broadcast()]);
    gateways.chain(ends.map(IpAddr::V4)).collect()
}

/// Returns whether an agent has reported from the machine. The controller's own condition has no generation.
pub(crate) fn is_managed(node: Option<&LvsNode>) -> bool {
    let status = node.and_then(|node| node.status.as_ref());
    status.is_some_and(|status| status.observed_generation.is_some())
}

/// Returns whether a machine's agent has reported since the LvsNode was last written, or never ran.
pub(crate) fn has_reported(node: Option<&LvsNode>) -> bool {
    let generations = node.map(|node| {
        let status = node.status.as_ref();
        let observed = status.and_then(|status| status.observed_generation);
        (observed, node.metadata.generation)
    });
    !is_managed(node) || generations.is_none_or(|(observed, written)| observed >= written)
}

/// What a machine's agent reports that it is in its groups.
pub(crate) fn standings(node: Option<&LvsNode>) -> impl Iterator<Item = &Standing> {
    let status = node.and_then(|node| node.status.as_ref());
    status.into_iter().flat_map(|status| &status.standings)
}

/// The report of a machine's agent on the current RealServerBinding of a virtual service. The controller's own condition, for
/// an agent that is silent, is none: the real server keeps the weight that it has.
pub(crate) fn report(binding: &RealServerBinding) -> Option<&Condition> {
    let status = binding.status.as_ref()?;
    let report = condition::find(&status.conditions, ConditionType::Ready)?;
    let is_current = report.observed_generation == binding.metadata.generation;
    let is_known = report.status != condition::Status::Unknown.as_str();
    Some(report).filter(|_| is_current && is_known)
}

/// Whether a machine with an agent is ready to serve a virtual service.
pub(crate) fn readiness_of(binding: Option<&RealServerBinding>) -> Readiness {
    match binding.and_then(report) {
        None => Readiness::Unknown,
        Some(report) if condition::is_true(report) => Readiness::Ready,
        Some(_) => Readiness::NotReady,
    }
}

/// The Node that an LvsNode was made for.
pub(crate) fn owner(node: &LvsNode) -> Option<&OwnerReference> {
    let owners = node.metadata.owner_references.as_ref()?;
    owners.iter().find(|owner| owner.kind == Node::KIND)
}
