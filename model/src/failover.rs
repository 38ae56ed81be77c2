//! How the directors of a group agree who holds its VIPs: VRRP (RFC 9568).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use crate::{Family, NodeName, router_of_vip};

/// The priority of a director that the group gives none.
pub const DEFAULT_PRIORITY: u8 = 100;

/// What the directors of a group agree by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failover {
    /// The id of the first virtual router, 1 to 255: the same on all directors.
    pub router_id: u8,
    /// The number of virtual routers, 1 to 16; 0 counts as 1. They have consecutive ids, which are of no other group on the network of the directors.
    #[serde(default)]
    pub routers: u8,
    /// The time between two advertisements, in hundredths of a second: 1 to 4095.
    pub interval: u16,
    /// After how many seconds a preferred director takes over from one that works. `None`: never.
    pub preempt_after: Option<u32>,
    /// The priorities of directors, 1 to 254: of each, one for each virtual router. The others have 100.
    #[serde(default)]
    pub router_priorities: BTreeMap<NodeName, Vec<u8>>,
    /// The directors that hand their VIPs over as soon as another one takes them.
    pub standby: BTreeSet<NodeName>,
    /// The addresses between which the directors send advertisements by unicast. `None`: by multicast.
    #[serde(default)]
    pub unicast: Option<BTreeMap<NodeName, BTreeSet<IpAddr>>>,
    /// For how many seconds after a change of real servers the previous ones count for connections that exist. `None`:
    /// connections are not kept.
    pub keep_seconds: Option<u32>,
}

impl Failover {
    /// The part of one director.
    #[must_use]
    pub fn of(&self, node: &NodeName) -> Candidacy {
        let priorities = self.router_priorities.get(node).cloned();
        Candidacy {
            router_id: self.router_id,
            routers: self.routers,
            interval: self.interval,
            preempt_after: self.preempt_after,
            priorities: priorities.unwrap_or_default(),
            standby: self.standby.contains(node),
            unicast: self.unicast.as_ref().map(|all| Unicast::of(node, all)),
        }
    }

    /// The first and the last id of its virtual routers.
    #[must_use]
    pub const fn router_ids(&self) -> (u8, u8) {
        let others = self.routers.saturating_sub(1);
        (self.router_id, self.router_id.saturating_add(others))
    }
}

/// The addresses between which a director and the others of its group send advertisements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unicast {
    /// Those of this director, at most one of each family.
    pub own: BTreeSet<IpAddr>,
    /// Those of the others.
    pub peers: BTreeSet<IpAddr>,
}

impl Unicast {
    fn of(node: &NodeName, all: &BTreeMap<NodeName, BTreeSet<IpAddr>>) -> Self {
        let others = all.iter().filter(|(other, _)| *other != node);
        Self {
            own: all.get(node).cloned().unwrap_or_default(),
            peers: others
                .flat_map(|(_, addresses)| addresses)
                .copied()
                .collect(),
        }
    }

    /// The address of this director in a family.
    #[must_use]
    pub fn own_of(&self, family: Family) -> Option<IpAddr> {
        let mut own = self.own.iter().copied();
        own.find(|address| Family::of(*address) == family)
    }

    /// The addresses of the others in a family.
    #[must_use]
    pub fn peers_of(&self, family: Family) -> BTreeSet<IpAddr> {
        let peers = self.peers.iter().copied();
        peers
            .filter(|address| Family::of(*address) == family)
            .collect()
    }
}

/// How open connections survive that another director takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keeping {
    /// They do not.
    Nothing,
    /// Every director chooses the same real server for them, and real servers pass on what another one had.
    Hash,
    /// Directors tell each other their connections.
    Sync,
}

/// One director as a candidate for the VIPs of its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidacy {
    /// The id of the first virtual router, 1 to 255.
    pub router_id: u8,
    /// The number of virtual routers, 1 to 16.
    pub routers: u8,
    /// The time between two advertisements, in hundredths of a second: 1 to 4095.
    pub interval: u16,
    /// After how many seconds it takes over from a less preferred director that works. `None`: never.
    pub preempt_after: Option<u32>,
    /// Its priorities in the virtual routers, 1 to 254. Where there is none, it is 100.
    pub priorities: Vec<u8>,
    /// Whether it hands the VIPs over as soon as another one takes them.
    pub standby: bool,
    /// Where its advertisements go. `None`: to the multicast group.
    pub unicast: Option<Unicast>,
}

impl Candidacy {
    /// The id of the virtual router that a VIP belongs to.
    #[must_use]
    pub fn router_of(&self, vip: IpAddr) -> u8 {
        let router = router_of_vip(vip, self.routers);
        self.router_id.saturating_add(router)
    }

    /// Its priority in the virtual router with an id.
    #[must_use]
    pub fn priority_in(&self, router_id: u8) -> u8 {
        let router = router_id.saturating_sub(self.router_id);
        let given = self.priorities.get(usize::from(router)).copied();
        given.unwrap_or(DEFAULT_PRIORITY)
    }
}
