//! What a pass reads from a kernel, and which parts it needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    AddressConfig, AddressKey, Director, Interface, InterfaceAddress, InterfaceName, KernelState,
    Ledger, Link, Node, NodeFacts, NodeName, NodeSpec, Part, PolicyRule, ReturnPath, Route, Target,
};

/// The links, addresses, routes and rules of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Every interface.
    pub interfaces: BTreeMap<InterfaceName, Interface>,
    /// The links with a name or an alias of ours.
    pub links: BTreeMap<InterfaceName, Link>,
    /// Every address.
    pub addresses: BTreeMap<AddressKey, AddressConfig>,
    /// The routes with our protocol number, in any table.
    pub routes: BTreeSet<Route>,
    /// The rules with our protocol number.
    pub rules: BTreeSet<PolicyRule>,
    /// Every address with its network, as `NodeFacts` holds it.
    pub interface_addresses: Vec<InterfaceAddress>,
    /// The gateways of the routes in the main table, unless it is too large to be read.
    pub gateways: BTreeSet<IpAddr>,
}

impl Network {
    /// Returns the identity of the machine with this network, for `assign`.
    #[must_use]
    pub fn node(&self, name: NodeName, ledger: &Ledger) -> Node {
        let facts = NodeFacts {
            addresses: self.interface_addresses.clone(),
            ..NodeFacts::default()
        };
        let observed = KernelState {
            addresses: self.addresses.clone(),
            ..KernelState::default()
        };
        facts.without_ours(&observed, ledger).node(name, ledger)
    }
}

/// The routing tables in which our routes are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tables {
    /// Every table of the machine, which may have a million foreign routes.
    All,
    /// Those in which the agent may have routes.
    Only(BTreeSet<u32>),
}

impl Tables {
    /// The tables of the routes that a ledger names.
    #[must_use]
    pub fn of(ledger: &Ledger) -> Self {
        Self::Only(ledger.routes().map(|route| route.table).collect())
    }
}

/// What a pass reads besides the IPVS services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// The state of the kernel, without IPVS services.
    pub state: KernelState,
    /// The facts about the machine.
    pub facts: NodeFacts,
    /// The parts that could not be read, with the reasons.
    pub unread: BTreeMap<Part, String>,
}

/// Which optional parts a pass reads, besides the network and the IPVS services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// IPVS: its module is loaded, and the timeouts are read.
    pub ipvs: bool,
    /// The masquerading rules.
    pub masquerade: bool,
    /// The GUE ports.
    pub fou_ports: bool,
    /// The listening sockets.
    pub listeners: bool,
    /// The rules that mark stray packets.
    pub strays: bool,
}

impl Needs {
    /// Returns what a pass needs to read to apply a spec and to remove what is owned.
    #[must_use]
    pub fn of(spec: &NodeSpec, ledger: &Ledger) -> Self {
        let masquerades = |director: &Director| {
            director.service.uses_nat()
                && director.service.nat.return_path == ReturnPath::Masquerade
        };
        Self {
            ipvs: !spec.directs.is_empty()
                || !spec.second_chances.is_empty()
                || ledger.timeouts.is_some()
                || ledger.owns_sync_daemons()
                || ledger.owns_services(),
            masquerade: ledger.owns(&Target::Masquerade) || spec.directs.values().any(masquerades),
            fou_ports: !spec.serves.is_empty() || ledger.owns_fou_ports(),
            listeners: !spec.serves.is_empty(),
            strays: !spec.second_chances.is_empty()
                || spec.serves_what_it_directs()
                || ledger.owns(&Target::Strays),
        }
    }
}
