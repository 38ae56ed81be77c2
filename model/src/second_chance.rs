//! Second chance: TCP connections survive a new director and a changed set of real servers at once.
//!
//! A director without a connection table sends a connection to the server that `mh` chooses from the present set. If the set has
//! changed, that may be another server than before. It forwards the packet once more: a second IPVS service, which packets reach by
//! a firewall mark, chooses by `mh` from the set that was in force before the change. So each machine that reads the configuration
//! remembers both sets. In a cluster, the controller remembers them for all ([`ServerHistory`](crate::ServerHistory)), and a machine
//! has the previous set from it, as long as it counts.
//!
//! 1. A set that differs from the remembered one replaces it, and the remembered one becomes the previous set for `keep_seconds`.
//! 2. While there is a previous set, a real server of the present one gives second chances.
//! 3. A machine that is in the previous set only goes on serving what other real servers send to it.
//!
//! Packets do not go round in circles, since all real servers choose from one previous set: the machine that it leads to is one of
//! its destinations, and IPVS delivers packets for a destination that is local.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU32,
};

use crate::{
    Forwarding, Frontend, KeptService, Nat, NodeSpec, ObjectName, PreviousSet, Protocol,
    RESERVED_MARKS, RealServerRole, SchedulerName, SecondChance, ServedAddress, ServerSet, Service,
    ServiceKey, VirtualService, programmed,
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
            programmed::add(&mut set.destinations, server, index, settings);
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

/// Compares the sets of the virtual services with the remembered ones, as of `now`, in seconds since 1970. Returns whether what is
/// remembered has changed.
pub fn remember(
    remembered: &mut Vec<ServerSet>,
    kept: &BTreeMap<ObjectName, KeptService>,
    now: u64,
) -> bool {
    let mut known: BTreeMap<ServiceKey, ServerSet> = remembered
        .iter()
        .map(|set| (set.key, set.clone()))
        .collect();
    let marks = known.values().filter_map(|set| set.previous.as_ref());
    let mut marks: BTreeSet<u32> = marks.map(|previous| previous.mark.get()).collect();
    let mut sets = BTreeMap::new();
    for kept in kept.values() {
        for (index, key) in keys(&kept.service) {
            let known = known.remove(&key);
            let set = match kept.keep_seconds {
                None => given(known, &kept.service, key, now, &mut marks),
                Some(keep_seconds) => {
                    let present = set(&kept.service, &key, index);
                    Some(seen(known, key, present, (now, keep_seconds), &mut marks))
                }
            };
            sets.extend(set.map(|set| (key, set)));
        }
    }
    let sets: Vec<ServerSet> = sets.into_values().collect();
    let has_changed = *remembered != sets;
    *remembered = sets;
    has_changed
}

/// The previous set that the controller has given, with the mark that it has; `None` if it has given none.
fn given(
    known: Option<ServerSet>,
    service: &VirtualService,
    key: ServiceKey,
    now: u64,
    marks: &mut BTreeSet<u32>,
) -> Option<ServerSet> {
    let (_, servers) = service.previous.iter().find(|(own, _)| *own == key)?;
    let previous = match known.and_then(|known| known.previous) {
        Some(previous) if previous.servers == *servers => previous,
        previous => PreviousSet {
            servers: servers.clone(),
            mark: previous.map_or_else(|| free_mark(marks), |previous| Some(previous.mark))?,
            since: now,
        },
    };
    Some(ServerSet {
        key,
        present: Service::default(),
        previous: Some(previous),
    })
}

/// A remembered set after a look at the present one.
fn seen(
    known: Option<ServerSet>,
    key: ServiceKey,
    present: Service,
    (now, keep_seconds): (u64, u32),
    marks: &mut BTreeSet<u32>,
) -> ServerSet {
    let Some(ServerSet {
        key: _,
        present: before,
        previous,
    }) = known
    else {
        return ServerSet {
            key,
            present,
            previous: None,
        };
    };
    if before == present {
        let previous = previous.and_then(|previous| {
            let since = still_counts(previous.since, keep_seconds, now)?;
            Some(PreviousSet { since, ..previous })
        });
        return ServerSet {
            key,
            present,
            previous,
        };
    }
    let mark = match previous {
        Some(previous) => Some(previous.mark),
        None => free_mark(marks),
    };
    let previous = mark.filter(|_| !before.destinations.is_empty());
    ServerSet {
        key,
        present,
        previous: previous.map(|mark| PreviousSet {
            servers: before,
            mark,
            since: now,
        }),
    }
}

fn free_mark(used: &mut BTreeSet<u32>) -> Option<NonZeroU32> {
    let free = RESERVED_MARKS.into_iter().find(|mark| used.insert(*mark))?;
    NonZeroU32::new(free)
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
/// present set any more. Returns when the first previous set that the machine remembers by itself ends, in seconds since 1970.
pub fn recall(
    spec: &mut NodeSpec,
    remembered: &[ServerSet],
    own: impl Fn(&IpAddr) -> bool,
) -> Option<u64> {
    let mut first_end: Option<u64> = None;
    for (name, kept) in &spec.kept {
        for (_, key) in keys(&kept.service) {
            let Ok(at) = remembered.binary_search_by_key(&key, |set| set.key) else {
                continue;
            };
            let previous = remembered.get(at).and_then(|set| set.previous.as_ref());
            let Some(previous) = previous else {
                continue;
            };
            let until = kept
                .keep_seconds
                .map(|seconds| end(previous.since, seconds));
            first_end = first_end.into_iter().chain(until).min();
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
    first_end
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
