//! The client of test traffic.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket};

use super::{ASK, Answer, FETCH, Protocol};
use crate::host::Host;

/// The default timeout for a connection or an answer.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// Sends requests to responders from one host.
#[derive(Clone, Debug)]
pub struct Client {
    /// The host on which its sockets are opened; `None` for the calling thread's network namespace.
    host: Option<Host>,
    protocol: Protocol,
    timeout: Duration,
    source: Option<IpAddr>,
    source_port: u16,
}

impl Client {
    /// A client on `host`, over TCP.
    pub fn on(host: &Host) -> Self {
        Self {
            host: Some(host.clone()),
            ..Self::here()
        }
    }

    /// A client in the network namespace of the calling thread, over TCP.
    pub fn here() -> Self {
        Self {
            host: None,
            protocol: Protocol::Tcp,
            timeout: DEFAULT_TIMEOUT,
            source: None,
            source_port: 0,
        }
    }

    /// Uses another protocol.
    #[must_use]
    pub fn over(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Uses UDP.
    #[must_use]
    pub fn udp(self) -> Self {
        self.over(Protocol::Udp)
    }

    /// Sets the timeout for a connection and for each answer; 3 s by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends from this address.
    #[must_use]
    pub fn source(mut self, address: IpAddr) -> Self {
        self.source = Some(address);
        self
    }

    /// Sends from this port.
    #[must_use]
    pub fn source_port(mut self, port: u16) -> Self {
        self.source_port = port;
        self
    }

    /// Sends one request over a new connection.
    pub fn fetch(&self, server: impl ToSocketAddrs) -> Result<Answer> {
        self.connect(server)?.exchange(FETCH)
    }

    /// Sends `count` requests, each over a new connection, and counts the answers of each server.
    pub fn fetch_many(
        &self,
        server: impl ToSocketAddrs,
        count: usize,
    ) -> Result<BTreeMap<String, usize>> {
        let server = resolve(server)?;
        let mut counts = BTreeMap::new();
        for _ in 0..count {
            *counts.entry(self.fetch(server)?.server).or_default() += 1;
        }
        Ok(counts)
    }

    /// Opens a connection for several requests. Over UDP it is a socket that keeps its port.
    pub fn connect(&self, server: impl ToSocketAddrs) -> Result<Connection> {
        let server = resolve(server)?;
        let socket = match &self.host {
            Some(host) => host.in_namespace(|| self.open(server))??,
            None => self.open(server)?,
        };
        let shown = || format!("no {} connection to {server}", self.protocol);
        socket
            .connect_timeout(&server.into(), self.timeout)
            .with_context(shown)?;
        socket
            .set_read_timeout(Some(self.timeout))
            .with_context(shown)?;
        socket
            .set_write_timeout(Some(self.timeout))
            .with_context(shown)?;
        let local = socket.local_addr().with_context(shown)?;
        let local = local.as_socket().context("the socket has no address")?;
        Ok(Connection {
            socket: BufReader::new(socket),
            server,
            local,
        })
    }

    fn open(&self, server: SocketAddr) -> Result<Socket> {
        let socket = self.protocol.socket(Domain::for_address(server))?;
        if self.source.is_some() || self.source_port != 0 {
            let any = if server.is_ipv4() {
                IpAddr::from(Ipv4Addr::UNSPECIFIED)
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            };
            let source = SocketAddr::new(self.source.unwrap_or(any), self.source_port);
            socket
                .set_reuse_address(true)
                .and_then(|()| socket.bind(&source.into()))
                .with_context(|| format!("could not send from {source}"))?;
        }
        Ok(socket)
    }
}

/// A connection to a responder.
#[derive(Debug)]
pub struct Connection {
    socket: BufReader<Socket>,
    server: SocketAddr,
    local: SocketAddr,
}

impl Connection {
    /// Sends a request over this connection, which stays open.
    pub fn ask(&mut self) -> Result<Answer> {
        self.exchange(ASK)
    }

    /// The local address and port.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends a part of a request, which [`Connection::finish_to_ask`] completes.
    pub fn begin_to_ask(&mut self) -> Result<()> {
        let (begin, _) = ASK.split_at(1);
        self.send(begin)
    }

    /// Sends the rest of the request that [`Connection::begin_to_ask`] began.
    pub fn finish_to_ask(&mut self) -> Result<Answer> {
        let (_, rest) = ASK.split_at(1);
        self.exchange(rest)
    }

    fn send(&mut self, text: &str) -> Result<()> {
        let server = self.server;
        let sent = self.socket.get_mut().write_all(text.as_bytes());
        sent.with_context(|| format!("could not send to {server}"))
    }

    fn exchange(&mut self, request: &str) -> Result<Answer> {
        self.send(&format!("{request}\n"))?;
        let server = self.server;
        let mut line = String::new();
        self.socket
            .read_line(&mut line)
            .with_context(|| format!("no answer from {server}"))?;
        ensure!(
            !line.is_empty(),
            "{server} closed the connection without an answer"
        );
        line.parse()
    }
}

fn resolve(server: impl ToSocketAddrs) -> Result<SocketAddr> {
    server
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .context("the server must be given as ADDRESS:PORT")
}
