//! Destinations: the real servers of a virtual service.

mod config;
mod decode;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

pub use self::config::{DestinationConfig, Forwarding, Tunnel, TunnelChecksum, TunnelKind};
use crate::{Family, Stats, family::address_bytes, wire::DestinationAttribute};

/// The identity of a destination within its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationKey {
    /// The address of the real server (`IPVS_DEST_ATTR_ADDR`, `_ADDR_FAMILY`). It may be of
    /// another family than the service only with [`Forwarding::Tunnel`].
    pub address: IpAddr,
    /// The port of the real server (`IPVS_DEST_ATTR_PORT`).
    pub port: u16,
}

impl DestinationKey {
    /// Yields the attributes that name the destination in a request.
    ///
    /// The family is always given. Without it the kernel assumes the family of the service, and may
    /// not find the destination.
    pub(crate) fn attributes(self) -> impl Iterator<Item = DestinationAttribute> {
        [
            DestinationAttribute::Address(address_bytes(self.address)),
            DestinationAttribute::Port(self.port),
            DestinationAttribute::AddressFamily(Family::of(self.address).number()),
        ]
        .into_iter()
    }
}

impl fmt::Display for DestinationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// A destination as the kernel reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Its identity within its service.
    pub key: DestinationKey,
    /// Its settings.
    pub config: DestinationConfig,
    /// Its counters since it was created, revived or zeroed.
    pub stats: Stats,
    /// Its present connections.
    pub connections: Connections,
}

/// The connections of a destination at the moment of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Connections in an active state, such as `ESTABLISHED` (`IPVS_DEST_ATTR_ACTIVE_CONNS`).
    pub active: u32,
    /// Connections in any other state (`IPVS_DEST_ATTR_INACT_CONNS`).
    pub inactive: u32,
    /// Clients that persistence binds to it (`IPVS_DEST_ATTR_PERSIST_CONNS`).
    pub persistent: u32,
}
