//! One machine: what its LvsNode says, and what is written there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::{
    Resource, api::core::v1::Node, apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use lvs_crd::{
    DirectorBinding, Endpoint, GroupMembership, LvsNode, ServedService, ServedStatus, condition,
};
use lvs_model::ObjectName;

use super::{Cluster, Write, draft::Draft, status};

/// The addresses that a machine's agent has reported.
pub(super) fn addresses(node: Option<&LvsNode>) -> BTreeSet<IpAddr> {
    let facts = node.and_then(|node| node.status.as_ref()?.facts.as_ref());
    facts
        .into_iter()
        .flat_map(|facts| &facts.addresses)
        .filter_map(|found| found.address.split('/').next()?.parse().ok())
        .collect()
}

/// Says whether an agent looks after the machine.
pub(super) fn is_managed(node: Option<&LvsNode>) -> bool {
    node.is_some_and(|node| node.status.is_some())
}

/// Whether a machine can answer for a virtual service; `None` as long as its agent has said nothing of it.
pub(super) fn readiness(node: &LvsNode, service: &ObjectName) -> Option<bool> {
    said_of(node, service).map(|said| said.ready)
}

/// What a machine's agent says of a virtual service that cannot be answered for.
pub(super) fn complaint<'a>(node: &'a LvsNode, service: &ObjectName) -> Option<&'a str> {
    let said = said_of(node, service).filter(|said| !said.ready)?;
    Some(said.message.as_str())
}

/// The virtual services of which a machine's agent says something else than before.
pub(super) fn changed_readiness(
    before: Option<&LvsNode>,
    now: Option<&LvsNode>,
) -> BTreeSet<ObjectName> {
    let all = |node: Option<&LvsNode>| -> BTreeSet<ServedStatus> {
        node.into_iter().flat_map(served).cloned().collect()
    };
    let (before, now) = (all(before), all(now));
    before
        .symmetric_difference(&now)
        .filter_map(|found| ObjectName::new(&found.namespace, &found.name).ok())
        .collect()
}

/// The virtual services that a machine is told to serve.
pub(super) fn told(node: Option<&LvsNode>) -> BTreeSet<ObjectName> {
    let serves = node.into_iter().flat_map(|node| &node.spec.serves);
    serves.filter_map(name_of).collect()
}

fn name_of(served: &ServedService) -> Option<ObjectName> {
    ObjectName::new(&served.namespace, &served.name).ok()
}

/// The Node that an LvsNode was made for.
fn owner(node: &LvsNode) -> Option<&OwnerReference> {
    let owners = node.metadata.owner_references.as_ref()?;
    owners.iter().find(|owner| owner.kind == Node::KIND)
}

fn served(node: &LvsNode) -> impl Iterator<Item = &ServedStatus> {
    node.status.iter().flat_map(|status| &status.serves)
}

fn said_of<'a>(node: &'a LvsNode, service: &ObjectName) -> Option<&'a ServedStatus> {
    served(node).find(|found| is_of(found, service))
}

fn is_of(found: &ServedStatus, service: &ObjectName) -> bool {
    found.namespace == service.namespace() && found.name == service.name()
}

impl Cluster {
    /// The controller's part of a machine's LvsNode: made for each node of the cluster, and written for machines
    /// outside that have one. One that was made for a node goes with it.
    pub(super) fn settle_node(&self, name: &str) -> Option<Write> {
        let node = self.objects.nodes.get(name);
        let found = self.objects.lvs_nodes.get(name);
        let uid = found.and_then(|found| found.metadata.uid.clone());
        let owner = found.and_then(|found| owner(found));
        if node.is_none() && (found.is_none() || owner.is_some()) {
            let name = name.to_owned();
            return found.map(|_| Write::DeleteNode { name, uid });
        }
        let owner_uid = node.and_then(|node| node.metadata.uid.clone());
        let groups = self.groups_of(name);
        let serves = self.serves(name, found.map(AsRef::as_ref));
        let is_written = found.is_some_and(|found| {
            found.spec.groups == groups
                && found.spec.serves == serves
                && owner.map(|owner| &owner.uid) == owner_uid.as_ref()
        });
        (!is_written).then(|| Write::ApplyNode {
            name: name.to_owned(),
            uid,
            owner_uid,
            groups,
            serves,
        })
    }

    /// What a machine serves, and what it goes on to serve since a director may still send it something.
    fn serves(&self, name: &str, found: Option<&LvsNode>) -> Vec<ServedService> {
        let own = self.index.served_by(name).filter_map(|service| {
            let served = served_service(service, self.drafts.get(service)?, name)?;
            Some((service.clone(), served))
        });
        let mut serves: BTreeMap<ObjectName, ServedService> = own.collect();
        for served in found.into_iter().flat_map(|found| &found.spec.serves) {
            if let Some(service) = name_of(served)
                && !serves.contains_key(&service)
                && self.may_be_directed(&service)
            {
                serves.insert(service, served.clone());
            }
        }
        serves.into_values().collect()
    }

    /// Says whether a director may send a virtual service's packets to machines that are no real servers of it any more:
    /// it has not yet said that it has what is wanted of it.
    fn may_be_directed(&self, service: &ObjectName) -> bool {
        let draft = self.drafts.get(service);
        let wanted = draft.map_or_else(BTreeMap::new, |draft| self.bindings(service, draft));
        let is_done = |name: &ObjectName, binding: &DirectorBinding| {
            let (Some(wanted), Some(said)) = (wanted.get(name), status::said_of(binding)) else {
                return false;
            };
            status::is_current(binding, wanted, said) && condition::is_true(said)
        };
        let bindings = self.index.bindings_of(service);
        bindings.iter().any(|name| {
            let found = self.objects.bindings.get(name);
            found.is_some_and(|binding| !is_done(name, binding))
        })
    }

    fn groups_of(&self, node: &str) -> Vec<GroupMembership> {
        self.index
            .directed_by(node)
            .filter_map(|name| {
                let group = self.objects.groups.get(name)?;
                Some(GroupMembership {
                    name: name.clone(),
                    interface: group.spec.interface.clone(),
                    timeouts: group.spec.timeouts.clone(),
                })
            })
            .collect()
    }
}

/// What one machine is told of a virtual service.
pub(super) fn served_service(
    name: &ObjectName,
    draft: &Draft,
    node: &str,
) -> Option<ServedService> {
    let own = draft.serving.get(node)?;
    let spec = draft.service.as_deref()?;
    let is_own = |endpoint: &&Endpoint| {
        endpoint
            .address
            .parse()
            .is_ok_and(|address: IpAddr| own.contains(&address))
    };
    // A weight, which may change often, is no business of the machine.
    let plain = |endpoint: &Endpoint| Endpoint {
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
        ..endpoint.clone()
    };
    Some(ServedService {
        namespace: name.namespace().to_owned(),
        name: name.name().to_owned(),
        director_group: spec.director_group.clone(),
        addresses: spec.addresses.clone(),
        fwmark: spec.fwmark,
        ports: spec.ports.clone(),
        forwarding: spec.forwarding,
        tunnel: spec.tunnel.clone(),
        nat: spec.nat.clone(),
        endpoints: spec
            .backends
            .endpoints
            .iter()
            .filter(is_own)
            .map(plain)
            .collect(),
    })
}
