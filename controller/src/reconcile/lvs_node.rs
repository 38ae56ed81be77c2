//! The controller's part of an LvsNode.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lvs_crd::{Endpoint, GroupMembership, LvsNode, ServedService};
use lvs_model::{NodeName, ObjectName};

use crate::{
    cluster::{Cluster, Reconciled, owner, served_name},
    write::Write,
};

impl Cluster {
    /// Each node of the cluster gets an LvsNode, which is deleted with it. The LvsNode of a machine outside the cluster is an
    /// administrator's; the controller only writes its part.
    pub(super) fn reconcile_node(&self, name: &NodeName) -> Option<Write> {
        let node = self.objects.nodes.get(name);
        let found = self.objects.lvs_nodes.get(name);
        let uid = found.and_then(|found| found.metadata.uid.clone());
        let owner = found.and_then(|found| owner(found));
        if node.is_none() && (found.is_none() || owner.is_some()) {
            let name = name.clone();
            return found.map(|_| Write::DeleteNode { name, uid });
        }
        let owner_uid = node.and_then(|node| node.metadata.uid.clone());
        let groups = self.groups_of(name, found.map(AsRef::as_ref));
        let serves = self.serves(name, found.map(AsRef::as_ref));
        let is_written = found.is_some_and(|found| {
            found.spec.groups == groups
                && found.spec.serves == serves
                && owner.map(|owner| &owner.uid) == owner_uid.as_ref()
        });
        (!is_written).then(|| Write::ApplyNode {
            name: name.clone(),
            uid,
            owner_uid,
            groups,
            serves,
        })
    }

    /// The virtual services of which a machine is a real server, and those that it goes on serving since a director may still
    /// send it their packets.
    fn serves(&self, name: &NodeName, found: Option<&LvsNode>) -> Vec<ServedService> {
        let own = self.index.served_by(name).filter_map(|service| {
            let served = served_service(service, self.services.get(service)?, name)?;
            Some((service.clone(), served))
        });
        let mut serves: BTreeMap<ObjectName, ServedService> = own.collect();
        for served in found.into_iter().flat_map(|found| &found.spec.serves) {
            if let Some(service) = served_name(served)
                && !serves.contains_key(&service)
                && self.may_be_directed(&service)
            {
                serves.insert(service, served.clone());
            }
        }
        serves.into_values().collect()
    }

    /// The groups that a machine directs for, and those of which it still has bindings. A group that does not exist any more
    /// keeps its settings until then.
    fn groups_of(&self, machine: &NodeName, found: Option<&LvsNode>) -> Vec<GroupMembership> {
        let directed = self.index.directed_by(machine);
        let names: BTreeSet<&String> = directed.chain(self.index.bound_groups(machine)).collect();
        let known = |name: &String| {
            let mut groups = found.into_iter().flat_map(|found| &found.spec.groups);
            groups.find(|group| group.name == *name).cloned()
        };
        let memberships = names.into_iter().filter_map(|name| {
            let Some(group) = self.objects.groups.get(name) else {
                return known(name);
            };
            Some(GroupMembership {
                name: name.clone(),
                interface: group.spec.interface.clone(),
                timeouts: group.spec.timeouts.clone(),
            })
        });
        memberships.collect()
    }
}

/// The part of a virtual service that one of its real servers needs.
pub(super) fn served_service(
    name: &ObjectName,
    reconciled: &Reconciled,
    machine: &NodeName,
) -> Option<ServedService> {
    let own = reconciled.machines.get(machine)?;
    let version = reconciled.state.programmed()?;
    let is_own = |endpoint: &&Endpoint| {
        let address = endpoint.address.parse::<IpAddr>();
        address.is_ok_and(|address| own.contains(&address))
    };
    // Weights, which may change often, do not matter to the machine.
    let plain = |endpoint: &Endpoint| Endpoint {
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
        ..endpoint.clone()
    };
    let endpoints = version.endpoints().iter().filter(is_own).map(plain);
    let endpoints = endpoints.collect();
    let spec = &version.spec;
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
        endpoints,
    })
}
