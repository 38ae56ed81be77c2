//! The addresses that an advertisement lists.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use crate::Family;

/// The addresses of a virtual router in the order of the advertisement: at least one, at most 255, all of one family.
///
/// Nothing else than the family is required here, so that a packet of another router can be read. A [`Config`](crate::Config)
/// requires more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Addresses(List);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum List {
    V4(Vec<Ipv4Addr>),
    V6(Vec<Ipv6Addr>),
}

/// Why addresses cannot be listed in an advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AddressesError {
    /// There is none (RFC 9568, section 5.2.5).
    #[error("a virtual router needs at least one address")]
    None,
    /// The count has eight bits.
    #[error("an advertisement lists at most 255 addresses, not {0}")]
    TooMany(usize),
    /// They are of both families (RFC 9568, section 5.2.9).
    #[error("the addresses of a virtual router must be of one family")]
    Mixed,
}

impl Addresses {
    /// Creates a list. The order is kept; all routers of a virtual router should use the same (RFC 9568, section 5.2.9).
    ///
    /// # Errors
    ///
    /// If there is no address, more than 255, or addresses of both families.
    pub fn new(addresses: &[IpAddr]) -> Result<Self, AddressesError> {
        if addresses.len() > usize::from(u8::MAX) {
            return Err(AddressesError::TooMany(addresses.len()));
        }
        let first = addresses.first().ok_or(AddressesError::None)?;
        let list = match first {
            IpAddr::V4(_) => addresses
                .iter()
                .map(as_v4)
                .collect::<Option<_>>()
                .map(List::V4),
            IpAddr::V6(_) => addresses
                .iter()
                .map(as_v6)
                .collect::<Option<_>>()
                .map(List::V6),
        };
        list.map(Self).ok_or(AddressesError::Mixed)
    }

    /// Returns the family of all addresses.
    #[must_use]
    pub const fn family(&self) -> Family {
        match &self.0 {
            List::V4(_) => Family::V4,
            List::V6(_) => Family::V6,
        }
    }

    /// Returns how many addresses there are, 1 to 255.
    #[must_use]
    pub fn count(&self) -> u8 {
        let length = match &self.0 {
            List::V4(list) => list.len(),
            List::V6(list) => list.len(),
        };
        u8::try_from(length).unwrap_or(u8::MAX)
    }

    /// Yields the addresses in order.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let (v4, v6) = match &self.0 {
            List::V4(list) => (list.as_slice(), [].as_slice()),
            List::V6(list) => ([].as_slice(), list.as_slice()),
        };
        let v4 = v4.iter().copied().map(IpAddr::V4);
        v4.chain(v6.iter().copied().map(IpAddr::V6))
    }

    /// Returns whether the list is of IPv6 and does not begin with a link-local address, which RFC 9568, section 5.2.9, requires.
    #[must_use]
    pub fn lacks_link_local(&self) -> bool {
        match &self.0 {
            List::V4(_) => false,
            List::V6(list) => !list.first().is_some_and(Ipv6Addr::is_unicast_link_local),
        }
    }

    /// Appends the addresses to a packet, 4 or 16 bytes each.
    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        match &self.0 {
            List::V4(list) => bytes.extend(list.iter().flat_map(Ipv4Addr::octets)),
            List::V6(list) => bytes.extend(list.iter().flat_map(Ipv6Addr::octets)),
        }
    }

    /// Reads addresses that fill the bytes, at most 255. `None` if there is none or the last is incomplete.
    pub(crate) fn read(family: Family, bytes: &[u8]) -> Option<Self> {
        let list = match family {
            Family::V4 => {
                let (addresses, []) = bytes.as_chunks::<4>() else {
                    return None;
                };
                List::V4(addresses.iter().copied().map(Ipv4Addr::from).collect())
            }
            Family::V6 => {
                let (addresses, []) = bytes.as_chunks::<16>() else {
                    return None;
                };
                List::V6(addresses.iter().copied().map(Ipv6Addr::from).collect())
            }
        };
        (!bytes.is_empty()).then_some(Self(list))
    }
}

fn as_v4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    }
}

fn as_v6(address: &IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(*address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_one_family_and_between_1_and_255_addresses() {
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(Addresses::new(&[]), Err(AddressesError::None));
        assert_eq!(Addresses::new(&[v4, v6]), Err(AddressesError::Mixed));
        assert_eq!(Addresses::new(&[v6, v4]), Err(AddressesError::Mixed));
        assert_eq!(
            Addresses::new(&[v4; 256]),
            Err(AddressesError::TooMany(256))
        );
        assert_eq!(Addresses::new(&[v4; 255]).unwrap().count(), 255);
    }
}
