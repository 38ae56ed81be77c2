//! Reads the sockets that listen on this machine.

use std::collections::BTreeSet;

use lvs_model::{Listener, Protocol};
use procfs::{
    ProcError,
    net::{TcpState, UdpState, tcp, tcp6, udp, udp6},
};
use tracing::debug;

/// Reads the TCP sockets that listen and the UDP sockets that are not connected. `None` if they cannot be read.
pub(crate) fn observe() -> Option<BTreeSet<Listener>> {
    match read() {
        Ok(listeners) => Some(listeners),
        Err(error) => {
            debug!(%error, "cannot read the listening sockets");
            None
        }
    }
}

fn read() -> Result<BTreeSet<Listener>, ProcError> {
    let mut listeners = BTreeSet::new();
    // A kernel without IPv6 does not have tcp6 and udp6.
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
