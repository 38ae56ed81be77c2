//! Targets: the identities of objects in a kernel.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use serde::{Deserialize, Serialize};

use crate::{
    AddressKey, Family, FouPort, InterfaceName, KernelState, NextHop, PolicyRule, Protocol, Route,
    RuleSelector, ServiceKey, SyncRole, Sysctl,
    server_set::{is_marked_by_us, is_second},
};

/// The identity of an object in a kernel that steps make, change or remove.
///
/// It is the key of the ledger, of the failed steps of a plan, and of the owners.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    /// A sysctl.
    Sysctl(Sysctl),
    /// A UDP port on which the kernel decapsulates GUE.
    FouPort(FouPort),
    /// A tunnel device.
    Link(InterfaceName),
    /// An address of an interface.
    Address(AddressKey),
    /// A route in one of our tables, or to a VIP.
    Route(Route),
    /// A policy routing rule.
    Rule(PolicyRule),
    /// The masquerading rules.
    Masquerade,
    /// The rules that mark packets to VIPs.
    Strays,
    /// The IPVS timeouts.
    Timeouts,
    /// A connection-sync daemon.
    SyncDaemon(SyncRole),
    /// An IPVS service with its destinations. This variant must be the last: see `Target::first_service`.
    Service(ServiceKey),
}

impl Target {
    /// Returns the key of the IPVS service. `None` for any other kind of target.
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
            | Self::Strays
            | Self::Timeouts
            | Self::SyncDaemon(_) => None,
        }
    }

    /// Returns whether it serves only connections that another real server had: without it, new ones are served all the same. This is not
    /// so for the rules that mark packets on a director that is a real server of the same virtual service.
    #[must_use]
    pub fn is_for_second_chances(&self) -> bool {
        let is_rule_or_setting = matches!(self, Self::Strays | Self::Sysctl(Sysctl::VsSloppyTcp));
        is_rule_or_setting || self.service().is_some_and(is_second)
    }

    /// Returns whether a machine that directs a virtual service and is a real server of it needs the target as a real server, and whether
    /// it does as a director.
    #[must_use]
    pub fn roles(&self) -> (bool, bool) {
        match self {
            Self::Sysctl(_) => (true, true),
            Self::FouPort(_) | Self::Link(_) | Self::Route(_) | Self::Rule(_) | Self::Strays => {
                (true, false)
            }
            Self::Address(key) => {
                let is_of_tunnel = key.interface.is_of_tunnel();
                (is_of_tunnel, !is_of_tunnel)
            }
            Self::Service(key) => (is_marked_by_us(key), !is_marked_by_us(key)),
            Self::Masquerade | Self::Timeouts | Self::SyncDaemon(_) => (false, true),
        }
    }
}

/// The first possible target of each group whose members follow each other in the order of targets.
impl Target {
    /// Returns the first address on lo. IPv4 addresses come before IPv6 ones.
    pub(crate) fn first_hidden() -> Self {
        Self::Address(AddressKey {
            interface: InterfaceName::loopback(),
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            prefix: 0,
        })
    }

    /// Returns the first route of a table.
    pub(crate) const fn first_route(table: u32) -> Self {
        Self::Route(Route {
            table,
            next_hop: NextHop::Local { family: Family::V4 },
        })
    }

    /// Returns the first route to a VIP. Those to IPv4 ones come before those to IPv6 ones.
    pub(crate) const fn first_route_to_vip() -> Self {
        Self::Route(Route::to_vip(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
    }

    /// Returns the first IPVS service. All targets after it are IPVS services.
    pub(crate) const fn first_service() -> Self {
        Self::Service(ServiceKey::Address {
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            protocol: Protocol::Tcp,
            port: 0,
        })
    }

    /// Returns the first GUE port.
    pub(crate) const fn first_fou_port() -> Self {
        Self::FouPort(FouPort {
            family: Family::V4,
            port: 0,
        })
    }

    /// Returns the first rule that leads to a table.
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
            Self::Route(route) => match route.next_hop {
                NextHop::Vip(vip) => write!(f, "local route to {vip}"),
                NextHop::Local { .. } | NextHop::Gateway { .. } => {
                    write!(f, "{} route of table {}", route.family(), route.table)
                }
            },
            Self::Rule(rule) => write!(f, "{} rule to table {}", rule.family(), rule.table),
            Self::Masquerade => f.write_str("table inet lvs-operator"),
            Self::Strays => f.write_str("table inet lvs-operator-strays"),
            Self::Timeouts => f.write_str("IPVS timeouts"),
            Self::SyncDaemon(role) => write!(f, "connection-sync {role}"),
            Self::Service(key) => write!(f, "IPVS service {key}"),
        }
    }
}

impl KernelState {
    /// Returns whether the state contains a target.
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
            Target::Strays => self.strays.is_some(),
            Target::Timeouts => self.timeouts.is_some(),
            Target::SyncDaemon(role) => self.sync_daemons.contains_key(role),
            Target::Service(key) => self.services.contains_key(key),
        }
    }
}
