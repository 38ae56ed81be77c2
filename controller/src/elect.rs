//! Elects the machine of a DirectorGroup that directs.

use lvs_crd::{DirectorGroup, condition::Reason};
use lvs_model::NodeName;

use crate::cluster::{Cluster, Election, Fault, members};

impl Cluster {
    /// Elects the director of a group; `None` if the group does not exist.
    ///
    /// 1. The first by name of its machines that have bindings of the group. A machine that joins changes nothing.
    /// 2. Otherwise, a machine with bindings that is lost to a selector: see [`Self::is_lost`].
    /// 3. Otherwise, the first by name of its machines.
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
        let Some(first) = machines.first() else {
            let empty = || Fault::new(Reason::NoDirector, "no node is in the group");
            return Some(Err(invalid.unwrap_or_else(empty)));
        };
        let incumbent = machines
            .iter()
            .find(|machine| self.index.is_bound(machine, group_name));
        let mut bound = self.index.bound_to(group_name);
        let mut lost = || bound.find(|machine| self.is_lost(machine, group, group_name));
        let (director, warning) = match incumbent {
            None => match lost() {
                Some(director) => (director, Some(lost_member(director, first))),
                None => (first, several(first, &machines)),
            },
            Some(director) => (director, several(director, &machines)),
        };
        Some(Ok(Election {
            director: director.clone(),
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

fn lost_member(director: &NodeName, next: &NodeName) -> Fault {
    let message = format!(
        "{director} directs, although the selector does not match its Node, which is missing or new: add the labels. {next} \
         takes over when the agent of {director} stops renewing its Lease"
    );
    Fault::new(Reason::LostDirector, message)
}

fn several(director: &NodeName, machines: &[NodeName]) -> Option<Fault> {
    let message = || {
        let count = machines.len();
        format!(
            "{director} directs alone, although the group has {count} nodes: failover between several is not supported yet"
        )
    };
    (machines.len() > 1).then(|| Fault::new(Reason::SeveralDirectors, message()))
}
