//! The key of a virtual service: an address with protocol and port, or a firewall mark.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
};

use crate::{Family, family::address_bytes, wire::ServiceAttribute};

const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
const IPPROTO_SCTP: u16 = 132;

/// The identity of a virtual service within a network namespace.
///
/// The kernel keeps the two kinds in two tables; a key of one kind never conflicts with a key of
/// the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceKey {
    /// Traffic to an address and port (`IPVS_SVC_ATTR_PROTOCOL`, `_ADDR`, `_PORT`).
    Address {
        /// The transport protocol.
        protocol: Protocol,
        /// The virtual address; its family is the service's.
        address: IpAddr,
        /// The virtual port; 0 is every port, which works with persistence only.
        port: u16,
    },
    /// Traffic that carries a firewall mark (`IPVS_SVC_ATTR_FWMARK`).
    Fwmark {
        /// The mark. Zero is not "no mark" to the kernel but a wildcard service.
        mark: NonZeroU32,
        /// The family of the traffic; one mark can have a service of each.
        family: Family,
    },
}

impl ServiceKey {
    /// Returns the address family of the service.
    #[must_use]
    pub fn family(&self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(*address),
            Self::Fwmark { family, .. } => *family,
        }
    }

    /// Yields the attributes that name the service in a request.
    pub(crate) fn attributes(self) -> impl Iterator<Item = ServiceAttribute> {
        let family = Some(ServiceAttribute::AddressFamily(self.family().number()));
        match self {
            Self::Address {
                protocol,
                address,
                port,
            } => [
                family,
                Some(ServiceAttribute::Protocol(protocol.into())),
                Some(ServiceAttribute::Address(address_bytes(address))),
                Some(ServiceAttribute::Port(port)),
            ],
            Self::Fwmark { mark, .. } => [
                family,
                Some(ServiceAttribute::Fwmark(mark.get())),
                None,
                None,
            ],
        }
        .into_iter()
        .flatten()
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address {
                protocol,
                address,
                port,
            } => {
                write!(f, "{protocol} {}", SocketAddr::new(*address, *port))
            }
            Self::Fwmark {
                mark,
                family: Family::V4,
            } => write!(f, "FWM {mark}"),
            Self::Fwmark {
                mark,
                family: Family::V6,
            } => write!(f, "FWM {mark} IPv6"),
        }
    }
}

/// The transport protocol of a virtual service (`IPVS_SVC_ATTR_PROTOCOL`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// `IPPROTO_TCP`.
    Tcp,
    /// `IPPROTO_UDP`.
    Udp,
    /// `IPPROTO_SCTP`.
    Sctp,
    /// A number that IPVS stores and never serves, seen on services of other programs.
    /// `Protocol::from` never gives this variant for the numbers above.
    Other(u16),
}

impl From<u16> for Protocol {
    fn from(number: u16) -> Self {
        match number {
            IPPROTO_TCP => Self::Tcp,
            IPPROTO_UDP => Self::Udp,
            IPPROTO_SCTP => Self::Sctp,
            other => Self::Other(other),
        }
    }
}

impl From<Protocol> for u16 {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => IPPROTO_TCP,
            Protocol::Udp => IPPROTO_UDP,
            Protocol::Sctp => IPPROTO_SCTP,
            Protocol::Other(other) => other,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.pad("TCP"),
            Self::Udp => f.pad("UDP"),
            Self::Sctp => f.pad("SCTP"),
            Self::Other(number) => write!(f, "protocol {number}"),
        }
    }
}
