//! The address families, and addresses as the kernel encodes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::DecodeError;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// An address family, `AF_INET` or `AF_INET6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Returns the family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Returns the number of bits of an address: 32 or 128.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    pub(crate) fn number(self) -> u16 {
        match self {
            Self::V4 => AF_INET,
            Self::V6 => AF_INET6,
        }
    }

    pub(crate) fn from_number(number: u16) -> Result<Self, DecodeError> {
        match number {
            AF_INET => Ok(Self::V4),
            AF_INET6 => Ok(Self::V6),
            other => Err(format!("unknown address family {other}").into()),
        }
    }

    /// Reads an address of this family from a `union nf_inet_addr`.
    pub(crate) fn address(self, bytes: [u8; 16]) -> IpAddr {
        match self {
            Self::V4 => {
                let [a, b, c, d, ..] = bytes;
                Ipv4Addr::new(a, b, c, d).into()
            }
            Self::V6 => Ipv6Addr::from(bytes).into(),
        }
    }
}

/// Writes an address as a `union nf_inet_addr`.
pub(crate) fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(address) => address.octets(),
    }
}
