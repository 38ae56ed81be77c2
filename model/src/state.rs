//! The state of a kernel, as far as this project programs it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    sync::Arc,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    Candidacy, Family, GroupName, InterfaceName, Protocol, Service, ServiceKey, SyncDaemon,
    SyncRole, Timeouts, server_set::local_service,
};

mod sysctl;

pub use sysctl::Sysctl;

/// The part of a kernel's state that this project programs: desired, or observed in one network namespace.
///
/// An observed state contains all `addresses` and `services`, including foreign ones; the `links` with a name or an
/// alias of ours; and the `routes` and `rules` with our protocol number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelState {
    /// Sysctls with their values.
    pub sysctls: BTreeMap<Sysctl, i64>,
    /// UDP ports on which the kernel decapsulates GUE.
    pub fou_ports: BTreeSet<FouPort>,
    /// Tunnel devices.
    pub links: BTreeMap<InterfaceName, Link>,
    /// Addresses of interfaces.
    pub addresses: BTreeMap<AddressKey, AddressConfig>,
    /// Routes in our tables, and to VIPs in the local table.
    pub routes: BTreeSet<Route>,
    /// Our policy routing rules.
    pub rules: BTreeSet<PolicyRule>,
    /// The masquerading rules. `None`: there are none.
    pub masquerade: Option<Masquerade>,
    /// The rules that mark stray packets. `None`: there are none.
    pub strays: Option<Strays>,
    /// IPVS timeouts. Desired `None`: they are left as they are.
    pub timeouts: Option<Timeouts>,
    /// The connection-sync daemons.
    pub sync_daemons: BTreeMap<SyncRole, SyncDaemon>,
    /// IPVS services.
    pub services: Services,
    /// The VIPs in `addresses` that one of several directors holds at a time. Never observed.
    pub routers: BTreeMap<RouterKey, VirtualRouter>,
}

/// IPVS services by key. States share those that are equal: most of a large table is observed as it is desired.
pub type Services = BTreeMap<ServiceKey, Arc<Service>>;

impl KernelState {
    /// Returns whether a sysctl is desired, or follows a desired sysctl that changes it.
    pub(crate) fn needs(&self, sysctl: &Sysctl) -> bool {
        self.sysctls.contains_key(sysctl)
            || (sysctl.follows_forwarding() && self.sysctls.contains_key(&Sysctl::Ipv4Forward))
    }
}

/// The owner of an object, by the mark on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Owner {
    /// It carries our mark.
    Ours,
    /// It carries no mark, or another program's.
    Foreign,
    /// The kernel stores no marks on such objects (on addresses: before 5.18), so that only the ledger knows.
    Unknown,
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
    /// What it decapsulates, and on which address.
    pub kind: LinkKind,
    /// Whether it is up.
    pub up: bool,
    /// Its owner, by its alias.
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
    /// Any other device with a name or the alias of ours.
    Foreign,
}

impl LinkKind {
    /// Returns the kernel's name for the kind (`IFLA_INFO_KIND`).
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

    /// Returns the name of our tunnel device of this kind.
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

    /// Returns the outer destination address. `None` for a foreign device.
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
    /// Creates the key of a host address: prefix 32 or 128.
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
    /// Returns whether it is an IPv4 address on lo: this host must not answer ARP requests for a VIP there.
    pub(crate) fn is_hidden_v4(&self) -> bool {
        self.interface.is_loopback() && self.address.is_ipv4()
    }
}

impl fmt::Display for AddressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} dev {}", self.address, self.prefix, self.interface)
    }
}

/// The settings of an address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressConfig {
    /// Whether the kernel never chooses it as a source address by itself (IPv6, preferred lifetime 0).
    pub deprecated: bool,
    /// Whether the kernel removes it by itself after [`VIP_LIFETIME_SECONDS`], unless it is renewed until then.
    #[serde(default)]
    pub expires: bool,
    /// Its owner, by its `IFA_PROTO`.
    pub owner: Owner,
}

impl AddressConfig {
    /// Returns whether the settings differ, apart from the owner.
    #[must_use]
    pub fn differs_from(self, other: Self) -> bool {
        (self.deprecated, self.expires) != (other.deprecated, other.expires)
    }
}

/// What tells the virtual routers of a machine apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouterKey {
    /// The interface with its VIPs.
    pub interface: InterfaceName,
    /// The address family of its VIPs.
    pub family: Family,
    /// Its id.
    pub router_id: u8,
}

/// A virtual router: VIPs that one of several directors holds at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualRouter {
    /// This machine's part.
    pub candidacy: Candidacy,
    /// The groups that its VIPs belong to.
    pub groups: BTreeSet<GroupName>,
    /// Its VIPs.
    pub vips: BTreeSet<AddressKey>,
}

/// How long a VIP of a group with several directors stays without being renewed, in seconds. So a director that is killed or frozen
/// loses it by the kernel's own hand.
pub const VIP_LIFETIME_SECONDS: u32 = 3;

/// A default route in one of our tables, or a route to a VIP in the kernel's local table.
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
    /// They are sent to a gateway.
    Gateway {
        /// Its address.
        address: IpAddr,
        /// The interface that leads to it.
        interface: InterfaceName,
    },
    /// Those to this VIP are delivered here, whether or not an interface has it (`ip route add local VIP dev lo table local`).
    Vip(IpAddr),
}

impl Route {
    /// The kernel's table of local addresses (`RT_TABLE_LOCAL`).
    pub const LOCAL_TABLE: u32 = 255;
    /// The metric of our routes to VIPs. The route that the kernel adds for an address of an interface has 0, so it comes first.
    pub const VIP_METRIC: u32 = 7600;

    /// Creates the route that makes this machine accept packets to a VIP that none of its interfaces has.
    #[must_use]
    pub const fn to_vip(vip: IpAddr) -> Self {
        Self {
            table: Self::LOCAL_TABLE,
            next_hop: NextHop::Vip(vip),
        }
    }

    /// Returns whether it is to an IPv4 VIP: this host must not answer ARP requests for it.
    pub(crate) const fn is_hidden_v4(&self) -> bool {
        matches!(self.next_hop, NextHop::Vip(IpAddr::V4(_)))
    }

    /// Returns its address family.
    #[must_use]
    pub const fn family(&self) -> Family {
        match &self.next_hop {
            NextHop::Gateway { address, .. } | NextHop::Vip(address) => Family::of(*address),
            NextHop::Local { family } => *family,
        }
    }

    /// Returns its destination: the VIP, or 0.0.0.0/0 or ::/0.
    #[must_use]
    pub fn destination(&self) -> IpNet {
        match (&self.next_hop, self.family()) {
            (NextHop::Vip(vip), _) => IpNet::from(*vip),
            (_, Family::V4) => IpNet::V4(ipnet::Ipv4Net::default()),
            (_, Family::V6) => IpNet::V6(ipnet::Ipv6Net::default()),
        }
    }
}

/// One of our policy routing rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicyRule {
    /// The table that routes the packets.
    pub table: u32,
    /// Which packets it matches.
    pub selector: RuleSelector,
}

impl PolicyRule {
    /// The priority of all our rules: after the local table, before the main table.
    pub const PRIORITY: u32 = 7600;

    /// Returns its address family.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self.selector {
            RuleSelector::Replies { source, .. } => Family::of(source),
            RuleSelector::Fwmark { family, .. } => family,
        }
    }
}

/// Which packets a rule matches.
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

/// The services whose packets are masqueraded: their source becomes an address of the director.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Masquerade {
    /// The services, by VIP or by mark.
    pub services: BTreeSet<ServiceKey>,
}

/// The rules that mark packets to VIPs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strays {
    /// The marks of stray packets: TCP packets to a service that are no SYN and belong to no socket of the machine. A mark for each
    /// service; no two for one service.
    pub marks: BTreeSet<StrayMark>,
    /// The services, by VIP, that this machine directs and is a real server of, while other machines direct them too. Their packets
    /// get [`LOCAL_MARK`](crate::LOCAL_MARK), and so are delivered here, if the interface on which they arrive does not have the VIP:
    /// another director has sent them here. So are those of established TCP connections of this machine, and these are no stray
    /// packets where the interface has the VIP.
    #[serde(default)]
    pub local: BTreeSet<ServiceKey>,
}

impl Strays {
    /// Returns the IPVS services that the marks lead to, some of them several times.
    pub(crate) fn lead_to(&self) -> impl Iterator<Item = ServiceKey> {
        let local = self.local.iter().map(|key| local_service(key.family()));
        self.marks.iter().map(StrayMark::leads_to).chain(local)
    }
}

/// The mark of stray packets to one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StrayMark {
    /// The service, by VIP and TCP port.
    pub service: ServiceKey,
    /// The mark.
    pub mark: NonZeroU32,
}

impl StrayMark {
    /// Returns the key of the IPVS service that the mark leads to.
    #[must_use]
    pub const fn leads_to(&self) -> ServiceKey {
        ServiceKey::Fwmark {
            mark: self.mark,
            family: self.service.family(),
        }
    }
}
