//! A pass that removes nothing.

use std::collections::BTreeSet;

use crate::{
    Action, Holding, IpvsStep, KernelState, MasqueradeStep, Plan, Step, StrayStep, Target,
};

/// Leaves all removals out of a plan and of what the holder releases, because it is not known what needs them. Destinations of
/// known services are removed all the same, as is a daemon that is replaced, and what is masqueraded stays so. Returns what was kept.
pub fn remove_nothing(
    plan: &mut Plan,
    holding: Option<&mut Holding>,
    observed: &KernelState,
) -> Vec<String> {
    let mut kept = Vec::new();
    let masquerade = observed.masquerade.as_ref();
    let starting = plan.steps.iter();
    let starting = starting.filter(|step| matches!(step, Step::Ipvs(IpvsStep::StartDaemon { .. })));
    let replaced: BTreeSet<Target> = starting.map(Step::target).collect();
    plan.steps.retain_mut(|step| {
        if let Step::Masquerade(MasqueradeStep::Set(desired)) = step {
            for key in masquerade.iter().flat_map(|found| &found.services) {
                if desired.services.insert(*key) {
                    kept.push(format!("masquerading of {key}"));
                }
            }
            return masquerade != Some(desired);
        }
        if let Step::Strays(StrayStep::Set(desired)) = step {
            for mark in observed.strays.iter().flat_map(|found| &found.marks) {
                let mut known = desired.marks.iter();
                if !known.any(|known| known.service == mark.service) {
                    desired.marks.insert(*mark);
                    kept.push(format!("second chance of {}", mark.service));
                }
            }
            for key in observed.strays.iter().flat_map(|found| &found.local) {
                if desired.local.insert(*key) {
                    kept.push(format!("local delivery of {key}"));
                }
            }
            return observed.strays.as_ref() != Some(desired);
        }
        let is_kept = step.action() == Action::Remove && !replaced.contains(&step.target());
        if is_kept {
            kept.push(step.target().to_string());
        }
        !is_kept
    });
    if let Some(holding) = holding {
        let released = std::mem::take(&mut holding.release).into_iter();
        kept.extend(released.map(|key| Target::Address(key).to_string()));
    }
    kept
}
