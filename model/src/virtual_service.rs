//! VirtualServices as the model sees them: converted, checked, resolved.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU32,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{
    DirectorGroup, Family, Forwarding, GroupName, ObjectName, Persistence, Pools, Protocol,
    Scheduler, Service, ServiceKey,
};

/// Everything that is wanted, of all machines.
///
/// Holds only objects that convert; what does not was rejected on the way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterView {
    /// The virtual services.
    pub services: BTreeMap<ObjectName, Arc<VirtualService>>,
    /// The director groups.
    pub groups: BTreeMap<GroupName, DirectorGroup>,
    /// The pools of files: if there is one, every VIP is from a pool. In a cluster the controller checks that.
    pub pools: Pools,
    /// The objects of this machine that could not be read and have no last good version, by kind and name. It is not known what
    /// they ask for, so nothing is removed.
    pub unreadable_objects: BTreeSet<String>,
}

/// One virtual service with its real servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualService {
    /// When it was created, in seconds since 1970; `None` in files. The older of two on one key keeps it.
    pub created: Option<i64>,
    /// The group whose nodes direct it.
    pub group: GroupName,
    /// What its packets are known by.
    pub frontend: Frontend,
    /// How packets reach the real servers, unless a real server has a method of its own.
    pub forwarding: Forwarding,
    /// How replies come back; only NAT looks at it.
    pub nat: Nat,
    /// How a real server is chosen.
    pub scheduler: Scheduler,
    /// Whether clients stick to a real server; `None`: they do not.
    pub persistence: Option<PersistenceByFamily>,
    /// Whether each UDP datagram is scheduled by itself.
    pub one_packet: bool,
    /// Whether its director has the VIPs whatever the other directors of the group do.
    #[serde(default)]
    pub alone: bool,
    /// The real servers before the last change, by IPVS service, as the controller remembers them for connections that exist. Empty
    /// unless the machine serves the virtual service without directing it.
    #[serde(default)]
    pub previous: Vec<(ServiceKey, Service)>,
    /// The real servers, in the order in which directors add them. No two share an address and a port of one protocol, and each address
    /// has one forwarding method.
    pub real_servers: Vec<RealServer>,
}

impl VirtualService {
    /// Returns whether another version is the same, apart from the real servers.
    pub(crate) fn is_like_but_for_real_servers(&self, other: &Self) -> bool {
        let Self {
            created,
            group,
            frontend,
            forwarding,
            nat,
            scheduler,
            persistence,
            one_packet,
            alone,
            previous,
            real_servers: _,
        } = other;
        self.created == *created
            && self.group == *group
            && self.frontend == *frontend
            && self.forwarding == *forwarding
            && self.nat == *nat
            && self.scheduler == *scheduler
            && self.persistence == *persistence
            && self.one_packet == *one_packet
            && self.alone == *alone
            && self.previous == *previous
    }

    /// Returns whether another version has the same real servers, in any order.
    pub(crate) fn has_same_real_servers(&self, other: &Self) -> bool {
        let sorted = |version: &Self| {
            let mut servers: Vec<RealServer> = version.real_servers.clone();
            servers.sort_by(RealServer::cmp_key);
            servers
        };
        sorted(self) == sorted(other)
    }

    /// The forwarding methods in use: those of its real servers, or without any its own. May repeat one.
    pub fn methods(&self) -> impl Iterator<Item = Forwarding> {
        let servers = self.real_servers.iter();
        let own = Some(self.forwarding).filter(|_| self.real_servers.is_empty());
        servers.map(|server| server.forwarding).chain(own)
    }

    /// Returns whether NAT is among the forwarding methods in use.
    #[must_use]
    pub fn uses_nat(&self) -> bool {
        self.methods().any(|method| method == Forwarding::Nat)
    }

    /// The families of its packets: those of its VIPs, or, as a mark says nothing of them, those of its real servers.
    #[must_use]
    pub fn families(&self) -> BTreeSet<Family> {
        match &self.frontend {
            Frontend::Addresses { vips, .. } => vips.iter().copied().map(Family::of).collect(),
            Frontend::Fwmark(_) => {
                let servers = self.real_servers.iter();
                servers.map(|server| Family::of(server.address)).collect()
            }
        }
    }
}

/// Persistence with a prefix length for each family, since one object may have a VIP in both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistenceByFamily {
    /// For IPv4 clients.
    pub v4: Persistence,
    /// For IPv6 clients.
    pub v6: Persistence,
}

/// What the packets of a virtual service are known by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frontend {
    /// Virtual IPs with ports.
    Addresses {
        /// The VIPs, at most one a family.
        vips: Vec<IpAddr>,
        /// The ports, at least one; no two with the same protocol and port.
        ports: Vec<Port>,
    },
    /// A mark that the administrator's own firewall rules set.
    Fwmark(NonZeroU32),
}

impl Frontend {
    /// The VIPs; none for a firewall mark.
    #[must_use]
    pub fn vips(&self) -> &[IpAddr] {
        match self {
            Self::Addresses { vips, .. } => vips,
            Self::Fwmark(_) => &[],
        }
    }

    /// The ports; none for a firewall mark.
    #[must_use]
    pub fn ports(&self) -> &[Port] {
        match self {
            Self::Addresses { ports, .. } => ports,
            Self::Fwmark(_) => &[],
        }
    }

    /// The keys of its IPVS services: each VIP with each port, or the mark in both families.
    pub fn keys(&self) -> impl Iterator<Item = ServiceKey> {
        let of_vips = self.vips().iter().flat_map(|vip| {
            self.ports().iter().map(|port| ServiceKey::Address {
                address: *vip,
                protocol: port.protocol,
                port: port.port,
            })
        });
        let mark = match self {
            Self::Addresses { .. } => None,
            Self::Fwmark(mark) => Some(*mark),
        };
        let of_mark = mark.into_iter().flat_map(|mark| {
            [Family::V4, Family::V6].map(|family| ServiceKey::Fwmark { mark, family })
        });
        of_vips.chain(of_mark)
    }

    /// The field of a VirtualService that names a VIP.
    pub(crate) fn field_of_vip(&self, vip: IpAddr) -> String {
        let index = self.vips().iter().position(|own| *own == vip);
        format!("spec.addresses[{}]", index.unwrap_or_default())
    }

    /// The field of a VirtualService that names a key.
    pub(crate) fn field_of_key(&self, key: &ServiceKey) -> String {
        match key {
            ServiceKey::Address { protocol, port, .. } => {
                let mut ports = self.ports().iter();
                let index = ports.position(|own| own.protocol == *protocol && own.port == *port);
                format!("spec.ports[{}].port", index.unwrap_or_default())
            }
            ServiceKey::Fwmark { .. } => "spec.fwmark".to_owned(),
        }
    }
}

/// A port of a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The protocol.
    pub protocol: Protocol,
    /// The port of the VIP.
    pub port: u16,
}

/// How NAT replies come back through the director.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nat {
    /// The way back.
    pub return_path: ReturnPath,
    /// The director's addresses on the real servers' network, at most one a family. Needed for `PolicyRoute`; with
    /// `DefaultGateway` real servers check their default route against it.
    pub gateways: Vec<IpAddr>,
}

/// The way back of NAT replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReturnPath {
    /// The real server's default route leads to the director: checked, never changed.
    #[default]
    DefaultGateway,
    /// A rule and table of ours on the real server send the service's replies to the director.
    PolicyRoute,
    /// The director puts its own address in as the source; the client's is lost.
    Masquerade,
}

/// The ports of a real server. Up to eight are stored in place: a large table has as many of these lists as real servers.
pub type ServerPorts = SmallVec<[u16; 8]>;

/// A real server of a virtual service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealServer {
    /// Its address.
    pub address: IpAddr,
    /// Its port for each of [`Frontend::ports`], in the same order; another than the VIP's with NAT only. For a firewall
    /// mark: none, and packets keep their own port, or with NAT one for all packets.
    pub ports: ServerPorts,
    /// Its weight, 0 to 65535.
    pub weight: u32,
    /// No new connections from this many on; 0 means no limit.
    pub upper_threshold: u32,
    /// New connections again below this many.
    pub lower_threshold: u32,
    /// How packets reach it.
    pub forwarding: Forwarding,
    /// The Service whose endpoint it is; `None` if it is listed by its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Arc<str>>,
}

impl RealServer {
    /// Compares two real servers by their address and ports.
    #[must_use]
    pub fn cmp_key(&self, other: &Self) -> Ordering {
        (self.address, &self.ports).cmp(&(other.address, &other.ports))
    }

    /// Returns whether packets of a family can be forwarded to it. Only a tunnel takes those of another family.
    #[must_use]
    pub fn takes(&self, family: Family) -> bool {
        matches!(self.forwarding, Forwarding::Tun(_)) || Family::of(self.address) == family
    }

    /// Returns its ports; none if they are those of the VIPs.
    #[must_use]
    pub fn own_ports(&self, frontend: &Frontend) -> &[u16] {
        let ports = frontend.ports().iter().map(|port| port.port);
        if ports.eq(self.ports.iter().copied()) {
            &[]
        } else {
            &self.ports
        }
    }

    /// The port of its destination in the IPVS service of the port at `index`, or of a firewall mark. 0 leaves the port of
    /// the packets as it is.
    #[must_use]
    pub fn destination_port(&self, index: usize) -> u16 {
        self.ports.get(index).copied().unwrap_or(0)
    }
}
