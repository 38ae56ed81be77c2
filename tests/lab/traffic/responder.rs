//! The server of test traffic.

use std::io::{IoSlice, IoSliceMut, PipeReader, PipeWriter, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
};
use socket2::{Domain, Socket};

use super::{ASK, Answer, FETCH, Protocol, canonical};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// How long a read or a write may block before the client's connection is closed.
const IO_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest request line; the connection of a client that sends more is closed.
const LONGEST_REQUEST: usize = 8192;

/// A server that answers each request with what it saw of it. It answers until it is dropped.
#[derive(Debug)]
pub struct Responder {
    /// Closing it ends the thread.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// Answers TCP and UDP on `port` of every address, IPv4 and IPv6, in the calling thread's network namespace.
    pub fn on_every_address(name: &str, port: u16) -> Result<Self> {
        let wildcards = [
            IpAddr::from(Ipv4Addr::UNSPECIFIED),
            Ipv6Addr::UNSPECIFIED.into(),
        ];
        let both = |address| {
            [Protocol::Tcp, Protocol::Udp]
                .map(|protocol| (protocol, SocketAddr::new(address, port)))
        };
        Self::start(name, wildcards.into_iter().flat_map(both))
    }

    /// Answers on these addresses, in the calling thread's network namespace.
    ///
    /// The host need not have an address yet, so that a server can start before its VIP is added.
    pub fn start(
        name: &str,
        addresses: impl IntoIterator<Item = (Protocol, SocketAddr)>,
    ) -> Result<Self> {
        let mut sockets = ServerSockets {
            name: name.to_owned(),
            listeners: Vec::new(),
            datagrams: Vec::new(),
            connections: Vec::new(),
        };
        for (protocol, address) in addresses {
            let socket = open(protocol, address)
                .with_context(|| format!("could not answer {protocol} on {address}"))?;
            match protocol {
                Protocol::Tcp | Protocol::Sctp => sockets.listeners.push(socket),
                Protocol::Udp => sockets.datagrams.push(socket),
            }
        }
        let (stopped, stop) = std::io::pipe().context("could not create a pipe")?;
        let thread = std::thread::Builder::new()
            .name(format!("responder {name}"))
            .spawn(move || sockets.run(&stopped))
            .context("could not start the thread of a responder")?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Answers until the process ends.
    pub fn run_forever(mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// The sockets that a responder's thread serves.
struct ServerSockets {
    name: String,
    listeners: Vec<Socket>,
    datagrams: Vec<Socket>,
    connections: Vec<ServerConnection>,
}

/// An accepted connection, with the received part of an incomplete line.
struct ServerConnection {
    socket: Socket,
    received: Vec<u8>,
    is_http: bool,
}

impl ServerSockets {
    /// Serves the sockets that are ready, until the writing end of `stopped` is closed.
    fn run(mut self, stopped: &PipeReader) {
        while let Some(ready) = self.wait(stopped) {
            let (listeners, rest) = ready.split_at(self.listeners.len());
            let (datagrams, connections) = rest.split_at(self.datagrams.len());
            for (socket, _) in self
                .datagrams
                .iter()
                .zip(datagrams)
                .filter(|(_, ready)| **ready)
            {
                // An error counts as a lost datagram.
                answer_datagram(&self.name, socket).ok();
            }
            let mut ready = connections.iter();
            self.connections.retain_mut(|connection| {
                ready.next() != Some(&true) || connection.serve(&self.name)
            });
            for (socket, _) in self
                .listeners
                .iter()
                .zip(listeners)
                .filter(|(_, ready)| **ready)
            {
                self.connections.extend(ServerConnection::accept(socket));
            }
        }
    }

    /// Waits until a socket is ready. Returns for each whether it is, in the order listeners, datagrams, connections; `None` once
    /// `stopped` is closed.
    fn wait(&self, stopped: &PipeReader) -> Option<Vec<bool>> {
        let sockets = self.listeners.iter().chain(&self.datagrams);
        let sockets = sockets.chain(self.connections.iter().map(|connection| &connection.socket));
        let mut polled: Vec<PollFd<'_>> = std::iter::once(stopped.as_fd())
            .chain(sockets.map(AsFd::as_fd))
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        poll(&mut polled, PollTimeout::NONE).ok();
        let mut ready = polled.iter().map(|fd| fd.any().unwrap_or(true));
        let is_stopped = ready.next().unwrap_or(true);
        (!is_stopped).then(|| ready.collect())
    }
}

impl ServerConnection {
    fn accept(listener: &Socket) -> Option<Self> {
        let (socket, _peer) = listener.accept().ok()?;
        socket.set_nonblocking(false).ok()?;
        socket.set_read_timeout(Some(IO_TIMEOUT)).ok()?;
        socket.set_write_timeout(Some(IO_TIMEOUT)).ok()?;
        Some(Self {
            socket,
            received: Vec::new(),
            is_http: false,
        })
    }

    /// Reads what has arrived and answers each line. Returns whether the connection stays open.
    fn serve(&mut self, name: &str) -> bool {
        let mut buffer = [0; 1024];
        let Ok(length @ 1..) = self.socket.read(&mut buffer) else {
            return false;
        };
        self.received.extend(buffer.iter().take(length));
        while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            match self.answer(name, String::from_utf8_lossy(&line).trim_end()) {
                Ok(true) => {}
                Ok(false) | Err(_) => return false,
            }
        }
        self.received.len() <= LONGEST_REQUEST
    }

    /// Answers one line. Returns whether the connection stays open.
    fn answer(&mut self, name: &str, line: &str) -> Result<bool> {
        let local = self
            .socket
            .local_addr()?
            .as_socket()
            .context("no address")?;
        let peer = self.socket.peer_addr()?.as_socket().context("no address")?;
        let answer = Answer {
            server: name.to_owned(),
            peer: canonical(peer),
            local: canonical(local),
        };
        let (reply, stays_open) = match line {
            ASK => (format!("{answer}\n"), true),
            FETCH => (format!("{answer}\n"), false),
            "" if self.is_http => (page(&answer), false),
            _header if self.is_http => return Ok(true),
            request => {
                self.is_http = request.contains(" HTTP/1.");
                return Ok(self.is_http);
            }
        };
        self.socket.write_all(reply.as_bytes())?;
        Ok(stays_open)
    }
}

/// The HTTP response, whose text has the answer without the client's port.
fn page(answer: &Answer) -> String {
    let body = format!(
        "{} saw {} at {}\n",
        answer.server,
        answer.peer.ip(),
        answer.local
    );
    let length = body.len();
    format!(
        "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn open(protocol: Protocol, address: SocketAddr) -> Result<Socket> {
    let socket = protocol.socket(Domain::for_address(address))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    if protocol == Protocol::Udp {
        if address.is_ipv6() {
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, Ipv4PacketInfo, &true)?;
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    match protocol {
        Protocol::Tcp | Protocol::Sctp => socket.listen(BACKLOG)?,
        Protocol::Udp => {}
    }
    Ok(socket)
}

/// Answers one datagram from the address it was sent to.
///
/// By default, a socket that is bound to every address answers from the address of the outgoing link. For a VIP that is the wrong
/// one, and the client would drop the answer.
fn answer_datagram(name: &str, socket: &Socket) -> Result<()> {
    let mut buffer = [0; LONGEST_REQUEST];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let mut space = nix::cmsg_space!(in6_pktinfo);
    let received = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::empty(),
    )?;
    let peer = received.address.context("a datagram without a sender")?;
    let mut destination = None;
    for message in received.cmsgs()? {
        destination = PacketInfo::of(&message).or(destination);
    }
    let destination = destination.context("a datagram without a destination")?;
    let port = socket
        .local_addr()?
        .as_socket()
        .context("no address")?
        .port();
    let answer = Answer {
        server: name.to_owned(),
        peer: canonical(socket_address(&peer).context("a sender of no known address family")?),
        local: SocketAddr::new(destination.address(), port),
    };
    let text = format!("{answer}\n");
    let parts = [IoSlice::new(text.as_bytes())];
    let control = [destination.as_source()];
    sendmsg(
        socket.as_raw_fd(),
        &parts,
        &control,
        MsgFlags::empty(),
        Some(&peer),
    )?;
    Ok(())
}

/// The destination of a datagram, in the form that sets the source of the answer (ip(7), `IP_PKTINFO`).
enum PacketInfo {
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

impl PacketInfo {
    fn of(message: &ControlMessageOwned) -> Option<Self> {
        if let ControlMessageOwned::Ipv4PacketInfo(info) = message {
            return Some(Self::V4(in_pktinfo {
                // 0: the route decides the outgoing link.
                ipi_ifindex: 0,
                ipi_spec_dst: info.ipi_addr,
                ipi_addr: in_addr { s_addr: 0 },
            }));
        }
        if let ControlMessageOwned::Ipv6PacketInfo(info) = message {
            let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
            let ipi6_ifindex = if address.is_unicast_link_local() {
                info.ipi6_ifindex
            } else {
                0
            };
            return Some(Self::V6(in6_pktinfo {
                ipi6_addr: in6_addr {
                    s6_addr: address.octets(),
                },
                ipi6_ifindex,
            }));
        }
        None
    }

    fn address(&self) -> IpAddr {
        match self {
            Self::V4(info) => Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into(),
            Self::V6(info) => Ipv6Addr::from(info.ipi6_addr.s6_addr).into(),
        }
    }

    fn as_source(&self) -> ControlMessage<'_> {
        match self {
            Self::V4(info) => ControlMessage::Ipv4PacketInfo(info),
            Self::V6(info) => ControlMessage::Ipv6PacketInfo(info),
        }
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let ipv4 = address
        .as_sockaddr_in()
        .map(|v4| SocketAddr::new(v4.ip().into(), v4.port()));
    let ipv6 = address
        .as_sockaddr_in6()
        .map(|v6| SocketAddr::new(v6.ip().into(), v6.port()));
    ipv4.or(ipv6)
}
