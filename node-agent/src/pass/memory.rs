//! What is remembered from pass to pass. Losing it costs time, nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lvs_model::{
    Assignment, ClusterView, KernelState, Ledger, Node, NodeFacts, ObjectName, Outcome, Outcomes,
    Part, Problem, ServiceKey, Settled, Step, StepFailure, Sysctl, VirtualService, assign,
};

use super::Prepared;
use lvs_kernel::Needs;

/// How much of the kernel a pass looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it.
    Whole,
    /// The network, which has changed; of the IPVS table the services whose wanted state has changed since the last pass
    /// that succeeded.
    Network,
    /// Of the IPVS table the same, and the network as it was seen last: nothing was heard of a change.
    Wanted,
}

/// What a pass has seen beside the IPVS services.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// What it looked for.
    pub needs: Needs,
    /// What it found, without services.
    pub observed: KernelState,
    /// The facts, without what is ours.
    pub facts: NodeFacts,
}

/// What is remembered from pass to pass.
#[derive(Default)]
pub(crate) struct Memory {
    /// What was wanted when the last pass succeeded; `None` when it did not.
    settled: Option<Settled>,
    /// Sysctls that were seen at their wanted values.
    verified: BTreeMap<Sysctl, i64>,
    /// What the last pass has seen; `None` when it has changed some of it.
    seen: Option<Seen>,
    /// Virtual services as they were last assigned without a rejection.
    assigned: BTreeMap<ObjectName, Arc<VirtualService>>,
    /// Whether those are all that there are, as they are.
    all_are_assigned: bool,
    /// Virtual services that something was wrong with in the last pass over everything.
    troubled: BTreeSet<ObjectName>,
}

impl Memory {
    /// Assigns, with the last accepted version in the place of a virtual service that is refused as it is.
    pub(super) fn assign(&mut self, view: &ClusterView, node: &Node) -> Assignment {
        let first = assign(view, node);
        self.all_are_assigned = first.rejections.is_empty();
        if self.all_are_assigned {
            self.assigned.clone_from(&view.services);
            return first;
        }
        let mut bridged = view.clone();
        for (name, service) in &mut bridged.services {
            let object = format!("VirtualService {name}");
            if first
                .rejections
                .iter()
                .any(|rejection| rejection.object == object)
                && let Some(before) = self.assigned.get(name)
            {
                service.clone_from(before);
            }
        }
        let assignment = if bridged == *view {
            assign(view, node)
        } else {
            assign(&bridged, node)
        };
        let spec = &assignment.spec;
        self.assigned
            .retain(|name, _| view.services.contains_key(name));
        for (name, service) in &bridged.services {
            if spec.directs.contains_key(name) || spec.serves.contains_key(name) {
                self.assigned.insert(name.clone(), service.clone());
            }
        }
        Assignment {
            rejections: first.rejections,
            ..assignment
        }
    }

    /// What was seen last, when a pass of this extent need not look again.
    pub(super) fn recall(&mut self, extent: Extent) -> Option<Seen> {
        self.seen.take().filter(|_| extent == Extent::Wanted)
    }

    /// The services to look at; `None`: all. Something owned that is not wanted any more is among them.
    pub(super) fn changed_services(
        &self,
        extent: Extent,
        wanted: &KernelState,
        ledger: &Ledger,
    ) -> Option<BTreeSet<ServiceKey>> {
        let settled = self.settled.as_ref().filter(|_| extent != Extent::Whole)?;
        let changed = wanted
            .services
            .iter()
            .filter(|(key, service)| settled.state.services.get(key) != Some(service));
        let gone = ledger
            .services
            .iter()
            .filter(|key| !wanted.services.contains_key(key));
        Some(changed.map(|(key, _)| key).chain(gone).copied().collect())
    }

    /// Takes sysctls out of a plan that another program has changed after they had our value: that is reported, not
    /// fought. What needs them goes with them.
    pub(super) fn hold_back(&self, prepared: &mut Prepared) {
        let Prepared {
            plan,
            problems,
            held: not_taken,
            ..
        } = prepared;
        if !plan
            .steps
            .iter()
            .any(|step| self.is_contested(step).is_some())
        {
            return;
        }
        let mut held = Outcomes::default();
        let steps = std::mem::take(&mut plan.steps);
        for (index, step) in steps.into_iter().enumerate() {
            if let Some(reason) = self.is_contested(&step) {
                problems.push(Problem::error(None, reason.clone()));
                held.fail(index, &step, StepFailure::refused(reason.clone()));
                not_taken.push((step, reason));
            } else if held.skips(index, &step) {
                problems.push(Problem::error(
                    None,
                    format!("not done because of that: {step}"),
                ));
                let reason = match held.of(index) {
                    Outcome::Skipped { because } => format!("it needs {because}"),
                    Outcome::Failed(_) | Outcome::Done => String::new(),
                };
                not_taken.push((step, reason));
            } else {
                plan.steps.push(step);
            }
        }
    }

    /// Says why a sysctl is not set again; `None` for any other step.
    fn is_contested(&self, step: &Step) -> Option<String> {
        let Step::SetSysctl {
            sysctl,
            value,
            previous: Some(found),
        } = step
        else {
            return None;
        };
        (self.verified.get(sysctl) == Some(value)).then(|| {
            format!(
                "{sysctl} was set to {value} here and another program has set it to {found}; it is left so: stop that \
                 program, then restart lvs-agent"
            )
        })
    }

    /// Remembers what a pass has reached.
    pub(super) fn remember(&mut self, prepared: &Prepared, outcomes: &Outcomes) {
        for (sysctl, value) in &prepared.desired.sysctls {
            if prepared.observed.sysctls.get(sysctl) == Some(value) {
                self.verified.insert(sysctl.clone(), *value);
            }
        }
        for (index, step) in prepared.plan.steps.iter().enumerate() {
            if let Step::SetSysctl { sysctl, value, .. } = step
                && *outcomes.of(index) == Outcome::Done
            {
                self.verified.insert(sysctl.clone(), *value);
            }
        }
        self.verified
            .retain(|sysctl, _| prepared.desired.sysctls.contains_key(sysctl));
        let is_ipvs_only = prepared.plan.steps.iter().all(is_of_a_service);
        self.seen = is_ipvs_only.then(|| Seen {
            needs: prepared.needs,
            observed: KernelState {
                services: BTreeMap::new(),
                ..prepared.observed.clone()
            },
            facts: prepared.facts.clone(),
        });
        let problems = prepared.problems.iter();
        self.troubled = problems
            .filter_map(|problem| problem.service.clone())
            .collect();
        self.settled = outcomes.is_complete().then(|| Settled {
            spec: Arc::clone(&prepared.spec),
            state: Arc::clone(&prepared.desired),
        });
    }

    /// What follows from new versions of virtual services, when the rest of what was wanted and seen last stays as it is.
    pub(super) fn part(&self, changed: &BTreeMap<ObjectName, Arc<VirtualService>>) -> Option<Part> {
        let settled = self.settled.as_ref().filter(|_| self.all_are_assigned)?;
        let is_well = changed.keys().all(|name| !self.troubled.contains(name));
        let facts = &self.seen.as_ref()?.facts;
        is_well.then(|| settled.part(changed, facts)).flatten()
    }

    /// Remembers what has become of a part.
    pub(super) fn remember_part(&mut self, part: &Part, outcomes: &Outcomes) {
        let settled = self.settled.take().filter(|_| outcomes.is_complete());
        self.settled = settled.map(|mut settled| {
            settled.replace(part);
            settled
        });
        for (name, director) in &part.spec.directs {
            let service = Arc::clone(&director.service);
            self.assigned.insert(name.clone(), service);
        }
    }
}

/// Says whether a step changes IPVS services and nothing else that a pass looks at.
fn is_of_a_service(step: &Step) -> bool {
    match step {
        Step::AddService { .. }
        | Step::EditService { .. }
        | Step::RemoveService(_)
        | Step::AddDestination { .. }
        | Step::EditDestination { .. }
        | Step::RemoveDestination { .. } => true,
        Step::SetSysctl { .. }
        | Step::RestoreSysctl { .. }
        | Step::SetTimeouts { .. }
        | Step::RestoreTimeouts(_)
        | Step::AddFouPort(_)
        | Step::RemoveFouPort(_)
        | Step::AddLink { .. }
        | Step::SetLinkUp(_)
        | Step::RemoveLink(_)
        | Step::AddAddress { .. }
        | Step::EditAddress { .. }
        | Step::RemoveAddress(_)
        | Step::AddRoute(_)
        | Step::RemoveRoute(_)
        | Step::AddRule(_)
        | Step::RemoveRule(_)
        | Step::SetMasquerade(_)
        | Step::RemoveMasquerade => false,
    }
}
