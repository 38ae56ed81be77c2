//! Steps for links, addresses, routes and rules.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::change::{Action, Change};
use crate::{
    AddressConfig, AddressKey, InterfaceName, LinkKind, NextHop, PolicyRule, Route, RuleSelector,
    Target,
};

/// A change of links, addresses, routes or rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkStep {
    /// Makes a tunnel device with our alias and sets it up.
    AddLink {
        /// Its name.
        name: InterfaceName,
        /// Its kind and local address.
        kind: LinkKind,
    },
    /// Sets a tunnel device up.
    SetLinkUp(InterfaceName),
    /// Removes a tunnel device.
    RemoveLink(InterfaceName),
    /// Adds an address with our mark.
    AddAddress {
        /// The address and its interface.
        key: AddressKey,
        /// Its settings.
        config: AddressConfig,
    },
    /// Changes an address of ours in place.
    EditAddress {
        /// The address and its interface.
        key: AddressKey,
        /// Its settings.
        config: AddressConfig,
    },
    /// Removes an address.
    RemoveAddress(AddressKey),
    /// Adds a route with our protocol number.
    AddRoute(Route),
    /// Removes a route.
    RemoveRoute(Route),
    /// Adds a policy routing rule with our protocol number.
    AddRule(PolicyRule),
    /// Removes a policy routing rule.
    RemoveRule(PolicyRule),
}

impl Change for NetworkStep {
    fn target(&self) -> Target {
        match self {
            Self::AddLink { name, .. } | Self::SetLinkUp(name) | Self::RemoveLink(name) => {
                Target::Link(name.clone())
            }
            Self::AddAddress { key, .. }
            | Self::EditAddress { key, .. }
            | Self::RemoveAddress(key) => Target::Address(key.clone()),
            Self::AddRoute(route) | Self::RemoveRoute(route) => Target::Route(route.clone()),
            Self::AddRule(rule) | Self::RemoveRule(rule) => Target::Rule(*rule),
        }
    }

    fn action(&self) -> Action {
        match self {
            Self::AddLink { .. }
            | Self::AddAddress { .. }
            | Self::AddRoute(_)
            | Self::AddRule(_) => Action::Make,
            Self::SetLinkUp(_) | Self::EditAddress { .. } => Action::Edit,
            Self::RemoveLink(_)
            | Self::RemoveAddress(_)
            | Self::RemoveRoute(_)
            | Self::RemoveRule(_) => Action::Remove,
        }
    }

    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::AddAddress { key, .. } => Some(if key.interface.is_loopback() {
                "the VIP, known to this host only"
            } else if key.interface.is_of_tunnel() {
                "loose rp_filter accepts packets of a device with an address"
            } else {
                "the VIP, announced to the neighbours"
            }),
            Self::EditAddress { config, .. } if config.deprecated => {
                Some("the kernel never picks the VIP as a source by itself")
            }
            Self::AddRoute(Route {
                next_hop: NextHop::Vip(_),
                ..
            }) => Some("the VIP, taken from another director as a real server"),
            Self::AddLink { .. } => Some("takes packets out of the directors' tunnels"),
            Self::AddRule(rule) => Some(match rule.selector {
                RuleSelector::Replies { .. } => "replies go back through the director",
                RuleSelector::Fwmark { .. } => "marked packets are delivered to IPVS",
            }),
            Self::SetLinkUp(_)
            | Self::RemoveLink(_)
            | Self::EditAddress { .. }
            | Self::RemoveAddress(_)
            | Self::AddRoute(_)
            | Self::RemoveRoute(_)
            | Self::RemoveRule(_) => None,
        }
    }
}

impl fmt::Display for NetworkStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddLink { name, kind } => write_add_link(f, name, kind),
            Self::SetLinkUp(name) => write!(f, "ip link set {name} up"),
            Self::RemoveLink(name) => write!(f, "ip link del {name}"),
            Self::AddAddress { key, config } => write_add_address(f, key, *config),
            Self::EditAddress { key, config } => {
                let lifetime = if config.deprecated { "0" } else { "forever" };
                write!(f, "ip addr change {key} preferred_lft {lifetime}")
            }
            Self::RemoveAddress(key) => write!(f, "ip addr del {key}"),
            Self::AddRoute(route) => write_route(f, "add", route),
            Self::RemoveRoute(route) => write_route(f, "del", route),
            Self::AddRule(rule) => write_rule(f, "add", rule),
            Self::RemoveRule(rule) => write_rule(f, "del", rule),
        }
    }
}

fn write_add_link(
    f: &mut fmt::Formatter<'_>,
    name: &InterfaceName,
    kind: &LinkKind,
) -> fmt::Result {
    write!(f, "ip link add {name} type {}", kind.as_str())?;
    if let Some(local) = kind.local() {
        write!(f, " local {local}")?;
    }
    if matches!(kind, LinkKind::Ip6Tnl { .. }) {
        f.write_str(" mode any")?;
    }
    write!(f, " && ip link set {name} up")
}

fn write_add_address(
    f: &mut fmt::Formatter<'_>,
    key: &AddressKey,
    config: AddressConfig,
) -> fmt::Result {
    write!(f, "ip addr add {key}")?;
    if config.deprecated {
        f.write_str(" preferred_lft 0")?;
    }
    match key.address {
        IpAddr::V4(_) if key.interface.is_loopback() => f.write_str(" scope host"),
        IpAddr::V4(address) if address.is_link_local() => f.write_str(" scope link"),
        IpAddr::V4(_) => Ok(()),
        IpAddr::V6(_) => f.write_str(" nodad"),
    }
}

fn write_route(f: &mut fmt::Formatter<'_>, verb: &str, route: &Route) -> fmt::Result {
    let Route { table, next_hop } = route;
    let option = route.family().ip_option();
    match next_hop {
        NextHop::Gateway { address, interface } => write!(
            f,
            "ip{option} route {verb} default via {address} dev {interface} table {table}"
        ),
        NextHop::Local { .. } => {
            write!(
                f,
                "ip{option} route {verb} local default dev lo table {table}"
            )
        }
        NextHop::Vip(vip) => {
            let metric = Route::VIP_METRIC;
            write!(
                f,
                "ip{option} route {verb} local {vip} dev lo table local metric {metric}"
            )
        }
    }
}

fn write_rule(f: &mut fmt::Formatter<'_>, verb: &str, rule: &PolicyRule) -> fmt::Result {
    let option = rule.family().ip_option();
    let priority = PolicyRule::PRIORITY;
    write!(f, "ip{option} rule {verb} pref {priority} ")?;
    match rule.selector {
        RuleSelector::Replies {
            source,
            protocol,
            port,
        } => {
            let protocol = protocol.keyword();
            write!(f, "from {source} ipproto {protocol} sport {port}")?;
        }
        RuleSelector::Fwmark { mark, .. } => write!(f, "fwmark {mark}")?,
    }
    write!(f, " lookup {}", rule.table)
}
