//! The director's part of the desired state: VIPs, IPVS services, and what NAT needs.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::builder::{Builder, FIRST_TABLE, NoPlace, Place};
use crate::{
    Absent, AddressKey, Candidacy, DestinationKey, Director, Family, Forwarding, Frontend,
    GroupGateways, Interface, InterfaceName, Masquerade, NextHop, NodeRoute, ObjectName,
    PolicyRule, Problem, RealServer, ReturnPath, Route, RouteOrigin, RuleSelector, Service,
    ServiceKey, Subject, Sysctl, Target, VirtualService, programmed,
};

impl Builder<'_> {
    /// Adds one virtual service that the machine directs.
    pub(super) fn direct(&mut self, name: &ObjectName, director: &Director) {
        let service = &director.service;
        match &service.frontend {
            Frontend::Addresses { vips, ports } => {
                if ports.len() > 1 && service.persistence.is_some() {
                    self.warn(
                        name,
                        "each port remembers its clients by itself, so a client may have another real server on each; for one on \
                         all ports, use `fwmark`",
                    );
                }
                for vip in vips {
                    let Some(place) = self.place_vip(name, *vip, director) else {
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
                if director.candidacy.is_some() {
                    self.report_own_server(name, service);
                }
            }
        }
    }

    /// Adds a VIP to an interface where clients reach it, or reports why it cannot.
    ///
    /// Returns `None` if the VIP must not have services either.
    fn place_vip(&mut self, name: &ObjectName, vip: IpAddr, director: &Director) -> Option<Place> {
        let place = self.place(vip, director.interface.as_ref());
        match &place {
            Place::Own(interface) if director.candidacy.is_some() => self.error(
                name,
                format!(
                    "VIP {vip} is on {interface} although the agent has not added it, so it does not move between the directors: remove \
                     it with `ip addr del {vip} dev {interface}`"
                ),
            ),
            Place::Own(_) => {}
            Place::New(interface) => self.hold_vip(name, vip, interface, director),
            Place::Kept(interface, why) => {
                self.hold_vip(name, vip, interface, director);
                self.report_kept(name, vip, interface, why);
            }
            Place::Missing(reason) => self.error(name, reason),
            Place::Unusable(reason) => {
                self.error(name, reason);
                return None;
            }
        }
        if let Some(interface) = place.interface().filter(|_| vip.is_ipv4()) {
            // Clients may come by a router on the VIP's network, while the route back to them leads elsewhere.
            self.loosen_rp_filter(name, interface);
        }
        if let Place::Own(interface) = &place
            && self.is_hidden(interface)
        {
            self.warn(
                name,
                format!(
                    "VIP {vip} is on {interface}, where no neighbour sees it, and no interface has its network: packets arrive \
                     only by a route to this machine"
                ),
            );
        }
        Some(place)
    }

    /// Adds the gateways of a group, which move with its VIPs.
    pub(super) fn hold_gateways(
        &mut self,
        name: &ObjectName,
        gateways: &GroupGateways,
        servers: &BTreeSet<IpAddr>,
    ) {
        for address in &gateways.addresses {
            let held = self
                .place_gateway(*address, servers)
                .and_then(|interface| self.hold_gateway(name, *address, interface, gateways));
            if let Err(reason) = held {
                let group = &gateways.group;
                let message = format!("gateway {address} of DirectorGroup {group}: {reason}");
                self.error(name, message);
            }
        }
    }

    /// The interface that gets a gateway; `None` if the machine has the address without the agent.
    fn place_gateway(
        &mut self,
        address: IpAddr,
        servers: &BTreeSet<IpAddr>,
    ) -> Result<Option<InterfaceName>, String> {
        let is_new = self.standing(address).is_empty();
        match self.place(address, None) {
            Place::New(_) if is_new && servers.contains(&address) => {
                Err("it is the address of a real server".to_owned())
            }
            // Where its network is missing at the moment, the VIPs of the group have a problem too.
            Place::New(interface) | Place::Kept(interface, _) => Ok(Some(interface)),
            Place::Own(_) => Ok(None),
            Place::Missing(_) => Err("no interface has its subnet".to_owned()),
            Place::Unusable(reason) => Err(reason),
        }
    }

    fn hold_gateway(
        &mut self,
        name: &ObjectName,
        address: IpAddr,
        interface: Option<InterfaceName>,
        gateways: &GroupGateways,
    ) -> Result<(), String> {
        let Some(interface) = interface else {
            return Ok(());
        };
        let router = match &gateways.candidacy {
            Some(candidacy) => {
                let router = self.router_of(Family::of(address), candidacy)?;
                Some((router, candidacy))
            }
            None => None,
        };
        self.hold(name, address, &interface);
        if let Some((router, candidacy)) = router {
            let key = AddressKey::host(&interface, address);
            self.add_to_router(key, &router, &gateways.group, candidacy);
        }
        Ok(())
    }

    /// The interface of the virtual router with the VIPs of a family.
    fn router_of(&self, family: Family, candidacy: &Candidacy) -> Result<InterfaceName, String> {
        let routers = self.state.routers.keys();
        let mut routers =
            routers.filter(|key| key.family == family && key.router_id == candidacy.router_id);
        match (routers.next(), routers.next()) {
            (Some(router), None) => Ok(router.interface.clone()),
            (None, _) => Err(format!(
                "the agent holds no {family} VIP with which it could move"
            )),
            (Some(_), Some(_)) => Err(format!(
                "the {family} VIPs are on several interfaces, which may move apart"
            )),
        }
    }

    fn hold_vip(
        &mut self,
        name: &ObjectName,
        vip: IpAddr,
        interface: &InterfaceName,
        director: &Director,
    ) {
        self.hold(name, vip, interface);
        if let Some(candidacy) = &director.candidacy {
            let key = AddressKey::host(interface, vip);
            self.add_to_router(key, interface, &director.service.group, candidacy);
        }
    }

    fn hold(&mut self, name: &ObjectName, vip: IpAddr, interface: &InterfaceName) {
        self.add_address(name, AddressKey::host(interface, vip));
        if vip.is_ipv4() {
            self.want_exactly(name, Sysctl::ArpAnnounce(None), 2);
        }
    }

    fn report_kept(
        &mut self,
        name: &ObjectName,
        vip: IpAddr,
        interface: &InterfaceName,
        why: &NoPlace,
    ) {
        let subject = Subject::Service(name.clone());
        match why {
            NoPlace::NoNetwork => {
                let problem = Problem::error(subject, no_interface(vip));
                self.absent(name, Absent::Vip(vip), problem);
            }
            NoPlace::Other(reason) => {
                self.error(name, format!("{reason}; it stays on {interface}"));
            }
        }
    }

    fn is_hidden(&self, interface: &InterfaceName) -> bool {
        let found = self.facts.interfaces.get(interface);
        found.is_some_and(Interface::is_hidden)
    }

    fn place(&mut self, vip: IpAddr, wanted: Option<&InterfaceName>) -> Place {
        let known = self.places.get(&vip).cloned();
        let place = known.unwrap_or_else(|| self.find_place(vip, wanted));
        self.places.insert(vip, place.clone());
        place
    }

    /// Finds the place of a VIP:
    ///
    /// 1. where the machine has it already, unless no neighbour sees it there;
    /// 2. on the interface that was asked for;
    /// 3. where the agent has it already, if that interface has its network;
    /// 4. on the best interface that has its network;
    /// 5. where the agent has it already, if that interface exists: its network is missing at the moment.
    fn find_place(&self, vip: IpAddr, wanted: Option<&InterfaceName>) -> Place {
        let facts = self.facts;
        let own = facts.find_address(vip).map(|own| &own.interface);
        if let Some(own) = own.filter(|own| !self.is_hidden(own)) {
            return Place::Own(own.clone());
        }
        let standing = self.standing(vip);
        let unusable = self.unusable_vip(vip);
        let networks = facts.networks_of(vip);
        let networks = networks.into_iter().filter(|name| !self.is_hidden(name));
        let networks: Vec<&InterfaceName> = networks.collect();
        let stays = standing.iter().find(|name| networks.contains(name));
        let found = match (&unusable, wanted) {
            (Some(_), _) => None,
            (None, Some(wanted)) => Some(wanted).filter(|name| self.is_visible(name)),
            (None, None) => stays.or(networks.first()).copied(),
        };
        let last_resort = standing.first().map(|name| (*name).clone());
        match (found, last_resort, unusable, wanted) {
            (Some(found), ..) => Place::New(found.clone()),
            (None, Some(standing), Some(reason), _) => {
                Place::Kept(standing, NoPlace::Other(reason))
            }
            (None, None, Some(reason), _) => Place::Unusable(reason),
            (None, Some(standing), None, Some(wanted)) => {
                Place::Kept(standing, NoPlace::Other(no_such_interface(wanted, vip)))
            }
            (None, None, None, Some(wanted)) => Place::Missing(no_such_interface(wanted, vip)),
            (None, Some(standing), None, None) => Place::Kept(standing, NoPlace::NoNetwork),
            (None, None, None, None) => match own {
                Some(own) => Place::Own(own.clone()),
                None => Place::Missing(no_interface(vip)),
            },
        }
    }

    /// Returns the existing interfaces on which the agent has a VIP, or had it before another program removed it.
    fn standing(&self, vip: IpAddr) -> Vec<&InterfaceName> {
        let standing = self.facts.standing.interfaces_of(vip);
        let standing = standing.into_iter();
        standing.filter(|name| self.is_visible(name)).collect()
    }

    /// Returns whether an interface exists where neighbours see a VIP.
    fn is_visible(&self, interface: &InterfaceName) -> bool {
        let found = self.facts.interfaces.get(interface);
        found.is_some_and(|found| !found.loopback)
    }

    /// Returns why an address cannot be a VIP of this machine.
    fn unusable_vip(&self, vip: IpAddr) -> Option<String> {
        if let Some(reason) = self.need_of(vip) {
            return Some(reason);
        }
        let mut networks = self.facts.addresses.iter().map(|own| own.network);
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
            config: programmed::config(service, family),
            ..Service::default()
        };
        for server in &service.real_servers {
            let destination = DestinationKey {
                address: server.address,
                port: server.destination_port(index),
            };
            let settings = programmed::destination(server);
            match self.reach(name, server, (family, outside)) {
                Reach::Now => {
                    programmed::add(&mut programmed, server, index, settings);
                }
                Reach::Never => {}
                Reach::NotNow(problem) => {
                    let what = Absent::Server {
                        key,
                        destination,
                        settings,
                    };
                    self.absent(name, what, problem);
                }
            }
        }
        if service.uses_nat() {
            self.prepare_nat(name, service, key);
        }
        self.add_owner(name, Target::Service(key));
        self.state.services.insert(key, Arc::new(programmed));
    }

    /// Returns whether packets of `family` that arrive on the interface `outside` can be forwarded to a real server.
    ///
    /// - Only a tunnel can carry packets of the other family, and only if there is a route to the real server.
    /// - DR needs the real server on a network of this machine.
    fn reach(
        &mut self,
        name: &ObjectName,
        server: &RealServer,
        (family, outside): (Family, Option<&InterfaceName>),
    ) -> Reach {
        let address = server.address;
        let is_across = Family::of(address) != family;
        let subject = || Subject::Service(name.clone());
        if is_across && !matches!(server.forwarding, Forwarding::Tun(_)) {
            return Reach::Never;
        }
        if self.facts.find_address(address).is_some() {
            return Reach::Now;
        }
        let route = self.facts.route_to(address);
        match (server.forwarding, route) {
            (Forwarding::Tun(_), None) if is_across => Reach::NotNow(Problem::warning(
                subject(),
                format!(
                    "no route to real server {address}: {family} packets are not tunnelled to it"
                ),
            )),
            (Forwarding::Dr, Some(route)) if route.gateway.is_none() => Reach::Now,
            (Forwarding::Dr, route) => {
                let gateway = route.and_then(|route| route.gateway);
                Reach::NotNow(Problem::error(subject(), not_on_link(address, gateway)))
            }
            (Forwarding::Nat, route) => {
                match route.cloned() {
                    Some(route) => self.stop_redirects(name, address, outside, &route),
                    None => self.keep_redirects_off(name, address, outside),
                }
                Reach::Now
            }
            (Forwarding::Tun(_) | Forwarding::Foreign, None) => {
                self.warn(name, format!("no route to real server {address}"));
                Reach::Now
            }
            (Forwarding::Tun(_) | Forwarding::Foreign, Some(_)) => Reach::Now,
        }
    }

    /// Turns ICMP redirects off where NAT packets leave by the interface on which they arrive.
    fn stop_redirects(
        &mut self,
        name: &ObjectName,
        server: IpAddr,
        outside: Option<&InterfaceName>,
        route: &NodeRoute,
    ) {
        let is_one_armed = outside
            .is_some_and(|outside| *outside == route.interface || !self.facts.has_network(outside));
        if is_one_armed && Family::of(server) == Family::V4 {
            let inside = route.interface.clone();
            self.want_exactly(name, Sysctl::SendRedirects(None), 0);
            self.want_exactly(name, Sysctl::SendRedirects(Some(inside)), 0);
        } else if route.gateway.is_some() {
            self.keep_redirects_off(name, server, outside);
        }
    }

    /// Keeps ICMP redirects off if they are: the route to a real server may be missing at the moment. Where packets arrive on an
    /// interface without a network, it is not known either by which interface they leave, so every interface keeps its value.
    fn keep_redirects_off(
        &mut self,
        name: &ObjectName,
        server: IpAddr,
        outside: Option<&InterfaceName>,
    ) {
        let Some(outside) = outside.filter(|_| server.is_ipv4()) else {
            return;
        };
        let is_anywhere = !self.facts.has_network(outside);
        let facts = self.facts;
        for sysctl in facts.sysctls.keys() {
            let is_concerned = matches!(sysctl, Sysctl::SendRedirects(interface)
                if interface.as_ref().is_none_or(|found| is_anywhere || found == outside));
            if is_concerned {
                self.keep(name, sysctl.clone(), 0);
            }
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
    pub(super) const fn interface(&self) -> Option<&InterfaceName> {
        match self {
            Self::Own(interface) | Self::New(interface) | Self::Kept(interface, _) => {
                Some(interface)
            }
            Self::Missing(_) | Self::Unusable(_) => None,
        }
    }
}

/// Whether packets can be forwarded to a real server.
enum Reach {
    Now,
    /// There is no usable route at the moment.
    NotNow(Problem),
    /// By its address family.
    Never,
}

fn not_on_link(server: IpAddr, gateway: Option<IpAddr>) -> String {
    match gateway {
        Some(gateway) => format!(
            "real server {server} is behind the router {gateway}: DR needs the real server and the director on one network; \
             use TUN or NAT"
        ),
        None => format!(
            "real server {server} is not on any network of this machine: DR needs the real server and the director on one \
             network; use TUN or NAT"
        ),
    }
}

fn no_such_interface(interface: &InterfaceName, vip: IpAddr) -> String {
    format!("this machine has no interface '{interface}' for VIP {vip}")
}

fn no_interface(vip: IpAddr) -> String {
    format!(
        "no interface of this machine has a subnet for VIP {vip}; name one in the DirectorGroup's `spec.interface`"
    )
}
