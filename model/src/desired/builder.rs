//! What both roles of a machine add to: the desired state in the making.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    AddressConfig, AddressKey, Family, InterfaceName, KernelState, NodeFacts, ObjectName, Owner,
    Owners, PolicyRule, Problem, Route, RuleSelector, Subject, Sysctl, Target,
};

/// The first table number of ours.
pub(super) const FIRST_TABLE: u32 = 7_600_000;

/// Where a VIP belongs on a director.
#[derive(Clone)]
pub(super) enum Place {
    /// It is the machine's own address on this interface already: used as it is.
    Own(InterfaceName),
    /// It is added to this interface.
    New(InterfaceName),
    /// There is no interface for it at the moment. Its services are programmed all the same.
    Missing(String),
    /// It must not be a VIP of this machine, nor have services here: IPVS would take this machine's own packets to it.
    Unusable(String),
}

/// A state in the making.
pub(super) struct Builder<'a> {
    pub(super) facts: &'a NodeFacts,
    pub(super) state: KernelState,
    pub(super) owners: Owners,
    pub(super) problems: Vec<Problem>,
    /// Where each VIP belongs.
    pub(super) places: BTreeMap<IpAddr, Place>,
    /// The tables that lead to directors.
    pub(super) return_tables: BTreeMap<IpAddr, u32>,
    /// The table by which each kind of reply leaves, for one virtual service already.
    pub(super) reply_tables: BTreeMap<RuleSelector, u32>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(facts: &'a NodeFacts, return_tables: BTreeMap<IpAddr, u32>) -> Self {
        Self {
            facts,
            state: KernelState::default(),
            owners: Owners::default(),
            problems: Vec::new(),
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

    pub(super) fn own(&mut self, service: &ObjectName, target: Target) {
        self.owners.add(target, service);
    }

    /// Wants a sysctl, or leaves it when its value is good enough.
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

    pub(super) fn want_exactly(&mut self, service: &ObjectName, sysctl: Sysctl, value: i64) {
        self.own(service, Target::Sysctl(sysctl.clone()));
        self.state.sysctls.insert(sysctl, value);
    }

    pub(super) fn add_address(&mut self, service: &ObjectName, key: AddressKey, deprecated: bool) {
        self.own(service, Target::Address(key.clone()));
        let config = AddressConfig {
            deprecated,
            owner: Owner::Ours,
        };
        self.state.addresses.insert(key, config);
    }

    pub(super) fn add_rule(&mut self, service: &ObjectName, rule: PolicyRule) {
        self.own(service, Target::Rule(rule));
        self.state.rules.insert(rule);
    }

    pub(super) fn add_route(&mut self, service: &ObjectName, route: Route) {
        self.own(service, Target::Route(route.clone()));
        self.state.routes.insert(route);
    }

    /// Packets whose way back leads through another interface are dropped by a strict filter; a loose one takes them.
    pub(super) fn loosen_rp_filter(&mut self, service: &ObjectName, interface: &InterfaceName) {
        let leaves_elsewhere = self
            .facts
            .default_route(Family::V4)
            .is_some_and(|default| default.interface != *interface);
        let own = Sysctl::RpFilter(Some(interface.clone()));
        let strict = self.facts.larger_of(Sysctl::RpFilter, interface) == 1;
        // A 2 that we wrote in an earlier pass stays wanted as long as it is needed.
        let is_loose = self.facts.sysctls.get(&own) == Some(&2);
        if leaves_elsewhere && (strict || is_loose) {
            self.want_exactly(service, own, 2);
        }
    }
}
