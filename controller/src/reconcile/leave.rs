//! How a director leaves its group: like one that is put on standby.
//!
//! ```text
//! not in the group any more --others have the services--> standby in its LvsNode --another is active--> its bindings are deleted
//! ```

use lvs_crd::{DirectorBinding, DirectorGroup, StandingState};
use lvs_model::{NodeName, ObjectName};

use crate::cluster::Cluster;

impl Cluster {
    /// Whether a machine is to hand VIPs of a group over: one that the group names for that, one that is cordoned, or one that leaves. If
    /// all machines of the group are, none is.
    pub(super) fn is_on_standby(
        &self,
        group: &str,
        object: &DirectorGroup,
        machine: &NodeName,
    ) -> bool {
        let failover = object.spec.failover.as_ref();
        let named = failover.map_or(&[][..], |failover| &failover.standby);
        let is_marked = |machine: &NodeName| {
            self.objects.cordoned.contains(machine)
                || named.iter().any(|name| name == machine.as_str())
                || self.may_leave(machine, group)
        };
        is_marked(machine) && !self.index.machines_of_group(group).iter().all(is_marked)
    }

    /// Returns whether a machine is no director of a group any more, and others can do without it: they have all of its services.
    fn may_leave(&self, machine: &NodeName, group: &str) -> bool {
        if !self.is_leaving(machine, group) {
            return false;
        }
        let bindings = self.index.bindings_on(machine);
        let bindings = bindings.iter().filter(|name| {
            let found = self.objects.bindings.get(*name);
            found.is_some_and(|binding| binding.spec.director_group == group)
        });
        let mut services = bindings.filter_map(|name| self.service_of(name));
        services.all(|service| self.leaves(&service, machine))
    }

    /// Returns whether a machine is no director of a group any more, and another one is whose agent is alive.
    fn is_leaving(&self, machine: &NodeName, group: &str) -> bool {
        let Some(Ok(election)) = self.index.election(group) else {
            return false;
        };
        let mut others = election.directors.iter();
        !election.directors.contains(machine) && others.any(|other| !self.agents.is_silent(other))
    }

    /// Returns whether a binding must stay although its machine leaves the group: the machine has the VIPs, and another one that could
    /// take them over has not done it yet.
    pub(super) fn is_needed(&self, name: &ObjectName, binding: &DirectorBinding) -> bool {
        let group = &binding.spec.director_group;
        let Ok(machine) = binding.spec.node.parse::<NodeName>() else {
            return false;
        };
        self.is_leaving(&machine, group)
            && self.is_active(&machine, group)
            && self.has_successor(name, binding)
    }

    /// Returns whether a machine reports that it holds VIPs of a group.
    fn is_active(&self, machine: &NodeName, group: &str) -> bool {
        let lvs_node = self.objects.lvs_nodes.get(machine);
        let status = lvs_node.and_then(|lvs_node| lvs_node.status.as_ref());
        let mut standings = status.iter().flat_map(|status| &status.standings);
        let is_active = standings
            .any(|standing| standing.group == *group && standing.state == StandingState::Active);
        is_active && !self.agents.is_silent(machine)
    }

    /// Returns whether another machine has the service of a binding, and may take its VIPs over by election.
    fn has_successor(&self, name: &ObjectName, binding: &DirectorBinding) -> bool {
        let service = self.service_of(name);
        let others = service.iter().flat_map(|service| self.bindings_of(service));
        let mut others = others.filter(|(_, other)| other.spec.node != binding.spec.node);
        others.any(|(name, other)| {
            let machine = other.spec.node.parse();
            let is_heard = machine.is_ok_and(|machine| !self.agents.is_silent(&machine));
            is_heard && !other.spec.alone && self.is_held(&name)
        })
    }
}
