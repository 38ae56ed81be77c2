//! What is to keep the connections.

use std::fmt;

use clap::ValueEnum;
use lab::FleetSetting;

macro_rules! keep_seconds {
    () => {
        20
    };
}

/// Longer than a round, from the change of the set until the last connection was asked. The next round begins when it is over.
pub(super) const KEEP_SECONDS: u32 = keep_seconds!();

/// Directors find connections by the hash; real servers know the set from before.
const KEPT: &str = concat!("connections: Keep, keepSeconds: ", keep_seconds!());

/// Directors find connections by the hash; real servers know no set from before.
const NOT_KEPT: &str = "connections: Drop";

/// What is to keep the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Keeper {
    /// The agents, with second chances.
    SecondChance,
    /// The agents, with the hash of `mh` alone.
    Hash,
    /// keepalived on the directors, with `rr` and the sync daemon.
    Keepalived,
}

impl Keeper {
    /// What directors and real servers read.
    pub(super) fn settings(self, vip: &'static str, forwarding: &'static str) -> [FleetSetting; 2] {
        let (director, server) = match self {
            Self::SecondChance => (KEPT, KEPT),
            Self::Hash => (KEPT, NOT_KEPT),
            Self::Keepalived => (NOT_KEPT, NOT_KEPT),
        };
        [director, server].map(|failover| FleetSetting {
            vip,
            forwarding,
            failover,
        })
    }
}

impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SecondChance => "second chance",
            Self::Hash => "mh alone",
            Self::Keepalived => "keepalived, sync",
        })
    }
}
