//! The state kept between passes. Losing it costs time, nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use lvs_model::{
    AcceptedVips, Assignment, Baseline, ClusterView, DirectorGroup, GroupName, KernelState, Ledger,
    Node, NodeFacts, NodeSpec, ObjectName, ObjectRef, Outcome, Outcomes, Problem, RouteAnswers,
    ServiceExtent, ServiceKey, Settling, Step, StepFailure, Subject, Sysctl, SysctlStep, Target,
    Update, VirtualService, assign,
};

use super::{
    Prepared, RoutesUsed, Scope, Seen,
    fitness::{Fitness, Unfit},
    preemption::CatchUp,
};

/// The state kept between passes.
#[derive(Default)]
pub(super) struct Memory {
    /// The desired state of the last pass; `None` if that pass did not succeed.
    baseline: Option<Baseline>,
    /// The sysctls that were observed at their desired values.
    verified: BTreeMap<Sysctl, Verified>,
    /// What the last pass observed; `None` if the pass or the holder changed some of it.
    seen: Option<Seen>,
    /// The addresses whose routes the last pass over all objects has used.
    routes_used: RoutesUsed,
    /// The last version of each virtual service that was assigned without a rejection.
    assigned: BTreeMap<ObjectName, Arc<VirtualService>>,
    /// Whether the last assignment had no rejection.
    all_are_assigned: bool,
    /// The virtual services with a problem in the last pass over all objects.
    with_problems: BTreeSet<ObjectName>,
    /// Whether the machine can forward what its VIPs receive.
    fitness: Fitness,
    catch_up: CatchUp,
    /// The sets of real servers that have just changed.
    settling: Settling,
}

/// A sysctl that was observed at its desired value.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Verified {
    value: i64,
    /// The index of its interface. One that was made anew has the kernel's value, which no other program has set.
    index: Option<u32>,
}

impl Verified {
    fn of(sysctl: &Sysctl, value: i64, facts: &NodeFacts) -> Self {
        let interface = sysctl.interface();
        let found = interface.and_then(|name| facts.interfaces.get(name));
        Self {
            value,
            index: found.map(|interface| interface.index),
        }
    }
}

impl Memory {
    /// Assigns the objects. A group that is gone stays in force as long as an accepted virtual service names it: `groups` has the last
    /// versions. A virtual service that is refused is replaced by its last accepted version.
    pub(super) fn assign(
        &mut self,
        view: &ClusterView,
        node: &Node,
        groups: &BTreeMap<GroupName, DirectorGroup>,
    ) -> Assignment {
        let first = assign(view, node);
        self.all_are_assigned = first.rejections.is_empty();
        if self.all_are_assigned {
            self.assigned.clone_from(&view.services);
            return first;
        }
        let mut accepted = view.clone();
        let refused = if restore_groups(&mut accepted, &node.accepted, groups) {
            assign(&accepted, node)
        } else {
            first.clone()
        };
        let assignment = if self.restore_services(&mut accepted, &refused) {
            assign(&accepted, node)
        } else {
            refused
        };
        self.assigned
            .retain(|name, _| view.services.contains_key(name));
        for (name, service) in &accepted.services {
            if has_role(&assignment.spec, name) {
                self.assigned.insert(name.clone(), service.clone());
            }
        }
        Assignment {
            rejections: first.rejections,
            ..assignment
        }
    }

    /// Replaces the sets of real servers that have just changed by those from before. Returns how long until the first of them is due.
    pub(super) fn settle(&mut self, spec: &mut NodeSpec) -> Option<Duration> {
        self.settling.hold(&mut spec.directs, Instant::now())
    }

    /// Replaces each virtual service that is refused by its last accepted version. Returns whether any differs from that.
    fn restore_services(&self, view: &mut ClusterView, assignment: &Assignment) -> bool {
        let mut has_changed = false;
        for rejection in &assignment.rejections {
            if let Some(ObjectRef::VirtualService(name)) = &rejection.object
                && !has_role(&assignment.spec, name)
                && let Some(before) = self.assigned.get(name)
            {
                let refused = view.services.insert(name.clone(), Arc::clone(before));
                has_changed |= refused.as_ref() != Some(before);
            }
        }
        has_changed
    }

    /// Takes the last observation, if a pass of this scope need not observe again.
    pub(super) fn recall(&mut self, scope: &Scope) -> Option<Seen> {
        let is_enough = match scope {
            Scope::Services(_) | Scope::Objects => true,
            Scope::Network | Scope::Everything => false,
        };
        self.seen.take().filter(|_| is_enough)
    }

    /// The IPVS services to read. Unless all must be read, these are the desired ones that have changed or are not owned, and
    /// the owned ones that are not desired.
    pub(super) fn services_to_read(
        &self,
        scope: &Scope,
        wanted: &KernelState,
        ledger: &Ledger,
    ) -> ServiceExtent {
        let is_partial = *scope != Scope::Everything;
        let Some(baseline) = self.baseline.as_ref().filter(|_| is_partial) else {
            return ServiceExtent::All;
        };
        let is_settled = |key: &ServiceKey, service| {
            baseline.state.services.get(key) == Some(service) && ledger.owns(&Target::Service(*key))
        };
        let changed = wanted.services.iter();
        let changed = changed.filter(|(key, service)| !is_settled(key, service));
        let unwanted = ledger.services();
        let unwanted = unwanted.filter(|key| !wanted.services.contains_key(key));
        let keys = changed.map(|(key, _)| key).chain(unwanted);
        ServiceExtent::Only(keys.copied().collect())
    }

    /// The addresses whose routes the last pass has used.
    pub(super) fn routes_used(&self) -> RoutesUsed {
        self.routes_used.clone()
    }

    /// The real servers in new versions of virtual services whose routes were not asked for yet.
    pub(super) fn unasked(
        &self,
        view: &ClusterView,
        names: &BTreeSet<ObjectName>,
    ) -> BTreeSet<IpAddr> {
        let Some(seen) = &self.seen else {
            return BTreeSet::new();
        };
        let services = names.iter().filter_map(|name| view.services.get(name));
        seen.facts.unasked_servers(services.map(AsRef::as_ref))
    }

    /// Adds routes to the last observation.
    pub(super) fn add_routes(&mut self, answers: RouteAnswers) {
        if let Some(seen) = self.seen.as_mut().filter(|_| !answers.is_empty()) {
            seen.facts.add_routes(answers);
            self.routes_used = RoutesUsed::new(&seen.facts.routes_to);
        }
    }

    /// Computes the effect of newer versions of some virtual services; `None` if a pass over all objects is needed, because
    /// they may affect more than their own IPVS services or the last pass was incomplete.
    pub(super) fn update(
        &self,
        view: &ClusterView,
        names: &BTreeSet<ObjectName>,
        ledger: &Ledger,
    ) -> Option<Update> {
        let baseline = self.baseline.as_ref().filter(|_| self.all_are_assigned)?;
        let facts = &self.seen.as_ref()?.facts;
        let mut changed = BTreeMap::new();
        for name in names {
            let service = view.services.get(name)?;
            changed.insert(name.clone(), Arc::clone(service));
        }
        if names.iter().any(|name| self.with_problems.contains(name)) {
            return None;
        }
        let update = baseline.update(&changed, facts)?;
        let mut keys = update.desired.state.services.keys();
        keys.all(|key| ledger.owns(&Target::Service(*key)))
            .then_some(update)
    }

    /// Removes sysctls from a plan that another program has changed after they had our value, and the steps that need them.
    /// They are reported instead, since two programs that restore their value would never end.
    pub(super) fn hold_back(&self, prepared: &mut Prepared) {
        let Prepared {
            plan,
            problems,
            seen,
            ..
        } = prepared;
        let mut steps = plan.steps.iter();
        if !steps.any(|step| self.contested(step, &seen.facts).is_some()) {
            return;
        }
        let mut held_back = Outcomes::default();
        let steps = std::mem::take(&mut plan.steps);
        for (index, step) in steps.into_iter().enumerate() {
            let subject = Subject::Target(step.target());
            if let Some(reason) = self.contested(&step, &seen.facts) {
                problems.push(Problem::error(subject, reason.clone()));
                held_back.fail(index, &step, StepFailure::refused(reason));
            } else if held_back.skips(index, &step) {
                let message =
                    format!("skipped: {step}: another program has changed a sysctl that it needs");
                problems.push(Problem::error(subject, message));
            } else {
                plan.steps.push(step);
            }
        }
    }

    /// Returns why a sysctl is not set again; `None` for any other step.
    fn contested(&self, step: &Step, facts: &NodeFacts) -> Option<String> {
        let Step::Sysctl(SysctlStep::Set {
            sysctl,
            value,
            previous: Some(found),
        }) = step
        else {
            return None;
        };
        if *sysctl == Sysctl::VsBackupOnly {
            // Left as another program sets it, the machine would forward nothing.
            return None;
        }
        let verified = Verified::of(sysctl, *value, facts);
        (self.verified.get(sysctl) == Some(&verified)).then(|| {
            format!(
                "lvs-agent had set {sysctl} to {value} and another program has set it to {found}, which is left as it is; \
                 stop that program, then restart lvs-agent"
            )
        })
    }

    /// Decides which VIPs the machine is not fit to hold.
    pub(super) fn judge(&mut self, spec: &NodeSpec, facts: &NodeFacts) -> Unfit {
        self.fitness.judge(spec, facts, Instant::now())
    }

    /// Returns how long it takes until the connection-sync daemons have caught up; `None` if they have.
    pub(super) fn catch_up(
        &mut self,
        desired: &KernelState,
        observed: &KernelState,
    ) -> Option<Duration> {
        let (desired, observed) = (&desired.sync_daemons, &observed.sync_daemons);
        self.catch_up.time_left(desired, observed, Instant::now())
    }

    /// Remembers the result of a pass.
    pub(super) fn remember(&mut self, prepared: &Prepared, outcomes: &Outcomes) {
        match prepared.scope {
            Scope::Services(_) => self.remember_update(prepared, outcomes),
            Scope::Objects | Scope::Network | Scope::Everything => {
                self.remember_all(prepared, outcomes);
            }
        }
    }

    fn remember_all(&mut self, prepared: &Prepared, outcomes: &Outcomes) {
        self.remember_sysctls(prepared, outcomes);
        let mut steps = prepared.plan.steps.iter();
        let is_of_services = steps.all(|step| matches!(step.target(), Target::Service(_)));
        let addresses = &prepared.seen.observed.addresses;
        let holding = prepared.holding.as_ref();
        let vips_stay = holding.is_none_or(|holding| holding.changes(addresses).is_empty());
        let is_whole = prepared.seen.unread.is_empty();
        self.routes_used = RoutesUsed::new(&prepared.seen.facts.routes_to);
        self.seen = (is_of_services && vips_stay && is_whole).then(|| prepared.seen.clone());
        self.with_problems = services_with_problems(prepared);
        self.baseline = outcomes.is_complete().then(|| Baseline {
            spec: Arc::clone(&prepared.spec),
            state: Arc::clone(&prepared.desired),
        });
    }

    fn remember_sysctls(&mut self, prepared: &Prepared, outcomes: &Outcomes) {
        let desired = &prepared.desired.sysctls;
        let observed = &prepared.seen.observed.sysctls;
        let facts = &prepared.seen.facts;
        for (sysctl, value) in desired {
            if observed.get(sysctl) == Some(value) {
                let verified = Verified::of(sysctl, *value, facts);
                self.verified.insert(sysctl.clone(), verified);
            }
        }
        for (index, step) in prepared.plan.steps.iter().enumerate() {
            if let Step::Sysctl(SysctlStep::Set { sysctl, value, .. }) = step
                && *outcomes.of(index) == Outcome::Done
            {
                let verified = Verified::of(sysctl, *value, facts);
                self.verified.insert(sysctl.clone(), verified);
            }
        }
        self.verified
            .retain(|sysctl, _| desired.contains_key(sysctl));
    }

    fn remember_update(&mut self, prepared: &Prepared, outcomes: &Outcomes) {
        let baseline = self.baseline.take().filter(|_| outcomes.is_complete());
        self.baseline = baseline.map(|mut baseline| {
            baseline.apply(&prepared.spec, &prepared.desired);
            baseline
        });
        for (name, director) in &prepared.spec.directs {
            self.assigned
                .insert(name.clone(), Arc::clone(&director.service));
        }
    }
}

/// Adds the last version of each group that is missing and that an accepted virtual service still names. Returns whether there is
/// any.
fn restore_groups(
    view: &mut ClusterView,
    accepted: &AcceptedVips,
    groups: &BTreeMap<GroupName, DirectorGroup>,
) -> bool {
    let before = view.groups.len();
    for (name, service) in &view.services {
        if let Some(group) = groups
            .get(&service.group)
            .filter(|_| accepted.contains_key(name))
        {
            let entry = view.groups.entry(service.group.clone());
            entry.or_insert_with(|| group.clone());
        }
    }
    view.groups.len() > before
}

/// Returns whether a machine directs or serves a virtual service.
fn has_role(spec: &NodeSpec, name: &ObjectName) -> bool {
    spec.directs.contains_key(name) || spec.serves.contains_key(name)
}

/// The virtual services with a problem.
fn services_with_problems(prepared: &Prepared) -> BTreeSet<ObjectName> {
    let mut names = BTreeSet::new();
    for problem in &prepared.problems {
        match &problem.subject {
            Subject::Service(name) | Subject::Serving(name) => drop(names.insert(name.clone())),
            Subject::Target(target @ Target::Service(_)) => {
                names.extend(prepared.owners.of(target).iter().cloned());
            }
            // Another version of a service's real servers changes nothing about these.
            Subject::Target(_) | Subject::Machine => {}
        }
    }
    names
}
