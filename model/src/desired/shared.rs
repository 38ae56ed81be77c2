//! The part of a director that is itself a real server, by DR or TUN, of a virtual service that other machines direct too.
//!
//! Whether it balances a packet or takes it as a real server depends on one thing alone: whether the interface on which the packet
//! arrives has the VIP. The kernel answers that for each packet, so a director that gets the VIP or loses it, even by the end of its
//! lifetime, changes its part at that moment, and no packet goes back and forth between directors.
//!
//! 1. The VIP is local all the time, by a route in the local table. It is no address of lo: the kernel looks for the type of an IPv4
//!    address in that table and compares the interface of the first route that it finds (`inet_dev_addr_type`, net/ipv4/fib_frontend.c),
//!    and the route of an address on lo is as good as that of the VIP on another interface. Ours has a larger metric.
//! 2. Rules mark packets that arrive where the VIP is not: another director has sent them. The mark leads to an IPVS service that
//!    delivers them here. Without it, the IPVS service of the VIP would send them on.
//! 3. The same mark goes to packets of TCP connections that this machine has as a real server. So it keeps them when it becomes
//!    active, whatever its table says.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use super::builder::Builder;
use crate::{
    Destination, DestinationKey, Family, Forwarding, Interface, InterfaceAddress, ObjectName,
    Route, Scheduler, SchedulerName, Service, ServiceConfig, ServiceKey, Strays, Target,
    VirtualService, server_set::local_service,
};

impl Builder<'_> {
    /// Makes packets to a VIP stay here while another director has the VIP.
    pub(super) fn accept_as_real_server(
        &mut self,
        name: &ObjectName,
        vip: IpAddr,
        service: &VirtualService,
    ) {
        self.add_route(name, Route::to_vip(vip));
        let family = Family::of(vip);
        let key = local_service(family);
        self.add_owner(name, Target::Service(key));
        self.state
            .services
            .insert(key, Arc::new(delivered_here(family)));
        self.add_owner(name, Target::Strays);
        let strays = self.state.strays.get_or_insert_with(Strays::default);
        let ports = service.frontend.ports().iter();
        strays.local.extend(ports.map(|port| ServiceKey::Address {
            address: vip,
            protocol: port.protocol,
            port: port.port,
        }));
    }

    /// Reports that one of several directors is a real server of a virtual service with a firewall mark, which names no VIP.
    pub(super) fn report_own_server(&mut self, name: &ObjectName, service: &VirtualService) {
        let servers = service.real_servers.iter();
        let routed = servers.filter(|server| server.forwarding.keeps_vip());
        let addresses = routed.map(|server| server.address);
        let own = addresses.filter(|address| self.facts.find_address(*address).is_some());
        if let Some(address) = own.min() {
            self.error(
                name,
                format!(
                    "the real server {address} is this machine, which is one of several directors: with a firewall mark, packets could go \
                     round between them; use a VIP, another real server, or NAT"
                ),
            );
        }
    }

    /// Reports a VIP that is on lo, but not by the agent: the kernel then never finds it on another interface.
    pub(super) fn report_on_lo(
        &mut self,
        name: &ObjectName,
        vip: IpAddr,
        found: &InterfaceAddress,
    ) {
        let interface = &found.interface;
        let facts = self.facts.interfaces.get(interface);
        if vip.is_ipv4() && facts.is_some_and(Interface::is_hidden) {
            let prefix = found.network.prefix_len();
            self.error(
                name,
                format!(
                    "VIP {vip} is on {interface} although the agent has not added it, so this director cannot tell the packets of clients \
                     from those of other directors and serves all of them itself: `ip addr del {vip}/{prefix} dev {interface}`"
                ),
            );
        }
    }
}

/// An IPVS service that delivers its packets to this machine.
fn delivered_here(family: Family) -> Service {
    let address = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    let here = Destination {
        forwarding: Forwarding::Dr,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
    };
    Service {
        config: ServiceConfig {
            scheduler: Scheduler::new(SchedulerName::Rr, &[]),
            ..ServiceConfig::default()
        },
        destinations: [(DestinationKey { address, port: 0 }, here)].into(),
        ..Service::default()
    }
}
