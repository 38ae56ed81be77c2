//! The VRRP router ids of the groups that give none.

use std::collections::{BTreeMap, BTreeSet};

use lvs_crd::convert::default_router_id;

use crate::cluster::Cluster;

impl Cluster {
    /// The router id of a group: the one that it gives, the one that its directors have, or a free one.
    pub(super) fn router_id(&self, group: &str) -> i64 {
        self.fixed_router_id(group)
            .unwrap_or_else(|| self.free_router_id(group))
    }

    fn fixed_router_id(&self, group: &str) -> Option<i64> {
        let given = self.given_router_id(group);
        given.or_else(|| self.granted_router_id(group))
    }

    fn given_router_id(&self, group: &str) -> Option<i64> {
        let group = self.objects.groups.get(group)?;
        group.spec.failover.as_ref()?.virtual_router_id
    }

    /// The router id that directors of a group were given before. It stays, because directors with different ids would all hold the
    /// VIPs.
    fn granted_router_id(&self, group: &str) -> Option<i64> {
        let machines = self.index.machines_of_group(group);
        let lvs_nodes = machines
            .iter()
            .filter_map(|machine| self.objects.lvs_nodes.get(machine));
        let mut memberships = lvs_nodes.flat_map(|lvs_node| &lvs_node.spec.groups);
        memberships.find_map(|membership| {
            let failover = membership.failover.as_ref()?;
            (membership.name == group).then_some(failover.virtual_router_id)
        })
    }

    /// A router id that no other group has. Of several groups without one, the first by name chooses first, so that the result does not
    /// depend on the order of events.
    fn free_router_id(&self, group: &str) -> i64 {
        let names = self.objects.groups.keys();
        let known = names.map(|name| (name, self.fixed_router_id(name)));
        let known: BTreeMap<&String, Option<i64>> = known.collect();
        let mut taken: BTreeSet<i64> = known.values().flatten().copied().collect();
        let unknown = known.iter().filter(|(_, id)| id.is_none());
        for (name, _) in unknown {
            let id = first_free(default_router_id(name).into(), &taken);
            if *name == group {
                return id;
            }
            taken.insert(id);
        }
        default_router_id(group).into()
    }
}

/// The first id that is not taken, from a preferred one on. With 255 groups, all are.
fn first_free(preferred: i64, taken: &BTreeSet<i64>) -> i64 {
    let mut ids = (preferred..=255).chain(1..preferred);
    ids.find(|id| !taken.contains(id)).unwrap_or(preferred)
}
