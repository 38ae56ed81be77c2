//! Computes what the kernel of one machine must hold.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    AddressConfig, AddressKey, Family, InterfaceName, KernelState, NodeFacts, NodeSpec, ObjectName,
    Owner, Owners, PolicyRule, Problem, Route, RuleSelector, Subject, Sysctl, Target,
};

mod director;
mod real_server;

/// What the kernel of one machine must hold, and the problems that keep virtual services from working in full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// What the kernel must hold.
    pub state: KernelState,
    /// The virtual services that need each part of the state.
    pub owners: Owners,
    /// The problems, sorted and without duplicates.
    pub problems: Vec<Problem>,
}

/// Computes what a machine's kernel must hold.
///
/// `facts` must not contain addresses that the agent added: see [`NodeFacts::without_ours`].
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

/// The lowest number of our routing tables.
const FIRST_TABLE: u32 = 7_600_000;

/// Where a VIP belongs on a director.
#[derive(Clone)]
enum Place {
    /// The machine already has the VIP on this interface, not added by the agent: it is used as it is.
    Own(InterfaceName),
    /// The agent adds the VIP to this interface.
    New(InterfaceName),
    /// No interface fits at the moment. The VIP's services are programmed all the same.
    Missing(String),
    /// This machine can neither hold the VIP nor have services for it: IPVS would take the machine's own packets to it.
    Unusable(String),
}

/// The desired state while it is being built.
struct Build<'a> {
    facts: &'a NodeFacts,
    desired: Desired,
    /// Where each VIP belongs.
    places: BTreeMap<IpAddr, Place>,
    /// The routing table for each gateway of a return path.
    return_tables: BTreeMap<IpAddr, u32>,
    /// The routing table for each kind of reply that already has a rule.
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

    fn add_owner(&mut self, service: &ObjectName, target: Target) {
        self.desired.owners.add(target, service);
    }

    /// Sets a sysctl to `value`, unless the value found is good enough: then that one is desired.
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
        self.add_owner(service, Target::Sysctl(sysctl.clone()));
        self.desired.state.sysctls.insert(sysctl, value);
    }

    fn add_address(&mut self, service: &ObjectName, key: AddressKey, deprecated: bool) {
        self.add_owner(service, Target::Address(key.clone()));
        let config = AddressConfig {
            deprecated,
            owner: Owner::Ours,
        };
        self.desired.state.addresses.insert(key, config);
    }

    fn add_rule(&mut self, service: &ObjectName, rule: PolicyRule) {
        self.add_owner(service, Target::Rule(rule));
        self.desired.state.rules.insert(rule);
    }

    fn add_route(&mut self, service: &ObjectName, route: Route) {
        self.add_owner(service, Target::Route(route.clone()));
        self.desired.state.routes.insert(route);
    }

    /// Makes `rp_filter` loose where it would drop the service's packets.
    ///
    /// A strict filter drops a packet if the route back to its source leads through another interface; a loose one
    /// accepts it.
    fn loosen_rp_filter(&mut self, service: &ObjectName, interface: &InterfaceName) {
        let default_is_elsewhere = self
            .facts
            .default_route(Family::V4)
            .is_some_and(|default| default.interface != *interface);
        let own = Sysctl::RpFilter(Some(interface.clone()));
        let strict = self.facts.larger_of(Sysctl::RpFilter, interface) == 1;
        // The 2 that an earlier pass wrote must stay desired as long as it is needed.
        let is_loose = self.facts.sysctls.get(&own) == Some(&2);
        if default_is_elsewhere && (strict || is_loose) {
            self.want_exactly(service, own, 2);
        }
    }
}
