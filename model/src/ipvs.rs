//! IPVS in the project's words: services, destinations and what can be set on them.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::Family;

/// A transport protocol that IPVS balances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP, `ipvsadm -t`.
    Tcp,
    /// UDP, `ipvsadm -u`.
    Udp,
    /// SCTP, `ipvsadm --sctp-service`.
    Sctp,
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

/// The identity of an IPVS service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ServiceKey {
    /// Packets to one address, protocol and port.
    Address {
        /// The VIP.
        address: IpAddr,
        /// The protocol.
        protocol: Protocol,
        /// The port, 1 to 65535.
        port: u16,
    },
    /// Packets that a firewall rule has marked.
    Fwmark {
        /// The mark.
        mark: NonZeroU32,
        /// The family of the packets: one mark can have a service in each.
        family: Family,
    },
}

impl ServiceKey {
    /// The family of the packets.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(*address),
            Self::Fwmark { family, .. } => *family,
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address {
                address,
                protocol,
                port,
            } => write!(f, "{protocol} {}", SocketAddr::new(*address, *port)),
            Self::Fwmark { mark, family } => write!(f, "fwmark {mark} {family}"),
        }
    }
}

/// A scheduler of the kernel's, by the name of its module without `ip_vs_`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum SchedulerName {
    /// Round robin.
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Least connections.
    Lc,
    /// Weighted least connections, the default of ipvsadm.
    #[default]
    Wlc,
    /// Locality-based least connections.
    Lblc,
    /// Locality-based least connections with replication.
    Lblcr,
    /// Destination hashing.
    Dh,
    /// Source hashing.
    Sh,
    /// Maglev hashing (kernel 4.18).
    Mh,
    /// Shortest expected delay.
    Sed,
    /// Never queue.
    Nq,
    /// Weighted fail-over.
    Fo,
    /// Weighted overflow.
    Ovf,
}

impl SchedulerName {
    /// Every scheduler.
    pub const ALL: [Self; 13] = [
        Self::Rr,
        Self::Wrr,
        Self::Lc,
        Self::Wlc,
        Self::Lblc,
        Self::Lblcr,
        Self::Dh,
        Self::Sh,
        Self::Mh,
        Self::Sed,
        Self::Nq,
        Self::Fo,
        Self::Ovf,
    ];

    /// The kernel's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
            Self::Lblc => "lblc",
            Self::Lblcr => "lblcr",
            Self::Dh => "dh",
            Self::Sh => "sh",
            Self::Mh => "mh",
            Self::Sed => "sed",
            Self::Nq => "nq",
            Self::Fo => "fo",
            Self::Ovf => "ovf",
        }
    }
}

impl FromStr for SchedulerName {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|known| known.as_str() == name)
            .ok_or(())
    }
}

/// A flag of the hashing schedulers `sh` and `mh` (`IP_VS_SVC_F_SCHED1`, `IP_VS_SVC_F_SCHED2`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SchedulerFlag {
    /// Another server is used when the hashed one has weight 0.
    Fallback,
    /// The source port takes part in the hash.
    Port,
}

/// A scheduler with its flags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduler {
    /// The scheduler, as `ipvsadm -s`. A foreign service's may be one that this project does not know.
    pub name: Cow<'static, str>,
    /// The three scheduler flag bits, `ipvsadm -b`: bit 0 is flag-1, bit 1 flag-2, bit 2 flag-3.
    pub flags: u8,
}

impl Scheduler {
    /// A scheduler with flags.
    #[must_use]
    pub fn new(name: SchedulerName, flags: &[SchedulerFlag]) -> Self {
        let bit = |flag: &SchedulerFlag| match flag {
            SchedulerFlag::Fallback => 0b001,
            SchedulerFlag::Port => 0b010,
        };
        Self {
            name: Cow::Borrowed(name.as_str()),
            flags: flags.iter().map(bit).fold(0, |all, bit| all | bit),
        }
    }
}

/// Clients that come back go to the same real server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistence {
    /// How long after its last connection a client is remembered, in seconds (`ipvsadm -p`).
    pub timeout_seconds: u32,
    /// Clients with the same prefix of this length count as one (`ipvsadm -M`); 1 to 32 or 128.
    pub prefix_length: u8,
    /// The persistence engine (`ipvsadm --pe`), `sip` for one.
    pub engine: Option<String>,
}

/// What can be changed on a service that exists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceConfig {
    /// How a real server is chosen.
    pub scheduler: Scheduler,
    /// Whether clients stick to a real server.
    pub persistence: Option<Persistence>,
    /// Whether each UDP datagram is scheduled by itself (`ipvsadm -o`).
    pub one_packet: bool,
}

/// A service and its real servers as the kernel holds them. Its destinations are ours when it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The service's settings.
    pub config: ServiceConfig,
    /// The real servers, in the one order in which they are inserted (the tables of `mh` depend on it).
    pub destinations: std::collections::BTreeMap<DestinationKey, Destination>,
}

/// The identity of a destination within its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DestinationKey {
    /// The real server's address.
    pub address: IpAddr,
    /// The real server's port; 0 only in a fwmark service, where the port is kept.
    pub port: u16,
}

impl fmt::Display for DestinationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", SocketAddr::new(self.address, self.port))
    }
}

impl TryFrom<String> for DestinationKey {
    type Error = std::net::AddrParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let socket: SocketAddr = text.parse()?;
        Ok(Self {
            address: socket.ip(),
            port: socket.port(),
        })
    }
}

impl From<DestinationKey> for String {
    fn from(key: DestinationKey) -> Self {
        key.to_string()
    }
}

/// What can be changed on a destination that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// How packets reach the real server.
    pub forwarding: Forwarding,
    /// The weight, 0 to 65535; 0 takes no new connections.
    pub weight: u32,
    /// No new connections from this many on; 0 means no limit.
    pub upper_threshold: u32,
    /// New connections again below this many; 0 means three quarters of the upper one.
    pub lower_threshold: u32,
}

/// How a director hands packets to real servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Forwarding {
    /// Addresses and ports are rewritten both ways, `ipvsadm -m`.
    Nat,
    /// Direct routing: only the link-layer address changes, `ipvsadm -g`.
    #[default]
    Dr,
    /// The packet travels inside another one, `ipvsadm -i`.
    Tun(Tunnel),
    /// A method that this project never sets (local, bypass), seen on foreign destinations.
    Foreign,
}

/// The tunnel from director to real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tunnel {
    /// The encapsulation.
    pub kind: TunnelKind,
    /// The outer checksum, for GUE and GRE.
    pub checksum: TunnelChecksum,
}

/// The encapsulation of a tunnel (`IP_VS_CONN_F_TUNNEL_TYPE_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TunnelKind {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation (kernel 5.2).
    Gue {
        /// The UDP port on which real servers decapsulate.
        port: u16,
    },
    /// GRE (kernel 5.3).
    Gre,
}

/// The checksum of the outer header (`IP_VS_TUNNEL_ENCAP_FLAG_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TunnelChecksum {
    /// None.
    #[default]
    None,
    /// Over the outer packet.
    Outer,
    /// GUE's remote checksum offload.
    Remote,
}

/// IPVS connection timeouts of a network namespace, in seconds (`ipvsadm --set`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// Established TCP connections.
    pub tcp_seconds: u32,
    /// TCP connections after a FIN.
    pub tcp_fin_seconds: u32,
    /// UDP.
    pub udp_seconds: u32,
}
