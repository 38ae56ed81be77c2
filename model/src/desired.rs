//! What the kernel of one machine must hold.

use crate::{KernelState, NodeFacts, NodeSpec, Owners, Problem};

mod builder;
mod director;
mod real_server;

use builder::Builder;

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
