//! What a kernel holds of the things that this project programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Family, InterfaceName, Protocol, Service, ServiceKey, Timeouts};

mod sysctl;

pub use sysctl::Sysctl;

/// The part of a kernel's state that this project programs: desired, or observed in one network namespace.
///
/// Observed, `addresses` and `services` hold the foreign ones too, `links` those that are ours by name or mark, `routes`
/// and `rules` those with our protocol number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelState {
    /// Values below /proc/sys.
    pub sysctls: BTreeMap<Sysctl, i64>,
    /// UDP ports on which the kernel decapsulates GUE.
    pub fou_ports: BTreeSet<FouPort>,
    /// Tunnel devices.
    pub links: BTreeMap<InterfaceName, Link>,
    /// Addresses of interfaces.
    pub addresses: BTreeMap<AddressKey, AddressConfig>,
    /// Routes in tables of ours.
    pub routes: BTreeSet<Route>,
    /// Policy routing rules of ours.
    pub rules: BTreeSet<PolicyRule>,
    /// The nft table of ours; `None`: there is none.
    pub masquerade: Option<Masquerade>,
    /// IPVS timeouts; desired `None`: left as they are.
    pub timeouts: Option<Timeouts>,
    /// IPVS services.
    pub services: BTreeMap<ServiceKey, Service>,
}

impl KernelState {
    /// Returns whether a sysctl is wanted, or one with which the kernel changes it.
    pub(crate) fn needs(&self, sysctl: &Sysctl) -> bool {
        self.sysctls.contains_key(sysctl)
            || (sysctl.follows_forwarding() && self.sysctls.contains_key(&Sysctl::Ipv4Forward))
    }
}

/// Whose something is, by the mark on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Owner {
    /// It carries our mark.
    Ours,
    /// It carries none, or another's.
    Foreign,
}

/// A UDP port on which the kernel decapsulates GUE (`ip fou add port PORT gue`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FouPort {
    /// The family of the outer packets.
    pub family: Family,
    /// The port.
    pub port: u16,
}

/// A tunnel device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// What it decapsulates, and for which address.
    pub kind: LinkKind,
    /// Whether it is up.
    pub up: bool,
    /// Whose it is, by its alias.
    pub owner: Owner,
}

/// The kind of a tunnel device that receives from any director.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LinkKind {
    /// IPv4 in IPv4.
    Ipip {
        /// The outer destination.
        local: Ipv4Addr,
    },
    /// IPv6 in IPv4.
    Sit {
        /// The outer destination.
        local: Ipv4Addr,
    },
    /// Either family in IPv6.
    Ip6Tnl {
        /// The outer destination.
        local: Ipv6Addr,
    },
    /// Either family in GRE over IPv4.
    Gre {
        /// The outer destination.
        local: Ipv4Addr,
    },
    /// Either family in GRE over IPv6.
    Ip6Gre {
        /// The outer destination.
        local: Ipv6Addr,
    },
    /// Something else that has one of our names.
    Foreign,
}

impl LinkKind {
    /// The name that the kernel gives the kind (`IFLA_INFO_KIND`).
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Ipip { .. } => "ipip",
            Self::Sit { .. } => "sit",
            Self::Ip6Tnl { .. } => "ip6tnl",
            Self::Gre { .. } => "gre",
            Self::Ip6Gre { .. } => "ip6gre",
            Self::Foreign => "foreign",
        }
    }

    /// The name of our tunnel device of this kind.
    pub(crate) fn device_name(&self) -> InterfaceName {
        let short = match self {
            Self::Ipip { .. } => "ipip",
            Self::Sit { .. } => "sit",
            Self::Ip6Tnl { .. } => "ip6",
            Self::Gre { .. } => "gre",
            Self::Ip6Gre { .. } => "gre6",
            Self::Foreign => "foreign",
        };
        InterfaceName::of_tunnel(short, self.local())
    }

    /// The outer destination address.
    #[must_use]
    pub const fn local(&self) -> Option<IpAddr> {
        match self {
            Self::Ipip { local } | Self::Sit { local } | Self::Gre { local } => {
                Some(IpAddr::V4(*local))
            }
            Self::Ip6Tnl { local } | Self::Ip6Gre { local } => Some(IpAddr::V6(*local)),
            Self::Foreign => None,
        }
    }
}

/// The identity of an address on an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AddressKey {
    /// The interface.
    pub interface: InterfaceName,
    /// The address.
    pub address: IpAddr,
    /// The prefix length.
    pub prefix: u8,
}

impl AddressKey {
    /// A host address: prefix 32 or 128.
    #[must_use]
    pub fn host(interface: &InterfaceName, address: IpAddr) -> Self {
        Self {
            interface: interface.clone(),
            address,
            prefix: Family::of(address).host_prefix(),
        }
    }
}

impl AddressKey {
    /// Returns whether it is an IPv4 address on lo, for which this host must not answer ARP requests.
    pub(crate) fn is_hidden_v4(&self) -> bool {
        self.interface.is_loopback() && self.address.is_ipv4()
    }
}

impl fmt::Display for AddressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} dev {}", self.address, self.prefix, self.interface)
    }
}

/// What else there is to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressConfig {
    /// Whether the kernel never picks it as a source by itself (IPv6, preferred lifetime 0).
    pub deprecated: bool,
    /// Whose it is, by its `IFA_PROTO`.
    pub owner: Owner,
}

/// A route for everything, in a table of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// The table.
    pub table: u32,
    /// Where packets go.
    pub next_hop: NextHop,
}

/// Where a route sends packets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NextHop {
    /// They are delivered here (`ip route add local default dev lo`).
    Local {
        /// The family.
        family: Family,
    },
    /// They go to a gateway.
    Gateway {
        /// Its address.
        address: IpAddr,
        /// The interface to it.
        interface: InterfaceName,
    },
}

impl Route {
    /// Its family.
    #[must_use]
    pub const fn family(&self) -> Family {
        match &self.next_hop {
            NextHop::Gateway { address, .. } => Family::of(*address),
            NextHop::Local { family } => *family,
        }
    }

    /// The destination: everything.
    #[must_use]
    pub fn destination(&self) -> IpNet {
        match self.family() {
            Family::V4 => IpNet::V4(ipnet::Ipv4Net::default()),
            Family::V6 => IpNet::V6(ipnet::Ipv6Net::default()),
        }
    }
}

/// A policy routing rule of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicyRule {
    /// The table that packets are routed by.
    pub table: u32,
    /// Which packets it takes.
    pub selector: RuleSelector,
}

impl PolicyRule {
    /// The priority of all rules of ours: after the local table, before the main one.
    pub const PRIORITY: u32 = 7600;

    /// Its family.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self.selector {
            RuleSelector::Replies { source, .. } => Family::of(source),
            RuleSelector::Fwmark { family, .. } => family,
        }
    }
}

/// Which packets a rule takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RuleSelector {
    /// Replies of a service on this machine.
    Replies {
        /// The real server's address.
        source: IpAddr,
        /// The protocol.
        protocol: Protocol,
        /// The port that the service listens on.
        port: u16,
    },
    /// Packets with a firewall mark.
    Fwmark {
        /// The family.
        family: Family,
        /// The mark.
        mark: NonZeroU32,
    },
}

/// The services whose packets get the director's address as their source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Masquerade {
    /// The services, by VIP or by mark.
    pub services: BTreeSet<ServiceKey>,
}
