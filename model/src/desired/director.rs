//! The director's part of the desired state: VIPs, IPVS services, and what NAT needs.

use std::{net::IpAddr, sync::Arc};

use super::builder::{Builder, FIRST_TABLE, Place};
use crate::{
    AddressKey, Destination, DestinationKey, Director, Family, Forwarding, Frontend, InterfaceName,
    Masquerade, NextHop, NodeSpec, ObjectName, PolicyRule, Problem, RealServer, ReturnPath, Route,
    RouteOrigin, RuleSelector, Service, ServiceConfig, ServiceKey, Subject, Sysctl, Target,
    VirtualService, assign::keeps_vip,
};

impl Builder<'_> {
    /// Adds one virtual service that the machine directs.
    pub(super) fn direct(&mut self, name: &ObjectName, director: &Director) {
        let Director { service, interface } = director;
        match &service.frontend {
            Frontend::Addresses { vips, ports } => {
                for vip in vips {
                    let Some(place) = self.place_vip(name, *vip, interface.as_ref()) else {
                        continue;
                    };
                    for (index, port) in ports.iter().enumerate() {
                        let key = ServiceKey::Address {
                            address: *vip,
                            protocol: port.protocol,
                            port: port.port,
                        };
                        self.add_service(name, service, key, (index, place.interface()));
                    }
                }
            }
            Frontend::Fwmark(mark) => {
                for family in service.families() {
                    let (table, mark) = (FIRST_TABLE, *mark);
                    let selector = RuleSelector::Fwmark { family, mark };
                    self.add_rule(name, PolicyRule { table, selector });
                    let next_hop = NextHop::Local { family };
                    self.add_route(name, Route { table, next_hop });
                    let key = ServiceKey::Fwmark { mark, family };
                    self.add_service(name, service, key, (0, None));
                }
            }
        }
    }

    /// Adds what depends on all directed services together. Called after the last [`Builder::direct`].
    pub(super) fn finish_directors(&mut self, spec: &NodeSpec) {
        if self.state.services.is_empty() {
            return;
        }
        self.warn_of_other_writers();
        for name in spec.directs.keys() {
            self.want_exactly(name, Sysctl::VsExpireNodestConn, 1);
            self.want_exactly(name, Sysctl::VsExpireQuiescentTemplate, 1);
        }
        self.track_connections(spec);
    }

    /// Decides on `net.ipv4.vs.conntrack`, which applies to all IPVS services of the namespace.
    ///
    /// - NAT should have it on: only then does a firewall recognise NAT replies, and masquerading does not work without
    ///   it.
    /// - DR and TUN should have it off: the director sees only half of each connection, and conntrack marks such
    ///   packets INVALID.
    ///
    /// With both kinds on one machine it is left as it is, unless something masquerades, and a warning is added.
    fn track_connections(&mut self, spec: &NodeSpec) {
        let directors = spec.directs.iter();
        let nat: Vec<_> = directors
            .filter(|(_, director)| director.service.uses_nat())
            .map(|(name, _)| name)
            .collect();
        let directors = spec.directs.values();
        let mut methods = directors.flat_map(|director| director.service.methods());
        let is_mixed = !nat.is_empty() && methods.any(keeps_vip);
        let masquerades = self.state.masquerade.is_some();
        // A kernel built without the sysctl (CONFIG_IP_VS_NFCT) can still do NAT.
        let is_known = self.facts.sysctls.contains_key(&Sysctl::VsConntrack);
        if masquerades || !is_mixed && is_known {
            for name in nat {
                self.want_exactly(name, Sysctl::VsConntrack, 1);
            }
        }
        if is_mixed {
            let reason = if masquerades {
                "NAT with `returnPath: Masquerade` needs net.ipv4.vs.conntrack=1 on this machine, which breaks its DR and \
                 TUN services if a firewall drops packets in state INVALID; put them on different directors"
            } else {
                "this machine directs NAT services beside DR or TUN ones, so net.ipv4.vs.conntrack is left as it is; if it \
                 is 0, a firewall that drops packets in state INVALID, as kube-proxy in iptables mode does, drops NAT \
                 replies; put them on different directors"
            };
            let problem = Problem::warning(Subject::Machine, reason);
            self.problems.push(problem);
        }
    }

    /// Warns of programs that delete IPVS services of others. Each is recognised by its interface.
    fn warn_of_other_writers(&mut self) {
        for (interface, program) in [
            ("kube-ipvs0", "kube-proxy in ipvs mode"),
            ("kube-dummy-if", "kube-router"),
        ] {
            if self
                .facts
                .interfaces
                .keys()
                .any(|name| name.as_str() == interface)
            {
                self.problems.push(Problem::warning(
                    Subject::Machine,
                    format!(
                        "{program} seems to run here ({interface}) and deletes IPVS services that it did not make: \
                         exclude the VIPs there, or direct from another machine"
                    ),
                ));
            }
        }
    }

    /// Adds a VIP to an interface where clients reach it, or reports why it cannot.
    ///
    /// Returns `None` if the VIP must not have services either.
    fn place_vip(
        &mut self,
        name: &ObjectName,
        vip: IpAddr,
        wanted: Option<&InterfaceName>,
    ) -> Option<Place> {
        let known = self.places.get(&vip).cloned();
        let place = known.unwrap_or_else(|| self.find_place(vip, wanted));
        self.places.insert(vip, place.clone());
        match &place {
            Place::Own(_) => {}
            Place::New(interface) => {
                let is_v6 = Family::of(vip) == Family::V6;
                self.add_address(name, AddressKey::host(interface, vip), is_v6);
                if !is_v6 {
                    self.want_exactly(name, Sysctl::ArpAnnounce(None), 2);
                }
            }
            Place::Missing(reason) => self.error(name, reason),
            Place::Unusable(reason) => {
                self.error(name, reason);
                return None;
            }
        }
        Some(place)
    }

    fn find_place(&self, vip: IpAddr, wanted: Option<&InterfaceName>) -> Place {
        let facts = self.facts;
        if let Some(own) = facts.find_address(vip) {
            return Place::Own(own.interface.clone());
        }
        if let Some(reason) = self.unusable_vip(vip) {
            return Place::Unusable(reason);
        }
        let interface = match wanted {
            Some(wanted) => wanted,
            None => match facts.route_to(vip) {
                Some(route) => &route.interface,
                None => return Place::Missing(no_interface(vip)),
            },
        };
        match facts.interfaces.get(interface) {
            Some(found) if found.loopback => Place::Missing(no_interface(vip)),
            Some(_) => Place::New(interface.clone()),
            None => Place::Missing(format!(
                "this machine has no interface '{interface}' for VIP {vip}"
            )),
        }
    }

    /// Returns why an address cannot be a VIP of this machine.
    fn unusable_vip(&self, vip: IpAddr) -> Option<String> {
        let facts = self.facts;
        if let Some(route) = facts.routes.iter().find(|route| route.gateway == Some(vip)) {
            let destination = route.destination;
            return Some(format!(
                "VIP {vip} is this machine's gateway to {destination}; choose a free address"
            ));
        }
        let mut networks = facts.addresses.iter().map(|own| own.network);
        let network = networks.find(|network| vip.is_ipv4() && network.contains(&vip))?;
        let is_not_a_host = vip == network.network() || vip == network.broadcast();
        (network.prefix_len() < 31 && is_not_a_host).then(|| {
            format!(
                "VIP {vip} is the network or broadcast address of {}",
                network.trunc()
            )
        })
    }

    fn add_service(
        &mut self,
        name: &ObjectName,
        service: &VirtualService,
        key: ServiceKey,
        (index, outside): (usize, Option<&InterfaceName>),
    ) {
        let family = key.family();
        let mut programmed = Service {
            config: config(service, family),
            ..Service::default()
        };
        for server in &service.real_servers {
            let is_carried = Family::of(server.address) == family
                || self.is_carried_across(name, server, family);
            if is_carried && self.is_reachable(name, server, outside) {
                let key = DestinationKey {
                    address: server.address,
                    port: server.destination_port(index),
                };
                programmed.destinations.insert(key, destination(server));
            }
        }
        if service.uses_nat() {
            self.prepare_nat(name, service, key);
        }
        self.add_owner(name, Target::Service(key));
        self.state.services.insert(key, Arc::new(programmed));
    }

    /// Returns whether packets of `family` can be sent to a real server of the other family.
    ///
    /// Only a tunnel can carry them, and only if there is a route to the real server. Without a route the real server
    /// is left out of the service, with a warning.
    fn is_carried_across(
        &mut self,
        name: &ObjectName,
        server: &RealServer,
        family: Family,
    ) -> bool {
        let address = server.address;
        if !matches!(server.forwarding, Forwarding::Tun(_)) {
            return false;
        }
        let is_routed =
            self.facts.find_address(address).is_some() || self.facts.route_to(address).is_some();
        if !is_routed {
            self.warn(
                name,
                format!(
                    "no route to real server {address}: {family} packets are not tunnelled to it"
                ),
            );
        }
        is_routed
    }

    /// Returns whether packets can reach a real server with its forwarding method; reports an error or a warning if
    /// not.
    fn is_reachable(
        &mut self,
        name: &ObjectName,
        server: &RealServer,
        outside: Option<&InterfaceName>,
    ) -> bool {
        let address = server.address;
        if self.facts.find_address(address).is_some() {
            return true;
        }
        let route = self.facts.route_to(address);
        match (server.forwarding, route) {
            (Forwarding::Dr, Some(route)) if route.gateway.is_none() => true,
            (Forwarding::Dr, Some(route)) => {
                let gateway = route
                    .gateway
                    .map_or_else(String::new, |gateway| format!(" {gateway}"));
                self.error(
                    name,
                    format!(
                        "real server {address} is behind the router{gateway}: DR needs the real server and the director on \
                         one network; use TUN or NAT"
                    ),
                );
                false
            }
            (Forwarding::Dr, None) => {
                self.error(
                    name,
                    format!(
                        "real server {address} is not on any network of this machine: DR needs the real server and the \
                         director on one network; use TUN or NAT"
                    ),
                );
                false
            }
            (Forwarding::Nat | Forwarding::Tun(_) | Forwarding::Foreign, None) => {
                self.warn(name, format!("no route to real server {address}"));
                true
            }
            (Forwarding::Nat, Some(route)) => {
                let inside = route.interface.clone();
                if outside == Some(&inside) && Family::of(address) == Family::V4 {
                    self.want_exactly(name, Sysctl::SendRedirects(None), 0);
                    self.want_exactly(name, Sysctl::SendRedirects(Some(inside)), 0);
                }
                true
            }
            (Forwarding::Tun(_) | Forwarding::Foreign, Some(_)) => true,
        }
    }

    fn prepare_nat(&mut self, name: &ObjectName, service: &VirtualService, key: ServiceKey) {
        match key.family() {
            Family::V4 => self.want_exactly(name, Sysctl::Ipv4Forward, 1),
            Family::V6 if self.would_lose_default_route() => {
                self.error(
                    name,
                    "IPv6 forwarding would make the kernel drop the default route that it learnt from a router \
                     advertisement; set a static one, or accept_ra=2 on the interface and enable forwarding yourself",
                );
            }
            Family::V6 => self.want_exactly(name, Sysctl::Ipv6Forward, 1),
        }
        if service.nat.return_path == ReturnPath::Masquerade {
            self.add_owner(name, Target::Masquerade);
            self.state
                .masquerade
                .get_or_insert_with(Masquerade::default)
                .services
                .insert(key);
        }
    }

    fn would_lose_default_route(&self) -> bool {
        self.facts.sysctls.get(&Sysctl::Ipv6Forward) == Some(&0)
            && self
                .facts
                .default_route(Family::V6)
                .is_some_and(|default| default.origin == RouteOrigin::RouterAdvertisement)
    }
}

impl Place {
    /// Returns the interface of the VIP.
    const fn interface(&self) -> Option<&InterfaceName> {
        match self {
            Self::Own(interface) | Self::New(interface) => Some(interface),
            Self::Missing(_) | Self::Unusable(_) => None,
        }
    }
}

fn no_interface(vip: IpAddr) -> String {
    format!(
        "no interface of this machine has a subnet for VIP {vip}; name one in the DirectorGroup's `spec.interface`"
    )
}

fn config(service: &VirtualService, family: Family) -> ServiceConfig {
    let persistence = service
        .persistence
        .as_ref()
        .map(|persistence| match family {
            Family::V4 => persistence.v4.clone(),
            Family::V6 => persistence.v6.clone(),
        });
    ServiceConfig {
        scheduler: service.scheduler.clone(),
        persistence,
        one_packet: service.one_packet,
    }
}

const fn destination(server: &RealServer) -> Destination {
    Destination {
        forwarding: server.forwarding,
        weight: server.weight,
        upper_threshold: server.upper_threshold,
        lower_threshold: server.lower_threshold,
    }
}
