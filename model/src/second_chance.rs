//! Second chance: TCP connections survive a new director and a changed set of real servers at once.
//!
//! A director without a connection table sends a connection to the server that `mh` chooses from the present set. If the set has
//! changed, that may be another server than before. It forwards the packet once more: a second IPVS service, which packets reach by
//! a firewall mark, chooses by `mh` from the set that was in force before the change. So each machine that reads the configuration
//! remembers both sets. In a cluster, the controller remembers them for all ([`ServerHistory`](crate::ServerHistory)), and a machine
//! has the previous set from it, as long as it counts.
//!
//! 1. A set that differs from the one in force replaces it, and the replaced one counts for `keep_seconds`.
//! 2. While replaced sets count, a real server of the present one gives second chances by one of them ([`leading_of`]).
//! 3. A second service stays while its set counts, and then as long as it has active connections. They go on by way of this machine,
//!    whatever set it chooses from by then, and also if it is no real server any more: IPVS finds a connection before it looks at marks.
//! 4. A machine that is in a replaced set only goes on serving what other real servers send to it.
//! 5. Another order of the same real servers is no change. Each set has the order of its own list, as directors have programmed it.
//!
//! A packet that takes a second chance does not go round in circles: all real servers choose from one replaced set, so the machine that
//! gets it is the one that this set leads to, and IPVS delivers packets for a destination that is local. A connection in the table of an
//! older second service can lead to a machine that has lost its socket, and from there back. IPVS lowers the TTL each time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU32,
};

use crate::{
    DestinationKey, Forwarding, Frontend, KeptService, Nat, NodeSpec, ObjectName, Protocol,
    RealServerRole, ReplacedSet, SchedulerName, SecondChance, ServedAddress, ServerSet, Service,
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

/// The seconds between two checks whether a second service has connections.
const RECHECK_SECONDS: u64 = 15;

/// The most replaced sets that are remembered of one port, or versions of a virtual service.
pub(crate) const MOST_REPLACED: usize = 16;

/// Returns when a replaced set stops to count. For a set from the controller, `None` as long as it is given, and a time in the past after
/// that. A clock that was set back starts the time again.
fn until(kept: &KeptService, key: &ServiceKey, replaced: &ReplacedSet, now: u64) -> Option<u64> {
    match kept.keep_seconds {
        Some(seconds) => Some(end(replaced.since.min(now), seconds)),
        None => {
            let mut given = kept.service.previous.iter();
            let is_given = given.any(|(own, servers)| own == key && *servers == replaced.servers);
            (!is_given).then_some(replaced.since.min(now))
        }
    }
}

fn counts(kept: &KeptService, key: &ServiceKey, replaced: &ReplacedSet, now: u64) -> bool {
    until(kept, key, replaced, now).is_none_or(|until| now < until)
}

/// The replaced set that stray packets are led by, of those that count.
fn leading<'a>(kept: &KeptService, set: &'a ServerSet, now: u64) -> Option<&'a ReplacedSet> {
    let counted = set.replaced.iter().filter(|replaced| {
        !leads_alike(&replaced.servers, &set.present) && counts(kept, &set.key, replaced, now)
    });
    leading_of(counted, |replaced| {
        let mut servers = replaced.servers.destinations.iter();
        servers.all(|(server, settings)| {
            settings.weight == 0 || set.present.destinations.contains_key(server)
        })
    })
}

/// Chooses the set by which stray packets are led, of those from before changes that count and lead differently than the present one. They
/// are in the order from the newest to the oldest. It is the newest from which a real server has gone, or else the oldest.
///
/// As long as all real servers of a set are still there, the one before it finds the same connections, except for those that began on a
/// new real server, and older ones too. Where one has gone, only that set finds its connections.
pub(crate) fn leading_of<T>(
    replaced: impl Iterator<Item = T> + Clone,
    is_complete: impl Fn(&T) -> bool,
) -> Option<T> {
    let mut incomplete = replaced.clone().filter(|set| !is_complete(set));
    incomplete.next().or_else(|| replaced.last())
}

/// Returns whether two sets of real servers lead all packets alike. Real servers without weight take no part in that.
pub(crate) fn leads_alike(one: &Service, other: &Service) -> bool {
    let with_weight = |set: &Service| -> Vec<_> {
        let servers = set.destinations.iter();
        let servers = servers.filter(|(_, settings)| settings.weight > 0);
        servers.map(|(key, settings)| (*key, *settings)).collect()
    };
    one.config == other.config && with_weight(one) == with_weight(other)
}

/// The virtual services whose sets are remembered, by the keys of their IPVS services.
fn kept_sets<'a>(
    kept: &'a BTreeMap<ObjectName, KeptService>,
    remembered: &'a [ServerSet],
) -> impl Iterator<Item = (&'a ObjectName, &'a KeptService, &'a ServerSet)> {
    kept.iter().flat_map(move |(name, kept)| {
        keys(&kept.service).filter_map(move |(_, key)| {
            let at = remembered.binary_search_by_key(&key, |set| set.key).ok()?;
            Some((name, kept, remembered.get(at)?))
        })
    })
}

/// Returns the second services whose sets do not count any more as of `now`, in seconds since 1970. They stay only as long as they have
/// active connections.
#[must_use]
pub fn ending(
    remembered: &[ServerSet],
    kept: &BTreeMap<ObjectName, KeptService>,
    now: u64,
) -> BTreeSet<ServiceKey> {
    let ending = kept_sets(kept, remembered).flat_map(|(_, kept, set)| {
        let replaced = set.replaced.iter();
        let ending = replaced.filter(move |replaced| !counts(kept, &set.key, replaced, now));
        ending.map(|replaced| replaced.service_key(&set.key))
    });
    ending.collect()
}

/// Compares the sets of the virtual services with the remembered ones, as of `now`, in seconds since 1970. Returns whether what is
/// remembered has changed.
///
/// A director remembers the sets only while it is in one of them, as the address `own`.
pub fn remember(
    remembered: &mut Vec<ServerSet>,
    kept: &BTreeMap<ObjectName, KeptService>,
    now: u64,
    own: impl Fn(&IpAddr) -> bool,
) -> bool {
    let mut known: BTreeMap<ServiceKey, ServerSet> = remembered
        .iter()
        .map(|set| (set.key, set.clone()))
        .collect();
    let marks = known.values().flat_map(|set| &set.replaced);
    let mut comparison = SetComparison {
        now,
        marks: marks.map(|replaced| replaced.mark.get()).collect(),
    };
    let mut sets = BTreeMap::new();
    for kept in kept.values() {
        for (index, key) in keys(&kept.service) {
            let known = known.remove(&key);
            if kept.is_directed && !is_in_any(known.as_ref(), kept, &own) {
                continue;
            }
            let set = if kept.keep_seconds.is_some() {
                comparison.seen(known, key, set(&kept.service, &key, index))
            } else {
                comparison.given(known, &kept.service, key)
            };
            sets.insert(key, set);
        }
    }
    let sets: Vec<ServerSet> = sets.into_values().filter(|set| !is_empty(set)).collect();
    let has_changed = *remembered != sets || !orders(remembered).eq(orders(&sets));
    *remembered = sets;
    has_changed
}

/// Forgets replaced sets as of `now`, in seconds since 1970. Returns whether there were some to forget. What stays:
///
/// 1. The sets of second services that have active connections, `in_use`.
/// 2. Those that count, up to 16 of each port; the oldest are forgotten first.
/// 3. While 1. keeps a set on a machine that is no real server any more, the newest one in which it is, as the address `own`: packets of
///    these connections reach it as that real server.
pub fn forget(
    remembered: &mut Vec<ServerSet>,
    kept: &BTreeMap<ObjectName, KeptService>,
    in_use: &BTreeSet<ServiceKey>,
    now: u64,
    own: impl Fn(&IpAddr) -> bool,
) -> bool {
    let mut has_changed = false;
    for kept in kept.values() {
        for (_, key) in keys(&kept.service) {
            let at = remembered.binary_search_by_key(&key, |set| set.key);
            let Some(set) = at.ok().and_then(|at| remembered.get_mut(at)) else {
                continue;
            };
            let is_used = |replaced: &ReplacedSet| in_use.contains(&replaced.service_key(&key));
            let mut servers = kept.service.real_servers.iter();
            let is_former = !servers.any(|server| own(&server.address));
            let mut replaced = set.replaced.iter();
            let mut home = replaced.find(|replaced| is_in(&replaced.servers, &own));
            home = home.filter(|_| is_former && set.replaced.iter().any(is_used));
            let home = home.map(|replaced| replaced.mark);
            let (before, mut counted) = (set.replaced.len(), 0);
            set.replaced.retain(|replaced| {
                if is_used(replaced) || home == Some(replaced.mark) {
                    return true;
                }
                counted += 1;
                counted <= MOST_REPLACED && counts(kept, &key, replaced, now)
            });
            has_changed |= set.replaced.len() < before;
        }
    }
    remembered.retain(|set| !is_empty(set));
    has_changed
}

/// Returns whether nothing is to be remembered of a set.
fn is_empty(set: &ServerSet) -> bool {
    set.replaced.is_empty() && set.present.destinations.is_empty()
}

fn is_in(set: &Service, own: impl Fn(&IpAddr) -> bool) -> bool {
    set.destinations.keys().any(|server| own(&server.address))
}

/// The orders of the real servers in some sets.
fn orders(sets: &[ServerSet]) -> impl Iterator<Item = &[DestinationKey]> {
    let services = sets.iter().flat_map(all_sets);
    services.map(|service| service.order.as_slice())
}

/// The present set and the replaced ones.
fn all_sets(set: &ServerSet) -> impl Iterator<Item = &Service> {
    let replaced = set.replaced.iter();
    replaced
        .map(|replaced| &replaced.servers)
        .chain([&set.present])
}

/// Returns whether a machine is a real server of a virtual service, or is in a set that is remembered or given.
fn is_in_any(
    known: Option<&ServerSet>,
    kept: &KeptService,
    own: &impl Fn(&IpAddr) -> bool,
) -> bool {
    let servers = kept.service.real_servers.iter();
    let mut servers = servers.map(|server| &server.address);
    let given = kept.service.previous.iter().map(|(_, given)| given);
    let mut sets = known.into_iter().flat_map(all_sets).chain(given);
    servers.any(own) || sets.any(|set| is_in(set, own))
}

/// A comparison of the remembered sets with the present ones.
struct SetComparison {
    /// The time, in seconds since 1970.
    now: u64,
    /// The marks in use.
    marks: BTreeSet<u32>,
}

impl SetComparison {
    /// What is remembered once the controller has given the set before a change, or gives none any more.
    fn given(
        &mut self,
        known: Option<ServerSet>,
        service: &VirtualService,
        key: ServiceKey,
    ) -> ServerSet {
        let mut replaced = known.map_or_else(Vec::new, |known| known.replaced);
        let mut given = service.previous.iter();
        if let Some((_, servers)) = given.find(|(own, _)| *own == key) {
            let mut known = replaced.iter();
            let known = known.find(|known| known.servers == *servers);
            let since = known.map_or(self.now, |known| known.since);
            self.put_first(&mut replaced, servers.clone(), since);
        }
        ServerSet {
            key,
            present: Service::default(),
            replaced,
        }
    }

    /// What is remembered after a comparison with the present set.
    fn seen(&mut self, known: Option<ServerSet>, key: ServiceKey, present: Service) -> ServerSet {
        let (before, mut replaced) = match known {
            None => (Service::default(), Vec::new()),
            Some(known) => (known.present, known.replaced),
        };
        for replaced in &mut replaced {
            replaced.since = replaced.since.min(self.now);
        }
        if before != present && !before.destinations.is_empty() {
            self.put_first(&mut replaced, before, self.now);
        }
        ServerSet {
            key,
            present,
            replaced,
        }
    }

    /// Makes a set the newest replaced one. It keeps the mark that it has, or gets a free one; without any, it is not remembered.
    fn put_first(&mut self, replaced: &mut Vec<ReplacedSet>, servers: Service, since: u64) {
        let known = replaced.iter().position(|known| known.servers == servers);
        let known = known.map(|at| replaced.remove(at).mark);
        let first = known.or_else(|| self.free_mark()).map(|mark| ReplacedSet {
            servers,
            mark,
            since,
        });
        replaced.splice(..0, first);
    }

    fn free_mark(&mut self) -> Option<NonZeroU32> {
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

/// Adds to the roles of a machine what follows from the replaced sets: second chances, and what it serves although it is not in the
/// present set any more. `staying` are the second services that exist and stay: those whose sets count, and those that are in use. Returns
/// the time of the next check whether a replaced set still counts, in seconds since 1970.
pub fn recall(
    spec: &mut NodeSpec,
    remembered: &[ServerSet],
    staying: &BTreeSet<ServiceKey>,
    now: u64,
    own: impl Fn(&IpAddr) -> bool,
) -> Option<u64> {
    let mut next_check: Option<u64> = None;
    for (name, kept, set) in kept_sets(&spec.kept, remembered) {
        let until = set.replaced.iter().filter_map(|replaced| {
            let until = until(kept, &set.key, replaced, now)?;
            Some(if until <= now {
                now + RECHECK_SECONDS
            } else {
                until
            })
        });
        next_check = next_check.into_iter().chain(until).min();
        let serves = spec.serves.get(name);
        let is_present = serves.is_some_and(|role| !role.is_former);
        let leading = leading(kept, set, now).filter(|_| is_present);
        let leading = leading.map(|replaced| replaced.mark);
        let chances = set.replaced.iter().filter_map(|replaced| {
            let takes_strays = Some(replaced.mark) == leading;
            let mut servers = replaced.servers.destinations.keys();
            let leads_elsewhere = servers.any(|server| !own(&server.address));
            let stays = || staying.contains(&replaced.service_key(&set.key));
            (leads_elsewhere && (takes_strays || stays())).then(|| SecondChance {
                owner: name.clone(),
                key: set.key,
                mark: replaced.mark,
                takes_strays,
                servers: replaced.servers.clone(),
            })
        });
        spec.second_chances.extend(chances);
        if !is_present {
            let role = spec.serves.remove(name);
            let role = set.replaced.iter().fold(role, |role, replaced| {
                former(role, &set.key, &replaced.servers, &own)
            });
            spec.serves.extend(role.map(|role| (name.clone(), role)));
        }
    }
    next_check
}

/// The role of a machine that is in a replaced set only, with what another port has added to it.
fn former(
    role: Option<RealServerRole>,
    key: &ServiceKey,
    replaced: &Service,
    own: impl Fn(&IpAddr) -> bool,
) -> Option<RealServerRole> {
    let ServiceKey::Address { address: vip, .. } = key else {
        return role;
    };
    let mine = replaced.destinations.iter();
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
