//! Hears which machines of a network say that they have an address.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
    net::IpAddr,
};

use lvs_model::{Family, InterfaceName, MacAddr};

use super::{
    error::AnnounceError,
    frame, not_opened,
    port::{FrameSocket, Port, open_for_advertisements},
};

/// How many packets are read at once.
const MOST: usize = 64;

/// A socket that receives the ARP packets of an interface, or its neighbour advertisements.
pub struct ClaimSocket {
    socket: FrameSocket,
    family: Family,
}

impl ClaimSocket {
    /// Opens a socket. `None` if neighbours cannot resolve addresses on the interface. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// When the interface does not exist, or the socket cannot be opened (it needs `CAP_NET_RAW`).
    pub fn open(interface: &InterfaceName, family: Family) -> Result<Option<Self>, AnnounceError> {
        let Some(port) = Port::find(interface)? else {
            return Ok(None);
        };
        let socket = match family {
            Family::V4 => port.open_to_probe(family),
            Family::V6 => open_for_advertisements(interface),
        };
        let socket = socket.map_err(not_opened(interface))?;
        Ok(Some(Self { socket, family }))
    }

    /// Waits until there is a packet, or an error. Cancel-safe.
    ///
    /// # Errors
    /// If the runtime is shutting down.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Returns the addresses that machines say they have, each with the MAC address, as some of the waiting packets show them. Does not
    /// wait.
    ///
    /// # Errors
    /// If the interface was removed or went down.
    pub fn take(&self) -> io::Result<BTreeSet<(IpAddr, MacAddr)>> {
        let mut claims = BTreeSet::new();
        for _ in 0..MOST {
            let packet = match self.socket.take_ready() {
                Ok(packet) => packet,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            claims.extend(match self.family {
                Family::V4 => frame::arp_sender(&packet),
                Family::V6 => frame::advertised(&packet),
            });
        }
        Ok(claims)
    }
}
