//! Test traffic: the client, the server, and their protocol.
//!
//! A client sends one line. The server replies to `ask` with an [`Answer`] and keeps the connection open; it replies to `fetch`
//! with an [`Answer`] and closes the connection; it replies to an HTTP request with a text page, so that `curl` works. It
//! replies to any datagram with an [`Answer`].

mod client;
mod responder;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use anyhow::{Context, Error, Result};
use clap::ValueEnum;
use socket2::{Domain, Socket, Type};

pub use self::client::{Client, Connection};
pub use self::responder::Responder;

/// The IP protocol number of SCTP.
const IPPROTO_SCTP: i32 = 132;

/// The request after whose answer the server closes the connection.
const FETCH: &str = "fetch";

/// The request after whose answer the connection stays open.
const ASK: &str = "ask";

/// The transport protocols that the lab supports.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP with one stream, used like TCP.
    Sctp,
}

/// A server's answer: what it saw of the request, such as `rs1 saw 192.168.220.50:40312 at 192.168.220.100:80`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// The name of the server.
    pub server: String,
    /// The source address of the request, as the server received it.
    pub peer: SocketAddr,
    /// The destination address of the request, as the server received it.
    pub local: SocketAddr,
}

impl Protocol {
    fn socket(self, domain: Domain) -> Result<Socket> {
        let (kind, protocol) = match self {
            Self::Tcp => (Type::STREAM, None),
            Self::Udp => (Type::DGRAM, None),
            Self::Sctp => (Type::STREAM, Some(IPPROTO_SCTP.into())),
        };
        Socket::new(domain, kind, protocol)
            .with_context(|| format!("could not open a socket for {self}"))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} saw {} at {}", self.server, self.peer, self.local)
    }
}

impl FromStr for Answer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (server, rest) = text.trim_end().split_once(" saw ")?;
            let (peer, local) = rest.split_once(" at ")?;
            Some(Self {
                server: server.to_owned(),
                peer: peer.parse().ok()?,
                local: local.parse().ok()?,
            })
        };
        parse().with_context(|| format!("`{text}` is not an answer of a responder"))
    }
}

/// The address, with an IPv4-mapped IPv6 address as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_parsed_from_its_own_text() {
        for text in [
            "rs1 saw 192.168.220.50:40312 at 192.168.220.100:80",
            "rs2 saw [fd00::50]:1 at [fd00::100]:81",
        ] {
            assert_eq!(text.parse::<Answer>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn text_that_is_not_an_answer_is_refused() {
        for text in [
            "",
            "rs1 saw 192.168.220.50 at 192.168.220.100:80",
            "HTTP/1.0 200 OK",
        ] {
            assert!(text.parse::<Answer>().is_err(), "{text}");
        }
    }
}
