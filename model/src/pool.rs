//! Pools of addresses for virtual services that name none.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Family, is_usable_unicast};

/// Addresses to allocate from, and the namespaces that it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name within its group.
    pub name: String,
    /// The addresses, in the order in which they are allocated.
    pub ranges: Vec<AddressRange>,
    /// The namespaces whose virtual services may use it; empty: all.
    pub namespaces: BTreeSet<String>,
}

/// Addresses of one family from a first to a last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// A text that is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an address, a range 'first-last' or a network, not '{0}'")]
pub struct InvalidRange(String);

impl Pool {
    /// Returns whether virtual services of a namespace may have its addresses.
    #[must_use]
    pub fn serves(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(namespace)
    }

    /// Returns whether an address is in the pool.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }
}

impl AddressRange {
    /// Returns whether an address is in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == Family::of(self.first) && (self.first..=self.last).contains(&address)
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

/// Allocates a VIP for a virtual service that names none: the first free address of the first pool that serves its
/// namespace and has one.
#[must_use]
pub fn allocate(
    pools: &[Pool],
    namespace: &str,
    is_taken: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    pools
        .iter()
        .filter(|pool| pool.serves(namespace))
        .flat_map(|pool| &pool.ranges)
        .find_map(|range| range.first_free(&is_taken))
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
        let (first, last) = if let Ok(address) = text.parse::<IpAddr>() {
            (address, address)
        } else if let Ok(network) = text.parse::<IpNet>() {
            (network.network(), network.broadcast())
        } else {
            let (first, last) = text.split_once('-').ok_or_else(invalid)?;
            let parse = |text: &str| text.parse::<IpAddr>().map_err(|_| invalid());
            (parse(first)?, parse(last)?)
        };
        if Family::of(first) != Family::of(last) || first > last {
            return Err(invalid());
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_pool(ranges: &[&str], namespaces: &[&str]) -> Pool {
        Pool {
            name: "public".to_owned(),
            ranges: ranges.iter().map(|text| text.parse().unwrap()).collect(),
            namespaces: namespaces.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    fn taken(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_first_free_address_of_the_first_pool_of_the_namespace_is_allocated() {
        let pools = [
            mk_pool(&["10.0.0.1"], &["shop"]),
            mk_pool(&["10.0.1.0/30", "2001:db8::1-2001:db8::2"], &[]),
        ];
        let given = |namespace, used: &[&str]| {
            let taken = taken(used);
            let given = allocate(&pools, namespace, |address| taken.contains(&address));
            given.map(|address| address.to_string())
        };
        assert_eq!(given("shop", &[]).as_deref(), Some("10.0.0.1"));
        assert_eq!(given("shop", &["10.0.0.1"]).as_deref(), Some("10.0.1.0"));
        assert_eq!(
            given("blog", &["10.0.1.0", "10.0.1.2"]).as_deref(),
            Some("10.0.1.1")
        );
        let v4 = ["10.0.1.0", "10.0.1.1", "10.0.1.2", "10.0.1.3"];
        assert_eq!(given("blog", &v4).as_deref(), Some("2001:db8::1"));
        let all = [&v4[..], &["2001:db8::1", "2001:db8::2"]].concat();
        assert_eq!(given("blog", &all), None);
    }

    #[test]
    fn addresses_that_no_host_can_have_are_not_allocated() {
        let pools = [mk_pool(&["0.0.0.0-0.0.0.1", "ff02::1", "::1-::2"], &[])];
        assert_eq!(
            allocate(&pools, "shop", |_| false),
            Some("::2".parse().unwrap())
        );
    }

    #[test]
    fn a_range_goes_from_low_to_high_in_one_family() {
        for text in [
            "",
            "x",
            "10.0.0.2-10.0.0.1",
            "10.0.0.1-::1",
            "10.0.0.1-",
            "10.0.0.0/33",
        ] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
        let range: AddressRange = "10.0.0.9/24".parse().unwrap();
        assert_eq!(range.to_string(), "10.0.0.0-10.0.0.255");
        assert!(range.contains("10.0.0.255".parse().unwrap()));
        assert!(!range.contains("10.0.1.0".parse().unwrap()));
    }

    #[test]
    fn a_range_may_reach_the_last_address_there_is() {
        let pools = [mk_pool(
            &["223.255.255.255", "255.255.255.254-255.255.255.255"],
            &[],
        )];
        let used: IpAddr = "223.255.255.255".parse().unwrap();
        assert_eq!(allocate(&pools, "shop", |address| address == used), None);
    }
}
