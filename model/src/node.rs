//! One machine: its roles, and the facts observed on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    AcceptedVips, AddressKey, Candidacy, ConnectionSync, ConntrackTable, Family, Forwarding,
    GroupName, InterfaceName, Keeping, KeptService, KernelState, KernelVersion, Ledger, MacAddr,
    Nat, NodeName, NodeRoute, ObjectName, PolicyRule, Protocol, Route, RouteAnswers, SecondChance,
    Sysctl, Timeouts, VirtualService,
};

/// What `assign` needs to identify a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its own addresses, without the VIPs that the agent added.
    pub addresses: BTreeSet<IpAddr>,
    /// The networks of its own addresses.
    pub networks: BTreeSet<IpNet>,
    /// The addresses with which it was a real server in the last pass, if they are missing at the moment.
    pub absent: BTreeSet<IpAddr>,
    /// Whether its ledger has IPVS services: it directs.
    pub has_directed: bool,
    /// The VIPs with which its ledger says that virtual services were accepted.
    pub accepted: Arc<AcceptedVips>,
    /// Whether its ledger records that it ever was a real server while there was no group.
    pub has_served: bool,
}

/// The roles of one machine, with all references resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// The virtual services that it directs.
    pub directs: BTreeMap<ObjectName, Director>,
    /// The virtual services that it serves. Those that it directs too are directed by other machines as well.
    pub serves: BTreeMap<ObjectName, RealServerRole>,
    /// The IPVS timeouts of its groups.
    pub timeouts: Option<Timeouts>,
    /// How it tells other directors its connections; `None`: it does not.
    #[serde(default)]
    pub connection_sync: Option<ConnectionSync>,
    /// The gateways that it has together with the VIPs, each group's with the first of its virtual services.
    #[serde(default)]
    pub gateways: BTreeMap<ObjectName, GroupGateways>,
    /// The virtual services whose connections are kept and that it may serve, whether or not it does. It directs none of them alone.
    pub kept: BTreeMap<ObjectName, KeptService>,
    /// What it forwards once more as a real server, grouped by virtual service. See [`recall`](crate::recall()).
    pub second_chances: Vec<SecondChance>,
}

impl NodeSpec {
    /// Returns whether it is a real server of a virtual service that it directs with others.
    #[must_use]
    pub fn serves_what_it_directs(&self) -> bool {
        let mut serves = self.serves.keys();
        serves.any(|name| self.is_serving_director_of(name))
    }

    /// Returns whether it is a real server of this virtual service and directs it with others.
    #[must_use]
    pub fn is_serving_director_of(&self, name: &ObjectName) -> bool {
        self.serves.contains_key(name) && self.directs.contains_key(name)
    }
}

/// The gateways of a group: addresses that the director with the VIPs has too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupGateways {
    /// The group.
    pub group: GroupName,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// The machine's part in the choice of who has them. `None`: it has them.
    pub candidacy: Option<Candidacy>,
}

/// One virtual service on one of its directors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Director {
    /// The virtual service.
    pub service: Arc<VirtualService>,
    /// The interface for its VIPs. `None`: the interface whose subnet contains the VIP.
    pub interface: Option<InterfaceName>,
    /// Its part in the choice of who holds the VIPs. `None`: it holds them.
    pub candidacy: Option<Candidacy>,
    /// How its connections survive that another director takes over.
    pub keeping: Keeping,
}

/// One virtual service on one of its real servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealServerRole {
    /// The VIPs. Empty for a fwmark service.
    pub vips: Vec<IpAddr>,
    /// How NAT replies reach the director.
    pub nat: Nat,
    /// The machine's own addresses among the real servers' addresses.
    pub own: BTreeMap<IpAddr, ServedAddress>,
    /// Whether it is no real server any more, and only serves connections that it had.
    #[serde(default)]
    pub is_former: bool,
}

/// What arrives at one address of a real server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedAddress {
    /// How the director forwards packets to it.
    pub forwarding: Forwarding,
    /// The address families of the packets that arrive. Only a tunnel brings packets of another family than the address.
    pub families: BTreeSet<Family>,
    /// The ports that the service listens on here.
    pub ports: BTreeSet<(Protocol, u16)>,
}

impl RealServerRole {
    /// The address families of the packets that arrive.
    #[must_use]
    pub fn families(&self) -> BTreeSet<Family> {
        let own = self.own.values();
        own.flat_map(|own| own.families.iter().copied()).collect()
    }
}

/// What was observed on a machine: its kernel, interfaces, addresses, routes, sysctls and listening sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// The version of its kernel. `None`: unknown.
    pub kernel: Option<KernelVersion>,
    /// Its interfaces.
    pub interfaces: BTreeMap<InterfaceName, Interface>,
    /// Its addresses.
    pub addresses: Vec<InterfaceAddress>,
    /// The routes that the kernel has chosen for the addresses in `routes_to`, each once.
    pub routes: Vec<NodeRoute>,
    /// The route to each address that was asked for.
    pub routes_to: Arc<RouteAnswers>,
    /// The gateways of these routes, and of the other ones of the main table, unless it is too large to be read.
    pub gateways: BTreeSet<IpAddr>,
    /// The other addresses that it needs for itself, and what each is, such as "resolver".
    #[serde(default)]
    pub essentials: BTreeMap<IpAddr, String>,
    /// The sysctls that could be read.
    pub sysctls: BTreeMap<Sysctl, i64>,
    /// The table of connection tracking. `None`: the kernel has none, or it was not observed.
    pub conntrack: Option<ConntrackTable>,
    /// The interfaces that merge received packets (LRO).
    pub lro: BTreeSet<InterfaceName>,
    /// The sockets that listen. `None`: they were not observed.
    pub listeners: Option<BTreeSet<Listener>>,
    /// What the agent has here.
    pub standing: Standing,
}

/// What the agent has on a machine: it stays where it cannot be decided anew, because an interface, an address or a route is
/// missing at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its addresses, those that are missing at the moment included.
    pub addresses: BTreeSet<AddressKey>,
    /// Its routes.
    pub routes: BTreeSet<Route>,
    /// Its rules.
    pub rules: BTreeSet<PolicyRule>,
}

impl Standing {
    /// Returns the interfaces on which an address stands. The cost depends on the number of interfaces with addresses that
    /// stand, not on the number of these addresses.
    pub(crate) fn interfaces_of(&self, address: IpAddr) -> Vec<&InterfaceName> {
        let mut found = Vec::new();
        let mut next = self.addresses.first();
        while let Some(AddressKey { interface, .. }) = next {
            let first = AddressKey {
                interface: interface.clone(),
                address,
                prefix: 0,
            };
            let at = self.addresses.range(&first..).next();
            if at.is_some_and(|at| at.interface == *interface && at.address == address) {
                found.push(interface);
            }
            let last = AddressKey {
                address: IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
                prefix: u8::MAX,
                ..first
            };
            next = self.addresses.range(&last..).next();
        }
        found
    }
}

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Listener {
    /// The protocol.
    pub protocol: Protocol,
    /// The address. Unspecified: every address of the family; `::` usually accepts IPv4 too.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its kernel index.
    pub index: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// The size of its largest packets.
    pub mtu: u32,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// Whether it is a tunnel: it has no neighbours that resolve addresses.
    pub tunnel: bool,
    /// The MAC address under which neighbours reach it. `None`: it is not Ethernet, or does not use ARP.
    pub mac: Option<MacAddr>,
}

impl Interface {
    /// Returns whether no neighbour resolves an address that is on it.
    #[must_use]
    pub const fn is_hidden(&self) -> bool {
        self.loopback || self.tunnel
    }
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceAddress {
    /// The interface.
    pub interface: InterfaceName,
    /// The address with its prefix.
    pub network: IpNet,
}

impl NodeFacts {
    /// Returns the facts with what the agent has made set apart: its addresses must not count as the machine's own.
    #[must_use]
    pub fn without_ours(&self, observed: &KernelState, ledger: &Ledger) -> Self {
        let is_ours = |key: &AddressKey| {
            let found = observed.addresses.get(key);
            found.is_some_and(|found| ledger.owns_address(key, found.owner))
        };
        let is_own = |address: &&InterfaceAddress| {
            !is_ours(&AddressKey {
                interface: address.interface.clone(),
                address: address.network.addr(),
                prefix: address.network.prefix_len(),
            })
        };
        let present = observed.addresses.keys().filter(|key| is_ours(key));
        let missing = ledger.addresses();
        let missing = missing.filter(|key| !observed.addresses.contains_key(key));
        Self {
            addresses: self.addresses.iter().filter(is_own).cloned().collect(),
            standing: Standing {
                addresses: present.chain(missing).cloned().collect(),
                routes: observed.routes.clone(),
                rules: observed.rules.clone(),
            },
            ..self.clone()
        }
    }

    /// Returns the machine's identity for `assign`.
    #[must_use]
    pub fn node(&self, name: NodeName, ledger: &Ledger) -> Node {
        let networks = self.addresses.iter().map(|address| address.network);
        let addresses: BTreeSet<IpAddr> = networks.clone().map(|network| network.addr()).collect();
        let served_at = ledger.served_at.union(&ledger.formerly_served_at);
        let absent = served_at.filter(|address| !addresses.contains(address));
        let absent = absent.copied().collect();
        Node {
            name,
            networks: networks.map(|network| network.trunc()).collect(),
            addresses,
            absent,
            has_directed: ledger.directs(),
            accepted: Arc::clone(&ledger.accepted),
            has_served: ledger.has_served,
        }
    }

    /// Returns whether a program listens on an address, or on all addresses. True if listeners were not observed.
    #[must_use]
    pub fn listens_on(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        let Some(listeners) = &self.listeners else {
            return true;
        };
        let any_v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let any_v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let any_own = match address {
            IpAddr::V4(_) => any_v4,
            IpAddr::V6(_) => any_v6,
        };
        [address, any_own, any_v6].into_iter().any(|address| {
            listeners.contains(&Listener {
                protocol,
                address,
                port,
            })
        })
    }

    /// Finds an address among the machine's addresses.
    #[must_use]
    pub fn find_address(&self, address: IpAddr) -> Option<&InterfaceAddress> {
        self.addresses
            .iter()
            .find(|own| own.network.addr() == address)
    }

    /// Returns the effective value of a sysctl for which the kernel takes the larger of `all` and the interface's own
    /// value. A value that was not read counts as 0.
    #[must_use]
    pub fn larger_of(
        &self,
        sysctl: fn(Option<InterfaceName>) -> Sysctl,
        interface: &InterfaceName,
    ) -> i64 {
        let value = |key: Sysctl| self.sysctls.get(&key).copied().unwrap_or(0);
        value(sysctl(None)).max(value(sysctl(Some(interface.clone()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Owner, Target};

    #[test]
    fn an_address_is_ours_by_its_mark_or_without_marks_by_the_ledger() {
        let own = |address: &str| InterfaceAddress {
            interface: "eth0".parse().unwrap(),
            network: address.parse().unwrap(),
        };
        let key =
            |address: &str| AddressKey::host(&"eth0".parse().unwrap(), address.parse().unwrap());
        let config = |owner| crate::AddressConfig {
            deprecated: false,
            expires: false,
            owner,
        };
        let facts = NodeFacts {
            addresses: vec![
                own("10.0.0.10/24"),
                own("10.0.0.100/32"),
                own("10.0.0.101/32"),
            ],
            ..NodeFacts::default()
        };
        let ledger = Ledger {
            made: [Target::Address(key("10.0.0.101"))].into(),
            ..Ledger::default()
        };
        // A kernel before 5.18 stores no mark. On a later one, an address without it is another program's, even if the ledger
        // names it: the agent was too late to add it.
        for (owner, own_addresses) in [
            (Owner::Unknown, vec![own("10.0.0.10/24")]),
            (
                Owner::Foreign,
                vec![own("10.0.0.10/24"), own("10.0.0.101/32")],
            ),
        ] {
            let observed = KernelState {
                addresses: [
                    (key("10.0.0.100"), config(Owner::Ours)),
                    (key("10.0.0.101"), config(owner)),
                ]
                .into(),
                ..KernelState::default()
            };

            let clean = facts.without_ours(&observed, &ledger);

            assert_eq!(clean.addresses, own_addresses);
        }
    }
}
