//! How the directors of a group agree who holds its VIPs: VRRP (RFC 9568).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use crate::{Family, NodeName};

/// The priority of a director that the group gives none.
pub const DEFAULT_PRIORITY: u8 = 100;

/// What the directors of a group agree by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failover {
    /// The virtual router id, 1 to 255: the same on all directors, and of no other group on their network.
    pub router_id: u8,
    /// The time between two advertisements, in hundredths of a second: 1 to 4095.
    pub interval: u16,
    /// After how many seconds a preferred director takes over from one that works. `None`: never.
    pub preempt_after: Option<u32>,
    /// The priorities of directors, 1 to 254; the others have 100.
    pub priorities: BTreeMap<NodeName, u8>,
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
        let priority = self.priorities.get(node).copied();
        Candidacy {
            router_id: self.router_id,
            interval: self.interval,
            preempt_after: self.preempt_after,
            priority: priority.unwrap_or(DEFAULT_PRIORITY),
            standby: self.standby.contains(node),
            unicast: self.unicast.as_ref().map(|all| Unicast::of(node, all)),
        }
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
    /// The virtual router id, 1 to 255.
    pub router_id: u8,
    /// The time between two advertisements, in hundredths of a second: 1 to 4095.
    pub interval: u16,
    /// After how many seconds it takes over from a less preferred director that works. `None`: never.
    pub preempt_after: Option<u32>,
    /// Its priority, 1 to 254.
    pub priority: u8,
    /// Whether it hands the VIPs over as soon as another one takes them.
    pub standby: bool,
    /// Where its advertisements go. `None`: to the multicast group.
    pub unicast: Option<Unicast>,
}
