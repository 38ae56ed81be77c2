//! Whether a director can forward what its VIPs receive.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{Family, NodeFacts, NodeSpec, VirtualService};

/// Returns the VIPs of virtual routers for which a director cannot forward: each real server of one of their virtual services had a route
/// before, and none has one now. A real server that never had a route is the fault of who lists it, not of this machine.
///
/// `reached` are the real servers that had a route, which this function updates.
#[must_use]
pub fn unfit_vips(
    spec: &NodeSpec,
    facts: &NodeFacts,
    reached: &mut BTreeSet<IpAddr>,
) -> BTreeSet<IpAddr> {
    let mut listed = BTreeSet::new();
    let mut unfit = BTreeSet::new();
    let candidates = spec.directs.values();
    for director in candidates.filter(|director| director.candidacy.is_some()) {
        let service = &*director.service;
        let servers = service.real_servers.iter().map(|server| server.address);
        let with_route = servers
            .clone()
            .filter(|server| !facts.has_no_route_to(*server));
        reached.extend(with_route);
        listed.extend(servers);
        let vips = service.frontend.vips().iter().copied();
        unfit.extend(vips.filter(|vip| is_cut_off(service, Family::of(*vip), facts, reached)));
    }
    reached.retain(|server| listed.contains(server));
    unfit
}

/// Returns whether every real server for packets of a family has lost its route.
fn is_cut_off(
    service: &VirtualService,
    family: Family,
    facts: &NodeFacts,
    reached: &BTreeSet<IpAddr>,
) -> bool {
    let servers = service.real_servers.iter();
    let servers = servers.filter(|server| server.takes(family));
    let mut servers = servers.map(|server| server.address).peekable();
    servers.peek().is_some()
        && servers.all(|server| reached.contains(&server) && facts.has_no_route_to(server))
}
