//! Address families, and which addresses can be a VIP or a real server.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Returns the family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Returns the prefix length of a host address: 32 or 128.
    #[must_use]
    pub const fn host_prefix(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl Family {
    /// Returns the size of the headers of a TCP packet without options.
    pub(crate) const fn tcp_headers(self) -> u32 {
        match self {
            Self::V4 => 20 + 20,
            Self::V6 => 40 + 20,
        }
    }

    /// Returns the option that `ip` needs for this family: empty for IPv4.
    pub(crate) const fn ip_option(self) -> &'static str {
        match self {
            Self::V4 => "",
            Self::V6 => " -6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Returns whether an address can be a VIP or a real server.
///
/// It must be a unicast address of one host: not unspecified, loopback, multicast, broadcast or link-local. An
/// IPv4-mapped IPv6 address is not usable either: the kernel refuses it as a destination.
#[must_use]
pub fn is_usable_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let first = v4.octets()[0];
            first != 0 && first < 224 && !v4.is_loopback() && !v4.is_link_local()
        }
        IpAddr::V6(v6) => {
            !v6.is_unspecified()
                && !v6.is_loopback()
                && !v6.is_multicast()
                && !v6.is_unicast_link_local()
                && v6.to_ipv4_mapped().is_none()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_routable_unicast_addresses_are_usable() {
        for good in ["192.168.220.100", "10.0.0.1", "2001:db8::1", "fd00::1"] {
            assert!(is_usable_unicast(good.parse().unwrap()), "{good}");
        }
        for bad in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "169.254.1.1",
        ] {
            assert!(!is_usable_unicast(bad.parse().unwrap()), "{bad}");
        }
        for bad in ["::", "::1", "ff02::1", "fe80::1", "::ffff:10.0.0.1"] {
            assert!(!is_usable_unicast(bad.parse().unwrap()), "{bad}");
        }
    }
}
