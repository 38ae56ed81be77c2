//! Second chance: TCP connections survive a new director and a changed set of real servers at once.
//!
//! A director without a connection table sends a connection to the server that `mh` chooses from the present set. If the set has
//! changed, that may be another server than before. It forwards the packet once more: a second IPVS service, which packets reach by
//! a firewall mark, chooses by `mh` from the set that was in force before the change. So each machine that reads the configuration
//! remembers both sets. In a cluster, the controller remembers them for all ([`ServerHistory`](crate::ServerHistory)), and a machine
//! has the previous set from it, as long as it counts.
//!
//! 1. A set that differs from the remembered one replaces it, and the remembered one becomes the previous set for `keep_seconds`, and
//!    for longer on a machine whose second service has active connections: to other machines, they would end with it.
//! 2. While there is a previous set, a real server of the present one gives second chances.
//! 3. A machine that is in the previous set only goes on serving what other real servers send to it.
//! 4. Another order of the same real servers is no change. Each set has the order of its own list, as directors have programmed it.
//!
//! Packets do not go round in circles, since all real servers choose from one previous set: the machine that it leads to is one of
//! its destinations, and IPVS delivers packets for a destination that is local.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU32,
};

use crate::{
    DestinationKey, Forwarding, Frontend, KeptService, Nat, NodeSpec, ObjectName, PreviousSet,
    Protocol, RealServerRole, SchedulerName, SecondChance, ServedAddress, ServerSet, Service,
    ServiceKey, VirtualService, programmed, server_set::SECOND_MARKS,
};

/// Returns whether directors choose the real servers of a virtual service by a hash of the client alone, so that connections can
/// survive without a connection table.
#[must_use]
pub fn is_keepable(service: &VirtualService) -> bool {
    let mut methods = service.methods();
    service.scheduler.name == SchedulerName::Mh.as_str()
        && service.persistence.is_none()
        && methods.all(|method| matches!(method, Forwarding::Dr | Forwarding::Tun(_)))
        && keys(service).next().is_some()
}

/// The TCP ports of the VIPs, with their indices among the ports.
fn keys(service: &VirtualService) -> impl Iterator<Item = (usize, ServiceKey)> {
    let (vips, ports) = match &service.frontend {
        Frontend::Addresses { vips, ports } => (vips.as_slice(), ports.as_slice()),
        Frontend::Fwmark(_) => (&[][..], &[][..]),
    };
    vips.iter().flat_map(move |vip| {
        let tcp = ports.iter().enumerate();
        let tcp = tcp.filter(|(_, port)| port.protocol == Protocol::Tcp);
        tcp.map(|(index, port)| {
            let key = ServiceKey::Address {
                address: *vip,
                protocol: Protocol::Tcp,
                port: port.port,
            };
            (index, key)
        })
    })
}

/// The set of real servers of one port. Limits of connections are left out: they do not concern connections that exist.
fn set(service: &VirtualService, key: &ServiceKey, index: usize) -> Service {
    let family = key.family();
    let mut set = Service {
        config: programmed::config(service, family),
        ..Service::default()
    };
    for server in &service.real_servers {
        if server.takes(family) {
            let mut settings = programmed::destination(server);
            (settings.upper_threshold, settings.lower_threshold) = (0, 0);
            programmed::add(&mut set, server, index, settings);
        }
    }
    set
}

/// The sets of real servers of a virtual service, in the order of their keys.
#[must_use]
pub fn server_sets(service: &VirtualService) -> Vec<(ServiceKey, Service)> {
    let sets = keys(service).map(|(index, key)| (key, set(service, &key, index)));
    let sets: BTreeMap<ServiceKey, Service> = sets.collect();
    sets.into_iter().collect()
}

/// The seconds between two checks whether a previous set whose time is over has connections.
const RECHECK_SECONDS: u64 = 15;

/// Returns the second services whose previous sets do not count any more as of `now`, in seconds since 1970, unless they have active
/// connections.
#[must_use]
pub fn ending(
    remembered: &[ServerSet],
    kept: &BTreeMap<ObjectName, KeptService>,
    now: u64,
) -> BTreeSet<ServiceKey> {
    let services = kept.values();
    let keys = services.flat_map(|kept| keys(&kept.service).map(move |(_, key)| (kept, key)));
    let ending = keys.filter_map(|(kept, key)| {
        let at = remembered.binary_search_by_key(&key, |set| set.key).ok()?;
        let previous = remembered.get(at)?.previous.as_ref()?;
        let is_over = until(kept, &key, previous, now).is_some_and(|until| until <= now);
        is_over.then(|| previous.service_key(&key))
    });
    ending.collect()
}

/// Returns when a previous set stops to count. For a set from the controller, `None` as long as it is given, and a time in the past after
/// that. A clock that was set back starts the time again.
fn until(kept: &KeptService, key: &ServiceKey, previous: &PreviousSet, now: u64) -> Option<u64> {
    match kept.keep_seconds {
        Some(seconds) => Some(end(previous.since.min(now), seconds)),
        None => {
            let mut given = kept.service.previous.iter();
            let is_given = given.any(|(own, _)| own == key);
            (!is_given).then_some(previous.since)
        }
    }
}

/// Compares the sets of the virtual services with the remembered ones, as of `now`, in seconds since 1970. `in_use` are those of the
/// second services from [`ending`] that have active connections. Returns whether what is remembered has changed.
///
/// A director remembers the sets only while it is in one of them, as the address `own`.
pub fn remember(
    remembered: &mut Vec<ServerSet>,
    kept: &BTreeMap<ObjectName, KeptService>,
    in_use: &BTreeSet<ServiceKey>,
    now: u64,
    own: impl Fn(&IpAddr) -> bool,
) -> bool {
    let mut known: BTreeMap<ServiceKey, ServerSet> = remembered
        .iter()
        .map(|set| (set.key, set.clone()))
        .collect();
    let marks = known.values().filter_map(|set| set.previous.as_ref());
    let mut comparison = SetComparison {
        now,
        in_use,
        marks: marks.map(|previous| previous.mark.get()).collect(),
    };
    let mut sets = BTreeMap::new();
    for kept in kept.values() {
        for (index, key) in keys(&kept.service) {
            let known = known.remove(&key);
            if kept.is_directed && !is_in_any(known.as_ref(), kept, &own) {
                continue;
            }
            let set = match kept.keep_seconds {
                None => comparison.given(known, &kept.service, key),
                Some(keep_seconds) => {
                    let present = set(&kept.service, &key, index);
                    Some(comparison.seen(known, key, present, keep_seconds))
                }
            };
            sets.extend(set.map(|set| (key, set)));
        }
    }
    let sets: Vec<ServerSet> = sets.into_values().collect();
    let has_changed = *remembered != sets || !orders(remembered).eq(orders(&sets));
    *remembered = sets;
    has_changed
}

/// The orders of the real servers in some sets.
fn orders(sets: &[ServerSet]) -> impl Iterator<Item = &[DestinationKey]> {
    let services = sets.iter().flat_map(|set| {
        let previous = set.previous.as_ref();
        let previous = previous.map(|previous| &previous.servers);
        previous.into_iter().chain([&set.present])
    });
    services.map(|service| service.order.as_slice())
}

/// Returns whether a machine is a real server of a virtual service, or is in a set that is remembered or given.
fn is_in_any(
    known: Option<&ServerSet>,
    kept: &KeptService,
    own: &impl Fn(&IpAddr) -> bool,
) -> bool {
    let servers = kept.service.real_servers.iter();
    let mut servers = servers.map(|server| &server.address);
    let sets = known.into_iter().flat_map(|known| {
        let previous = known.previous.as_ref();
        let previous = previous.map(|previous| &previous.servers);
        previous.into_iter().chain([&known.present])
    });
    let given = kept.service.previous.iter().map(|(_, given)| given);
    let mut sets = sets.chain(given);
    let is_in = |set: &Service| set.destinations.keys().any(|server| own(&server.address));
    servers.any(own) || sets.any(is_in)
}

/// A comparison of the remembered sets with the present ones.
struct SetComparison<'a> {
    /// The time, in seconds since 1970.
    now: u64,
    /// The second services that have active connections.
    in_use: &'a BTreeSet<ServiceKey>,
    /// The marks in use.
    marks: BTreeSet<u32>,
}

impl SetComparison<'_> {
    /// The previous set that the controller has given, with the mark that it has, or gave before and that has connections; `None`
    /// without either.
    fn given(
        &mut self,
        known: Option<ServerSet>,
        service: &VirtualService,
        key: ServiceKey,
    ) -> Option<ServerSet> {
        let mut given = service.previous.iter();
        let given = given.find(|(own, _)| *own == key);
        let previous = match (given, known.and_then(|known| known.previous)) {
            (Some((_, servers)), Some(previous)) if previous.servers == *servers => PreviousSet {
                servers: servers.clone(),
                ..previous
            },
            (Some((_, servers)), previous) => PreviousSet {
                servers: servers.clone(),
                mark: self.mark(previous.as_ref())?,
                since: self.now,
            },
            (None, previous) => previous.filter(|previous| self.is_in_use(previous, &key))?,
        };
        Some(ServerSet {
            key,
            present: Service::default(),
            previous: Some(previous),
        })
    }

    /// A remembered set after the comparison with the present one.
    fn seen(
        &mut self,
        known: Option<ServerSet>,
        key: ServiceKey,
        present: Service,
        keep_seconds: u32,
    ) -> ServerSet {
        let previous = match known {
            None => None,
            Some(known) if known.present == present => known
                .previous
                .and_then(|previous| self.counted(previous, &key, keep_seconds)),
            Some(known) if known.present.destinations.is_empty() => None,
            Some(known) => {
                let mark = self.mark(known.previous.as_ref());
                mark.map(|mark| PreviousSet {
                    servers: known.present,
                    mark,
                    since: self.now,
                })
            }
        };
        ServerSet {
            key,
            present,
            previous,
        }
    }

    /// Returns a previous set if it still counts.
    fn counted(
        &self,
        previous: PreviousSet,
        key: &ServiceKey,
        keep_seconds: u32,
    ) -> Option<PreviousSet> {
        if self.is_in_use(&previous, key) {
            return Some(previous);
        }
        let since = still_counts(previous.since, keep_seconds, self.now)?;
        Some(PreviousSet { since, ..previous })
    }

    fn is_in_use(&self, previous: &PreviousSet, key: &ServiceKey) -> bool {
        self.in_use.contains(&previous.service_key(key))
    }

    /// The mark of a previous set, or a free one.
    fn mark(&mut self, previous: Option<&PreviousSet>) -> Option<NonZeroU32> {
        if let Some(previous) = previous {
            return Some(previous.mark);
        }
        let mut marks = SECOND_MARKS;
        let free = marks.find(|mark| self.marks.insert(*mark))?;
        NonZeroU32::new(free)
    }
}

/// When a set that was replaced at some time stops to count.
pub(crate) fn end(since: u64, keep_seconds: u32) -> u64 {
    since.saturating_add(keep_seconds.into())
}

/// Returns since when a set that was replaced at some time counts, if it still does. A clock that was set back starts the time again.
pub(crate) fn still_counts(since: u64, keep_seconds: u32, now: u64) -> Option<u64> {
    let since = since.min(now);
    (now < end(since, keep_seconds)).then_some(since)
}

/// Adds to the roles of a machine what follows from the previous sets: second chances, and what it serves although it is not in the
/// present set any more. Returns when it is to be looked again whether a previous set still counts, in seconds since 1970.
pub fn recall(
    spec: &mut NodeSpec,
    remembered: &[ServerSet],
    own: impl Fn(&IpAddr) -> bool,
    now: u64,
) -> Option<u64> {
    let mut next_check: Option<u64> = None;
    for (name, kept) in &spec.kept {
        for (_, key) in keys(&kept.service) {
            let Ok(at) = remembered.binary_search_by_key(&key, |set| set.key) else {
                continue;
            };
            let previous = remembered.get(at).and_then(|set| set.previous.as_ref());
            let Some(previous) = previous else {
                continue;
            };
            let until = until(kept, &key, previous, now);
            let check = until.map(|until| {
                if until <= now {
                    now + RECHECK_SECONDS
                } else {
                    until
                }
            });
            next_check = next_check.into_iter().chain(check).min();
            let servers = previous.servers.destinations.keys();
            let mut servers = servers.map(|server| server.address);
            let serves = spec.serves.get(name);
            if serves.is_some_and(|role| !role.is_former) {
                if servers.any(|server| !own(&server)) {
                    spec.second_chances.push(SecondChance {
                        owner: name.clone(),
                        key,
                        mark: previous.mark,
                        servers: previous.servers.clone(),
                    });
                }
            } else {
                let role = spec.serves.remove(name);
                let role = former(role, &key, &previous.servers, &own);
                spec.serves.extend(role.map(|role| (name.clone(), role)));
            }
        }
    }
    next_check
}

/// The role of a machine that is in a previous set only, with what another port has added to it.
fn former(
    role: Option<RealServerRole>,
    key: &ServiceKey,
    previous: &Service,
    own: impl Fn(&IpAddr) -> bool,
) -> Option<RealServerRole> {
    let ServiceKey::Address { address: vip, .. } = key else {
        return role;
    };
    let mine = previous.destinations.iter();
    let mut mine = mine.filter(|(server, _)| own(&server.address)).peekable();
    if mine.peek().is_none() {
        return role;
    }
    let mut role = role.unwrap_or_else(|| RealServerRole {
        vips: Vec::new(),
        nat: Nat::default(),
        own: BTreeMap::new(),
        is_former: true,
    });
    if !role.vips.contains(vip) {
        role.vips.push(*vip);
    }
    for (server, settings) in mine {
        let served = role.own.entry(server.address);
        let served = served.or_insert_with(|| ServedAddress {
            forwarding: settings.forwarding,
            families: BTreeSet::new(),
            ports: BTreeSet::new(),
        });
        served.families.insert(key.family());
    }
    Some(role)
}

#[cfg(test)]
mod tests;
