//! The id of a virtual router.

use std::{fmt, net::Ipv6Addr, num::NonZeroU8};

use thiserror::Error;

use crate::Family;

/// The id of a virtual router, 1 to 255, unique on a link within one family (RFC 9568, section 5.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vrid(NonZeroU8);

/// The id 0 was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the virtual router id must be 1 to 255, not 0")]
pub struct VridError;

impl Vrid {
    /// Creates an id.
    ///
    /// # Errors
    ///
    /// If the number is 0.
    pub fn new(number: u8) -> Result<Self, VridError> {
        NonZeroU8::new(number).map(Self).ok_or(VridError)
    }

    /// Returns the number, 1 to 255.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0.get()
    }

    /// Returns the virtual router MAC address (RFC 9568, section 7.3).
    #[must_use]
    pub const fn mac(self, family: Family) -> [u8; 6] {
        let block = match family {
            Family::V4 => 1,
            Family::V6 => 2,
        };
        [0, 0, 0x5e, 0, block, self.get()]
    }

    /// Returns the link-local address that follows from the virtual router MAC address (RFC 4291, appendix A).
    ///
    /// An IPv6 advertisement begins with a link-local address of the virtual router (RFC 9568, section 5.2.9). This one is the
    /// same on all routers without any setting.
    #[must_use]
    pub const fn link_local(self) -> Ipv6Addr {
        Ipv6Addr::new(
            0xfe80,
            0,
            0,
            0,
            0x0200,
            0x5eff,
            0xfe00,
            0x0200 | self.get() as u16,
        )
    }
}

impl fmt::Display for Vrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_local_address_follows_from_the_mac_address() {
        let vrid = Vrid::new(0x35).unwrap();
        assert_eq!(vrid.mac(Family::V4), [0, 0, 0x5e, 0, 1, 0x35]);
        assert_eq!(vrid.mac(Family::V6), [0, 0, 0x5e, 0, 2, 0x35]);
        assert_eq!(vrid.link_local().to_string(), "fe80::200:5eff:fe00:235");
        assert_eq!(Vrid::new(0), Err(VridError));
    }
}
