//! Pools of addresses: which virtual service may have which VIP, and the allocation to those that name none.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Family, GroupName, PoolName, is_usable_unicast};

/// Addresses that virtual services may have as VIPs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The addresses, in the order in which they are allocated.
    pub ranges: Vec<AddressRange>,
    /// The groups whose virtual services may have them; `None`: all.
    pub groups: Option<BTreeSet<GroupName>>,
    /// The namespaces whose virtual services may have them; `None`: all.
    pub namespaces: Option<BTreeSet<String>>,
    /// Whether a virtual service that names neither an address nor a pool gets one of them.
    pub is_auto_assigned: bool,
    /// Whether the first and the last address of each network are left out.
    pub avoids_network_addresses: bool,
}

/// Addresses of one family from a first to a last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
    /// Whether it was written as a network, whose first and last address are special.
    is_network: bool,
}

/// A text that is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an address, a range 'first-last' or a network, not '{0}'")]
pub struct InvalidRange(String);

/// All pools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pools(BTreeMap<PoolName, Pool>);

/// Where a virtual service is that asks for a VIP.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its group.
    pub group: &'a GroupName,
}

/// Why a virtual service cannot have a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolRefusal {
    /// No pool that serves it has the VIP that it names.
    Outside {
        /// The VIP.
        vip: IpAddr,
        /// The pools that serve it.
        serving: Vec<PoolName>,
    },
    /// No pool allocates an address to it, or the pool that it names does not serve it.
    NotServed {
        /// The pool that it names.
        named: Option<PoolName>,
    },
    /// No address of a family is free.
    Exhausted {
        /// The family.
        family: Family,
        /// The pools that serve it.
        serving: Vec<PoolName>,
    },
}

impl Pool {
    /// Returns whether a virtual service may have its addresses.
    #[must_use]
    pub fn serves(&self, asker: Asker<'_>) -> bool {
        let namespaces = self.namespaces.as_ref();
        let groups = self.groups.as_ref();
        namespaces.is_none_or(|names| names.contains(asker.namespace))
            && groups.is_none_or(|names| names.contains(asker.group))
    }

    /// Returns whether an address is in the pool and can be a VIP.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.ranges
            .iter()
            .any(|range| range.contains(address) && !self.avoids(range, address))
    }

    /// Returns whether the pool lists an address by itself, and not in a range.
    #[must_use]
    pub fn lists(&self, address: IpAddr) -> bool {
        let mut ranges = self.ranges.iter();
        ranges.any(|range| range.first == address && range.last == address)
    }

    /// The number of addresses of a family that can be VIPs.
    #[must_use]
    pub fn total(&self, family: Family) -> u128 {
        let ranges = self.ranges.iter();
        let ranges = ranges.filter(|range| Family::of(range.first) == family);
        let counts = ranges.map(|range| {
            let ends = [range.first, range.last];
            let avoided = ends.iter().filter(|end| self.avoids(range, **end)).count();
            range.count().saturating_sub(avoided as u128)
        });
        counts.fold(0, u128::saturating_add)
    }

    /// Returns whether an address is the first or last one of a network, and is left out. A network of one or two addresses
    /// has no special ones, and neither is the last one of an IPv6 network.
    fn avoids(&self, range: &AddressRange, address: IpAddr) -> bool {
        let is_special = address == range.first || (address == range.last && address.is_ipv4());
        self.avoids_network_addresses && range.is_network && range.count() > 2 && is_special
    }

    /// The first address of a family that can be a VIP and is not taken.
    fn first_free(&self, family: Family, is_taken: &impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let ranges = self.ranges.iter();
        let mut ranges = ranges.filter(|range| Family::of(range.first) == family);
        ranges.find_map(|range| {
            let is_taken = |address| self.avoids(range, address) || is_taken(address);
            range.first_free(&is_taken)
        })
    }
}

impl AddressRange {
    /// Returns whether an address is in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == Family::of(self.first) && (self.first..=self.last).contains(&address)
    }

    /// Returns whether two ranges have an address in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        Family::of(self.first) == Family::of(other.first)
            && self.first <= other.last
            && other.first <= self.last
    }

    /// The first and the last address.
    #[must_use]
    pub const fn ends(&self) -> (IpAddr, IpAddr) {
        (self.first, self.last)
    }

    fn count(&self) -> u128 {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let steps = bits(self.last).saturating_sub(bits(self.first));
        steps.saturating_add(1)
    }

    /// The first address of the range that can be a VIP and is not taken.
    fn first_free(&self, is_taken: &impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let mut candidate = self.first;
        loop {
            if !is_taken(candidate) && is_usable_unicast(candidate) {
                return Some(candidate);
            }
            if candidate == self.last {
                return None;
            }
            candidate = successor(candidate)?;
        }
    }
}

impl Pools {
    /// Returns whether there is no pool.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All pools, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&PoolName, &Pool)> {
        self.0.iter()
    }

    /// A pool.
    #[must_use]
    pub fn get(&self, name: &PoolName) -> Option<&Pool> {
        self.0.get(name)
    }

    /// Adds or replaces a pool, or with `None` removes it.
    pub fn set(&mut self, name: PoolName, pool: Option<Pool>) {
        match pool {
            Some(pool) => drop(self.0.insert(name, pool)),
            None => drop(self.0.remove(&name)),
        }
    }

    /// The pools that have an address.
    pub fn with(&self, address: IpAddr) -> impl Iterator<Item = &PoolName> {
        let pools = self.0.iter();
        let pools = pools.filter(move |(_, pool)| pool.contains(address));
        pools.map(|(name, _)| name)
    }

    /// Checks that a virtual service may have a VIP.
    ///
    /// # Errors
    /// If no pool that serves it has the VIP.
    pub fn check(&self, asker: Asker<'_>, vip: IpAddr) -> Result<(), PoolRefusal> {
        let mut serving = self.serving(asker);
        if serving.any(|(_, pool)| pool.contains(vip)) {
            return Ok(());
        }
        let serving = names(self.serving(asker));
        Err(PoolRefusal::Outside { vip, serving })
    }

    /// Returns whether a pool that serves a virtual service lists an address by itself.
    #[must_use]
    pub fn lists(&self, asker: Asker<'_>, address: IpAddr) -> bool {
        self.serving(asker).any(|(_, pool)| pool.lists(address))
    }

    /// Allocates a VIP of a family to a virtual service that names none: the first free one of the first pool by name that
    /// serves it, or of the pool that it names.
    ///
    /// # Errors
    /// If no pool serves it, or none has a free address.
    pub fn allocate(
        &self,
        asker: Asker<'_>,
        named: Option<&PoolName>,
        family: Family,
        is_taken: impl Fn(IpAddr) -> bool,
    ) -> Result<IpAddr, PoolRefusal> {
        let candidates = || {
            self.serving(asker).filter(|(name, pool)| match named {
                Some(named) => *name == named,
                None => pool.is_auto_assigned,
            })
        };
        if let Some(free) = candidates().find_map(|(_, pool)| pool.first_free(family, &is_taken)) {
            return Ok(free);
        }
        let serving = names(candidates());
        Err(if serving.is_empty() {
            let named = named.cloned();
            PoolRefusal::NotServed { named }
        } else {
            PoolRefusal::Exhausted { family, serving }
        })
    }

    fn serving(&self, asker: Asker<'_>) -> impl Iterator<Item = (&PoolName, &Pool)> {
        self.0.iter().filter(move |(_, pool)| pool.serves(asker))
    }
}

impl FromIterator<(PoolName, Pool)> for Pools {
    fn from_iter<I: IntoIterator<Item = (PoolName, Pool)>>(pools: I) -> Self {
        Self(pools.into_iter().collect())
    }
}

impl PoolRefusal {
    /// The reason, which continues a sentence that begins with the field of a VIP, or stands by itself if there is none.
    #[must_use]
    pub fn text(&self, asker: Asker<'_>) -> String {
        let Asker { namespace, group } = asker;
        let place = format!("namespace '{namespace}' and DirectorGroup '{group}'");
        match self {
            Self::Outside { vip, serving } if serving.is_empty() => {
                format!("must be in an AddressPool that serves {place}: there is none for '{vip}'")
            }
            Self::Outside { vip, serving } => format!(
                "must be in an AddressPool that serves {place}: '{vip}' is not in {}",
                listed(serving)
            ),
            Self::NotServed { named: None } => {
                format!("no AddressPool allocates addresses to {place}")
            }
            Self::NotServed { named: Some(name) } => {
                format!(
                    "`spec.addressPool` must name an AddressPool that serves {place}; '{name}' does not"
                )
            }
            Self::Exhausted { family, serving } => format!(
                "no {family} address is free for {place}: AddressPool {} has none left",
                listed(serving)
            ),
        }
    }
}

fn names<'p>(pools: impl Iterator<Item = (&'p PoolName, &'p Pool)>) -> Vec<PoolName> {
    pools.map(|(name, _)| name.clone()).collect()
}

fn listed(names: &[PoolName]) -> String {
    let names: Vec<&str> = names.iter().map(PoolName::as_str).collect();
    names.join(", ")
}

fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => Some(Ipv4Addr::from_bits(v4.to_bits().checked_add(1)?).into()),
        IpAddr::V6(v6) => Some(Ipv6Addr::from_bits(v6.to_bits().checked_add(1)?).into()),
    }
}

impl FromStr for AddressRange {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        let invalid = || InvalidRange(text.to_owned());
        let network = text.parse::<IpNet>().ok();
        let (first, last) = if let Ok(address) = text.parse::<IpAddr>() {
            (address, address)
        } else if let Some(network) = network {
            (network.network(), network.broadcast())
        } else {
            let (first, last) = text.split_once('-').ok_or_else(invalid)?;
            let parse = |text: &str| text.parse::<IpAddr>().map_err(|_| invalid());
            (parse(first)?, parse(last)?)
        };
        if Family::of(first) != Family::of(last) || first > last {
            return Err(invalid());
        }
        Ok(Self {
            first,
            last,
            is_network: network.is_some(),
        })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests;
