//! The routes that a machine's virtual services need.
//!
//! The kernel is asked for the route to each address concerned; its tables are not read, since a machine may have a million
//! foreign routes. So `NodeFacts` has the routes that answer these questions, and no others.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;

use crate::{
    Director, Family, Forwarding, InterfaceAddress, InterfaceName, NodeFacts, NodeRoute, NodeSpec,
    RealServer, ReturnPath, RouteAnswers, VirtualService,
};

/// Addresses that are on no network of a machine: the route to them is the default route, if there is one.
///
/// Of each family one that nothing else has a route for, and one that any default route covers, even one to 2000::/3. The
/// former is in a reserved block, which a router may discard; the latter is that of a root name server, to which a router
/// with a full routing table has a route of its own.
const DISTANT: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(240, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x4000, 0, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
];

/// The number of low bits that are changed, one at a time, to get the neighbours of an address.
const NEIGHBOUR_BITS: u32 = 8;

impl NodeFacts {
    /// Returns the addresses whose routes a spec needs and that were not asked for yet.
    #[must_use]
    pub fn unasked(&self, spec: &NodeSpec) -> BTreeSet<IpAddr> {
        let directors = spec.directs.values();
        let directors = directors.flat_map(|director| self.addresses_to_direct(director));
        let roles = spec.serves.values();
        let roles = roles.filter(|role| role.nat.return_path == ReturnPath::PolicyRoute);
        let gateways = roles.flat_map(|role| role.nat.gateways.iter().copied());
        let wanted = DISTANT.into_iter().chain(directors).chain(gateways);
        wanted
            .filter(|address| !self.routes_to.contains_key(address))
            .collect()
    }

    /// Returns the real servers in new versions of virtual services whose routes were not asked for yet.
    #[must_use]
    pub fn unasked_servers<'a>(
        &self,
        services: impl Iterator<Item = &'a VirtualService>,
    ) -> BTreeSet<IpAddr> {
        let servers = services.flat_map(servers_to_direct);
        servers
            .filter(|address| !self.routes_to.contains_key(address))
            .collect()
    }

    /// The addresses whose routes a director needs for one virtual service.
    ///
    /// 1. Its real servers.
    /// 2. Its VIPs, unless their interface is given.
    /// 3. The neighbours of a VIP that the agent has added, or that is on no network of the machine's addresses: the kernel
    ///    delivers a VIP on the machine to the machine itself, but the route to a neighbour shows the network, even one within
    ///    an own network.
    fn addresses_to_direct<'a>(
        &'a self,
        director: &'a Director,
    ) -> impl Iterator<Item = IpAddr> + 'a {
        let Director {
            service, interface, ..
        } = director;
        let vips = service.frontend.vips();
        let vips = vips.iter().filter(|_| interface.is_none());
        let hidden = vips
            .clone()
            .filter(|vip| self.is_standing(**vip) || !self.is_on_own_network(**vip));
        let neighbours = hidden.flat_map(|vip| neighbours(*vip));
        servers_to_direct(service)
            .chain(vips.copied())
            .chain(neighbours)
    }

    /// Adds the kernel's answers.
    pub fn add_routes(&mut self, answers: RouteAnswers) {
        let mut routes: BTreeSet<NodeRoute> = self.routes.drain(..).collect();
        // Neighbours in the order of addresses mostly have the same route, in one place.
        let mut last = None;
        for route in answers.values().flatten() {
            if !last.is_some_and(|last| Arc::ptr_eq(last, route)) && !routes.contains(&**route) {
                routes.insert(NodeRoute::clone(route));
            }
            last = Some(route);
        }
        self.gateways
            .extend(routes.iter().filter_map(|route| route.gateway));
        self.routes = routes.into_iter().collect();
        if self.routes_to.is_empty() {
            self.routes_to = Arc::new(answers);
        } else {
            Arc::make_mut(&mut self.routes_to).extend(answers);
        }
    }

    /// Returns the route to an address: the kernel's answer. For an address that was not asked for, the best of the known
    /// routes: the longest prefix, then the smallest metric.
    #[must_use]
    pub fn route_to(&self, address: IpAddr) -> Option<&NodeRoute> {
        if let Some(answer) = self.routes_to.get(&address) {
            return answer.as_deref();
        }
        let routes = self.routes.iter();
        routes
            .filter(|route| route.destination.contains(&address))
            .min_by_key(|route| (Reverse(route.destination.prefix_len()), route.metric))
    }

    /// Returns whether the kernel was asked for the route to an address of another machine, and has none.
    #[must_use]
    pub fn has_no_route_to(&self, address: IpAddr) -> bool {
        let is_answered = matches!(self.routes_to.get(&address), Some(None));
        is_answered && self.find_address(address).is_none()
    }

    /// Returns the interfaces whose network has an address, the best first: the longest prefix, then the smallest metric. An
    /// interface has the networks of its addresses, and those to which a route without a gateway leads. A default route is no
    /// network.
    #[must_use]
    pub fn networks_of(&self, address: IpAddr) -> Vec<&InterfaceName> {
        let routes = self.routes.iter();
        let routes = routes
            .filter(|route| route.gateway.is_none() && route.destination.prefix_len() > 0)
            .filter(|route| route.destination.contains(&address))
            .map(|route| (route.destination, route.metric, &route.interface));
        let own = self.own_networks();
        let own = own
            .filter(|own| own.network.contains(&address))
            .map(|own| (own.network, u32::MAX, &own.interface));
        let found = routes.chain(own);
        let mut found: Vec<_> = found
            .map(|(network, metric, interface)| (Reverse(network.prefix_len()), metric, interface))
            .collect();
        found.sort();
        found
            .into_iter()
            .map(|(_, _, interface)| interface)
            .collect()
    }

    /// Returns the default route of a family.
    #[must_use]
    pub fn default_route(&self, family: Family) -> Option<&NodeRoute> {
        let routes = self.routes.iter();
        routes
            .filter(|route| {
                route.destination.prefix_len() == 0
                    && Family::of(route.destination.addr()) == family
            })
            .min_by_key(|route| route.metric)
    }

    /// Returns whether packets can arrive on an interface. None arrives on one without a network, such as a dummy device with
    /// just a VIP: they arrive elsewhere.
    #[must_use]
    pub fn has_network(&self, interface: &InterfaceName) -> bool {
        let mut routes = self.routes.iter();
        self.own_networks().any(|own| own.interface == *interface)
            || routes.any(|route| route.interface == *interface && !is_host(route.destination))
    }

    fn is_standing(&self, address: IpAddr) -> bool {
        !self.standing.interfaces_of(address).is_empty()
    }

    fn is_on_own_network(&self, address: IpAddr) -> bool {
        self.own_networks()
            .any(|own| own.network.contains(&address))
    }

    /// The networks of the machine's addresses, on interfaces that are up.
    fn own_networks(&self) -> impl Iterator<Item = &InterfaceAddress> {
        self.addresses.iter().filter(|own| {
            let interface = self.interfaces.get(&own.interface);
            interface.is_some_and(|interface| interface.up) && !is_host(own.network)
        })
    }
}

/// The real servers whose routes a director needs. NAT by a mark does not depend on routes.
fn servers_to_direct(service: &VirtualService) -> impl Iterator<Item = IpAddr> {
    let has_vips = !service.frontend.vips().is_empty();
    let needs_route = move |server: &&RealServer| server.forwarding != Forwarding::Nat || has_vips;
    let servers = service.real_servers.iter().filter(needs_route);
    servers.map(|server| server.address)
}

fn is_host(network: IpNet) -> bool {
    network.prefix_len() == network.max_prefix_len()
}

/// The addresses that differ from this one in one of the low bits.
fn neighbours(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    (0..NEIGHBOUR_BITS).map(move |bit| match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() ^ (1 << bit)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() ^ (1 << bit)).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RouteOrigin;

    fn route(destination: &str, gateway: Option<&str>, interface: &str, metric: u32) -> NodeRoute {
        NodeRoute {
            destination: destination.parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            interface: interface.parse().unwrap(),
            metric,
            origin: RouteOrigin::Other,
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn machine() -> NodeFacts {
        let interface = |index, up| crate::Interface {
            index,
            up,
            loopback: false,
            tunnel: false,
            mtu: 1500,
            mac: None,
        };
        let own = |interface: &str, network: &str| InterfaceAddress {
            interface: interface.parse().unwrap(),
            network: network.parse().unwrap(),
        };
        NodeFacts {
            interfaces: [("eth0", true), ("eth1", true), ("eth2", false)]
                .map(|(name, up)| (name.parse().unwrap(), interface(1, up)))
                .into(),
            addresses: vec![
                own("eth0", "10.0.0.10/24"),
                own("eth1", "10.0.1.10/32"),
                own("eth2", "10.0.2.10/24"),
            ],
            ..NodeFacts::default()
        }
    }

    #[test]
    fn the_longest_prefix_wins_then_the_smallest_metric() {
        let facts = NodeFacts {
            routes: vec![
                route("0.0.0.0/0", None, "slow", 200),
                route("0.0.0.0/0", None, "fast", 100),
                route("10.0.0.0/8", None, "inner", 300),
                route("::/0", None, "six", 1),
            ],
            ..NodeFacts::default()
        };
        let interface = |text: &str| {
            let route = facts.route_to(address(text));
            route.map(|route| route.interface.as_str())
        };
        assert_eq!(interface("10.1.2.3"), Some("inner"));
        assert_eq!(interface("192.0.2.1"), Some("fast"));
        assert_eq!(interface("2001:db8::1"), Some("six"));
        let default = facts.default_route(Family::V4);
        assert_eq!(default.map(|route| route.interface.as_str()), Some("fast"));
    }

    #[test]
    fn the_kernels_answer_counts_even_if_another_known_route_is_longer() {
        // A policy rule sends the first address elsewhere, and a rule or a route makes the third one unreachable.
        let (by_rule, direct) = (
            Arc::new(route("0.0.0.0/0", Some("10.0.0.1"), "eth0", 0)),
            Arc::new(route("10.9.0.0/16", None, "eth1", 0)),
        );
        let mut facts = machine();

        facts.add_routes(RouteAnswers::from([
            (address("10.9.1.1"), Some(Arc::clone(&by_rule))),
            (address("10.9.1.2"), Some(Arc::clone(&direct))),
            (address("10.9.1.3"), None),
        ]));

        let found = |text: &str| facts.route_to(address(text)).cloned();
        assert_eq!(found("10.9.1.1").as_ref(), Some(&*by_rule));
        assert_eq!(found("10.9.1.2").as_ref(), Some(&*direct));
        assert_eq!(found("10.9.1.3"), None);
        assert_eq!(
            facts.routes,
            [NodeRoute::clone(&by_rule), NodeRoute::clone(&direct)]
        );
    }

    #[test]
    fn an_interface_that_is_up_has_the_networks_of_its_addresses_and_of_routes_without_a_gateway() {
        let mut facts = machine();
        let networks = |facts: &NodeFacts, text: &str| {
            let found = facts.networks_of(address(text));
            found
                .into_iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(networks(&facts, "10.0.0.100"), ["eth0"]);
        assert_eq!(networks(&facts, "10.0.1.100"), [""; 0]);
        assert_eq!(networks(&facts, "10.0.2.100"), [""; 0]);
        facts.routes = vec![
            route("0.0.0.0/0", None, "eth1", 0),
            route("10.0.0.0/24", None, "eth1", 0),
            route("10.0.1.0/24", None, "eth1", 0),
        ];
        assert_eq!(networks(&facts, "10.0.0.100"), ["eth1", "eth0"]);
        assert_eq!(networks(&facts, "10.0.1.100"), ["eth1"]);
    }

    #[test]
    fn the_neighbours_of_an_address_are_in_its_network() {
        let found: Vec<String> = neighbours(address("192.0.2.100"))
            .map(|n| n.to_string())
            .collect();
        assert_eq!(found.len(), 8);
        assert_eq!(found[..3], ["192.0.2.101", "192.0.2.102", "192.0.2.96"]);
        let network: IpNet = "2001:db8::/120".parse().unwrap();
        assert!(neighbours(address("2001:db8::64")).all(|n| network.contains(&n)));
    }
}
