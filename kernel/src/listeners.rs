//! Reads the sockets that listen on this machine, by `sock_diag`: the kernel selects them by their state, so that the connections of
//! other programs are not read.

use std::{collections::BTreeSet, net::IpAddr};

use lvs_model::{Listener, Protocol};
use lvs_runtime::error::chain;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use tracing::debug;

use crate::route::{Exchange, Frame, RouteError};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// The length of a `struct inet_diag_req_v2`.
const INET_DIAG_REQ_V2_LEN: usize = 56;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
/// The state of a UDP socket that is not connected.
const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;

/// Reads the TCP sockets that listen and the UDP sockets that are not connected. `None` if they cannot be read.
pub(crate) async fn observe() -> Option<BTreeSet<Listener>> {
    match read().await {
        Ok(listeners) => Some(listeners),
        Err(error) => {
            let error = chain(&error);
            debug!(error, "cannot read the listening sockets");
            None
        }
    }
}

async fn read() -> Result<BTreeSet<Listener>, RouteError> {
    let exchange = Exchange::connect(NETLINK_SOCK_DIAG)?;
    let mut listeners = BTreeSet::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for family in [AF_INET, AF_INET6] {
            let Some(request) = request(family, protocol) else {
                continue;
            };
            let sockets = exchange.dump("listening sockets", request).await?;
            let found = sockets
                .iter()
                .filter_map(|socket| listener(protocol, &socket.payload));
            listeners.extend(found);
        }
    }
    Ok(listeners)
}

/// Returns the request for the listening sockets of a family and a protocol. `None` for a protocol that is not read.
///
/// A `struct inet_diag_req_v2`: family, protocol, extensions and padding (u8 each), the bits of the states (u32), and a socket's
/// identity, which a dump leaves empty.
fn request(family: u8, protocol: Protocol) -> Option<Frame> {
    let (protocol, state) = match protocol {
        Protocol::Tcp => (IPPROTO_TCP, TCP_LISTEN),
        Protocol::Udp => (IPPROTO_UDP, TCP_CLOSE),
        Protocol::Sctp => return None,
    };
    let mut payload = vec![family, protocol, 0, 0];
    payload.extend((1_u32 << state).to_ne_bytes());
    payload.resize(INET_DIAG_REQ_V2_LEN, 0);
    Some(Frame {
        kind: SOCK_DIAG_BY_FAMILY,
        payload,
    })
}

/// Decodes a socket. `None` if its family is unknown.
///
/// A `struct inet_diag_msg`: family, state, timer and retransmissions (u8 each), the own and the other port (big-endian u16), the
/// own address (16 bytes), and more.
fn listener(protocol: Protocol, socket: &[u8]) -> Option<Listener> {
    let port = u16::from_be_bytes(*socket.get(4..)?.first_chunk()?);
    let own = socket.get(8..)?;
    let address = match *socket.first()? {
        AF_INET => IpAddr::from(*own.first_chunk::<4>()?),
        AF_INET6 => IpAddr::from(*own.first_chunk::<16>()?),
        _ => return None,
    };
    Some(Listener {
        protocol,
        address,
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn sockets_that_listen_are_found_and_connected_ones_are_not() {
        let tcp = ["127.0.0.1:0", "[::1]:0"].map(|at| std::net::TcpListener::bind(at).unwrap());
        let udp = ["127.0.0.1:0", "[::]:0"].map(|at| std::net::UdpSocket::bind(at).unwrap());
        let client = std::net::TcpStream::connect(tcp[0].local_addr().unwrap()).unwrap();
        let connected = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        connected.connect(udp[0].local_addr().unwrap()).unwrap();

        let found = observe().await.unwrap();

        let has = |protocol, socket: std::net::SocketAddr| {
            found.contains(&Listener {
                protocol,
                address: socket.ip(),
                port: socket.port(),
            })
        };
        for socket in &tcp {
            assert!(has(Protocol::Tcp, socket.local_addr().unwrap()));
        }
        for socket in &udp {
            assert!(has(Protocol::Udp, socket.local_addr().unwrap()));
        }
        assert!(!has(Protocol::Tcp, client.local_addr().unwrap()));
        assert!(!has(Protocol::Udp, connected.local_addr().unwrap()));
    }

    #[test]
    fn a_socket_is_decoded() {
        let mut socket = vec![AF_INET, 10, 0, 0, 0x1f, 0x90, 0, 0, 192, 0, 2, 7];
        socket.resize(72, 0);
        let expected = Listener {
            protocol: Protocol::Tcp,
            address: "192.0.2.7".parse().unwrap(),
            port: 8080,
        };
        assert_eq!(listener(Protocol::Tcp, &socket), Some(expected));
        socket[0] = AF_INET6;
        socket[8..24].copy_from_slice(&[0; 16]);
        let any = listener(Protocol::Udp, &socket).unwrap();
        assert_eq!(any.address.to_string(), "::");
        assert_eq!(listener(Protocol::Tcp, &socket[..10]), None);
    }
}
