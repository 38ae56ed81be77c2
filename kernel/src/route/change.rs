//! The part of a step that concerns route netlink, with its text for logs and errors.

use std::fmt;

use lvs_model::{AddressConfig, AddressKey, InterfaceName, LinkKind, PolicyRule, Route, Step};

/// The interface that a local route names.
const LOOPBACK: &str = "lo";

/// A step as far as it concerns route netlink. `Display` says what it does: "adding 192.0.2.1/32 to eth1".
#[derive(Clone, Copy, Debug)]
pub(super) enum Change<'a> {
    MakeLink {
        name: &'a InterfaceName,
        kind: LinkKind,
    },
    SetLinkUp(&'a InterfaceName),
    RemoveLink(&'a InterfaceName),
    AddAddress {
        key: &'a AddressKey,
        config: AddressConfig,
    },
    EditAddress {
        key: &'a AddressKey,
        config: AddressConfig,
    },
    RemoveAddress(&'a AddressKey),
    AddRoute(&'a Route),
    RemoveRoute(&'a Route),
    AddRule(&'a PolicyRule),
    RemoveRule(&'a PolicyRule),
    /// A step that belongs elsewhere.
    Misplaced(&'a Step),
}

impl<'a> Change<'a> {
    pub(super) fn of(step: &'a Step) -> Self {
        match step {
            Step::AddLink { name, kind } => Self::MakeLink { name, kind: *kind },
            Step::SetLinkUp(name) => Self::SetLinkUp(name),
            Step::RemoveLink(name) => Self::RemoveLink(name),
            Step::AddAddress {
                key,
                config,
                announce: _,
            } => Self::AddAddress {
                key,
                config: *config,
            },
            Step::EditAddress { key, config } => Self::EditAddress {
                key,
                config: *config,
            },
            Step::RemoveAddress(key) => Self::RemoveAddress(key),
            Step::AddRoute(route) => Self::AddRoute(route),
            Step::RemoveRoute(route) => Self::RemoveRoute(route),
            Step::AddRule(rule) => Self::AddRule(rule),
            Step::RemoveRule(rule) => Self::RemoveRule(rule),
            Step::SetSysctl { .. }
            | Step::AddFouPort(_)
            | Step::SetMasquerade(_)
            | Step::SetTimeouts { .. }
            | Step::AddService { .. }
            | Step::EditService { .. }
            | Step::AddDestination { .. }
            | Step::EditDestination { .. }
            | Step::RemoveDestination { .. }
            | Step::RemoveService(_)
            | Step::RemoveMasquerade
            | Step::RemoveFouPort(_)
            | Step::RestoreTimeouts(_)
            | Step::RestoreSysctl { .. } => Self::Misplaced(step),
        }
    }

    const fn makes_link(&self) -> bool {
        matches!(self, Self::MakeLink { .. })
    }

    /// Says whether it is about something that shall not be there afterwards.
    pub(super) const fn is_removal(&self) -> bool {
        matches!(
            self,
            Self::RemoveLink(_)
                | Self::RemoveAddress(_)
                | Self::RemoveRoute(_)
                | Self::RemoveRule(_)
        )
    }

    /// Says whether both can be sent together.
    pub(super) const fn is_like(&self, next: &Self) -> bool {
        self.makes_link() == next.makes_link() && self.is_removal() == next.is_removal()
    }

    /// The interface whose index the request must have.
    pub(super) fn interface(&self) -> Option<InterfaceName> {
        match self {
            Self::AddAddress { key, .. }
            | Self::EditAddress { key, .. }
            | Self::RemoveAddress(key) => Some(key.interface.clone()),
            Self::AddRoute(route) | Self::RemoveRoute(route) => match route {
                Route::Default { interface, .. } => Some(interface.clone()),
                Route::Local { .. } => LOOPBACK.parse().ok(),
            },
            Self::MakeLink { .. }
            | Self::SetLinkUp(_)
            | Self::RemoveLink(_)
            | Self::AddRule(_)
            | Self::RemoveRule(_)
            | Self::Misplaced(_) => None,
        }
    }
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeLink { name, kind } => write!(f, "making {} tunnel {name}", kind.as_str()),
            Self::SetLinkUp(name) => write!(f, "bringing {name} up"),
            Self::RemoveLink(name) => write!(f, "removing {name}"),
            Self::AddAddress { key, .. } => {
                write!(
                    f,
                    "adding {}/{} to {}",
                    key.address, key.prefix, key.interface
                )
            }
            Self::EditAddress { key, .. } => {
                write!(
                    f,
                    "changing {}/{} on {}",
                    key.address, key.prefix, key.interface
                )
            }
            Self::RemoveAddress(key) => {
                write!(
                    f,
                    "removing {}/{} from {}",
                    key.address, key.prefix, key.interface
                )
            }
            Self::AddRoute(route) => write!(f, "adding the {}", Words(route)),
            Self::RemoveRoute(route) => write!(f, "removing the {}", Words(route)),
            Self::AddRule(rule) => {
                write!(
                    f,
                    "adding the {} rule to table {}",
                    rule.family(),
                    rule.table
                )
            }
            Self::RemoveRule(rule) => {
                write!(
                    f,
                    "removing the {} rule to table {}",
                    rule.family(),
                    rule.table
                )
            }
            Self::Misplaced(step) => write!(f, "`{step}`"),
        }
    }
}

struct Words<'a>(&'a Route);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Route::Default {
                table,
                gateway,
                interface,
            } => {
                write!(f, "route by {gateway} on {interface} to table {table}")
            }
            Route::Local { table, family } => write!(f, "local {family} route to table {table}"),
        }
    }
}
