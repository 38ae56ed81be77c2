//! Executes plans: consecutive steps of one family are sent to the kernel together.

use lvs_model::{
    FouStep, IpvsStep, MasqueradeStep, NetworkStep, Outcomes, Plan, Step, StepFailure, StrayStep,
    SysctlStep,
};

use crate::{fault, fou, ipvs::Ipvs, masquerade, route::RouteSocket, strays, sysctl};

/// The most steps in a batch: enough for several full sends, few enough to need little memory.
const LARGEST_BATCH: usize = 2048;

/// Executes a plan in its order. A step that depends on a failed one is skipped.
pub(crate) async fn execute(
    plan: &Plan,
    route: &mut RouteSocket,
    ipvs: &mut Option<Ipvs>,
) -> Outcomes {
    let mut outcomes = Outcomes::default();
    let mut index = 0;
    while let Some(batch) = next_batch(plan, index) {
        fault::point();
        let steps = batch.iter().enumerate();
        let steps = steps.map(|(offset, step)| (index + offset, step));
        // New services are sent before the rest of the batch: if the kernel refuses one because a foreign service has
        // its key, its destinations must not be sent at all.
        let (first, rest): (Vec<_>, Vec<_>) = steps.partition(|(_, step)| adds_service(step));
        for group in [first, rest] {
            let tried: Vec<(usize, &Step)> = group
                .into_iter()
                .filter(|(index, step)| !outcomes.skips(*index, step))
                .collect();
            let results = execute_family(&tried, route, ipvs).await;
            for ((index, step), result) in tried.into_iter().zip(results) {
                if let Err(failure) = result
                    && !outcomes.skips(index, step)
                {
                    outcomes.fail(index, step, failure);
                }
            }
        }
        index += batch.len();
    }
    fault::point();
    outcomes
}

const fn adds_service(step: &Step) -> bool {
    matches!(step, Step::Ipvs(IpvsStep::AddService { .. }))
}

/// Returns the steps from `index` on that are sent together. `None` at the end of the plan.
fn next_batch(plan: &Plan, index: usize) -> Option<&[Step]> {
    let rest = plan.steps.get(index..)?;
    let first = std::mem::discriminant(rest.first()?);
    let length = rest
        .iter()
        .take(LARGEST_BATCH.min(fault::largest_batch()))
        .take_while(|step| std::mem::discriminant(*step) == first)
        .count();
    rest.get(..length)
}

/// The steps of a batch, by family. Only one of the lists is filled.
#[derive(Default)]
struct Batch<'a> {
    ipvs: Vec<&'a IpvsStep>,
    network: Vec<&'a NetworkStep>,
    sysctl: Vec<&'a SysctlStep>,
    masquerade: Vec<&'a MasqueradeStep>,
    fou: Vec<&'a FouStep>,
    strays: Vec<&'a StrayStep>,
}

/// Executes steps of one family, and returns their results in the same order.
async fn execute_family(
    steps: &[(usize, &Step)],
    route: &mut RouteSocket,
    ipvs: &mut Option<Ipvs>,
) -> Vec<Result<(), StepFailure>> {
    let mut batch = Batch::default();
    for (_, step) in steps {
        match step {
            Step::Ipvs(step) => batch.ipvs.push(step),
            Step::Network(step) => batch.network.push(step),
            Step::Sysctl(step) => batch.sysctl.push(step),
            Step::Masquerade(step) => batch.masquerade.push(step),
            Step::Fou(step) => batch.fou.push(step),
            Step::Strays(step) => batch.strays.push(step),
        }
    }
    let mut results = Vec::with_capacity(steps.len());
    if !batch.ipvs.is_empty() {
        results.extend(execute_ipvs(ipvs, &batch.ipvs).await);
    }
    if !batch.network.is_empty() {
        let done = route.execute(&batch.network).await.into_iter();
        results.extend(done.map(|result| result.map_err(|error| refused(&error))));
    }
    for step in batch.sysctl {
        let (sysctl, value) = step.write();
        results.push(sysctl::write(sysctl, value).map_err(|error| refused(&error)));
    }
    for step in batch.masquerade {
        let done = match step {
            MasqueradeStep::Set(masquerade) => masquerade::set(masquerade).await,
            MasqueradeStep::Remove => masquerade::remove().await,
        };
        results.push(done.map_err(|error| refused(&error)));
    }
    for step in batch.fou {
        let done = match step {
            FouStep::AddPort(port) => fou::add(*port).await,
            FouStep::RemovePort(port) => fou::remove(*port).await,
        };
        results.push(done.map_err(|error| refused(&error)));
    }
    for step in batch.strays {
        let done = match step {
            StrayStep::Set(desired) => strays::set(desired).await,
            StrayStep::Remove => strays::remove().await,
        };
        results.push(done.map_err(|error| refused(&error)));
    }
    results
}

async fn execute_ipvs(
    ipvs: &mut Option<Ipvs>,
    steps: &[&IpvsStep],
) -> Vec<Result<(), StepFailure>> {
    match Ipvs::connected(ipvs).await {
        Ok(ipvs) => ipvs.execute(steps).await,
        Err(error) => vec![Err(refused(&error)); steps.len()],
    }
}

fn refused(error: &dyn std::error::Error) -> StepFailure {
    StepFailure::refused(lvs_runtime::error::chain(error))
}
