//! What a pass has observed and decided, before it is applied.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use lvs_model::{
    Holding, KernelState, Needs, NodeFacts, NodeName, NodeSpec, ObjectName, Owners, Part, Plan,
    Problem, Rejection, Step, Subject, abridged, remove_nothing, report::PlanReport,
    steps_in_order,
};

use super::{Scope, messages::LONGEST_LIST};

/// What a pass has observed, except IPVS services.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Which parts were read.
    pub needs: Needs,
    /// The observed state, without services.
    pub observed: Arc<KernelState>,
    /// The facts about the machine, without what is ours.
    pub facts: NodeFacts,
    /// The parts that could not be read, with the reasons.
    pub unread: BTreeMap<Part, String>,
}

/// What a pass has observed and decided, before it is applied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prepared {
    /// How much the pass covers.
    pub scope: Scope,
    /// The machine's role, within the scope.
    pub spec: Arc<NodeSpec>,
    /// What the pass has observed, except IPVS services.
    pub seen: Seen,
    /// The desired kernel state, within the scope.
    pub desired: Arc<KernelState>,
    /// The virtual services that want each target.
    pub owners: Owners,
    /// The steps.
    pub plan: Plan,
    /// The VIPs for the holder; `None` if those of the last handover stay.
    pub holding: Option<Holding>,
    /// Whether another pass is needed once the holder has applied its VIPs.
    pub waits_for_holder: bool,
    /// What keeps virtual services from working in full.
    pub problems: Vec<Problem>,
    /// The objects that were refused.
    pub rejections: Vec<Rejection>,
    /// The virtual services of this machine whose group does not exist.
    pub without_group: BTreeSet<ObjectName>,
    /// How long until another pass is needed: the first previous set of real servers ends, or the machine is not fit any more.
    pub next_pass: Option<Duration>,
    /// How long the pass has taken so far.
    pub timing: Timing,
}

impl Prepared {
    /// All changes to the kernel, those of the holder included, in order.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let nothing = Holding::default();
        let holding = self.holding.as_ref().unwrap_or(&nothing);
        steps_in_order(&self.plan, holding, &self.seen.observed.addresses)
    }

    /// Leaves out all removals if it is not known what some objects ask for. Reports what was kept.
    pub(super) fn remove_nothing(&mut self, unreadable: &BTreeSet<String>) {
        let reason = if !unreadable.is_empty() {
            let names: Vec<&String> = unreadable.iter().collect();
            let names = abridged(&names, ", ", LONGEST_LIST);
            format!("{names} could not be read and has no last good version")
        } else if !self.without_group.is_empty() {
            let names = self.without_group.iter().map(ToString::to_string);
            let names: Vec<String> = names.collect();
            let names = abridged(&names, ", ", LONGEST_LIST);
            format!("the DirectorGroup of VirtualService {names} does not exist")
        } else {
            return;
        };
        let observed = &self.seen.observed;
        let kept = remove_nothing(&mut self.plan, self.holding.as_mut(), observed);
        if kept.is_empty() {
            return;
        }
        let message = format!(
            "nothing is removed, because {reason}; what no other object asks for stays: {}",
            abridged(&kept, ", ", LONGEST_LIST)
        );
        self.problems
            .push(Problem::warning(Subject::Machine, message));
    }

    /// The report of `plan`.
    pub(crate) fn report(&self, node: &NodeName, rejections: Vec<Rejection>) -> PlanReport {
        PlanReport::new(node, self.steps(), self.problems.clone(), rejections)
    }
}

/// The durations of the parts of a pass.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timing {
    /// Reading the kernel and deciding.
    pub prepare: Duration,
    /// Storing the ledger.
    pub ledger: Duration,
    /// Programming the kernel.
    pub execute: Duration,
}
