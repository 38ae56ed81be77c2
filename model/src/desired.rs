//! What the kernel of one machine must hold.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    AddressConfig, AddressKey, Family, InterfaceName, KernelState, NodeFacts, NodeSpec, ObjectName,
    Owner, Owners, PolicyRule, Problem, Route, RuleSelector, Subject, Sysctl, Target,
};

mod director;
mod real_server;

/// What the kernel of one machine must hold, and what keeps a virtual service from working in full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The state.
    pub state: KernelState,
    /// The virtual services that want each part of it.
    pub owners: Owners,
    /// The problems, without repeats.
    pub problems: Vec<Problem>,
}

/// Works out what a machine's kernel must hold. `facts` are without what is ours (`NodeFacts::without_ours`).
#[must_use]
pub fn desired(spec: &NodeSpec, facts: &NodeFacts) -> Desired {
    let mut build = Build::new(spec, facts);
    for (name, director) in &spec.directs {
        build.direct(name, director);
    }
    build.finish_directors(spec);
    for (name, role) in &spec.serves {
        build.serve(name, role);
    }
    build.desired.state.timeouts = spec.timeouts.filter(|_| !spec.directs.is_empty());
    build.desired.problems.sort();
    build.desired.problems.dedup();
    build.desired
}

/// The first table number of ours.
const FIRST_TABLE: u32 = 7_600_000;

/// Where a VIP belongs on a director.
#[derive(Clone)]
enum Place {
    /// It is the machine's own address on this interface already: used as it is.
    Own(InterfaceName),
    /// It is added to this interface.
    New(InterfaceName),
    /// There is no interface for it at the moment. Its services are programmed all the same.
    Missing(String),
    /// It must not be a VIP of this machine, nor have services here: IPVS would take this machine's own packets to it.
    Unusable(String),
}

struct Build<'a> {
    facts: &'a NodeFacts,
    desired: Desired,
    /// Where each VIP belongs.
    places: BTreeMap<IpAddr, Place>,
    /// The tables that lead to directors.
    return_tables: BTreeMap<IpAddr, u32>,
    /// The table by which each kind of reply leaves, for one virtual service already.
    reply_tables: BTreeMap<RuleSelector, u32>,
}

impl<'a> Build<'a> {
    fn new(spec: &NodeSpec, facts: &'a NodeFacts) -> Self {
        Self {
            facts,
            desired: Desired::default(),
            places: BTreeMap::new(),
            return_tables: real_server::return_tables(spec),
            reply_tables: BTreeMap::new(),
        }
    }

    fn error(&mut self, service: &ObjectName, message: impl Into<String>) {
        let subject = Subject::Service(service.clone());
        let problem = Problem::error(subject, message);
        self.desired.problems.push(problem);
    }

    fn warn(&mut self, service: &ObjectName, message: impl Into<String>) {
        let subject = Subject::Service(service.clone());
        let problem = Problem::warning(subject, message);
        self.desired.problems.push(problem);
    }

    fn own(&mut self, service: &ObjectName, target: Target) {
        self.desired.owners.add(target, service);
    }

    /// Wants a sysctl, or leaves it when its value is good enough.
    fn want(
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

    fn want_exactly(&mut self, service: &ObjectName, sysctl: Sysctl, value: i64) {
        self.own(service, Target::Sysctl(sysctl.clone()));
        self.desired.state.sysctls.insert(sysctl, value);
    }

    fn add_address(&mut self, service: &ObjectName, key: AddressKey, deprecated: bool) {
        self.own(service, Target::Address(key.clone()));
        let config = AddressConfig {
            deprecated,
            owner: Owner::Ours,
        };
        self.desired.state.addresses.insert(key, config);
    }

    fn add_rule(&mut self, service: &ObjectName, rule: PolicyRule) {
        self.own(service, Target::Rule(rule));
        self.desired.state.rules.insert(rule);
    }

    fn add_route(&mut self, service: &ObjectName, route: Route) {
        self.own(service, Target::Route(route.clone()));
        self.desired.state.routes.insert(route);
    }

    /// Packets whose way back leads through another interface are dropped by a strict filter; a loose one takes them.
    fn loosen_rp_filter(&mut self, service: &ObjectName, interface: &InterfaceName) {
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
