//! The kernel of this network namespace: what it holds is observed, plans are executed on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use lvs_model::{
    AddressKey, Director, Forwarding, KernelState, Ledger, NodeFacts, NodeSpec, Outcomes, Plan,
    ReturnPath, Service, ServiceKey, Step, StepFailure,
};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use crate::fault;

pub(crate) mod announce;
mod fou;
mod iptables;
mod ipvs;
mod listeners;
mod masquerade;
pub(crate) mod monitor;
mod nft;
mod route;
mod sysctl;

use ipvs::Ipvs;
pub(crate) use ipvs::IpvsError;
use route::RouteSocket;

/// Why the kernel could not be observed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelError {
    /// Interfaces, addresses, routes or rules.
    #[error("reading interfaces, addresses and routes")]
    Network(#[source] route::RouteError),
    /// IPVS.
    #[error(transparent)]
    Ipvs(#[from] IpvsError),
    /// What masquerades.
    #[error("reading what masquerades")]
    Masquerade(#[source] masquerade::MasqueradeError),
    /// GUE ports.
    #[error("reading the GUE ports")]
    Fou(#[source] fou::FouError),
}

/// What a pass must know of the kernel; what it need not know costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// IPVS, which is loaded for it.
    pub ipvs: bool,
    /// The nft table.
    pub masquerade: bool,
    /// The GUE ports.
    pub fou_ports: bool,
    /// What listens here.
    pub listeners: bool,
}

impl Needs {
    /// What is needed to serve a spec, and to remove what is owned.
    pub(crate) fn of(spec: &NodeSpec, ledger: &Ledger) -> Self {
        let masquerades = |director: &Director| {
            director.service.forwarding == Forwarding::Nat
                && director.service.nat.return_path == ReturnPath::Masquerade
        };
        Self {
            ipvs: !spec.directs.is_empty()
                || !ledger.services.is_empty()
                || ledger.timeouts.is_some(),
            masquerade: ledger.masquerade || spec.directs.values().any(masquerades),
            fou_ports: !ledger.fou_ports.is_empty() || !spec.serves.is_empty(),
            listeners: !spec.serves.is_empty(),
        }
    }
}

/// Says whether IPVS is there without loading it.
pub(crate) fn has_ipvs() -> bool {
    Path::new("/proc/net/ip_vs").exists()
}

/// The kernel's release, as `uname -r`; empty when it cannot be read.
#[cfg(feature = "kube")]
pub(crate) fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| String::new(), |text| text.trim().to_owned())
}

/// The version of IPVS, without loading it; empty where it is not there.
#[cfg(feature = "kube")]
pub(crate) fn ipvs_version() -> String {
    let table = std::fs::read_to_string("/proc/net/ip_vs").unwrap_or_default();
    // IP Virtual Server version 1.2.1 (size=4096)
    let version = table
        .strip_prefix("IP Virtual Server version ")
        .and_then(|rest| rest.split_whitespace().next());
    version.unwrap_or_default().to_owned()
}

/// The kernel of this network namespace.
pub(crate) struct Kernel {
    route: RouteSocket,
    ipvs: Option<Ipvs>,
}

/// The interfaces, addresses and routes of this network namespace.
pub(crate) use route::Network;

impl Kernel {
    /// Opens the sockets; IPVS is left alone until it is needed.
    pub(crate) async fn connect() -> Result<Self, KernelError> {
        Ok(Self {
            route: RouteSocket::connect().map_err(KernelError::Network)?,
            ipvs: None,
        })
    }

    /// Reads interfaces, addresses, routes and rules.
    pub(crate) async fn observe_network(&self) -> Result<Network, KernelError> {
        self.route.observe().await.map_err(KernelError::Network)
    }

    /// Connects to IPVS, which loads its module where it must.
    ///
    /// # Errors
    /// When this kernel has none, or the process may not use it.
    pub(crate) async fn load_ipvs(&mut self) -> Result<(), IpvsError> {
        // Connecting is open to everybody; reading takes the permission that everything else takes.
        self.ipvs().await?.timeouts().await.map(drop)
    }

    /// Reads what a pass needs beside the IPVS services, and puts it together with the network.
    ///
    /// IPVS is to be loaded before: `net.ipv4.vs` is there only then.
    pub(crate) async fn observe(
        &mut self,
        network: Network,
        needs: Needs,
    ) -> Result<(KernelState, NodeFacts), KernelError> {
        let timeouts = if needs.ipvs {
            Some(self.ipvs().await?.timeouts().await?)
        } else {
            None
        };
        let masquerade = if needs.masquerade {
            masquerade::observe()
                .await
                .map_err(KernelError::Masquerade)?
        } else {
            None
        };
        let fou_ports = if needs.fou_ports {
            fou::observe().await.map_err(KernelError::Fou)?
        } else {
            BTreeSet::new()
        };
        let Network {
            interfaces,
            links,
            addresses,
            routes,
            rules,
            main_routes,
            interface_addresses,
        } = network;
        let listeners = if needs.listeners {
            listeners::observe()
        } else {
            None
        };
        let sysctls = sysctl::observe(interfaces.keys());
        let facts = NodeFacts {
            interfaces,
            addresses: interface_addresses,
            routes: main_routes,
            sysctls: sysctls.clone(),
            listeners,
        };
        let services = BTreeMap::new();
        let state = KernelState {
            sysctls,
            fou_ports,
            links,
            addresses,
            routes,
            rules,
            masquerade,
            timeouts,
            services,
        };
        Ok((state, facts))
    }

    /// Reads IPVS services: all, or some.
    pub(crate) async fn observe_services(
        &mut self,
        only: Option<&BTreeSet<ServiceKey>>,
    ) -> Result<BTreeMap<ServiceKey, Service>, KernelError> {
        let ipvs = self.ipvs().await?;
        Ok(match only {
            None => ipvs.services().await?,
            Some(keys) => ipvs.some_services(keys).await?,
        })
    }

    async fn ipvs(&mut self) -> Result<&mut Ipvs, IpvsError> {
        let connected = match self.ipvs.take() {
            Some(ipvs) => ipvs,
            None => Ipvs::connect().await?,
        };
        Ok(self.ipvs.insert(connected))
    }

    /// Executes a plan in its order. Neighbours of one kind go to the kernel together; a step that depends on a failed
    /// one is skipped.
    pub(crate) async fn execute(&mut self, plan: &Plan) -> Outcomes {
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
    StepFailure::refused(crate::report::chain(error))
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
                        warn!(%interface, error = crate::report::chain(&error), "cannot probe for addresses in use");
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
