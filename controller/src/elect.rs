//! Finds the machines of a DirectorGroup that direct.

use std::collections::BTreeSet;

use lvs_crd::{DirectorGroup, condition::Reason};
use lvs_model::NodeName;

use crate::cluster::{Cluster, Election, Fault, members};

impl Cluster {
    /// Finds the directors of a group; `None` if the group does not exist. They are its machines, and those with bindings that are
    /// lost to a selector: see [`Self::is_lost`].
    ///
    /// An error says why no machine can direct.
    pub(crate) fn elect(&self, group_name: &str) -> Option<Result<Election, Fault>> {
        let group = self.objects.groups.get(group_name)?;
        let (mut machines, mut invalid) = (Vec::new(), None);
        for name in members(&self.objects, group) {
            match name.parse::<NodeName>() {
                Ok(machine) => machines.push(machine),
                Err(error) => {
                    let message = format!("must hold the names of nodes: each {error}");
                    invalid.get_or_insert(Fault::new(Reason::Invalid, message));
                }
            }
        }
        if machines.is_empty() {
            let empty = || Fault::new(Reason::NoDirector, "no node is in the group");
            return Some(Err(invalid.unwrap_or_else(empty)));
        }
        let bound = self.index.bound_to(group_name);
        let lost = bound
            .filter(|machine| !machines.contains(machine))
            .filter(|machine| self.is_lost(machine, group, group_name));
        let lost: Vec<NodeName> = lost.cloned().collect();
        let warning = lost.first().map(lost_member);
        let directors: BTreeSet<NodeName> = machines.into_iter().chain(lost).collect();
        Some(Ok(Election {
            directors: directors.into_iter().collect(),
            warning: invalid.or(warning),
        }))
    }

    /// Returns whether a machine is missing from a group only because its Node is: the Node does not exist, or was registered anew
    /// and has not been in the group since. The machine directs as long as its agent is alive.
    ///
    /// A label that is removed from the same Node is an administrator's decision, and so is a name that a group no longer lists.
    fn is_lost(&self, machine: &NodeName, group: &DirectorGroup, group_name: &str) -> bool {
        let lvs_node = self.objects.lvs_nodes.get(machine);
        let mut memberships = lvs_node.iter().flat_map(|node| &node.spec.groups);
        let member = memberships.find(|membership| membership.name == group_name);
        let member = member.and_then(|membership| membership.node_uid.as_deref());
        let node = self.objects.nodes.get(machine);
        let was_member =
            node.is_some_and(|node| member.is_some() && node.metadata.uid.as_deref() == member);
        group.spec.nodes.selector.is_some() && !was_member && !self.agents.is_silent(machine)
    }
}

fn lost_member(director: &NodeName) -> Fault {
    let message = format!(
        "{director} directs, although the selector does not match its Node, which is missing or new: add the labels. It goes on \
         until its agent stops renewing its Lease"
    );
    Fault::new(Reason::LostDirector, message)
}
