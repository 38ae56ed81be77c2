//! Builds the desired state. Both roles of a machine, director and real server, add to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    Absence, Absent, AddressConfig, AddressKey, Candidacy, Family, GroupName, InterfaceName,
    KernelState, NodeFacts, ObjectName, Owner, Owners, PolicyRule, Problem, Route, RouterKey,
    RuleSelector, Subject, Sysctl, Target, VirtualRouter,
};

/// The lowest number of our routing tables.
pub(super) const FIRST_TABLE: u32 = 7_600_000;

/// Where a VIP belongs on a director.
#[derive(Clone)]
pub(super) enum Place {
    /// The machine already has the VIP on this interface, not added by the agent: it is used as it is.
    Own(InterfaceName),
    /// The agent adds the VIP to this interface.
    New(InterfaceName),
    /// No interface fits at the moment, or the one that was asked for is missing: the VIP stays where the agent has it.
    Kept(InterfaceName, NoPlace),
    /// No interface fits at the moment. The VIP's services are programmed all the same.
    Missing(String),
    /// This machine can neither hold the VIP nor have services for it: IPVS would take the machine's own packets to it.
    Unusable(String),
}

/// Why there is no better place for a VIP.
#[derive(Clone)]
pub(super) enum NoPlace {
    /// No interface has its network.
    NoNetwork,
    /// Another reason.
    Other(String),
}

/// The desired state while it is being built.
pub(super) struct Builder<'a> {
    pub(super) facts: &'a NodeFacts,
    pub(super) state: KernelState,
    pub(super) owners: Owners,
    pub(super) problems: Vec<Problem>,
    pub(super) absences: Vec<Absence>,
    /// Where each VIP belongs.
    pub(super) places: BTreeMap<IpAddr, Place>,
    /// The routing table for each gateway of a return path.
    pub(super) return_tables: BTreeMap<IpAddr, u32>,
    /// The routing table for each kind of reply that already has a rule.
    pub(super) reply_tables: BTreeMap<RuleSelector, u32>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(facts: &'a NodeFacts, return_tables: BTreeMap<IpAddr, u32>) -> Self {
        Self {
            facts,
            state: KernelState::default(),
            owners: Owners::default(),
            problems: Vec::new(),
            absences: Vec::new(),
            places: BTreeMap::new(),
            return_tables,
            reply_tables: BTreeMap::new(),
        }
    }

    pub(super) fn error(&mut self, service: &ObjectName, message: impl Into<String>) {
        let subject = Subject::Service(service.clone());
        let problem = Problem::error(subject, message);
        self.problems.push(problem);
    }

    pub(super) fn warn(&mut self, service: &ObjectName, message: impl Into<String>) {
        let subject = Subject::Service(service.clone());
        let problem = Problem::warning(subject, message);
        self.problems.push(problem);
    }

    /// Reports something that is on no network of this machine at the moment: a problem unless it stays.
    pub(super) fn absent(&mut self, service: &ObjectName, what: Absent, problem: Problem) {
        self.problems.push(problem.clone());
        self.absences.push(Absence {
            service: service.clone(),
            what,
            problem,
        });
    }

    pub(super) fn add_owner(&mut self, service: &ObjectName, target: Target) {
        self.owners.add(target, service);
    }

    /// Sets a sysctl to `value`, unless the value found is good enough: then that one is desired.
    pub(super) fn want(
        &mut self,
        service: &ObjectName,
        sysctl: Sysctl,
        value: i64,
        is_good: impl Fn(i64) -> bool,
    ) {
        let found = self.facts.sysctls.get(&sysctl).copied();
        let value = found.filter(|found| is_good(*found)).unwrap_or(value);
        self.want_exactly(service, sysctl, value);
    }

    /// Keeps a sysctl that has this value, since what it is needed for cannot be found at the moment.
    pub(super) fn keep(&mut self, service: &ObjectName, sysctl: Sysctl, value: i64) {
        if self.facts.sysctls.get(&sysctl) == Some(&value) {
            self.want_exactly(service, sysctl, value);
        }
    }

    pub(super) fn want_exactly(&mut self, service: &ObjectName, sysctl: Sysctl, value: i64) {
        self.add_owner(service, Target::Sysctl(sysctl.clone()));
        self.state.sysctls.insert(sysctl, value);
    }

    /// Adds an address. An IPv6 one is deprecated, so that it is never the source of this machine's own connections: the kernel
    /// would choose a VIP on any interface if that of the connection has no preferred address of its own.
    pub(super) fn add_address(&mut self, service: &ObjectName, key: AddressKey) {
        self.add_owner(service, Target::Address(key.clone()));
        let config = AddressConfig {
            deprecated: key.address.is_ipv6(),
            expires: false,
            owner: Owner::Ours,
        };
        self.state.addresses.insert(key, config);
    }

    /// Returns why this machine would be cut off if it had a VIP: it reaches others by that address.
    pub(super) fn need_of(&self, vip: IpAddr) -> Option<String> {
        let facts = self.facts;
        let what = if facts.gateways.contains(&vip) {
            let mut routes = facts.routes.iter();
            let route = routes.find(|route| route.gateway == Some(vip));
            let destination = route.map_or_else(
                || "another network".to_owned(),
                |route| route.destination.to_string(),
            );
            format!("gateway to {destination}")
        } else {
            facts.essentials.get(&vip)?.clone()
        };
        Some(format!(
            "VIP {vip} is this machine's {what}; choose a free address"
        ))
    }

    /// Makes an address one that this machine holds only while no other director does. The directors agree on an interface, which need
    /// not be that of the address.
    pub(super) fn add_to_router(
        &mut self,
        vip: AddressKey,
        interface: &InterfaceName,
        group: &GroupName,
        candidacy: &Candidacy,
    ) {
        if let Some(config) = self.state.addresses.get_mut(&vip) {
            config.expires = true;
        }
        let key = RouterKey {
            interface: interface.clone(),
            family: Family::of(vip.address),
            router_id: candidacy.router_of(vip.address),
        };
        let router = self.state.routers.entry(key);
        let router = router.or_insert_with(|| VirtualRouter {
            candidacy: candidacy.clone(),
            groups: BTreeSet::new(),
            vips: BTreeSet::new(),
        });
        router.groups.insert(group.clone());
        router.vips.insert(vip);
    }

    pub(super) fn add_rule(&mut self, service: &ObjectName, rule: PolicyRule) {
        self.add_owner(service, Target::Rule(rule));
        self.state.rules.insert(rule);
    }

    pub(super) fn add_route(&mut self, service: &ObjectName, route: Route) {
        self.add_owner(service, Target::Route(route.clone()));
        self.state.routes.insert(route);
    }

    /// Makes `rp_filter` loose where it would drop the service's packets.
    ///
    /// A strict filter drops a packet if the route back to its source leads through another interface; a loose one
    /// accepts it.
    pub(super) fn loosen_rp_filter(&mut self, service: &ObjectName, interface: &InterfaceName) {
        let default = self.facts.default_route(Family::V4);
        let is_elsewhere = default.is_some_and(|default| default.interface != *interface);
        let own = Sysctl::RpFilter(Some(interface.clone()));
        let strict = self.facts.larger_of(Sysctl::RpFilter, interface) == 1;
        // The 2 that an earlier pass wrote must stay desired as long as it is needed.
        let is_loose = self.facts.sysctls.get(&own) == Some(&2);
        if is_elsewhere && (strict || is_loose) {
            self.want_exactly(service, own, 2);
        } else if default.is_none() {
            self.keep(service, own, 2);
        }
    }

    /// Keeps every `rp_filter` that is loose: the interface that needs it cannot be found at the moment.
    pub(super) fn keep_rp_filters(&mut self, service: &ObjectName) {
        let facts = self.facts;
        for sysctl in facts.sysctls.keys() {
            if matches!(sysctl, Sysctl::RpFilter(Some(_))) {
                self.keep(service, sysctl.clone(), 2);
            }
        }
    }
}
