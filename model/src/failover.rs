//! How the directors of a group agree who holds its VIPs: VRRP (RFC 9568).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::NodeName;

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
        }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}
