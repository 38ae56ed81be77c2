//! One pass: makes the kernel match the configuration.
//!
//! ```text
//! observe  the network, unless the last observation still holds
//! decide   assign, desired: over all objects, or over some virtual services
//! compare  diff, holding: plan and VIPs
//! apply    ledger, plan, ledger; the VIPs are handed to the holder
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use lvs_kernel::fault;
use lvs_model::{
    AddressKey, Assignment, ClusterView, Desired, Difference, DirectorGroup, Extent, GroupName,
    Holding, KernelState, Ledger, Needs, Network, NodeName, NodeSpec, ObjectName, Outcomes, Owner,
    Owners, Part, Problem, Rejection, ServiceExtent, Subject, Target, desired, diff, holding,
    report::NodeState,
};
use lvs_runtime::error::chain;
use tracing::warn;

use crate::{
    kernel::{Kernel, KernelError},
    state_dir::{StateDir, StateDirError},
};

mod fitness;
mod memory;
mod messages;
mod preemption;
mod prepared;
mod read;
mod routes_used;
mod scope;
mod second_chance;
mod unread;

use memory::Memory;
use preemption::{incomplete_vips, synced_vips};
pub(crate) use prepared::{Prepared, Seen, Timing};
pub(crate) use routes_used::RoutesUsed;
pub(crate) use scope::Scope;
use unread::unread;

/// A pass failed. Whatever it changed is in the ledger.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    /// The kernel could not be observed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The ledger could not be read or stored.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
}

/// The result of a pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct Applied {
    /// What the pass had observed and decided.
    pub prepared: Prepared,
    /// The outcomes of the steps.
    pub outcomes: Outcomes,
    /// How long reading, deciding and programming took.
    pub timing: Timing,
}

impl Applied {
    /// Returns whether everything was read and every step was done. If not, the pass is retried.
    pub(crate) fn is_complete(&self) -> bool {
        self.outcomes.is_complete() && self.prepared.seen.unread.is_empty()
    }
}

/// Holds the VIPs that the network sees.
pub(crate) trait HoldVips {
    /// Removes VIPs before the services behind them are removed. Waits until each was tried, for a limited time.
    async fn release(&mut self, first: Holding);

    /// Replaces the VIPs to hold and to release, all of which are in the ledger already.
    fn hand_over(&mut self, holding: Holding);

    /// Hands the VIPs that it went on with at the start of this process over to another director, if there is one: no configuration is
    /// in force.
    fn give_way(&mut self) {}

    /// Returns the VIPs that could not be added. They are retried.
    fn failed(&self) -> Vec<AddressKey>;
}

/// What a pass has decided before it reads IPVS services.
struct Decision {
    scope: Scope,
    spec: Arc<NodeSpec>,
    seen: Seen,
    wanted: Desired,
    extent: Extent,
    rejections: Vec<Rejection>,
    without_group: BTreeSet<ObjectName>,
    next_pass: Option<Duration>,
}

/// The agent of one machine.
pub(crate) struct Agent<K, H> {
    kernel: K,
    holder: H,
    state: StateDir,
    ledger: Ledger,
    /// Whether the ledger differs from the one that is stored.
    is_ledger_changed: bool,
    /// What every pass reports: a ledger that could not be read.
    problem: Option<Problem>,
    /// The addresses that this machine needs for itself, which are no VIPs.
    essentials: BTreeMap<IpAddr, String>,
    memory: Memory,
}

impl<K: Kernel, H: HoldVips> Agent<K, H> {
    /// Creates an agent with the ledger of its state directory.
    pub(crate) fn new(kernel: K, holder: H, state: StateDir) -> Result<Self, StateDirError> {
        let ledger = state.load_ledger()?;
        Ok(Self {
            kernel,
            holder,
            ledger,
            is_ledger_changed: false,
            problem: state
                .unreadable_ledger()
                .map(|path| unreadable_ledger(&path)),
            state,
            essentials: BTreeMap::new(),
            memory: Memory::default(),
        })
    }

    /// Sets the addresses that this machine needs for itself, and what each is.
    pub(crate) fn set_essentials(&mut self, essentials: BTreeMap<IpAddr, String>) {
        self.essentials = essentials;
    }

    /// The state directory.
    pub(crate) const fn state(&self) -> &StateDir {
        &self.state
    }

    /// The addresses whose routes the last pass has used.
    pub(crate) fn routes_used(&self) -> RoutesUsed {
        self.memory.routes_used()
    }

    /// Returns whether nft tables are ours.
    pub(crate) fn has_nft_tables(&self) -> bool {
        let mut tables = [Target::Masquerade, Target::Strays].into_iter();
        tables.any(|table| self.ledger.owns(&table))
    }

    /// The holder of the VIPs.
    pub(crate) const fn holder(&mut self) -> &mut H {
        &mut self.holder
    }

    /// Makes the kernel match the configuration. A pass over some virtual services becomes one over all objects if it fails
    /// or if its changes may affect more than their own IPVS services.
    pub(crate) async fn pass(
        &mut self,
        node: &NodeName,
        view: &ClusterView,
        scope: Scope,
    ) -> Result<Applied, PassError> {
        let is_partial = scope.is_of_some_services();
        let result = self.attempt(node, view, scope).await;
        let is_final = match &result {
            Ok(applied) => !applied.prepared.scope.is_of_some_services() || applied.is_complete(),
            Err(_) => !is_partial,
        };
        if is_final {
            return result;
        }
        self.attempt(node, view, Scope::Objects).await
    }

    /// Removes VIPs from the ledger that the holder could not add: this process ends, and tries no more.
    pub(crate) fn forget_failed(&mut self) -> Result<(), StateDirError> {
        let failed = self.holder.failed();
        self.forget_vips(failed)
    }

    async fn attempt(
        &mut self,
        node: &NodeName,
        view: &ClusterView,
        scope: Scope,
    ) -> Result<Applied, PassError> {
        let prepared = self.prepare(node, view, scope).await?;
        self.apply(prepared).await
    }

    /// Decides what a pass would do. Changes nothing in the kernel, except that IPVS is loaded.
    pub(crate) async fn prepare(
        &mut self,
        node: &NodeName,
        view: &ClusterView,
        scope: Scope,
    ) -> Result<Prepared, PassError> {
        let started = Instant::now();
        let decision = match self.decide_update(view, &scope).await? {
            Some(decision) => decision,
            None => self.decide(node, view, scope.of_all_objects()).await?,
        };
        let mut prepared = self.compare(decision).await?;
        self.memory.hold_back(&mut prepared);
        prepared.remove_nothing(&view.unreadable_objects);
        prepared.timing.prepare = started.elapsed();
        Ok(prepared)
    }

    /// Decides over all objects.
    async fn decide(
        &mut self,
        name: &NodeName,
        view: &ClusterView,
        scope: Scope,
    ) -> Result<Decision, PassError> {
        let recalled = self.memory.recall(&scope);
        let mut network = None;
        let node = match &recalled {
            Some(seen) => seen.facts.node(name.clone(), &self.ledger),
            None => {
                let observed = self.observe_network(&scope).await?;
                self.forget_failed_vips(&observed);
                let node = observed.node(name.clone(), &self.ledger);
                network = Some(observed);
                node
            }
        };
        let assignment = self.memory.assign(view, &node, &self.ledger.groups);
        self.record(view, &assignment);
        let Assignment {
            mut spec,
            rejections,
            mut problems,
            without_group,
            ..
        } = assignment;
        problems.extend(self.require_ipvs(&mut spec).await?);
        let next_pass = self.recall_servers(&mut spec, &node).await;
        problems.extend(self.require_ipvs_for_second_chances(&mut spec).await?);
        problems.extend(self.problem.clone());
        let needs = Needs::of(&spec, &self.ledger);
        let mut seen = match recalled.filter(|seen| seen.needs == needs) {
            Some(seen) => seen,
            None => {
                let network = match network {
                    Some(network) => network,
                    None => self.observe_network(&scope).await?,
                };
                self.observe(network, needs).await?
            }
        };
        let unasked = seen.facts.unasked(&spec);
        seen.facts.add_routes(self.routes_to(&unasked).await?);
        let mut wanted = desired(&spec, &seen.facts);
        wanted.problems.extend(problems);
        let services = self
            .memory
            .services_to_read(&scope, &wanted.state, &self.ledger);
        Ok(Decision {
            scope,
            spec: Arc::new(spec),
            extent: Extent {
                network: true,
                services,
                unread: seen.unread.keys().copied().collect(),
            },
            seen,
            wanted,
            rejections,
            without_group,
            next_pass,
        })
    }

    /// Removes VIPs from the ledger that the holder could not add and that exist now: another program has added them.
    fn forget_failed_vips(&mut self, network: &Network) {
        for key in self.holder.failed() {
            let found = network.addresses.get(&key);
            let is_foreign = found.is_some_and(|found| found.owner != Owner::Ours);
            self.is_ledger_changed |= is_foreign && self.ledger.forget(&Target::Address(key));
        }
    }

    /// Decides over some virtual services, if their new versions affect only their own IPVS services.
    async fn decide_update(
        &mut self,
        view: &ClusterView,
        scope: &Scope,
    ) -> Result<Option<Decision>, PassError> {
        let Scope::Services(names) = scope else {
            return Ok(None);
        };
        let unasked = self.memory.unasked(view, names);
        let answers = self.routes_to(&unasked).await?;
        self.memory.add_routes(answers);
        let Some(update) = self.memory.update(view, names, &self.ledger) else {
            return Ok(None);
        };
        let keys = update.desired.state.services.keys().copied().collect();
        Ok(Some(Decision {
            scope: scope.clone(),
            spec: Arc::new(update.spec),
            seen: Seen::default(),
            wanted: update.desired,
            extent: Extent {
                network: false,
                services: ServiceExtent::Only(keys),
                unread: BTreeSet::new(),
            },
            rejections: Vec::new(),
            without_group: BTreeSet::new(),
            next_pass: None,
        }))
    }

    /// Reads the IPVS services and makes the plan.
    async fn compare(&mut self, decision: Decision) -> Result<Prepared, PassError> {
        let Decision {
            scope,
            spec,
            seen,
            mut wanted,
            extent,
            rejections,
            without_group,
            next_pass,
        } = decision;
        let reads_ipvs = seen.needs.ipvs || !extent.network;
        let mut observed = KernelState::clone(&seen.observed);
        if reads_ipvs {
            let services = self.read_services(&extent.services, &wanted.state.services);
            observed.services = services.await?;
        }
        wanted.keep_absent(&observed.services, &self.ledger);
        let Desired {
            state,
            owners,
            mut problems,
            absences: _,
        } = wanted;
        self.is_ledger_changed |= self.ledger.forget_gone(&state, &observed, &extent);
        let difference = diff(&state, &observed, &self.ledger, &extent);
        let mut holding = extent.network.then(|| self.holding(&state, &observed));
        let mut next_pass = next_pass;
        if let Some(holding) = &mut holding {
            let unfit = self.memory.judge(&spec, &seen.facts);
            holding.put_on_standby_for(&unfit.vips);
            problems.extend(unfit.problem());
            let catch_up = self.memory.catch_up(&state, &observed);
            if catch_up.is_some() {
                holding.forbid_preemption_for(&synced_vips(&spec));
            }
            let next = [next_pass, unfit.next, catch_up];
            next_pass = next.into_iter().flatten().min();
        }
        problems.extend(difference.problems);
        for (part, reason) in &seen.unread {
            problems.extend(unread(*part, reason, self.owns(*part), &owners, &spec));
        }
        Ok(Prepared {
            scope,
            spec,
            seen,
            desired: Arc::new(state),
            owners,
            plan: difference.plan,
            holding,
            waits_for_holder: difference.waits_for_holder,
            problems,
            rejections,
            without_group,
            next_pass,
            timing: Timing::default(),
        })
    }

    fn holding(&self, desired: &KernelState, observed: &KernelState) -> Holding {
        let mut holding = holding(desired, observed, &self.ledger);
        if self.state.is_on_standby() {
            holding.put_on_standby();
        }
        holding
    }

    /// Executes a plan. The ledger is stored before anything is created, and again after anything is removed.
    pub(crate) async fn apply(&mut self, prepared: Prepared) -> Result<Applied, PassError> {
        let mut timing = prepared.timing;
        let started = Instant::now();
        fault::point();
        let observed = Arc::clone(&prepared.seen.observed);
        self.is_ledger_changed |= self.ledger.intend(&prepared.plan, &observed);
        if let Some(holding) = &prepared.holding {
            self.is_ledger_changed |= self.ledger.intend_vips(holding.hold.keys());
        }
        self.store_ledger()?;
        timing.ledger = started.elapsed();

        let started = Instant::now();
        if let Some(holding) = &prepared.holding
            && !holding.release.is_empty()
        {
            let first = holding.before_plan(&observed.addresses);
            self.holder.release(first).await;
        }
        let outcomes = self.kernel.execute(&prepared.plan).await;
        if let Some(holding) = &prepared.holding {
            let mut holding = holding.clone();
            holding.forbid_preemption_for(&incomplete_vips(&prepared.plan, &outcomes));
            let routers = holding.saved();
            self.holder.hand_over(holding);
            if let Err(error) = self.state.store_routers(routers) {
                warn!(
                    error = chain(&error),
                    "cannot save the virtual routers; VIPs may move when this agent is restarted"
                );
            }
        }
        timing.execute = started.elapsed();

        self.is_ledger_changed |= self.ledger.settle(&prepared.plan, &outcomes);
        self.store_ledger()?;
        fault::point();
        self.memory.remember(&prepared, &outcomes);
        Ok(Applied {
            prepared,
            outcomes,
            timing,
        })
    }
}

/// The operations that need no holder.
impl<K: Kernel, H> Agent<K, H> {
    /// Plans the removal of everything owned and the restoring of sysctls. Forgets that the machine was a real server.
    pub(crate) async fn prepare_cleanup(&mut self) -> Result<Prepared, PassError> {
        let needs = Needs {
            masquerade: true,
            fou_ports: true,
            strays: true,
            ..Needs::of(&NodeSpec::default(), &self.ledger)
        };
        let (observed, missing) = self.read_all(needs).await?;
        let (nothing, no_roles) = (KernelState::default(), NodeSpec::default());
        let extent = Extent {
            unread: missing.keys().copied().collect(),
            ..Extent::ALL
        };
        self.is_ledger_changed |= self.ledger.forget_gone(&nothing, &observed, &extent);
        let Difference {
            plan, mut problems, ..
        } = diff(&nothing, &observed, &self.ledger, &extent);
        for (part, reason) in missing.iter().filter(|(part, _)| self.owns(**part)) {
            problems.extend(unread(*part, reason, true, &Owners::default(), &no_roles));
        }
        let holding = holding(&nothing, &observed, &self.ledger);
        self.record_has_served(false, BTreeSet::new());
        self.forget_servers();
        Ok(Prepared {
            plan,
            holding: Some(holding),
            problems,
            seen: Seen {
                observed: Arc::new(observed),
                ..Seen::default()
            },
            ..Prepared::default()
        })
    }

    /// What this kernel holds, and which parts are owned. Does not load IPVS.
    pub(crate) async fn show(&mut self, node: String) -> Result<NodeState, PassError> {
        let needs = Needs {
            ipvs: self.kernel.has_ipvs(),
            masquerade: self.ledger.owns(&Target::Masquerade),
            fou_ports: true,
            listeners: false,
            strays: self.ledger.owns(&Target::Strays),
        };
        let (observed, _) = self.read_all(needs).await?;
        Ok(NodeState::new(node, &observed, &self.ledger))
    }

    /// Loads IPVS for a director. If there is none, removes the director's part of the spec; real servers need no IPVS.
    async fn require_ipvs(&mut self, spec: &mut NodeSpec) -> Result<Option<Problem>, KernelError> {
        if spec.directs.is_empty() {
            return Ok(None);
        }
        let Err(error) = self.kernel.load_ipvs().await else {
            return Ok(None);
        };
        if self.kernel.has_ipvs() {
            // It cannot be read at the moment, which says nothing about what is there.
            return Err(error);
        }
        spec.directs.clear();
        spec.gateways.clear();
        spec.connection_sync = None;
        Ok(Some(Problem::error(Subject::Machine, chain(&error))))
    }

    /// Returns whether something of a part is owned.
    fn owns(&self, part: Part) -> bool {
        match part {
            Part::Masquerade => self.ledger.owns(&Target::Masquerade),
            Part::FouPorts => self.ledger.owns_fou_ports(),
            Part::Strays => self.ledger.owns(&Target::Strays),
        }
    }

    /// Records in the ledger whether the machine has been a real server, and with which addresses it is one.
    fn record_has_served(&mut self, has_served: bool, served_at: BTreeSet<IpAddr>) {
        let ledger = &mut self.ledger;
        self.is_ledger_changed |= ledger.has_served != has_served || ledger.served_at != served_at;
        ledger.has_served = has_served;
        ledger.served_at = served_at;
    }

    /// Records in the ledger what an assignment says of the machine, which virtual services of files were accepted, and their groups.
    fn record(&mut self, view: &ClusterView, assignment: &Assignment) {
        self.record_has_served(assignment.has_served, assignment.served_at.clone());
        let accepted = &assignment.accepted;
        let ledger = &mut self.ledger;
        let services = accepted.keys().filter_map(|name| view.services.get(name));
        let named: BTreeSet<&GroupName> = services.map(|service| &service.group).collect();
        let known = ledger.groups.iter().chain(&view.groups);
        let known = known.filter(|(name, _)| named.contains(name));
        // Of two versions, the last one counts: that of the view.
        let groups = known.map(|(name, group)| (name.clone(), group.clone()));
        let groups: BTreeMap<GroupName, DirectorGroup> = groups.collect();
        if *ledger.accepted != *accepted {
            ledger.accepted = Arc::new(accepted.clone());
            self.is_ledger_changed = true;
        }
        self.is_ledger_changed |= ledger.groups != groups;
        ledger.groups = groups;
    }

    /// Removes VIPs from the ledger, and stores it.
    pub(crate) fn forget_vips(
        &mut self,
        keys: impl IntoIterator<Item = AddressKey>,
    ) -> Result<(), StateDirError> {
        for key in keys {
            self.is_ledger_changed |= self.ledger.forget(&Target::Address(key));
        }
        self.store_ledger()
    }

    fn store_ledger(&mut self) -> Result<(), StateDirError> {
        if self.is_ledger_changed {
            self.state.store_ledger(&self.ledger)?;
            self.is_ledger_changed = false;
        }
        Ok(())
    }
}

fn unreadable_ledger(path: &Path) -> Problem {
    let path = path.display();
    Problem::error(
        Subject::Machine,
        format!(
            "the ledger could not be read and is kept as {path}: IPVS services and sysctls that it named count as foreign and \
             stay as they are; remove the file once they are as they should be"
        ),
    )
}

#[cfg(test)]
mod tests;
