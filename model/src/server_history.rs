//! The sets of real servers of a virtual service that count for its connections, as the controller remembers them.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Service, ServiceKey, VirtualService,
    second_chance::{end, server_sets, still_counts},
};

/// The most real servers of a virtual service whose connections are kept when they change: each of their machines gets all of them.
pub const MOST_KEPT_SERVERS: usize = 100;

/// Changes that follow a change within this time, in seconds, are part of it. A new real server, for example, is added with weight 0,
/// and gets its weight once its machine is ready.
const BURST_SECONDS: u32 = 10;

/// The versions of a virtual service that count for its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHistory {
    /// The version in force.
    pub present: Arc<VirtualService>,
    /// The version before the last change of real servers, while it counts.
    pub previous: Option<PreviousVersion>,
}

/// A version of a virtual service whose real servers were replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviousVersion {
    /// The version.
    pub service: Arc<VirtualService>,
    /// When its real servers were replaced, in seconds since 1970. Unlike `since`, it is not stored.
    pub replaced: u64,
    /// When its time began, in seconds since 1970: when its real servers were replaced, or some without weight came or went later.
    pub since: u64,
}

impl PreviousVersion {
    /// Returns when the version stops to count, in seconds since 1970.
    #[must_use]
    pub fn end(&self, keep_seconds: u32) -> u64 {
        end(self.since, keep_seconds)
    }

    fn still_counts(self, keep_seconds: u32, now: u64) -> Option<Self> {
        let since = still_counts(self.since, keep_seconds, now)?;
        Some(Self { since, ..self })
    }
}

/// What a change of real servers displaces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Displaced {
    Nothing,
    /// Real servers without weight came or went.
    IdleServers,
    /// Connections are led to other real servers.
    Connections,
}

impl ServerHistory {
    /// Returns the history after a look at the present version, as of `now`, in seconds since 1970.
    ///
    /// 1. If the real servers differ, the version in force becomes the previous one for `keep_seconds`.
    /// 2. Changes that follow within 10 seconds are part of that change: the previous version stays.
    /// 3. If only real servers without weight come or go, a previous version stays, and its time begins again: those that go may be among
    ///    its real servers.
    /// 4. A version whose real servers took no connections replaces no previous one.
    #[must_use]
    pub fn follow(
        known: Option<Self>,
        present: Arc<VirtualService>,
        keep_seconds: u32,
        now: u64,
    ) -> Self {
        let Some(Self {
            present: before,
            previous,
        }) = known
        else {
            return Self {
                present,
                previous: None,
            };
        };
        let previous = previous.and_then(|previous| previous.still_counts(keep_seconds, now));
        let sets = server_sets(&before);
        let previous = match (displaced(&sets, &server_sets(&present)), previous) {
            (Displaced::Nothing, previous) => previous,
            (Displaced::IdleServers | Displaced::Connections, Some(previous))
                if now < end(previous.replaced, BURST_SECONDS) =>
            {
                Some(previous)
            }
            (Displaced::IdleServers, Some(previous)) => Some(PreviousVersion {
                since: now,
                ..previous
            }),
            (Displaced::IdleServers | Displaced::Connections, previous)
                if !takes_connections(&sets) =>
            {
                previous
            }
            (Displaced::IdleServers | Displaced::Connections, _) => Some(PreviousVersion {
                service: before,
                replaced: now,
                since: now,
            }),
        };
        Self { present, previous }
    }

    /// Returns the history after a look at a present version whose changes are not remembered: a previous one that counts stays.
    #[must_use]
    pub fn pass_over(
        known: Option<Self>,
        present: Arc<VirtualService>,
        keep_seconds: u32,
        now: u64,
    ) -> Self {
        let previous = known.and_then(|known| known.previous?.still_counts(keep_seconds, now));
        Self { present, previous }
    }
}

/// Compares the sets of the IPVS services that both versions have.
fn displaced(before: &[(ServiceKey, Service)], now: &[(ServiceKey, Service)]) -> Displaced {
    let now: BTreeMap<&ServiceKey, &Service> = now.iter().map(|(key, set)| (key, set)).collect();
    let changes = before.iter().filter_map(|(key, before)| {
        let now = *now.get(key)?;
        let has_weight = |set: &&Service| -> Vec<_> {
            let servers = set.destinations.iter();
            let servers = servers.filter(|(_, settings)| settings.weight > 0);
            servers.map(|(key, settings)| (*key, *settings)).collect()
        };
        Some(if before == now {
            Displaced::Nothing
        } else if before.config == now.config && has_weight(&before) == has_weight(&now) {
            Displaced::IdleServers
        } else {
            Displaced::Connections
        })
    });
    changes.max().unwrap_or(Displaced::Nothing)
}

fn takes_connections(sets: &[(ServiceKey, Service)]) -> bool {
    let mut servers = sets.iter().flat_map(|(_, set)| set.destinations.values());
    servers.any(|settings| settings.weight > 0)
}

#[cfg(test)]
mod tests;
