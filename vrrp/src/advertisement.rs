//! An advertisement, and its bytes.

use std::net::IpAddr;

use thiserror::Error;

use crate::{Addresses, Family, Interval, Ipv4Checksum, Priority, Vrid, checksum::Sum};

pub(crate) const VERSION: u8 = 3;
pub(crate) const TYPE_ADVERTISEMENT: u8 = 1;

/// The length of the fields before the addresses, in bytes.
pub(crate) const FIXED_LENGTH: usize = 8;

/// What an active router sends (RFC 9568, section 5.1).
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// | 3     | 1     | vrid          | priority      | count         |
/// | 0     | interval, centisec.   | checksum                      |
/// | addresses, 4 or 16 bytes each                                 |
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Advertisement {
    /// The virtual router.
    pub vrid: Vrid,
    /// The sender's priority. `None` is 0 on the wire: the sender resigns.
    pub priority: Option<Priority>,
    /// The time until the sender's next advertisement.
    pub interval: Interval,
    /// The addresses of the virtual router. Their family is that of the IP packet.
    pub addresses: Addresses,
}

/// Why an advertisement cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// An address of the packet is of another family than the listed addresses (RFC 9568, section 5.2.9).
    #[error(
        "an advertisement of {listed} addresses cannot be sent from {source_address} to {destination}"
    )]
    Family {
        /// The family of the listed addresses.
        listed: Family,
        /// The source of the packet.
        source_address: IpAddr,
        /// The destination of the packet.
        destination: IpAddr,
    },
}

impl Advertisement {
    /// Returns the payload of an IP packet from a source to a destination, 12 to 4088 bytes.
    ///
    /// The caller sends it as protocol [`PROTOCOL`](crate::PROTOCOL) with the TTL or hop limit [`HOP_LIMIT`](crate::HOP_LIMIT). It
    /// must be sent with exactly these addresses, since the checksum covers them in most cases.
    ///
    /// # Errors
    ///
    /// If source, destination and listed addresses are not of one family.
    pub fn encode(
        &self,
        source: IpAddr,
        destination: IpAddr,
        checksum: Ipv4Checksum,
    ) -> Result<Vec<u8>, EncodeError> {
        let listed = self.addresses.family();
        if listed != Family::of(source) || listed != Family::of(destination) {
            return Err(EncodeError::Family {
                listed,
                source_address: source,
                destination,
            });
        }
        let before = self.bytes(0);
        let header = match (listed, checksum) {
            (Family::V4, Ipv4Checksum::Message) => Sum::of(&[]),
            (Family::V4, Ipv4Checksum::PseudoHeader) | (Family::V6, _) => {
                Sum::of_pseudo_header(source, destination, before.len())
            }
        };
        Ok(self.bytes(header.and(Sum::of(&before)).complement()))
    }

    fn bytes(&self, checksum: u16) -> Vec<u8> {
        let Self {
            vrid,
            priority,
            interval,
            addresses,
        } = self;
        let priority = priority.map_or(0, Priority::get);
        let [high, low] = interval.centiseconds().to_be_bytes();
        let [first, second] = checksum.to_be_bytes();
        let mut bytes = vec![
            VERSION << 4 | TYPE_ADVERTISEMENT,
            vrid.get(),
            priority,
            addresses.count(),
            high,
            low,
            first,
            second,
        ];
        addresses.write(&mut bytes);
        bytes
    }
}
