//! Computes what the kernel of one machine must hold.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{Absence, KernelState, NodeFacts, NodeSpec, Owners, Problem};

mod builder;
mod connection_sync;
mod director;
mod keep;
mod machine;
mod real_server;
mod second_chance;
mod shared;
mod tunnel_mtu;

use builder::Builder;

/// What the kernel of one machine must hold, and the problems that keep virtual services from working in full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// What the kernel must hold.
    pub state: KernelState,
    /// The virtual services that need each part of the state.
    pub owners: Owners,
    /// The problems, sorted and without duplicates.
    pub problems: Vec<Problem>,
    /// What is on no network at the moment. Call [`Desired::keep_absent`] once the services are observed.
    pub absences: Vec<Absence>,
}

/// Computes what a machine's kernel must hold.
///
/// `facts` must not contain addresses that the agent added: see [`NodeFacts::without_ours`].
#[must_use]
pub fn desired(spec: &NodeSpec, facts: &NodeFacts) -> Desired {
    let mut builder = Builder::new(facts, real_server::return_tables(spec));
    for (name, director) in &spec.directs {
        builder.direct(name, director);
    }
    let servers = real_servers(spec);
    for (name, gateways) in &spec.gateways {
        builder.hold_gateways(name, gateways, &servers);
    }
    builder.finish_directors(spec);
    builder.sync_connections(spec);
    for (name, role) in &spec.serves {
        builder.serve(name, role, spec.directs.get(name));
    }
    for chance in &spec.second_chances {
        builder.give_second_chance(chance);
    }
    let Builder {
        mut state,
        owners,
        mut problems,
        absences,
        ..
    } = builder;
    state.timeouts = spec.timeouts.filter(|_| !spec.directs.is_empty());
    problems.sort();
    problems.dedup();
    Desired {
        state,
        owners,
        problems,
        absences,
    }
}

/// The addresses of the real servers, if the machine has to know whether a gateway is one.
fn real_servers(spec: &NodeSpec) -> BTreeSet<IpAddr> {
    let directs = spec.directs.values().filter(|_| !spec.gateways.is_empty());
    let servers = directs.flat_map(|director| &director.service.real_servers);
    servers.map(|server| server.address).collect()
}
