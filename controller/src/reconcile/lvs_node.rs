//! The controller's part of an LvsNode.

use std::collections::BTreeSet;

use lvs_crd::{
    GroupMembership, LvsNode, MemberFailover, condition::Reason, convert::member_failover,
};
use lvs_model::NodeName;

use crate::{
    cluster::{Cluster, Fault, members, owner},
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
                gateways: group.spec.gateways.clone(),
                connection_sync: group.spec.connection_sync.clone(),
                timeouts: group.spec.timeouts.clone(),
                failover: self.failover_of(machine, name),
                node_uid: present.or_else(|| known(name)?.node_uid),
            })
        });
        memberships.collect()
    }

    /// How a machine agrees with the others of a group who holds the VIPs; `None` if it is alone. A machine that leaves counts
    /// until it reports that it takes no part any more: until then it hands VIPs over, and would take them from one that is silent.
    fn failover_of(&self, machine: &NodeName, group: &str) -> Option<MemberFailover> {
        let object = self.objects.groups.get(group)?;
        Some(MemberFailover {
            standby: self.is_on_standby(group, object, machine),
            ..self.election_settings(machine, group)?
        })
    }

    /// The same, as far as the machines must agree on it.
    fn election_settings(&self, machine: &NodeName, group: &str) -> Option<MemberFailover> {
        let object = self.objects.groups.get(group)?;
        let settings = || {
            let mut machines = self.index.machines_of_group(group);
            machines.insert(machine.clone());
            let routers = self.virtual_routers(group);
            member_failover(object, (machine, &machines), (routers.first, routers.count))
        };
        self.has_failover(group).then(settings)
    }

    /// Why the API server refuses to store the LvsNode of a machine.
    pub(super) fn refusal_of_node(&self, machine: &NodeName) -> Option<Fault> {
        let cause = self.refusals.nodes.get(machine)?;
        let message = format!("LvsNode {machine} cannot be written: {cause}");
        Some(Fault::new(Reason::WriteRefused, message))
    }

    /// The refusal of the LvsNode of a machine of the group, if its directors wait for it: none gets a binding before each machine
    /// knows of the others.
    pub(super) fn refusal_of_group(&self, group: &str) -> Option<Fault> {
        if self.refusals.nodes.is_empty() || self.knows_others(group) {
            return None;
        }
        let machines = self.index.machines_of_group(group);
        let mut machines = machines.iter();
        machines.find_map(|machine| self.refusal_of_node(machine))
    }

    /// Returns whether each machine of a group has the settings for others beside it. Before that, one of them may hold VIPs
    /// as if it were alone, and another one that gets a binding would take them too.
    pub(super) fn knows_others(&self, group: &str) -> bool {
        self.index.machines_of_group(group).iter().all(|machine| {
            let Some(lvs_node) = self.objects.lvs_nodes.get(machine) else {
                // It gets an LvsNode with its Node; without one, no agent runs there.
                return !self.objects.nodes.contains_key(machine);
            };
            let mut groups = lvs_node.spec.groups.iter();
            let known = groups.find(|membership| membership.name == group);
            let known = known.and_then(|membership| membership.failover.clone());
            let known = known.map(|failover| MemberFailover {
                standby: false,
                ..failover
            });
            known == self.election_settings(machine, group)
        })
    }
}
