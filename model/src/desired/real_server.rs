//! The real server's part of the desired state: VIPs on lo, tunnel devices, routes for replies.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use super::builder::{Builder, FIRST_TABLE};
use crate::{
    AddressKey, Director, Family, Forwarding, FouPort, Interface, InterfaceAddress, InterfaceName,
    Link, LinkKind, NextHop, NodeSpec, ObjectName, Owner, PolicyRule, Protocol, RealServerRole,
    ReturnPath, Route, RuleSelector, ServedAddress, Subject, Sysctl, Target, Tunnel, TunnelKind,
};

/// The address of our tunnel devices. Even a loose rp_filter drops packets from a device without an address
/// (`fib_validate_source`, net/ipv4/fib_frontend.c).
const TUNNEL_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 76, 83);

impl Builder<'_> {
    /// Adds one virtual service that the machine is a real server of, and directs too if `director` is given.
    pub(super) fn serve(
        &mut self,
        name: &ObjectName,
        role: &RealServerRole,
        director: Option<&Director>,
    ) {
        let known = self.problems.len();
        self.add_role(name, role, director);
        if director.is_some() {
            let problems = self.problems.iter_mut().skip(known);
            problems.for_each(|problem| problem.subject = Subject::Serving(name.clone()));
        }
    }

    fn add_role(&mut self, name: &ObjectName, role: &RealServerRole, director: Option<&Director>) {
        self.check_listeners(name, role);
        self.check_addresses(name, role);
        let mut families = BTreeSet::new();
        for (address, own) in &role.own {
            match own.forwarding {
                Forwarding::Nat => self.send_replies_back(name, role, *address, own),
                Forwarding::Dr => self.accept_direct_routing(name, *address),
                Forwarding::Tun(tunnel) => self.add_tunnel_devices(name, own, *address, tunnel),
                Forwarding::Foreign => {}
            }
            if own.forwarding.keeps_vip() {
                families.extend(own.families.iter().copied());
            }
        }
        if families.is_empty() {
            return;
        }
        let vips = role.vips.iter();
        self.hide_vips(
            name,
            vips.filter(|vip| families.contains(&Family::of(**vip))),
            director,
        );
        self.check_unnamed_vips(name, role, &families);
        self.check_route_to_clients(name, &families);
    }

    /// Reports the machine's addresses that are missing at the moment. What is there for them stays.
    fn check_addresses(&mut self, name: &ObjectName, role: &RealServerRole) {
        for own in role.own.keys() {
            if self.facts.find_address(*own).is_none() {
                self.error(
                    name,
                    format!(
                        "this real server's address {own} is missing at the moment; what is programmed for it stays"
                    ),
                );
            }
        }
    }

    /// Warns if nothing listens on a port of the service: the program does not run, or is bound to another address.
    fn check_listeners(&mut self, name: &ObjectName, role: &RealServerRole) {
        // The kernel's list of SCTP sockets is not read.
        let is_observed = |protocol: &Protocol| matches!(protocol, Protocol::Tcp | Protocol::Udp);
        let mut sockets = BTreeSet::new();
        for (address, own) in &role.own {
            let addresses = if own.forwarding.keeps_vip() {
                role.vips.as_slice()
            } else {
                std::slice::from_ref(address)
            };
            for (protocol, port) in own
                .ports
                .iter()
                .filter(|(protocol, _)| is_observed(protocol))
            {
                let addresses = addresses.iter();
                let addresses = addresses.filter(|vip| own.families.contains(&Family::of(**vip)));
                sockets.extend(addresses.map(|address| (*protocol, *port, *address)));
            }
        }
        for (protocol, port, address) in sockets {
            if !self.facts.listens_on(protocol, address, port) {
                let socket = std::net::SocketAddr::new(address, port);
                self.warn(
                    name,
                    format!(
                        "nothing listens on {protocol} {socket} here: bind the service to that address or to all"
                    ),
                );
            }
        }
    }

    /// Adds VIPs to lo, where the network does not see them; on a director, a route to each in place of that. This host must not answer
    /// ARP requests for the IPv4 ones, so they need `arp_ignore` and `arp_announce`.
    fn hide_vips<'v>(
        &mut self,
        name: &ObjectName,
        vips: impl Iterator<Item = &'v IpAddr>,
        director: Option<&Director>,
    ) {
        let Some(loopback) = self.loopback() else {
            return self.error(name, "this machine has no loopback interface for the VIP");
        };
        for vip in vips {
            if let Some(reason) = self.need_of(*vip) {
                self.keep_hidden(name, *vip, director);
                self.error(name, reason);
                continue;
            }
            let found = self.facts.find_address(*vip).cloned();
            if Family::of(*vip) == Family::V4 {
                self.want(name, Sysctl::ArpIgnore(None), 1, |found| {
                    matches!(found, 1 | 2)
                });
                self.want_exactly(name, Sysctl::ArpAnnounce(None), 2);
            }
            match (director, found) {
                (Some(director), found) => {
                    self.accept_as_real_server(name, *vip, &director.service);
                    if let Some(found) = found {
                        self.report_on_lo(name, *vip, &found);
                    }
                }
                (None, Some(found)) => self.use_as_found(name, *vip, &found),
                (None, None) => self.add_address(name, AddressKey::host(&loopback, *vip)),
            }
        }
    }

    /// Uses a VIP that the machine has already, if no neighbour sees it there.
    fn use_as_found(&mut self, name: &ObjectName, vip: IpAddr, found: &InterfaceAddress) {
        let (interface, prefix) = (&found.interface, found.network.prefix_len());
        let facts = self.facts.interfaces.get(interface);
        let is_usable = facts.is_some_and(|facts| facts.is_hidden() && facts.up);
        if !is_usable {
            self.keep_hidden(name, vip, None);
            let reason = if facts.is_some_and(Interface::is_hidden) {
                "which is down"
            } else {
                "where the network sees it"
            };
            self.error(
                name,
                format!(
                    "VIP {vip} is on {interface} of this real server, {reason}; it belongs on lo: \
                     `ip addr del {vip}/{prefix} dev {interface}`"
                ),
            );
        } else if prefix != Family::of(vip).host_prefix() {
            self.warn(
                name,
                format!(
                    "VIP {vip} has prefix /{prefix} on {interface}, which makes the whole subnet local to this machine"
                ),
            );
        }
    }

    /// Keeps a VIP that the agent has on lo, or on a director the route to it.
    fn keep_hidden(&mut self, name: &ObjectName, vip: IpAddr, director: Option<&Director>) {
        let is_routed = self.facts.standing.routes.contains(&Route::to_vip(vip));
        if let Some(director) = director.filter(|_| is_routed) {
            self.accept_as_real_server(name, vip, &director.service);
        }
        let key = AddressKey::host(&InterfaceName::loopback(), vip);
        if self.facts.standing.addresses.contains(&key) {
            self.add_address(name, key);
        }
    }

    /// Warns if a real server of a fwmark service has no VIP on lo.
    ///
    /// A fwmark does not say which VIPs there are, so the administrator has to add them.
    fn check_unnamed_vips(
        &mut self,
        name: &ObjectName,
        role: &RealServerRole,
        families: &BTreeSet<Family>,
    ) {
        if !role.vips.is_empty() {
            return;
        }
        for family in families {
            let has_vip = self.facts.addresses.iter().any(|own| {
                let on_lo = self
                    .facts
                    .interfaces
                    .get(&own.interface)
                    .is_some_and(|found| found.loopback);
                let address = own.network.addr();
                on_lo && Family::of(address) == *family && !address.is_loopback()
            });
            if has_vip {
                continue;
            }
            let settings = match family {
                Family::V4 => {
                    ", after `sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2`"
                }
                Family::V6 => "",
            };
            let prefix = family.host_prefix();
            self.warn(
                name,
                format!(
                    "a fwmark names no VIP, so VIPs on lo are left to you, and there is no {family} one: \
                     `ip addr add VIP/{prefix} dev lo`{settings}"
                ),
            );
        }
    }

    fn loopback(&self) -> Option<InterfaceName> {
        self.facts
            .interfaces
            .iter()
            .find(|(_, interface)| interface.loopback)
            .map(|(name, _)| name.clone())
    }

    fn accept_direct_routing(&mut self, name: &ObjectName, own: IpAddr) {
        if Family::of(own) == Family::V6 {
            return;
        }
        match self.facts.find_address(own) {
            Some(found) => self.loosen_rp_filter(name, &found.interface),
            None => self.keep_rp_filters(name),
        }
    }

    /// Adds the tunnel devices that decapsulate the service's packets to one of the machine's addresses.
    fn add_tunnel_devices(
        &mut self,
        name: &ObjectName,
        own: &ServedAddress,
        address: IpAddr,
        tunnel: Tunnel,
    ) {
        if let TunnelKind::Gue { port } = tunnel.kind {
            let family = Family::of(address);
            let port = FouPort { family, port };
            self.add_owner(name, Target::FouPort(port));
            self.state.fou_ports.insert(port);
        }
        self.note_mtu(address, tunnel, &own.families);
        for family in &own.families {
            let (device, kind) = tunnel_device(address, *family, tunnel.kind);
            if *family == Family::V4 {
                let key = AddressKey::host(&device, TUNNEL_ADDRESS.into());
                self.add_address(name, key);
                self.want_exactly(name, Sysctl::RpFilter(Some(device.clone())), 2);
            }
            self.add_owner(name, Target::Link(device.clone()));
            let link = Link {
                kind,
                up: true,
                owner: Owner::Ours,
            };
            self.state.links.insert(device, link);
        }
    }

    /// Warns if the real server has no default route for its replies to clients.
    fn check_route_to_clients(&mut self, name: &ObjectName, families: &BTreeSet<Family>) {
        for family in families {
            if self.facts.default_route(*family).is_none() {
                self.warn(
                    name,
                    format!(
                        "this real server has no {family} default route: it answers clients itself, so only those on its \
                         own networks get an answer"
                    ),
                );
            }
        }
    }

    fn send_replies_back(
        &mut self,
        name: &ObjectName,
        role: &RealServerRole,
        address: IpAddr,
        own: &ServedAddress,
    ) {
        let family = Family::of(address);
        let mut gateways = role.nat.gateways.iter();
        let gateway = gateways.find(|gateway| Family::of(**gateway) == family);
        match (role.nat.return_path, gateway.copied()) {
            (ReturnPath::Masquerade, _) => {}
            (ReturnPath::DefaultGateway, gateway) => {
                self.check_default_route(name, family, gateway);
            }
            (ReturnPath::PolicyRoute, Some(gateway)) => {
                self.add_return_route(name, own, address, gateway);
            }
            (ReturnPath::PolicyRoute, None) => self.error(
                name,
                format!(
                    "`spec.nat.gateways` has no {family} address for the way back from {address}"
                ),
            ),
        }
    }

    fn check_default_route(&mut self, name: &ObjectName, family: Family, gateway: Option<IpAddr>) {
        let found = self.facts.default_route(family).map(|route| route.gateway);
        match (found, gateway) {
            (None, _) => self.warn(
                name,
                format!("this real server has no {family} default route: NAT replies must go back through the director"),
            ),
            (Some(found), Some(wanted)) if found != Some(wanted) => {
                let found = found.map_or_else(|| "no gateway".to_owned(), |found| found.to_string());
                self.warn(
                    name,
                    format!(
                        "this real server's {family} default route leads to {found}, not to the director {wanted}: replies \
                         would bypass it; change it, or use `returnPath: PolicyRoute`"
                    ),
                );
            }
            (Some(_), _) => {}
        }
    }

    fn add_return_route(
        &mut self,
        name: &ObjectName,
        own: &ServedAddress,
        address: IpAddr,
        gateway: IpAddr,
    ) {
        let Some(table) = self.return_tables.get(&gateway).copied() else {
            return;
        };
        let route = self.facts.route_to(gateway);
        let Some(route) = route.filter(|route| route.gateway.is_none()) else {
            self.keep_return_route(name, own, address, table);
            return self.error(
                name,
                format!("the director {gateway} is not on a network of this real server"),
            );
        };
        let interface = route.interface.clone();
        let mut has_rule = false;
        for (protocol, port) in &own.ports {
            let selector = RuleSelector::Replies {
                source: address,
                protocol: *protocol,
                port: *port,
            };
            if self.has_other_table(selector, table) {
                self.error(
                    name,
                    format!(
                        "replies from {address} {protocol} port {port} already go back through another director, for another \
                         VirtualService; none go to {gateway}"
                    ),
                );
            } else {
                self.reply_tables.insert(selector, table);
                self.add_rule(name, PolicyRule { table, selector });
                has_rule = true;
            }
        }
        if !has_rule {
            return;
        }
        let next_hop = NextHop::Gateway {
            address: gateway,
            interface: interface.clone(),
        };
        self.add_route(name, Route { table, next_hop });
        if Family::of(address) == Family::V4 {
            self.loosen_rp_filter(name, &interface);
        }
    }

    /// Keeps the route and the rules of a return path whose gateway is on no network at the moment.
    fn keep_return_route(
        &mut self,
        name: &ObjectName,
        own: &ServedAddress,
        address: IpAddr,
        table: u32,
    ) {
        let standing = &self.facts.standing;
        for (protocol, port) in &own.ports {
            let selector = RuleSelector::Replies {
                source: address,
                protocol: *protocol,
                port: *port,
            };
            let rule = PolicyRule { table, selector };
            if standing.rules.contains(&rule) {
                self.add_rule(name, rule);
            }
        }
        for route in &standing.routes {
            if route.table == table && route.family() == Family::of(address) {
                self.add_route(name, route.clone());
            }
        }
        if Family::of(address) == Family::V4 {
            self.keep_rp_filters(name);
        }
    }

    /// Returns whether another virtual service already routes the same replies by another table.
    fn has_other_table(&self, selector: RuleSelector, table: u32) -> bool {
        let known = self.reply_tables.get(&selector);
        known.is_some_and(|known| *known != table)
    }
}

/// Assigns a routing table to each gateway of a return path.
///
/// The number follows from the low 16 bits of the gateway's address, which usually differ between the directors of a
/// network. Gateways with equal low bits get different tables in the order of their addresses, so that the numbers do
/// not depend on the order of the services.
pub(super) fn return_tables(spec: &NodeSpec) -> BTreeMap<IpAddr, u32> {
    let roles = spec.serves.values();
    let gateways: BTreeSet<IpAddr> = roles
        .filter(|role| role.nat.return_path == ReturnPath::PolicyRoute)
        .flat_map(|role| role.nat.gateways.iter().copied())
        .collect();
    let mut used = BTreeSet::new();
    let mut tables = BTreeMap::new();
    for gateway in gateways {
        let mut table = FIRST_TABLE + 1 + low_bits(gateway);
        while !used.insert((Family::of(gateway), table)) {
            table += 0x1_0000;
        }
        tables.insert(gateway, table);
    }
    tables
}

fn low_bits(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(v4) => v4.to_bits() & 0xffff,
        IpAddr::V6(v6) => (v6.to_bits() & 0xffff) as u32,
    }
}

/// Returns the device that decapsulates packets of family `inner` from one kind of tunnel to the address `own`.
fn tunnel_device(own: IpAddr, inner: Family, kind: TunnelKind) -> (InterfaceName, LinkKind) {
    let kind = match (own, inner, kind) {
        (IpAddr::V4(local), _, TunnelKind::Gre) => LinkKind::Gre { local },
        (IpAddr::V6(local), _, TunnelKind::Gre) => LinkKind::Ip6Gre { local },
        (IpAddr::V4(local), Family::V4, TunnelKind::Ipip | TunnelKind::Gue { .. }) => {
            LinkKind::Ipip { local }
        }
        (IpAddr::V4(local), Family::V6, TunnelKind::Ipip | TunnelKind::Gue { .. }) => {
            LinkKind::Sit { local }
        }
        (IpAddr::V6(local), _, TunnelKind::Ipip | TunnelKind::Gue { .. }) => {
            LinkKind::Ip6Tnl { local }
        }
    };
    (kind.device_name(), kind)
}
