//! The checksum of a packet (RFC 9568, section 5.2.8; RFC 1071).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::PROTOCOL;

/// What the checksum of a packet over IPv4 covers. That of a packet over IPv6 always covers the pseudo-header.
///
/// RFC 5798 was read in two ways. keepalived (without `v3_checksum_as_v2`), FRR (without `no checksum-with-ipv4-pseudoheader`) and
/// others include a pseudo-header; RFC 9568 says that it is not included. A router of one kind discards the packets of the other,
/// so two of them would both be active. [`parse`](crate::parse()) accepts both; what is sent is a setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ipv4Checksum {
    /// The VRRP message alone, as RFC 9568 has it.
    #[default]
    Message,
    /// The VRRP message and a pseudo-header with source, destination, protocol and length, as keepalived has it by default.
    PseudoHeader,
}

/// A sum of 16-bit words in one's complement, not yet folded.
#[derive(Clone, Copy)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Sums up bytes; an odd last one counts as the upper half of a word.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<2>();
        let words = words
            .iter()
            .map(|word| u64::from(u16::from_be_bytes(*word)));
        let rest = rest.iter().map(|byte| u64::from(*byte) << 8);
        Self(words.chain(rest).sum())
    }

    /// Sums up the pseudo-header of a message with a length in bytes: that of UDP over IPv4 (RFC 768), or that of RFC 8200, section
    /// 8.1. Nothing if the addresses are of different families.
    pub(crate) fn of_pseudo_header(source: IpAddr, destination: IpAddr, length: usize) -> Self {
        let addresses = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => of_v4(source) + of_v4(destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => of_v6(source) + of_v6(destination),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return Self(0),
        };
        Self(addresses + u64::from(PROTOCOL) + u64::try_from(length).unwrap_or(0))
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Returns the checksum that makes the whole valid.
    pub(crate) fn complement(self) -> u16 {
        !self.folded()
    }

    /// Returns whether the sum is that of bytes with a valid checksum among them.
    pub(crate) fn is_valid(self) -> bool {
        self.folded() == u16::MAX
    }

    fn folded(self) -> u16 {
        let mut sum = self.0;
        loop {
            match u16::try_from(sum) {
                Ok(folded) => return folded,
                Err(_) => sum = (sum & 0xffff) + (sum >> 16),
            }
        }
    }
}

fn of_v4(address: Ipv4Addr) -> u64 {
    Sum::of(&address.octets()).0
}

fn of_v6(address: Ipv6Addr) -> u64 {
    Sum::of(&address.octets()).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_rfc_1071() {
        // The example of RFC 1071, section 3.
        let sum = Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), 0xddf2);
        assert_eq!(sum.complement(), 0x220d);
        assert!(sum.and(Sum::of(&[0x22, 0x0d])).is_valid());
        assert!(!sum.is_valid());
        assert_eq!(Sum::of(&[0x12]).folded(), 0x1200);
    }
}
