//! The model's IPVS types: services, destinations and their settings.

use std::{
    borrow::Cow,
    collections::BTreeMap,
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

impl Protocol {
    /// Returns its name in commands, such as `tcp`.
    #[must_use]
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// Returns the protocol with this name in commands.
    #[must_use]
    pub fn of_keyword(word: &str) -> Option<Self> {
        let mut all = [Self::Tcp, Self::Udp, Self::Sctp].into_iter();
        all.find(|protocol| protocol.keyword() == word)
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
    /// Returns the address family of the packets.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(*address),
            Self::Fwmark { family, .. } => *family,
        }
    }

    /// Returns the VIP; `None` for a firewall mark.
    #[must_use]
    pub const fn vip(&self) -> Option<IpAddr> {
        match self {
            Self::Address { address, .. } => Some(*address),
            Self::Fwmark { .. } => None,
        }
    }

    /// The first possible key of a VIP, in the order of keys.
    pub(crate) const fn first_of(vip: IpAddr) -> Self {
        Self::Address {
            address: vip,
            protocol: Protocol::Tcp,
            port: 0,
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

/// A scheduler of the kernel, named like its module without `ip_vs_`.
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

    /// Returns the kernel's name for it.
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
    /// The source port is part of the hash.
    Port,
}

/// A scheduler with its flags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduler {
    /// The scheduler, as in `ipvsadm -s`. A foreign service can have one that [`SchedulerName`] does not list.
    pub name: Cow<'static, str>,
    /// The three scheduler flag bits, `ipvsadm -b`: bit 0 is flag-1, bit 1 flag-2, bit 2 flag-3.
    pub flags: u8,
}

impl Scheduler {
    /// Creates a scheduler with flags.
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

/// Persistence: new connections of a client go to the same real server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistence {
    /// How long a client is remembered after its last connection, in seconds (`ipvsadm -p`).
    pub timeout_seconds: u32,
    /// Clients whose addresses share a prefix of this length count as one (`ipvsadm -M`): 1 to 32, or to 128 for IPv6.
    pub prefix_length: u8,
    /// The persistence engine (`ipvsadm --pe`), such as `sip`.
    pub engine: Option<String>,
}

/// The settings of a service, which can be changed in place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceConfig {
    /// How a real server is chosen.
    pub scheduler: Scheduler,
    /// Whether and how clients stick to a real server.
    pub persistence: Option<Persistence>,
    /// Whether each UDP datagram is scheduled on its own (`ipvsadm -o`).
    pub one_packet: bool,
}

/// An IPVS service with its destinations. If the service is ours, so are its destinations.
///
/// Two that differ in the order of the destinations alone are equal: nothing is removed and added again for that.
#[derive(Clone, Debug, Default, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The service's settings.
    pub config: ServiceConfig,
    /// The real servers.
    pub destinations: BTreeMap<DestinationKey, Destination>,
    /// The order in which the real servers are added: the keys of all, or of none if it is that of the keys. The lookup table of `mh`
    /// depends on it. That of an observed service is not read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<DestinationKey>,
}

impl PartialEq for Service {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            config,
            destinations,
            order: _,
        } = other;
        self.config == *config && self.destinations == *destinations
    }
}

impl Service {
    /// Adds a destination, as the last one in the order. One that is there gets the settings and keeps its place.
    pub fn add(&mut self, key: DestinationKey, settings: Destination) {
        let last = self.destinations.keys().next_back().copied();
        if self.destinations.insert(key, settings).is_some() {
            return;
        }
        let is_sorted = self.order.is_empty();
        if is_sorted && last.is_none_or(|last| last < key) {
            return;
        }
        if is_sorted {
            let others = self.destinations.keys().copied();
            self.order.extend(others.filter(|other| *other != key));
        }
        self.order.push(key);
    }

    /// Removes a destination. The others keep their order.
    pub fn remove(&mut self, key: &DestinationKey) {
        self.destinations.remove(key);
        self.order.retain(|own| own != key);
    }

    /// Returns the destinations in the order in which they are added.
    pub fn in_order(&self) -> impl Iterator<Item = (&DestinationKey, &Destination)> {
        let sorted = self.destinations.iter();
        let sorted = sorted.filter(|_| self.order.is_empty());
        let listed = self.order.iter();
        sorted.chain(listed.filter_map(|key| self.destinations.get_key_value(key)))
    }

    /// Returns whether a destination has another address family than the service's packets. The kernel has no connection sync then.
    #[must_use]
    pub fn is_mixed(&self, family: Family) -> bool {
        let mut destinations = self.destinations.keys();
        destinations.any(|key| Family::of(key.address) != family)
    }
}

/// The identity of a destination within its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DestinationKey {
    /// The real server's address.
    pub address: IpAddr,
    /// The real server's port. 0, in a fwmark service only: the packet's port is not changed.
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

/// The settings of a destination, which can be changed in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// How packets reach the real server.
    pub forwarding: Forwarding,
    /// The weight, 0 to 65535. A destination of weight 0 gets no new connections.
    pub weight: u32,
    /// From this number of connections on, the destination gets no new ones. 0: no limit.
    pub upper_threshold: u32,
    /// Below this number of connections it gets new ones again. 0: three quarters of the upper threshold.
    pub lower_threshold: u32,
}

/// How a director forwards packets to a real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Forwarding {
    /// Addresses and ports are rewritten both ways, `ipvsadm -m`.
    Nat,
    /// Direct routing: only the link-layer address changes, `ipvsadm -g`.
    #[default]
    Dr,
    /// The packet is encapsulated in another one, `ipvsadm -i`.
    Tun(Tunnel),
    /// A method that the agent never sets (local, bypass); found on foreign destinations only.
    Foreign,
}

impl Forwarding {
    /// Returns whether packets arrive at the real server with the VIP as their destination.
    #[must_use]
    pub const fn keeps_vip(self) -> bool {
        matches!(self, Self::Dr | Self::Tun(_))
    }
}

/// The tunnel from director to real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tunnel {
    /// The encapsulation.
    pub kind: TunnelKind,
    /// The outer checksum, for GUE and GRE.
    pub checksum: TunnelChecksum,
}

impl Tunnel {
    /// Returns by how many bytes a packet grows in the tunnel.
    #[must_use]
    pub const fn overhead(self, outer: Family) -> u32 {
        let outer = match outer {
            Family::V4 => 20,
            Family::V6 => 40,
        };
        let inner = match (self.kind, self.checksum) {
            (TunnelKind::Ipip, _) => 0,
            (TunnelKind::Gue { .. }, TunnelChecksum::Remote) => 8 + 4 + 8,
            (TunnelKind::Gue { .. }, TunnelChecksum::None | TunnelChecksum::Outer) => 8 + 4,
            (TunnelKind::Gre, TunnelChecksum::Outer) => 4 + 4,
            (TunnelKind::Gre, TunnelChecksum::None | TunnelChecksum::Remote) => 4,
        };
        outer + inner
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Destination = Destination {
        forwarding: Forwarding::Dr,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
    };

    fn key(number: u8) -> DestinationKey {
        DestinationKey {
            address: [192, 0, 2, number].into(),
            port: 80,
        }
    }

    fn service(numbers: &[u8]) -> Service {
        let mut service = Service::default();
        for number in numbers {
            service.add(key(*number), SETTINGS);
        }
        service
    }

    fn in_order(service: &Service) -> Vec<DestinationKey> {
        service.in_order().map(|(key, _)| *key).collect()
    }

    #[test]
    fn destinations_have_the_order_in_which_they_were_added() {
        for numbers in [&[11, 12, 13][..], &[13, 11, 12], &[11, 13, 12], &[]] {
            let expected: Vec<DestinationKey> = numbers.iter().copied().map(key).collect();
            assert_eq!(in_order(&service(numbers)), expected);
        }
        let mut changed = service(&[13, 11, 12]);
        changed.remove(&key(11));
        changed.add(key(11), SETTINGS);
        changed.add(key(13), SETTINGS);
        assert_eq!(in_order(&changed), [key(13), key(12), key(11)]);
    }

    #[test]
    fn the_sorted_order_is_not_stored() {
        assert!(service(&[11, 12, 13]).order.is_empty());
    }

    #[test]
    fn another_order_is_no_difference() {
        let service = service(&[13, 11]);
        assert_eq!(service, self::service(&[11, 13]));
        assert_ne!(service, self::service(&[13, 12]));
    }

    #[test]
    fn the_order_is_stored_unless_it_is_the_sorted_one() {
        for numbers in [&[11, 13][..], &[13, 11]] {
            let json = serde_json::to_string(&service(numbers)).unwrap();
            let found: Service = serde_json::from_str(&json).unwrap();
            assert_eq!(in_order(&found), in_order(&service(numbers)));
            assert_eq!(json.contains("order"), numbers[0] == 13);
        }
    }
}
