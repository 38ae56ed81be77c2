//! What listens on this machine.

use std::collections::BTreeSet;

use lvs_model::{Listener, Protocol};
use procfs::{
    ProcError,
    net::{TcpState, UdpState, tcp, tcp6, udp, udp6},
};
use tracing::debug;

/// Reads the TCP sockets that listen and the UDP sockets that are not connected; `None` when that cannot be read.
pub(crate) fn observe() -> Option<BTreeSet<Listener>> {
    match read() {
        Ok(listeners) => Some(listeners),
        Err(error) => {
            debug!(%error, "sockets cannot be read");
            None
        }
    }
}

fn read() -> Result<BTreeSet<Listener>, ProcError> {
    let mut listeners = BTreeSet::new();
    // A kernel without IPv6 has no tables for it.
    for socket in tcp()?.into_iter().chain(tcp6().unwrap_or_default()) {
        if socket.state == TcpState::Listen {
            listeners.insert(listener(Protocol::Tcp, socket.local_address));
        }
    }
    for socket in udp()?.into_iter().chain(udp6().unwrap_or_default()) {
        if socket.state == UdpState::Close {
            listeners.insert(listener(Protocol::Udp, socket.local_address));
        }
    }
    Ok(listeners)
}

const fn listener(protocol: Protocol, local: std::net::SocketAddr) -> Listener {
    Listener {
        protocol,
        address: local.ip(),
        port: local.port(),
    }
}
