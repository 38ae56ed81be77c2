//! What an LvsNode states about its machine.

use std::{collections::BTreeSet, net::IpAddr};

use k8s_openapi::{
    Resource, api::core::v1::Node, apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use lvs_crd::{LvsNode, ServedService, ServedStatus};
use lvs_model::ObjectName;

/// The addresses that a machine's agent has reported.
pub(crate) fn addresses(node: Option<&LvsNode>) -> BTreeSet<IpAddr> {
    let facts = node.and_then(|node| node.status.as_ref()?.facts.as_ref());
    facts
        .into_iter()
        .flat_map(|facts| &facts.addresses)
        .filter_map(|found| found.address.split('/').next()?.parse().ok())
        .collect()
}

/// Returns whether an agent has reported from the machine. The controller's own condition has no generation.
pub(crate) fn is_managed(node: Option<&LvsNode>) -> bool {
    let status = node.and_then(|node| node.status.as_ref());
    status.is_some_and(|status| status.observed_generation.is_some())
}

/// The report of a machine's agent on a virtual service.
pub(crate) fn report<'a>(node: &'a LvsNode, service: &ObjectName) -> Option<&'a ServedStatus> {
    reports(node)
        .find(|report| report.namespace == service.namespace() && report.name == service.name())
}

/// The virtual services on which the report of a machine's agent has changed.
pub(crate) fn changed_reports(
    before: Option<&LvsNode>,
    now: Option<&LvsNode>,
) -> BTreeSet<ObjectName> {
    let all = |node: Option<&LvsNode>| -> BTreeSet<ServedStatus> {
        node.into_iter().flat_map(reports).cloned().collect()
    };
    let (before, now) = (all(before), all(now));
    before
        .symmetric_difference(&now)
        .filter_map(|found| ObjectName::new(&found.namespace, &found.name).ok())
        .collect()
}

/// The virtual services in the spec of an LvsNode.
pub(crate) fn served_names(node: Option<&LvsNode>) -> BTreeSet<ObjectName> {
    let serves = node.into_iter().flat_map(|node| &node.spec.serves);
    serves.filter_map(served_name).collect()
}

/// The name of a virtual service in the spec of an LvsNode.
pub(crate) fn served_name(served: &ServedService) -> Option<ObjectName> {
    ObjectName::new(&served.namespace, &served.name).ok()
}

/// The Node that an LvsNode was made for.
pub(crate) fn owner(node: &LvsNode) -> Option<&OwnerReference> {
    let owners = node.metadata.owner_references.as_ref()?;
    owners.iter().find(|owner| owner.kind == Node::KIND)
}

fn reports(node: &LvsNode) -> impl Iterator<Item = &ServedStatus> {
    node.status.iter().flat_map(|status| &status.serves)
}
