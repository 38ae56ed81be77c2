//! Traffic: who asks, who answers, and what is said.
//!
//! A client writes one line. `ask` is answered with an [`Answer`] and the connection stays open; `fetch` is answered likewise and the
//! server closes; the request line of HTTP is answered with a page for people, so that `curl` will do. A datagram is answered with an
//! [`Answer`] whatever it says.

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

/// The number of SCTP among the IP protocols.
const IPPROTO_SCTP: i32 = 132;

/// The request that is answered and ends the connection.
const FETCH: &str = "fetch";

/// The request that is answered and leaves the connection open.
const ASK: &str = "ask";

/// The transport protocols that the lab speaks.
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

/// What a server says about a request: `rs1 saw 192.168.220.50:40312 at 192.168.220.100:80`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// The name of the server.
    pub server: String,
    /// Where the server saw the request come from.
    pub peer: SocketAddr,
    /// The address the request was sent to, as the server received it.
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
            .with_context(|| format!("could not make a socket for {self}"))
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
        parse().with_context(|| format!("`{text}` is no answer of a responder"))
    }
}

/// The address as IPv4 when it is IPv4 in the clothes of IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_survives_being_written_and_read() {
        for text in [
            "rs1 saw 192.168.220.50:40312 at 192.168.220.100:80",
            "rs2 saw [fd00::50]:1 at [fd00::100]:81",
        ] {
            assert_eq!(text.parse::<Answer>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in [
            "",
            "rs1 saw 192.168.220.50 at 192.168.220.100:80",
            "HTTP/1.0 200 OK",
        ] {
            assert!(text.parse::<Answer>().is_err(), "{text}");
        }
    }
}
