//! How a director gives its VIPs up: one that is put on standby, and one that leaves its group.
//!
//! ```text
//! not in the group any more --others have the services--> standby in its LvsNode --another is active--> its bindings are deleted
//! ```

use lvs_crd::{DirectorBinding, DirectorGroup};
use lvs_model::{NodeName, ObjectName};

use super::active::Holder;
use crate::cluster::{Cluster, has_reported};

impl Cluster {
    /// Returns whether a machine hands the VIPs of a group over as soon as another one can have them:
    ///
    /// 1. a machine that leaves, once others have all of its services;
    /// 2. a director that the group names in `standby`, unless it names all;
    /// 3. a director whose node is cordoned, unless no other would be left.
    pub(super) fn is_on_standby(
        &self,
        group: &str,
        object: &DirectorGroup,
        machine: &NodeName,
    ) -> bool {
        let directors = self.index.directors(group);
        if !directors.contains(machine) {
            return self.may_leave(machine, group);
        }
        let failover = object.spec.failover.as_ref();
        let named = failover.map_or(&[][..], |failover| &failover.standby);
        let is_named = |machine: &NodeName| named.iter().any(|name| name == machine.as_str());
        let is_marked =
            |machine: &NodeName| is_named(machine) || self.objects.cordoned.contains(machine);
        if is_named(machine) {
            !directors.iter().all(is_named)
        } else {
            is_marked(machine) && !directors.iter().all(is_marked)
        }
    }

    /// Returns whether a machine that is no director of a group any more can be done without: others have all of its services.
    fn may_leave(&self, machine: &NodeName, group: &str) -> bool {
        let mut directors = self.index.directors(group).iter();
        if !directors.any(|director| !self.agents.is_silent(director)) {
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

    /// Returns whether a binding must stay although it is not desired any more: its machine leaves the group with VIPs that no other
    /// machine has taken yet. Whether that is because the others are dead makes no difference.
    pub(super) fn is_needed(&self, name: &ObjectName, binding: &DirectorBinding) -> bool {
        let group = &binding.spec.director_group;
        let Ok(machine) = binding.spec.node.parse::<NodeName>() else {
            return false;
        };
        let directors = self.index.directors(group);
        !directors.is_empty()
            && !directors.contains(&machine)
            && self.is_only_holder(&machine, group)
            && self.has_successor(name, binding)
    }

    /// Returns whether a machine may hold VIPs of a group that no other machine holds. If another one does although the machine has
    /// not handed them over, the two do not hear each other, and one must go.
    fn is_only_holder(&self, machine: &NodeName, group: &str) -> bool {
        if self.agents.is_silent(machine) {
            return false;
        }
        let lvs_node = self.objects.lvs_nodes.get(machine);
        if self.has_failover(group) && !has_reported(lvs_node.map(AsRef::as_ref)) {
            return true;
        }
        let all = self.reported_holders(group).into_iter();
        let (own, others): (Vec<Holder>, Vec<Holder>) =
            all.partition(|holder| holder.node == *machine);
        let is_held_elsewhere = |own: &Holder| {
            let mut others = others.iter();
            others.any(|other| other.router() == own.router())
        };
        !own.iter().all(is_held_elsewhere)
    }

    /// Returns whether another machine has a binding of the same service, and would take its VIPs by election.
    fn has_successor(&self, name: &ObjectName, binding: &DirectorBinding) -> bool {
        let service = self.service_of(name);
        let others = service.iter().flat_map(|service| self.bindings_of(service));
        let mut others = others.filter(|(_, other)| other.spec.node != binding.spec.node);
        others.any(|(_, other)| !other.spec.alone)
    }
}
