//! One pass: from what is wanted to a kernel that has it.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use lvs_kernel::{Kernel, KernelError, Needs, Network, fault};
use lvs_model::{
    Assignment, ClusterView, Difference, KernelState, Ledger, Node, NodeFacts, NodeName, NodeSpec,
    Outcomes, Plan, Problem, Rejection, ServiceKey, Step, desired, diff,
};

use crate::{
    report::Shown,
    state_dir::{StateDir, StateDirError},
};

mod memory;
mod part;

use memory::Seen;
pub(crate) use memory::{Extent, Memory};

/// Why a pass could not be made. Nothing was changed by it, or the ledger knows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    /// The kernel could not be observed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The ledger could not be read or stored.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
}

/// What a pass found, and what is to be done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prepared {
    /// What the kernel must hold.
    pub desired: Arc<KernelState>,
    /// What the pass looked for.
    pub needs: Needs,
    /// What the kernel holds, as far as the pass looked.
    pub observed: KernelState,
    /// What was owned before.
    pub ledger: Ledger,
    /// What the machine does.
    pub spec: Arc<NodeSpec>,
    /// What it is, without what is ours.
    pub facts: NodeFacts,
    /// The steps.
    pub plan: Plan,
    /// What keeps virtual services from working in full.
    pub problems: Vec<Problem>,
    /// The objects that were refused.
    pub rejections: Vec<Rejection>,
    /// Steps that are not taken, and why.
    pub held: Vec<(Step, String)>,
    /// How long it took so far.
    pub timing: Timing,
}

/// What a pass has done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Applied {
    /// What it had found and planned.
    pub prepared: Prepared,
    /// What became of the steps.
    pub outcomes: Outcomes,
    /// How long reading, deciding and programming took.
    pub timing: Timing,
}

/// How long the parts of a pass took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timing {
    /// Reading the kernel and deciding.
    pub prepare: Duration,
    /// Storing the ledger.
    pub ledger: Duration,
    /// Programming the kernel.
    pub execute: Duration,
}

/// One machine's agent.
pub(crate) struct Agent {
    /// The machine's name.
    pub node: NodeName,
    /// Its kernel.
    pub kernel: Kernel,
    state: StateDir,
    ledger: Ledger,
    memory: Memory,
}

impl Agent {
    /// An agent with the ledger of its state directory.
    pub(crate) async fn new(node: NodeName, state: StateDir) -> Result<Self, PassError> {
        let ledger = state.load_ledger()?;
        Ok(Self {
            node,
            kernel: Kernel::connect().await?,
            state,
            ledger,
            memory: Memory::default(),
        })
    }

    /// The state directory.
    pub(crate) const fn state(&self) -> &StateDir {
        &self.state
    }

    /// Makes the kernel hold what is wanted.
    pub(crate) async fn pass(
        &mut self,
        view: &ClusterView,
        extent: Extent,
    ) -> Result<Applied, PassError> {
        let mut prepared = self.prepare(view, extent).await?;
        self.memory.hold_back(&mut prepared);
        self.apply(prepared).await
    }

    /// Works out what a pass would do; touches nothing but for loading IPVS.
    pub(crate) async fn prepare(
        &mut self,
        view: &ClusterView,
        extent: Extent,
    ) -> Result<Prepared, PassError> {
        let started = Instant::now();
        let seen = match self.memory.recall(extent) {
            Some(seen) => Sight::Recalled(seen),
            None => Sight::Network(self.kernel.observe_network().await?),
        };
        let Assignment {
            mut spec,
            rejections,
            mut problems,
            has_served,
        } = self
            .memory
            .assign(view, &seen.node(&self.node, &self.ledger));
        problems.extend(self.require_ipvs(&mut spec).await);
        let needs = Needs::of(&spec, &self.ledger);
        let Seen {
            mut observed,
            facts,
            ..
        } = self.see(seen, needs).await?;
        let wanted = desired(&spec, &facts);
        let changed = self
            .memory
            .changed_services(extent, &wanted.state, &self.ledger);
        if needs.ipvs {
            observed.services = self.kernel.observe_services(changed.as_ref()).await?;
        }
        let (mut ledger, difference) =
            compare(&wanted.state, &observed, &self.ledger, changed.as_ref());
        ledger.has_served = has_served;
        problems.extend(wanted.problems);
        problems.extend(difference.problems);
        let timing = Timing {
            prepare: started.elapsed(),
            ..Timing::default()
        };
        Ok(Prepared {
            desired: Arc::new(wanted.state),
            needs,
            observed,
            ledger,
            spec: Arc::new(spec),
            facts,
            plan: difference.plan,
            problems,
            rejections,
            held: Vec::new(),
            timing,
        })
    }

    /// Reads the rest of what a pass must know, unless that is what the last one has seen.
    async fn see(&mut self, sight: Sight, needs: Needs) -> Result<Seen, PassError> {
        let network = match sight {
            Sight::Recalled(seen) if seen.needs == needs => return Ok(seen),
            Sight::Recalled(_) => self.kernel.observe_network().await?,
            Sight::Network(network) => network,
        };
        let (observed, facts) = self.kernel.observe(network, needs).await?;
        let facts = facts.without_ours(&observed, &self.ledger);
        Ok(Seen {
            needs,
            observed,
            facts,
        })
    }

    /// What this kernel holds, and whose it is. IPVS is not loaded for it.
    pub(crate) async fn show(&mut self) -> Result<Shown, PassError> {
        let network = self.kernel.observe_network().await?;
        let needs = Needs {
            ipvs: lvs_kernel::has_ipvs(),
            masquerade: self.ledger.masquerade,
            fou_ports: true,
            listeners: false,
        };
        let (mut observed, _) = self.kernel.observe(network, needs).await?;
        if needs.ipvs {
            observed.services = self.kernel.observe_services(None).await?;
        }
        Ok(Shown::new(self.node.as_str(), &observed, &self.ledger))
    }

    /// Works out how to remove what is owned and to write the sysctls back. What the machine has been is forgotten.
    pub(crate) async fn prepare_cleanup(&mut self) -> Result<Prepared, PassError> {
        let network = self.kernel.observe_network().await?;
        let needs = Needs {
            masquerade: true,
            fou_ports: true,
            ..Needs::of(&NodeSpec::default(), &self.ledger)
        };
        let (mut observed, _) = self.kernel.observe(network, needs).await?;
        if needs.ipvs {
            observed.services = self.kernel.observe_services(None).await?;
        }
        let (mut ledger, difference) =
            compare(&KernelState::default(), &observed, &self.ledger, None);
        ledger.has_served = false;
        Ok(Prepared {
            observed,
            ledger,
            plan: difference.plan,
            ..Prepared::default()
        })
    }

    /// Executes a plan, with the ledger ahead of whatever is made and behind whatever is removed.
    pub(crate) async fn apply(&mut self, prepared: Prepared) -> Result<Applied, PassError> {
        let mut timing = prepared.timing;
        let started = Instant::now();
        fault::point();
        let intended = prepared.ledger.intend(&prepared.plan, &prepared.observed);
        self.store(intended)?;
        timing.ledger = started.elapsed();

        let started = Instant::now();
        let outcomes = self.kernel.execute(&prepared.plan).await;
        timing.execute = started.elapsed();

        self.store(self.ledger.settle(&prepared.plan, &outcomes))?;
        fault::point();
        self.memory.remember(&prepared, &outcomes);
        Ok(Applied {
            prepared,
            outcomes,
            timing,
        })
    }

    /// Takes the director's part out of a spec that this kernel cannot serve; real servers need no IPVS.
    async fn require_ipvs(&mut self, spec: &mut NodeSpec) -> Vec<Problem> {
        if spec.directs.is_empty() {
            return Vec::new();
        }
        let Err(error) = self.kernel.load_ipvs().await else {
            return Vec::new();
        };
        spec.directs.clear();
        vec![Problem::error(None, lvs_runtime::error::chain(&error))]
    }

    fn store(&mut self, ledger: Ledger) -> Result<(), StateDirError> {
        if self.ledger != ledger {
            self.state.store_ledger(&ledger)?;
            self.ledger = ledger;
        }
        Ok(())
    }
}

/// What a pass knows of the machine before it knows what it must look at.
enum Sight {
    /// What the last pass has seen.
    Recalled(Seen),
    /// The network as it is.
    Network(Network),
}

impl Sight {
    fn node(&self, name: &NodeName, ledger: &Ledger) -> Node {
        let network = match self {
            Self::Recalled(seen) => return seen.facts.node(name.clone(), ledger),
            Self::Network(network) => network,
        };
        let facts = NodeFacts {
            addresses: network.interface_addresses.clone(),
            ..NodeFacts::default()
        };
        let observed = KernelState {
            addresses: network.addresses.clone(),
            ..KernelState::default()
        };
        facts
            .without_ours(&observed, ledger)
            .node(name.clone(), ledger)
    }
}

/// The difference, and the ledger without what is gone; over all services or only some.
fn compare(
    wanted: &KernelState,
    observed: &KernelState,
    ledger: &Ledger,
    only: Option<&BTreeSet<ServiceKey>>,
) -> (Ledger, Difference) {
    let Some(keys) = only else {
        let ledger = ledger.without_gone(wanted, observed);
        let difference = diff(wanted, observed, &ledger);
        return (ledger, difference);
    };
    let services = keys
        .iter()
        .filter_map(|key| Some((*key, wanted.services.get(key)?.clone())))
        .collect();
    let KernelState {
        sysctls,
        fou_ports,
        links,
        addresses,
        routes,
        rules,
        masquerade,
        timeouts,
        services: _,
    } = wanted;
    let wanted = KernelState {
        sysctls: sysctls.clone(),
        fou_ports: fou_ports.clone(),
        links: links.clone(),
        addresses: addresses.clone(),
        routes: routes.clone(),
        rules: rules.clone(),
        masquerade: masquerade.clone(),
        timeouts: *timeouts,
        services,
    };
    let mut part = ledger.clone();
    part.services.retain(|key| keys.contains(key));
    let mut part = part.without_gone(&wanted, observed);
    let difference = diff(&wanted, observed, &part);
    part.services
        .extend(ledger.services.iter().filter(|key| !keys.contains(key)));
    (part, difference)
}
