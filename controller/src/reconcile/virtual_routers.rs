//! The virtual routers of groups: how many each has, and their ids.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lvs_crd::{DirectorGroup, condition::Reason, convert::default_router_id};
use lvs_model::{MOST_ROUTERS, router_of_vip};

use crate::cluster::{Cluster, Fault};

/// The highest id of a virtual router.
const LAST_ID: i64 = 255;

/// The virtual routers of a group. Their ids are consecutive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VirtualRouters {
    /// The first id.
    pub first: i64,
    /// How many they are, at least 1.
    pub count: u8,
}

impl VirtualRouters {
    fn ids(self) -> impl Iterator<Item = i64> {
        (0..i64::from(self.count)).map(move |router| self.first + router)
    }

    /// Returns whether an id is of one of them.
    pub(super) fn contains(self, id: i64) -> bool {
        (self.first..self.first + i64::from(self.count)).contains(&id)
    }

    /// The id of the router that a VIP belongs to.
    pub(super) fn id_of(self, vip: IpAddr) -> i64 {
        self.first + i64::from(router_of_vip(vip, self.count))
    }
}

impl Cluster {
    /// The virtual routers of a group:
    ///
    /// 1. The first id is the one that the group gives, the one that its directors have, or the first of as many free ones as it needs.
    /// 2. There are as many as the group asks for, as far as no other group has their ids. Those that its directors have stay.
    pub(super) fn virtual_routers(&self, group: &str) -> VirtualRouters {
        let wanted = self.wanted_routers(group);
        let granted = self.granted_routers(group);
        let Some(first) = self.fixed_first_id(group) else {
            return self.free_routers(group, wanted);
        };
        if wanted == 1 {
            return VirtualRouters { first, count: 1 };
        }
        let taken = self.taken_ids(group);
        let is_own = |id: &i64| granted.is_some_and(|granted| granted.contains(*id));
        let has_room = |id: &i64| *id <= LAST_ID && (is_own(id) || !taken.contains_key(id));
        let others = (first + 1..first + i64::from(wanted)).take_while(has_room);
        VirtualRouters {
            first,
            count: u8::try_from(1 + others.count()).unwrap_or(1),
        }
    }

    /// Why a group has fewer virtual routers than it asks for.
    pub(super) fn lack_of_routers(&self, group: &str) -> Option<Fault> {
        let wanted = self.wanted_routers(group);
        let VirtualRouters { first, count } = self.virtual_routers(group);
        if count >= wanted || !self.has_failover(group) {
            return None;
        }
        let next = first + i64::from(count);
        let cause = match self.taken_ids(group).get(&next) {
            Some(other) => format!("the id {next} is of DirectorGroup '{other}'"),
            None => format!("the ids from {first} on end at {LAST_ID}"),
        };
        let message = format!(
            "`spec.failover.routers`: there are {count} virtual routers instead of {wanted}, since {cause}; give a `virtualRouterId` with \
             enough free ones after it"
        );
        Some(Fault::new(Reason::Conflict, message))
    }

    /// The groups that have fewer virtual routers than they ask for, or would have if they had directors.
    pub(crate) fn groups_that_lack_routers(&self) -> Vec<String> {
        let names = self.objects.groups.keys();
        let lacking = names.filter(|name| {
            let wanted = self.wanted_routers(name);
            wanted > 1
                && self
                    .granted_routers(name)
                    .is_none_or(|found| found.count < wanted)
        });
        lacking.cloned().collect()
    }

    /// How many a group asks for. Gateways move with all VIPs of a family, so there is one router then.
    fn wanted_routers(&self, group: &str) -> u8 {
        let wanted = |group: &DirectorGroup| {
            let failover = group.spec.failover.as_ref()?;
            let routers = failover.routers.clamp(1, MOST_ROUTERS.into());
            u8::try_from(routers)
                .ok()
                .filter(|_| group.spec.gateways.is_empty())
        };
        let object = self.objects.groups.get(group);
        object.and_then(|object| wanted(object)).unwrap_or(1)
    }

    fn fixed_first_id(&self, group: &str) -> Option<i64> {
        let given = self.given_first_id(group);
        given.or_else(|| Some(self.granted_routers(group)?.first))
    }

    fn given_first_id(&self, group: &str) -> Option<i64> {
        let group = self.objects.groups.get(group)?;
        group.spec.failover.as_ref()?.virtual_router_id
    }

    /// What directors of a group were given before. It stays, because directors with different ids would all hold the VIPs.
    fn granted_routers(&self, group: &str) -> Option<VirtualRouters> {
        let machines = self.index.machines_of_group(group);
        let lvs_nodes = machines
            .iter()
            .filter_map(|machine| self.objects.lvs_nodes.get(machine));
        let mut memberships = lvs_nodes.flat_map(|lvs_node| &lvs_node.spec.groups);
        memberships.find_map(|membership| {
            let failover = membership.failover.as_ref()?;
            let count = u8::try_from(failover.priorities.len()).ok()?;
            (membership.name == group).then_some(VirtualRouters {
                first: failover.virtual_router_id,
                count: count.max(1),
            })
        })
    }

    /// The ids that other groups have, each with the group: those that their directors have, and otherwise those that a group gives and asks
    /// for; of two such groups, the first by name has them, and the other its first one only.
    fn taken_ids(&self, group: &str) -> BTreeMap<i64, &String> {
        let others = self.objects.groups.keys().filter(|name| *name != group);
        let routers = others.filter_map(|name| {
            let asked = || {
                let first = self.given_first_id(name)?;
                let count = if name.as_str() < group {
                    self.wanted_routers(name)
                } else {
                    1
                };
                Some(VirtualRouters { first, count })
            };
            let granted = self.granted_routers(name);
            Some((name, granted.or_else(asked)?))
        });
        let ids = routers.flat_map(|(name, routers)| routers.ids().map(move |id| (id, name)));
        ids.collect()
    }

    /// Virtual routers whose ids no other group has. Of several groups without ids, the first by name chooses first, so that the result
    /// does not depend on the order of events.
    fn free_routers(&self, group: &str, wanted: u8) -> VirtualRouters {
        let mut taken: BTreeSet<i64> = self.taken_ids(group).into_keys().collect();
        let names = self.objects.groups.keys();
        for name in names.filter(|name| self.fixed_first_id(name).is_none()) {
            let wanted = self.wanted_routers(name);
            let found = first_free(default_router_id(name).into(), wanted, &taken);
            if *name == group {
                return found;
            }
            taken.extend(found.ids());
        }
        first_free(default_router_id(group).into(), wanted, &taken)
    }
}

/// The first ids that are not taken, from a preferred one on: as many as are wanted, or else the most that there are. With 255 groups, all
/// are taken.
fn first_free(preferred: i64, wanted: u8, taken: &BTreeSet<i64>) -> VirtualRouters {
    let firsts = || (preferred..=LAST_ID).chain(1..preferred);
    let with_count = |count: u8| {
        let mut all = firsts().map(|first| VirtualRouters { first, count });
        all.find(|routers| {
            let mut ids = routers.ids();
            ids.all(|id| id <= LAST_ID && !taken.contains(&id))
        })
    };
    let none = VirtualRouters {
        first: preferred,
        count: 1,
    };
    (1..=wanted).rev().find_map(with_count).unwrap_or(none)
}
