//! Reads a received packet.

use std::net::IpAddr;

use thiserror::Error;

use crate::{
    Addresses, Advertisement, Family, HOP_LIMIT, Interval, Ipv4Checksum, Priority, Vrid,
    advertisement::{FIXED_LENGTH, TYPE_ADVERTISEMENT, VERSION},
    checksum::Sum,
};

/// The version of RFC 3768, which keepalived speaks by default over IPv4.
const OLD_VERSION: u8 = 2;

/// A received IP packet of protocol [`PROTOCOL`](crate::PROTOCOL).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The source of the IP packet.
    pub source: IpAddr,
    /// The destination of the IP packet: the group, or an address of this machine.
    pub destination: IpAddr,
    /// The TTL or hop limit with which the packet arrived.
    pub hop_limit: u8,
    /// What follows the IP header and its options or extension headers.
    pub payload: &'a [u8],
}

/// A valid advertisement, and what else the packet shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The source of the packet, by which the sender is known.
    pub source: IpAddr,
    /// The content.
    pub advertisement: Advertisement,
    /// What the checksum covers; `None` over IPv6. If both match, that of RFC 9568.
    pub checksum: Option<Ipv4Checksum>,
}

/// Why a packet is discarded (RFC 9568, section 7.1, with the errata 8299 and 8301).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParseError {
    /// Source and destination are of different families, which no IP packet can be.
    #[error("source and destination are of different families")]
    Family,
    /// The packet may have passed a router.
    #[error("the TTL or hop limit is {found}, below {least}: the sender may not be on this link")]
    HopLimit {
        /// The TTL or hop limit of the packet.
        found: u8,
        /// The least that was asked for.
        least: u8,
    },
    /// The packet ends before its addresses, or before its last address.
    #[error("the packet has {found} bytes, fewer than {least}")]
    Length {
        /// The bytes that are there.
        found: usize,
        /// The bytes that must be there.
        least: usize,
    },
    /// The sender speaks version 2 (RFC 3768), which is not supported. `vrrp_version 3` in the
    /// configuration of keepalived changes that.
    #[error(
        "the sender speaks VRRP version 2, with id {vrid} and priority {priority}; only version 3 is supported"
    )]
    Version2 {
        /// The id of the virtual router.
        vrid: u8,
        /// The sender's priority.
        priority: u8,
    },
    /// The version is neither 2 nor 3.
    #[error("unknown VRRP version {0}")]
    Version(u8),
    /// The type is not 1, an advertisement.
    #[error("unknown VRRP packet type {0}")]
    Type(u8),
    /// The checksum is wrong, whichever of the [`Ipv4Checksum`]s the sender uses.
    #[error("the checksum {0:#06x} is wrong")]
    Checksum(u16),
    /// The id of the virtual router is 0.
    #[error("the virtual router id is 0")]
    Vrid,
    /// The packet lists no address.
    #[error("the packet lists no address")]
    NoAddress,
    /// The interval is 0: a router that learnt it would take over at once.
    #[error("the advertisement interval is 0")]
    Interval,
}

/// Reads a packet.
///
/// `least_hop_limit` is [`HOP_LIMIT`], as the RFC demands, except for unicast peers that are known to send less: keepalived 2.2.7
/// sends 64 over IPv6 unless `unicast_ttl` is set. With less than 255 the sender may be anywhere; the caller then compares the
/// source with its peers.
///
/// 1. The reserved bits and bytes after the last address are ignored. The RFC asks for a complete packet, not for an exact length, and
///    keepalived can append a trailer. Over IPv4 the checksum covers no such bytes; over IPv6 it covers the whole payload (RFC 8200,
///    section 8.1).
/// 2. An IPv6 list that does not begin with a link-local address is accepted, although erratum 8300 says otherwise. keepalived only
///    warns of such a list, and sends it. If its advertisements were discarded, two routers would be active.
/// 3. The id, the interval and the addresses are not compared with any settings. The caller finds the [`Machine`](crate::Machine)
///    by id and family, and the machine reports the differences.
///
/// # Errors
///
/// What is wrong with the packet, the first in the order of section 7.1.
pub fn parse(packet: &Packet<'_>, least_hop_limit: u8) -> Result<Received, ParseError> {
    let Packet {
        source,
        destination,
        hop_limit,
        payload,
    } = *packet;
    let family = Family::of(source);
    if family != Family::of(destination) {
        return Err(ParseError::Family);
    }
    if hop_limit < least_hop_limit {
        return Err(ParseError::HopLimit {
            found: hop_limit,
            least: least_hop_limit,
        });
    }
    let too_short = |least| ParseError::Length {
        found: payload.len(),
        least,
    };
    let (fixed, _) = payload
        .split_first_chunk::<FIXED_LENGTH>()
        .ok_or(too_short(FIXED_LENGTH))?;
    let [
        version_and_type,
        vrid,
        priority,
        count,
        high,
        low,
        first,
        second,
    ] = *fixed;
    check_version_and_type(version_and_type, vrid, priority)?;

    let length = message_length(family, count);
    let message = payload.get(..length).ok_or(too_short(length))?;
    let checksum = u16::from_be_bytes([first, second]);
    let checksum = covered(packet, message).ok_or(ParseError::Checksum(checksum))?;

    let (_, listed) = message
        .split_at_checked(FIXED_LENGTH)
        .ok_or(too_short(FIXED_LENGTH))?;
    let centiseconds = u16::from_be_bytes([high & 0x0f, low]);
    let advertisement = Advertisement {
        vrid: Vrid::new(vrid).map_err(|_| ParseError::Vrid)?,
        priority: Priority::new(priority).ok(),
        addresses: Addresses::read(family, listed).ok_or(ParseError::NoAddress)?,
        interval: Interval::from_centiseconds(centiseconds).map_err(|_| ParseError::Interval)?,
    };
    Ok(Received {
        source,
        advertisement,
        checksum,
    })
}

impl Packet<'_> {
    /// Reads the packet as [`parse()`] does, and accepts only the hop limit [`HOP_LIMIT`].
    ///
    /// # Errors
    ///
    /// What is wrong with the packet.
    pub fn parse(&self) -> Result<Received, ParseError> {
        parse(self, HOP_LIMIT)
    }
}

fn check_version_and_type(version_and_type: u8, vrid: u8, priority: u8) -> Result<(), ParseError> {
    match (version_and_type >> 4, version_and_type & 0x0f) {
        (OLD_VERSION, _) => Err(ParseError::Version2 { vrid, priority }),
        (VERSION, TYPE_ADVERTISEMENT) => Ok(()),
        (VERSION, other) => Err(ParseError::Type(other)),
        (other, _) => Err(ParseError::Version(other)),
    }
}

/// Returns the length of a message with a number of addresses, in bytes.
fn message_length(family: Family, count: u8) -> usize {
    let size = match family {
        Family::V4 => 4,
        Family::V6 => 16,
    };
    FIXED_LENGTH + usize::from(count) * size
}

/// Returns what the checksum covers, which is a choice over IPv4 only. `None` if the checksum is wrong.
fn covered(packet: &Packet<'_>, message: &[u8]) -> Option<Option<Ipv4Checksum>> {
    let header = |length| Sum::of_pseudo_header(packet.source, packet.destination, length);
    match Family::of(packet.source) {
        Family::V4 => {
            let sum = Sum::of(message);
            let with_header = sum.and(header(message.len()));
            if sum.is_valid() {
                Some(Some(Ipv4Checksum::Message))
            } else {
                with_header
                    .is_valid()
                    .then_some(Some(Ipv4Checksum::PseudoHeader))
            }
        }
        Family::V6 => {
            let sum = Sum::of(packet.payload).and(header(packet.payload.len()));
            sum.is_valid().then_some(None)
        }
    }
}

#[cfg(test)]
mod tests;
