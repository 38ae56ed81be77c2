//! The addresses whose routes a pass has used.

use std::sync::Arc;

use lvs_kernel::events::NetworkChange;
use lvs_model::RouteAnswers;

/// The addresses whose routes the last pass has used.
#[derive(Clone, Debug, Default)]
pub(crate) struct RoutesUsed(Arc<RouteAnswers>);

impl RoutesUsed {
    /// Creates it from the routes to the addresses.
    pub(super) fn new(routes_to: &Arc<RouteAnswers>) -> Self {
        Self(Arc::clone(routes_to))
    }

    /// Returns whether a pass is needed after a change. One of a foreign route matters only if it can change the route to one of
    /// the addresses.
    pub(crate) fn needs_pass(&self, change: NetworkChange) -> bool {
        match change {
            NetworkChange::Route(network) => {
                let (first, last) = (network.network(), network.broadcast());
                self.0.range(first..=last).next().is_some()
            }
            NetworkChange::Links
            | NetworkChange::Addresses
            | NetworkChange::AddressRemoved { .. }
            | NetworkChange::OurRoutes
            | NetworkChange::Rules
            | NetworkChange::Masquerade
            | NetworkChange::Lost => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_route_matters_if_it_covers_an_address() {
        let addresses = ["192.0.2.11", "2001:db8::11"];
        let answers = addresses.map(|address| (address.parse().unwrap(), None));
        let routes_used = RoutesUsed(Arc::new(answers.into()));
        let needs_pass =
            |network: &str| routes_used.needs_pass(NetworkChange::Route(network.parse().unwrap()));
        for network in [
            "192.0.2.11/32",
            "192.0.2.0/24",
            "0.0.0.0/0",
            "2001:db8::/64",
            "::/0",
        ] {
            assert!(needs_pass(network), "{network}");
        }
        for network in [
            "192.0.2.12/32",
            "192.0.3.0/24",
            "128.0.0.0/2",
            "2001:db8:1::/64",
        ] {
            assert!(!needs_pass(network), "{network}");
        }
        assert!(routes_used.needs_pass(NetworkChange::Lost));
        assert!(!RoutesUsed::default().needs_pass(NetworkChange::Route("::/0".parse().unwrap())));
    }
}
