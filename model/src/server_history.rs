//! The sets of real servers of a virtual service that count for its connections, as the controller remembers them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    Service, ServiceKey, VirtualService,
    second_chance::{MOST_REPLACED, end, leading_of, leads_alike, server_sets, still_counts},
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
    /// The versions before the last changes of real servers, the newest first, while they count.
    pub previous: Vec<PreviousVersion>,
}

/// A version of a virtual service whose real servers were replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviousVersion {
    /// The version.
    pub service: Arc<VirtualService>,
    /// When its real servers were replaced, in seconds since 1970. Unlike `since`, it is not stored.
    pub replaced: u64,
    /// When its time began, in seconds since 1970: when its real servers were replaced, or some without weight went later.
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
    /// Real servers without weight went.
    IdleServers,
    /// Connections are led to other real servers.
    Connections,
}

impl ServerHistory {
    /// Returns the history after a look at the present version, as of `now`, in seconds since 1970.
    ///
    /// 1. If the real servers differ, the version in force becomes a previous one for `keep_seconds`.
    /// 2. Changes that follow within 10 seconds are part of that change: the previous versions stay.
    /// 3. If only real servers without weight go, the previous versions stay, and the time of the newest begins again: they may be among
    ///    its real servers. That such come changes nothing.
    /// 4. A version whose real servers took no connections becomes no previous one.
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
                previous: Vec::new(),
            };
        };
        let mut previous = counted(previous, keep_seconds, now);
        let sets = server_sets(&before);
        match (
            displaced(&sets, &server_sets(&present)),
            previous.first_mut(),
        ) {
            (Displaced::Nothing, _) => {}
            (Displaced::IdleServers | Displaced::Connections, Some(newest))
                if now < end(newest.replaced, BURST_SECONDS) => {}
            (Displaced::IdleServers, Some(newest)) => newest.since = now,
            (Displaced::IdleServers | Displaced::Connections, _) if !takes_connections(&sets) => {}
            (Displaced::IdleServers | Displaced::Connections, _) => {
                let replaced = PreviousVersion {
                    service: before,
                    replaced: now,
                    since: now,
                };
                previous.insert(0, replaced);
                previous.truncate(MOST_REPLACED);
            }
        }
        Self { present, previous }
    }

    /// Returns the history after a look at a present version whose changes are not remembered: previous ones that count stay.
    #[must_use]
    pub fn pass_over(
        known: Option<Self>,
        present: Arc<VirtualService>,
        keep_seconds: u32,
        now: u64,
    ) -> Self {
        let previous = known.map_or_else(Vec::new, |known| known.previous);
        Self {
            present,
            previous: counted(previous, keep_seconds, now),
        }
    }

    /// Returns the previous version by which real servers lead connections. `second_chance` has the rule.
    #[must_use]
    pub fn leading(&self) -> Option<&PreviousVersion> {
        self.leading_of(&self.differing())
    }

    /// Returns the newest version that is older than the leading one and leads differently than the present one. Not all connections from
    /// before its end are found when the active director changes.
    #[must_use]
    pub fn passed_over(&self) -> Option<&PreviousVersion> {
        let differing = self.differing();
        let leading = self.leading_of(&differing)?;
        let mut older = differing.iter().skip_while(|version| **version != leading);
        older.nth(1).copied()
    }

    fn leading_of<'a>(&self, differing: &[&'a PreviousVersion]) -> Option<&'a PreviousVersion> {
        let servers = self.present.real_servers.iter();
        let servers: BTreeSet<IpAddr> = servers.map(|server| server.address).collect();
        leading_of(differing.iter().copied(), |version| {
            let mut before = version.service.real_servers.iter();
            before.all(|server| server.weight == 0 || servers.contains(&server.address))
        })
    }

    /// The previous versions that lead differently than the present one.
    fn differing(&self) -> Vec<&PreviousVersion> {
        let present = server_sets(&self.present);
        let previous = self.previous.iter();
        let differing = previous.filter(|version| {
            displaced(&server_sets(&version.service), &present) == Displaced::Connections
        });
        differing.collect()
    }
}

/// The previous versions that still count.
fn counted(previous: Vec<PreviousVersion>, keep_seconds: u32, now: u64) -> Vec<PreviousVersion> {
    let previous = previous.into_iter();
    let counted = previous.filter_map(|version| version.still_counts(keep_seconds, now));
    counted.collect()
}

/// Compares the sets of the IPVS services that both versions have.
fn displaced(before: &[(ServiceKey, Service)], now: &[(ServiceKey, Service)]) -> Displaced {
    let now: BTreeMap<&ServiceKey, &Service> = now.iter().map(|(key, set)| (key, set)).collect();
    let changes = before.iter().filter_map(|(key, before)| {
        let now = *now.get(key)?;
        let mut servers = before.destinations.keys();
        let is_there = |server| now.destinations.contains_key(server);
        Some(if !leads_alike(before, now) {
            Displaced::Connections
        } else if servers.all(is_there) {
            Displaced::Nothing
        } else {
            Displaced::IdleServers
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
