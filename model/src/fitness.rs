//! Whether a director can forward what its VIPs receive.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{Family, Forwarding, NodeFacts, NodeSpec, ServiceKey, VirtualService};

/// Returns the VIPs for which a director cannot forward: one of their IPVS services could not be programmed, or there is no route to
/// any real server of one of their virtual services.
#[must_use]
pub fn unfit_vips(
    spec: &NodeSpec,
    facts: &NodeFacts,
    failed: &BTreeSet<ServiceKey>,
) -> BTreeSet<IpAddr> {
    let candidates = spec.directs.values();
    let candidates = candidates.filter(|director| director.candidacy.is_some());
    let cut_off = candidates.flat_map(|director| {
        let service = &*director.service;
        let vips = service.frontend.vips().iter().copied();
        vips.filter(|vip| is_cut_off(service, Family::of(*vip), facts))
    });
    failed
        .iter()
        .filter_map(ServiceKey::vip)
        .chain(cut_off)
        .collect()
}

/// Returns whether there is no route to any real server for packets of a family, although there are some.
fn is_cut_off(service: &VirtualService, family: Family, facts: &NodeFacts) -> bool {
    let servers = service.real_servers.iter().filter(|server| {
        let is_tunnelled = matches!(server.forwarding, Forwarding::Tun(_));
        is_tunnelled || Family::of(server.address) == family
    });
    let mut servers = servers.map(|server| server.address).peekable();
    servers.peek().is_some() && servers.all(|server| facts.has_no_route_to(server))
}
