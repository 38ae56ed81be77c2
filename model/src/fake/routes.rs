//! The routes of a fake kernel.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::FakeKernel;
use crate::{NextHop, NodeRoute, Route, Tables};

impl FakeKernel {
    /// Returns our routes in these tables and in those that our rules name.
    #[must_use]
    pub fn routes_in(&self, tables: &Tables) -> BTreeSet<Route> {
        let has_rule = |table| self.state.rules.iter().any(|rule| rule.table == table);
        let is_read = |route: &&Route| match tables {
            Tables::All => true,
            Tables::Only(known) => known.contains(&route.table) || has_rule(route.table),
        };
        self.state.routes.iter().filter(is_read).cloned().collect()
    }

    /// Returns the route to an address. The machine's own addresses have none.
    #[must_use]
    pub fn route_to(&self, address: IpAddr) -> Option<Arc<NodeRoute>> {
        let mut own = self.state.addresses.keys();
        let is_own = own.any(|key| key.address == address)
            || self.state.routes.contains(&Route::to_vip(address));
        let route = self.facts.route_to(address).filter(|_| !is_own);
        route.cloned().map(Arc::new)
    }

    /// Returns the gateways of all routes.
    pub(super) fn gateways(&self) -> BTreeSet<IpAddr> {
        let routes = self.facts.routes.iter();
        routes.filter_map(|route| route.gateway).collect()
    }

    /// Adds a route as the agent does: it replaces the route that the table had.
    pub(super) fn add_route(&mut self, route: &Route) -> Result<(), &'static str> {
        let reachable = match &route.next_hop {
            NextHop::Gateway { address, .. } => self
                .facts
                .route_to(*address)
                .is_some_and(|hop| hop.gateway.is_none()),
            NextHop::Local { .. } | NextHop::Vip(_) => true,
        };
        if !reachable {
            return Err("network is unreachable");
        }
        let is_replaced = |known: &Route| {
            known.table == route.table && known.destination() == route.destination()
        };
        self.state.routes.retain(|known| !is_replaced(known));
        self.state.routes.insert(route.clone());
        Ok(())
    }
}
