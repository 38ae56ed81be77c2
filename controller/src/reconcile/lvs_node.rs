//! The controller's part of an LvsNode.

use std::collections::BTreeSet;

use lvs_crd::{GroupMembership, LvsNode};
use lvs_model::NodeName;

use crate::{
    cluster::{Cluster, members, owner},
    write::{Revision, Write},
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
            return found.map(|found| Write::DeleteNode {
                name: name.clone(),
                revision: Revision::of(found.as_ref()),
            });
        }
        let owner_uid = node.and_then(|node| node.metadata.uid.clone());
        let groups = self.groups_of(name, found.map(AsRef::as_ref));
        let is_written = found.is_some_and(|found| {
            found.spec.groups == groups && owner.map(|owner| &owner.uid) == owner_uid.as_ref()
        });
        (!is_written).then(|| Write::ApplyNode {
            name: name.clone(),
            uid,
            owner_uid,
            groups,
        })
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
            let is_member = members(&self.objects, group).contains(machine.as_str());
            let node = self.objects.nodes.get(machine).filter(|_| is_member);
            let present = node.and_then(|node| node.metadata.uid.clone());
            Some(GroupMembership {
                name: name.clone(),
                interface: group.spec.interface.clone(),
                timeouts: group.spec.timeouts.clone(),
                node_uid: present.or_else(|| known(name)?.node_uid),
            })
        });
        memberships.collect()
    }
}
