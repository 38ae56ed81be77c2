//! Computes what the kernel of one machine must hold.

use crate::{KernelState, NodeFacts, NodeSpec, Owners, Problem};

mod builder;
mod director;
mod real_server;

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
    builder.finish_directors(spec);
    for (name, role) in &spec.serves {
        builder.serve(name, role);
    }
    let Builder {
        mut state,
        owners,
        mut problems,
        ..
    } = builder;
    state.timeouts = spec.timeouts.filter(|_| !spec.directs.is_empty());
    problems.sort();
    problems.dedup();
    Desired {
        state,
        owners,
        problems,
    }
}
