//! Whether this machine is fit to hold its VIPs. One that cannot forward gives way, as long as another director can.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use lvs_model::{
    NodeFacts, NodeSpec, Outcomes, Plan, Problem, ServiceKey, Subject, abridged, unfit_vips,
};

use super::Scope;

/// How long the machine cannot forward before it gives way: most faults are over by then.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest list of VIPs in a message, in bytes.
const LONGEST_LIST: usize = 400;

/// What passes remember of the machine's fitness.
#[derive(Default)]
pub(super) struct Fitness {
    /// The IPVS services that could not be programmed when it was last tried.
    failed: BTreeSet<ServiceKey>,
    /// Since when the machine cannot forward what VIPs receive.
    since: BTreeMap<IpAddr, Instant>,
}

/// The VIPs that the machine is not fit to hold.
#[derive(Default)]
pub(super) struct Unfit {
    /// The VIPs.
    pub vips: BTreeSet<IpAddr>,
    /// How long until another one is among them, if nothing changes.
    pub next: Option<Duration>,
}

impl Fitness {
    /// Decides which VIPs the machine is not fit to hold.
    pub(super) fn judge(&mut self, spec: &NodeSpec, facts: &NodeFacts, now: Instant) -> Unfit {
        let faulty = unfit_vips(spec, facts, &self.failed);
        self.since.retain(|vip, _| faulty.contains(vip));
        let mut unfit = Unfit::default();
        for vip in faulty {
            let since = *self.since.entry(vip).or_insert(now);
            let left = PATIENCE.saturating_sub(now.saturating_duration_since(since));
            if left.is_zero() {
                unfit.vips.insert(vip);
            } else {
                unfit.next = Some(unfit.next.map_or(left, |next| next.min(left)));
            }
        }
        unfit
    }

    /// Remembers which IPVS services could not be programmed.
    pub(super) fn remember(&mut self, scope: &Scope, plan: &Plan, outcomes: &Outcomes) {
        let targets = |index: usize| plan.steps.get(index).map(|step| step.target());
        let failed = outcomes.not_done().filter_map(|(index, _)| targets(index));
        let failed: BTreeSet<ServiceKey> = failed
            .filter_map(|target| target.service().copied())
            .collect();
        if scope.is_of_some_services() {
            self.failed.extend(failed);
        } else {
            self.failed = failed;
        }
    }
}

impl Unfit {
    /// The problem of the machine.
    pub(super) fn problem(&self) -> Option<Problem> {
        let vips: Vec<String> = self.vips.iter().map(ToString::to_string).collect();
        let message = format!(
            "this machine cannot forward what its VIPs receive, so another director that can takes them over: {}",
            abridged(&vips, ", ", LONGEST_LIST)
        );
        (!vips.is_empty()).then(|| Problem::warning(Subject::Machine, message))
    }
}

#[cfg(test)]
mod tests {
    use lvs_model::{IpvsStep, Protocol, Step, StepFailure};

    use super::*;

    #[test]
    fn a_machine_gives_way_once_a_service_has_failed_for_a_while_and_not_after_its_end() {
        let step = Step::Ipvs(IpvsStep::RemoveService(ServiceKey::Address {
            address: "192.0.2.100".parse().unwrap(),
            protocol: Protocol::Tcp,
            port: 80,
        }));
        let plan = Plan {
            steps: vec![step.clone()],
        };
        let mut failed = Outcomes::default();
        failed.fail(0, &step, StepFailure::refused("no such scheduler"));
        let (mut fitness, start) = (Fitness::default(), Instant::now());
        let judge = |fitness: &mut Fitness, millis| {
            let now = start + Duration::from_millis(millis);
            let unfit = fitness.judge(&NodeSpec::default(), &NodeFacts::default(), now);
            (unfit.vips.len(), unfit.next)
        };

        fitness.remember(&Scope::Everything, &plan, &failed);
        assert_eq!(judge(&mut fitness, 0), (0, Some(PATIENCE)));
        let left = Duration::from_millis(500);
        assert_eq!(judge(&mut fitness, 1500), (0, Some(left)));
        assert_eq!(judge(&mut fitness, 2000), (1, None));
        fitness.remember(&Scope::Everything, &plan, &Outcomes::default());
        assert_eq!(judge(&mut fitness, 2100), (0, None));
        fitness.remember(&Scope::Everything, &plan, &failed);
        assert_eq!(judge(&mut fitness, 2200), (0, Some(PATIENCE)));
    }
}
