//! Properties of network steps that their execution needs, and their text in errors.

use std::fmt;

use lvs_model::{InterfaceName, NetworkStep, NextHop, Route};

/// Returns whether a step removes something.
pub(super) const fn is_removal(step: &NetworkStep) -> bool {
    matches!(
        step,
        NetworkStep::RemoveLink(_)
            | NetworkStep::RemoveAddress(_)
            | NetworkStep::RemoveRoute(_)
            | NetworkStep::RemoveRule(_)
    )
}

/// Returns whether two consecutive steps can be sent together.
pub(super) fn can_be_sent_with(step: &&NetworkStep, next: &&NetworkStep) -> bool {
    let makes_link = |step: &NetworkStep| matches!(step, NetworkStep::AddLink { .. });
    makes_link(step) == makes_link(next) && is_removal(step) == is_removal(next)
}

/// Returns the interface whose index the step's request contains.
pub(super) fn interface(step: &NetworkStep) -> Option<InterfaceName> {
    match step {
        NetworkStep::AddAddress { key, .. }
        | NetworkStep::EditAddress { key, .. }
        | NetworkStep::RemoveAddress(key) => Some(key.interface.clone()),
        NetworkStep::AddRoute(route) | NetworkStep::RemoveRoute(route) => match &route.next_hop {
            NextHop::Gateway { interface, .. } => Some(interface.clone()),
            NextHop::Local { .. } | NextHop::Vip(_) => Some(InterfaceName::loopback()),
        },
        NetworkStep::AddLink { .. }
        | NetworkStep::SetLinkUp(_)
        | NetworkStep::RemoveLink(_)
        | NetworkStep::AddRule(_)
        | NetworkStep::RemoveRule(_) => None,
    }
}

/// Displays what a step does: "adding 192.0.2.1/32 to eth1".
pub(super) struct Doing<'a>(pub(super) &'a NetworkStep);

impl fmt::Display for Doing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            NetworkStep::AddLink { name, kind } => {
                write!(f, "making {} tunnel {name}", kind.as_str())
            }
            NetworkStep::SetLinkUp(name) => write!(f, "bringing {name} up"),
            NetworkStep::RemoveLink(name) => write!(f, "removing {name}"),
            NetworkStep::AddAddress { key, .. } => {
                write!(
                    f,
                    "adding {}/{} to {}",
                    key.address, key.prefix, key.interface
                )
            }
            NetworkStep::EditAddress { key, .. } => {
                write!(
                    f,
                    "changing {}/{} on {}",
                    key.address, key.prefix, key.interface
                )
            }
            NetworkStep::RemoveAddress(key) => {
                write!(
                    f,
                    "removing {}/{} from {}",
                    key.address, key.prefix, key.interface
                )
            }
            NetworkStep::AddRoute(route) => write_route(f, "adding", route),
            NetworkStep::RemoveRoute(route) => write_route(f, "removing", route),
            NetworkStep::AddRule(rule) => {
                write!(
                    f,
                    "adding the {} rule to table {}",
                    rule.family(),
                    rule.table
                )
            }
            NetworkStep::RemoveRule(rule) => {
                write!(
                    f,
                    "removing the {} rule to table {}",
                    rule.family(),
                    rule.table
                )
            }
        }
    }
}

fn write_route(f: &mut fmt::Formatter<'_>, verb: &str, route: &Route) -> fmt::Result {
    let Route { table, next_hop } = route;
    match next_hop {
        NextHop::Gateway { address, interface } => {
            write!(
                f,
                "{verb} the route by {address} on {interface} to table {table}"
            )
        }
        NextHop::Local { family } => write!(f, "{verb} the local {family} route to table {table}"),
        NextHop::Vip(vip) => write!(f, "{verb} the local route to {vip}"),
    }
}
