//! The identity of something in a kernel.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use serde::{Deserialize, Serialize};

use crate::{
    AddressKey, Family, FouPort, InterfaceName, KernelState, NextHop, PolicyRule, Protocol, Route,
    RuleSelector, ServiceKey, Sysctl,
};

/// The identity of something in a kernel that steps make, change or remove.
///
/// What is owned, what a failed step stops, and which virtual services want something is all keyed by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    /// A value below /proc/sys.
    Sysctl(Sysctl),
    /// A UDP port on which the kernel decapsulates GUE.
    FouPort(FouPort),
    /// A tunnel device.
    Link(InterfaceName),
    /// An address of an interface.
    Address(AddressKey),
    /// A route in a table of ours.
    Route(Route),
    /// A policy routing rule.
    Rule(PolicyRule),
    /// What masquerades.
    Masquerade,
    /// The IPVS timeouts.
    Timeouts,
    /// An IPVS service with its destinations. It stands last: see [`Target::first_service`].
    Service(ServiceKey),
}

impl Target {
    /// The IPVS service that it is; `None` for anything else.
    #[must_use]
    pub const fn service(&self) -> Option<&ServiceKey> {
        match self {
            Self::Service(key) => Some(key),
            Self::Sysctl(_)
            | Self::FouPort(_)
            | Self::Link(_)
            | Self::Address(_)
            | Self::Route(_)
            | Self::Rule(_)
            | Self::Masquerade
            | Self::Timeouts => None,
        }
    }
}

/// The first target of each group whose members follow each other in the order of targets.
impl Target {
    /// Of the addresses on lo, the IPv4 ones first.
    pub(crate) fn first_hidden() -> Self {
        Self::Address(AddressKey {
            interface: InterfaceName::loopback(),
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            prefix: 0,
        })
    }

    /// Of the routes of a table.
    pub(crate) const fn first_route(table: u32) -> Self {
        Self::Route(Route {
            table,
            next_hop: NextHop::Local { family: Family::V4 },
        })
    }

    /// Of the IPVS services, which come last of all.
    pub(crate) const fn first_service() -> Self {
        Self::Service(ServiceKey::Address {
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            protocol: Protocol::Tcp,
            port: 0,
        })
    }

    /// Of the GUE ports.
    pub(crate) const fn first_fou_port() -> Self {
        Self::FouPort(FouPort {
            family: Family::V4,
            port: 0,
        })
    }

    /// Of the rules that lead to a table.
    pub(crate) const fn first_rule(table: u32) -> Self {
        Self::Rule(PolicyRule {
            table,
            selector: RuleSelector::Replies {
                source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                protocol: Protocol::Tcp,
                port: 0,
            },
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl(sysctl) => write!(f, "sysctl {sysctl}"),
            Self::FouPort(FouPort { family, port }) => write!(f, "{family} GUE port {port}"),
            Self::Link(name) => write!(f, "device {name}"),
            Self::Address(key) => write!(f, "address {key}"),
            Self::Route(route) => write!(f, "{} route of table {}", route.family(), route.table),
            Self::Rule(rule) => write!(f, "{} rule to table {}", rule.family(), rule.table),
            Self::Masquerade => f.write_str("table inet lvs-operator"),
            Self::Timeouts => f.write_str("IPVS timeouts"),
            Self::Service(key) => write!(f, "IPVS service {key}"),
        }
    }
}

impl KernelState {
    /// Returns whether something is among what the state holds.
    #[must_use]
    pub fn has(&self, target: &Target) -> bool {
        match target {
            Target::Sysctl(sysctl) => self.sysctls.contains_key(sysctl),
            Target::FouPort(port) => self.fou_ports.contains(port),
            Target::Link(name) => self.links.contains_key(name),
            Target::Address(key) => self.addresses.contains_key(key),
            Target::Route(route) => self.routes.contains(route),
            Target::Rule(rule) => self.rules.contains(rule),
            Target::Masquerade => self.masquerade.is_some(),
            Target::Timeouts => self.timeouts.is_some(),
            Target::Service(key) => self.services.contains_key(key),
        }
    }
}
