//! Plans are executed: batch by batch, behind a probe for the addresses that the network is to see.

use std::{collections::BTreeMap, net::IpAddr};

use lvs_model::{AddressKey, Outcomes, Plan, Step, StepFailure};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::{Kernel, announce, fou, masquerade, sysctl};
use crate::fault;

impl Kernel {
    /// Executes a plan in its order. Neighbours of one kind go to the kernel together; a step that depends on a failed
    /// one is skipped.
    pub async fn execute(&mut self, plan: &Plan) -> Outcomes {
        let probes = probe(plan);
        let mut taken = BTreeMap::new();
        let mut probes = Some(probes);
        let mut outcomes = Outcomes::default();
        let mut index = 0;
        while let Some(batch) = next_batch(plan, index) {
            if batch
                .iter()
                .any(|step| matches!(step, Step::AddAddress { announce: true, .. }))
                && let Some(probes) = probes.take()
            {
                taken = join(probes).await;
            }
            fault::point();
            self.execute_batch(index, batch, &taken, &mut outcomes)
                .await;
            index += batch.len();
        }
        fault::point();
        outcomes
    }

    async fn execute_batch(
        &mut self,
        first: usize,
        batch: &[Step],
        taken: &BTreeMap<AddressKey, String>,
        outcomes: &mut Outcomes,
    ) {
        let mut tried = Vec::with_capacity(batch.len());
        for (offset, step) in batch.iter().enumerate() {
            if let Step::AddAddress { key, .. } = step
                && let Some(holder) = taken.get(key)
            {
                outcomes.fail(first + offset, step, address_in_use(key, holder));
            } else if !outcomes.skips(first + offset, step) {
                tried.push((first + offset, step));
            }
        }
        let steps: Vec<&Step> = tried.iter().map(|(_, step)| *step).collect();
        let results = self.execute_alike(&steps).await;
        for ((index, step), result) in tried.into_iter().zip(results) {
            if let Err(failure) = result
                && !outcomes.skips(index, step)
            {
                outcomes.fail(index, step, failure);
            }
        }
    }

    async fn execute_alike(&mut self, steps: &[&Step]) -> Vec<Result<(), StepFailure>> {
        let Some(first) = steps.first() else {
            return Vec::new();
        };
        match Backend::of(first) {
            Backend::Ipvs => match self.ipvs().await {
                Ok(ipvs) => ipvs.execute(steps).await,
                Err(error) => vec![Err(StepFailure::refused(error.to_string())); steps.len()],
            },
            Backend::Route => {
                let results = self.route.execute(steps).await;
                results
                    .into_iter()
                    .map(|result| result.map_err(|error| failure(&error)))
                    .collect()
            }
            Backend::Sysctl => steps.iter().map(|step| write_sysctl(step)).collect(),
            Backend::Masquerade => {
                let mut results = Vec::with_capacity(steps.len());
                for step in steps {
                    results.push(set_masquerade(step).await);
                }
                results
            }
            Backend::Fou => {
                let mut results = Vec::with_capacity(steps.len());
                for step in steps {
                    results.push(open_or_close_port(step).await);
                }
                results
            }
        }
    }
}

/// What carries a step to the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backend {
    Ipvs,
    Route,
    Sysctl,
    Masquerade,
    Fou,
}

impl Backend {
    const fn of(step: &Step) -> Self {
        match step {
            Step::SetSysctl { .. } | Step::RestoreSysctl { .. } => Self::Sysctl,
            Step::AddFouPort(_) | Step::RemoveFouPort(_) => Self::Fou,
            Step::SetMasquerade(_) | Step::RemoveMasquerade => Self::Masquerade,
            Step::AddLink { .. }
            | Step::SetLinkUp(_)
            | Step::EditAddress { .. }
            | Step::RemoveLink(_)
            | Step::AddAddress { .. }
            | Step::RemoveAddress(_)
            | Step::AddRoute(_)
            | Step::RemoveRoute(_)
            | Step::AddRule(_)
            | Step::RemoveRule(_) => Self::Route,
            Step::AddService { .. }
            | Step::EditService { .. }
            | Step::RemoveService(_)
            | Step::AddDestination { .. }
            | Step::EditDestination { .. }
            | Step::RemoveDestination { .. }
            | Step::SetTimeouts { .. }
            | Step::RestoreTimeouts(_) => Self::Ipvs,
        }
    }
}

/// How many steps are on their way at once: several full sends, and little memory.
const LARGEST_BATCH: usize = 2048;

/// The steps from `index` on that one backend carries together; `None` at the end.
fn next_batch(plan: &Plan, index: usize) -> Option<&[Step]> {
    let rest = plan.steps.get(index..)?;
    let backend = Backend::of(rest.first()?);
    let alike = rest
        .iter()
        .take(LARGEST_BATCH.min(fault::largest_batch()))
        .take_while(|step| Backend::of(step) == backend)
        .count();
    rest.get(..alike)
}

fn write_sysctl(step: &Step) -> Result<(), StepFailure> {
    let (Step::SetSysctl { sysctl, value, .. } | Step::RestoreSysctl { sysctl, value }) = step
    else {
        return Err(StepFailure::refused("it sets no sysctl"));
    };
    sysctl::write(sysctl, *value).map_err(|error| failure(&error))
}

async fn set_masquerade(step: &Step) -> Result<(), StepFailure> {
    let result = if let Step::SetMasquerade(masquerade) = step {
        masquerade::set(masquerade).await
    } else {
        masquerade::remove().await
    };
    result.map_err(|error| failure(&error))
}

async fn open_or_close_port(step: &Step) -> Result<(), StepFailure> {
    let result = if let Step::AddFouPort(port) = step {
        fou::add(*port).await
    } else if let Step::RemoveFouPort(port) = step {
        fou::remove(*port).await
    } else {
        return Err(StepFailure::refused("it concerns no GUE port"));
    };
    result.map_err(|error| failure(&error))
}

fn failure(error: &dyn std::error::Error) -> StepFailure {
    StepFailure::refused(lvs_runtime::error::chain(error))
}

fn address_in_use(key: &AddressKey, holder: &str) -> StepFailure {
    StepFailure::refused(format!(
        "{} is in use on {}: {holder} answers for it; when two machines read this file, name the director in a DirectorGroup",
        key.address, key.interface
    ))
}

type Probes = Vec<(Vec<AddressKey>, JoinHandle<BTreeMap<IpAddr, String>>)>;

/// Asks the network, in the background, who has the addresses that the plan would add for it to see.
fn probe(plan: &Plan) -> Probes {
    let mut by_interface: BTreeMap<_, Vec<AddressKey>> = BTreeMap::new();
    for step in &plan.steps {
        if let Step::AddAddress {
            key,
            announce: true,
            ..
        } = step
        {
            by_interface
                .entry(key.interface.clone())
                .or_default()
                .push(key.clone());
        }
    }
    by_interface
        .into_iter()
        .map(|(interface, keys)| {
            let addresses: Vec<IpAddr> = keys.iter().map(|key| key.address).collect();
            let task = tokio::spawn(async move {
                match announce::probe(&interface, &addresses).await {
                    Ok(holders) => holders.into_iter().map(|(address, mac)| (address, mac.to_string())).collect(),
                    Err(error) => {
                        warn!(%interface, error = lvs_runtime::error::chain(&error), "cannot probe for addresses in use");
                        BTreeMap::new()
                    }
                }
            });
            (keys, task)
        })
        .collect()
}

async fn join(probes: Probes) -> BTreeMap<AddressKey, String> {
    let mut taken = BTreeMap::new();
    for (keys, task) in probes {
        let Ok(holders) = task.await else { continue };
        debug!(addresses = keys.len(), in_use = holders.len(), "probed");
        let held = keys.into_iter().filter_map(|key| {
            holders
                .get(&key.address)
                .map(|mac| (key.clone(), mac.clone()))
        });
        taken.extend(held);
    }
    taken
}
