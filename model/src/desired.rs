//! What the kernel of one machine must hold.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    AddressConfig, AddressKey, Family, InterfaceName, KernelState, NodeFacts, NodeSpec, ObjectName,
    Owner, PolicyRule, Problem, Sysctl,
};

mod director;
mod real_server;

/// What the kernel of one machine must hold, and what keeps a virtual service from working in full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The state.
    pub state: KernelState,
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

struct Build<'a> {
    facts: &'a NodeFacts,
    desired: Desired,
    /// The VIPs whose place is known: `None` for one that cannot be placed.
    placed: BTreeMap<IpAddr, Option<InterfaceName>>,
    /// The tables that lead to directors.
    return_tables: BTreeMap<IpAddr, u32>,
}

impl<'a> Build<'a> {
    fn new(spec: &NodeSpec, facts: &'a NodeFacts) -> Self {
        Self {
            facts,
            desired: Desired::default(),
            placed: BTreeMap::new(),
            return_tables: real_server::return_tables(spec),
        }
    }

    fn error(&mut self, service: &ObjectName, message: impl Into<String>) {
        self.desired
            .problems
            .push(Problem::error(Some(service), message));
    }

    fn warn(&mut self, service: &ObjectName, message: impl Into<String>) {
        self.desired
            .problems
            .push(Problem::warning(Some(service), message));
    }

    /// Wants a sysctl, or leaves it when its value is good enough.
    fn want(&mut self, sysctl: Sysctl, value: i64, good: impl Fn(i64) -> bool) {
        let value = self
            .facts
            .sysctls
            .get(&sysctl)
            .copied()
            .filter(|found| good(*found))
            .unwrap_or(value);
        self.desired.state.sysctls.insert(sysctl, value);
    }

    fn want_exactly(&mut self, sysctl: Sysctl, value: i64) {
        self.desired.state.sysctls.insert(sysctl, value);
    }

    fn add_address(&mut self, key: AddressKey, deprecated: bool) {
        self.desired.state.addresses.insert(
            key,
            AddressConfig {
                deprecated,
                owner: Owner::Ours,
            },
        );
    }

    /// Packets whose way back leads through another interface are dropped by a strict filter; a loose one takes them.
    fn loosen_rp_filter(&mut self, interface: &InterfaceName) {
        let leaves_elsewhere = self
            .facts
            .default_route(Family::V4)
            .is_some_and(|default| default.interface != *interface);
        let own = Sysctl::RpFilter(Some(interface.clone()));
        let strict = self.facts.larger_of(Sysctl::RpFilter, interface) == 1;
        // A 2 that we wrote in an earlier pass stays wanted as long as it is needed.
        let is_loose = self.facts.sysctls.get(&own) == Some(&2);
        if leaves_elsewhere && (strict || is_loose) {
            self.want_exactly(own, 2);
        }
    }

    fn add_rule(&mut self, selector: crate::RuleSelector, table: u32) {
        self.desired
            .state
            .rules
            .insert(PolicyRule { selector, table });
    }
}
