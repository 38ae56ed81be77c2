//! Which virtual service a step is made for, so that each is told what became of it.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    Director, Family, Forwarding, Frontend, InterfaceName, Link, RealServerRole, ReturnPath, Route,
    RuleSelector, ServiceKey, Step, Sysctl, TunnelKind,
    assign::{self, keeps_vip},
};

impl Director {
    /// The IPVS services that it takes, whether or not it has a real server for each family of a mark.
    pub fn service_keys(&self) -> impl Iterator<Item = ServiceKey> {
        assign::keys(&self.service).into_iter().map(|(_, key)| key)
    }

    /// Says whether a step has to succeed for this virtual service. What is removed behind it is nobody's.
    #[must_use]
    pub fn needs(&self, step: &Step) -> bool {
        let has = |key: &ServiceKey| self.service_keys().any(|own| own == *key);
        let is_nat = self.service.forwarding == Forwarding::Nat;
        match step {
            Step::AddService { key, .. } | Step::EditService { key, .. } => has(key),
            Step::AddDestination { service, .. }
            | Step::EditDestination { service, .. }
            | Step::RemoveDestination { service, .. } => has(service),
            Step::AddAddress { key, .. } | Step::EditAddress { key, .. } => {
                self.service.frontend.vips().contains(&key.address)
            }
            Step::AddRoute(Route::Local { .. }) => self.mark().is_some(),
            Step::AddRule(rule) => match rule.selector {
                RuleSelector::Fwmark { mark, .. } => self.mark() == Some(mark),
                RuleSelector::Replies { .. } => false,
            },
            Step::SetMasquerade(_) => {
                is_nat && self.service.nat.return_path == ReturnPath::Masquerade
            }
            Step::SetSysctl { sysctl, .. } => self.needs_sysctl(sysctl),
            Step::AddRoute(Route::Default { .. })
            | Step::AddFouPort(_)
            | Step::AddLink { .. }
            | Step::SetLinkUp(_)
            | Step::SetTimeouts { .. }
            | Step::RemoveService(_)
            | Step::RemoveAddress(_)
            | Step::RemoveMasquerade
            | Step::RemoveRule(_)
            | Step::RemoveRoute(_)
            | Step::RemoveLink(_)
            | Step::RemoveFouPort(_)
            | Step::RestoreTimeouts(_)
            | Step::RestoreSysctl { .. } => false,
        }
    }

    fn mark(&self) -> Option<std::num::NonZeroU32> {
        match self.service.frontend {
            Frontend::Fwmark(mark) => Some(mark),
            Frontend::Addresses { .. } => None,
        }
    }

    fn needs_sysctl(&self, sysctl: &Sysctl) -> bool {
        let service = &self.service;
        let is_nat = service.forwarding == Forwarding::Nat;
        match sysctl {
            Sysctl::Ipv4Forward
            | Sysctl::Ipv6Forward
            | Sysctl::Forwarding(_)
            | Sysctl::SendRedirects(_)
            | Sysctl::VsConntrack => is_nat,
            Sysctl::ArpAnnounce(_) => has_v4(service.frontend.vips()),
            Sysctl::VsExpireNodestConn | Sysctl::VsExpireQuiescentTemplate => true,
            Sysctl::AcceptRedirects(_) | Sysctl::ArpIgnore(_) | Sysctl::RpFilter(_) => false,
        }
    }
}

impl RealServerRole {
    /// Says whether a step has to succeed for this virtual service. `links` are the tunnel devices that are wanted.
    #[must_use]
    pub fn needs(&self, step: &Step, links: &BTreeMap<InterfaceName, Link>) -> bool {
        match step {
            Step::AddAddress { key, .. } | Step::EditAddress { key, .. } => {
                self.hides_vips() && self.vips.contains(&key.address)
                    || self.needs_link(&key.interface, links)
            }
            Step::AddLink { name, .. } | Step::SetLinkUp(name) | Step::RemoveLink(name) => {
                self.needs_link(name, links)
            }
            Step::AddFouPort(wanted) => match self.forwarding {
                Forwarding::Tun(tunnel) => {
                    matches!(tunnel.kind, TunnelKind::Gue { port } if port == wanted.port)
                        && self.own.iter().any(|own| Family::of(*own) == wanted.family)
                }
                Forwarding::Nat | Forwarding::Dr | Forwarding::Foreign => false,
            },
            Step::AddRoute(Route::Default { gateway, .. }) => {
                self.has_return_route() && self.nat.gateways.contains(gateway)
            }
            Step::AddRule(rule) => match rule.selector {
                RuleSelector::Replies {
                    source,
                    protocol,
                    port,
                } => {
                    self.has_return_route()
                        && self.own.contains(&source)
                        && self.ports.contains(&(protocol, port))
                }
                RuleSelector::Fwmark { .. } => false,
            },
            Step::SetSysctl { sysctl, .. } => self.needs_sysctl(sysctl, links),
            Step::AddRoute(Route::Local { .. })
            | Step::SetMasquerade(_)
            | Step::SetTimeouts { .. }
            | Step::AddService { .. }
            | Step::EditService { .. }
            | Step::AddDestination { .. }
            | Step::EditDestination { .. }
            | Step::RemoveDestination { .. }
            | Step::RemoveService(_)
            | Step::RemoveAddress(_)
            | Step::RemoveMasquerade
            | Step::RemoveRule(_)
            | Step::RemoveRoute(_)
            | Step::RemoveFouPort(_)
            | Step::RestoreTimeouts(_)
            | Step::RestoreSysctl { .. } => false,
        }
    }

    /// Says whether a tunnel device takes its packets out of the tunnel.
    #[must_use]
    pub fn needs_link(&self, name: &InterfaceName, links: &BTreeMap<InterfaceName, Link>) -> bool {
        let local = links.get(name).and_then(|link| link.kind.local());
        matches!(self.forwarding, Forwarding::Tun(_))
            && local.is_some_and(|local| self.own.contains(&local))
    }

    fn needs_sysctl(&self, sysctl: &Sysctl, links: &BTreeMap<InterfaceName, Link>) -> bool {
        match sysctl {
            Sysctl::ArpIgnore(_) | Sysctl::ArpAnnounce(_) => {
                self.hides_vips() && has_v4(&self.vips)
            }
            Sysctl::RpFilter(Some(interface)) if links.contains_key(interface) => {
                self.needs_link(interface, links)
            }
            Sysctl::RpFilter(_) => self.forwarding == Forwarding::Dr || self.has_return_route(),
            Sysctl::Ipv4Forward
            | Sysctl::Ipv6Forward
            | Sysctl::Forwarding(_)
            | Sysctl::AcceptRedirects(_)
            | Sysctl::SendRedirects(_)
            | Sysctl::VsConntrack
            | Sysctl::VsExpireNodestConn
            | Sysctl::VsExpireQuiescentTemplate => false,
        }
    }

    const fn hides_vips(&self) -> bool {
        keeps_vip(self.forwarding)
    }

    fn has_return_route(&self) -> bool {
        self.forwarding == Forwarding::Nat && self.nat.return_path == ReturnPath::PolicyRoute
    }
}

fn has_v4(addresses: &[IpAddr]) -> bool {
    addresses
        .iter()
        .any(|address| Family::of(*address) == Family::V4)
}

#[cfg(test)]
mod tests;
