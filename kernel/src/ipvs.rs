//! Reads the IPVS table into the model's types, and executes IPVS steps.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipvs_netlink::{Handle, KernelErrorKind, Request, RequestError, ServiceTable, Tables};
use lvs_model::{
    IpvsStep, Service, ServiceKey, Services, StepFailure, SyncDaemon, SyncRole, Timeouts,
};

mod translate;

/// Why the IPVS table could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum IpvsError {
    /// The kernel has no IPVS.
    #[error(
        "this kernel has no IPVS: load it with `modprobe ip_vs`, or install the package with the kernel's modules"
    )]
    Missing,
    /// The process lacks a capability.
    #[error(
        "IPVS needs CAP_NET_ADMIN in the initial user namespace: run lvs-agent as root, or grant the capability"
    )]
    Forbidden,
    /// The exchange with the kernel failed.
    #[error("reading or writing the IPVS table")]
    Exchange(#[source] ipvs_netlink::Error),
}

impl From<ipvs_netlink::Error> for IpvsError {
    fn from(error: ipvs_netlink::Error) -> Self {
        if matches!(error, ipvs_netlink::Error::FamilyNotFound) {
            Self::Missing
        } else if error.is_permission_denied() {
            Self::Forbidden
        } else {
            Self::Exchange(error)
        }
    }
}

/// The IPVS table of this network namespace.
pub(crate) struct Ipvs {
    handle: Handle,
}

impl Ipvs {
    /// Connects. The kernel loads the module `ip_vs` if necessary.
    pub(crate) async fn connect() -> Result<Self, IpvsError> {
        Ok(Self {
            handle: Handle::connect().await?,
        })
    }

    /// Returns the connection, and opens it first if necessary.
    pub(crate) async fn connected(ipvs: &mut Option<Self>) -> Result<&mut Self, IpvsError> {
        let connected = match ipvs.take() {
            Some(ipvs) => ipvs,
            None => Self::connect().await?,
        };
        Ok(ipvs.insert(connected))
    }

    /// Reads every service with its destinations, except services of protocols that the model does not have. Those that
    /// equal `known` ones share their memory.
    pub(crate) async fn services(&mut self, known: &Services) -> Result<Services, IpvsError> {
        translated(self.handle.tables().await?, known).await
    }

    /// Reads the services with these keys, as far as they exist. Those that equal `known` ones share their memory.
    pub(crate) async fn some_services(
        &mut self,
        keys: &BTreeSet<ServiceKey>,
        known: &Services,
    ) -> Result<Services, IpvsError> {
        let keys = keys.iter().map(translate::to_service_key);
        translated(self.handle.tables_of(keys), known).await
    }

    /// Returns those of some services that have active connections.
    pub(crate) async fn in_use(
        &mut self,
        keys: &BTreeSet<ServiceKey>,
    ) -> Result<BTreeSet<ServiceKey>, IpvsError> {
        let mut used = BTreeSet::new();
        for key in keys {
            let mut tables = self.handle.tables_of([translate::to_service_key(key)]);
            let table = tables.next().await?;
            let mut found = table.into_iter().flat_map(|table| &table.destinations);
            if found.any(|destination| destination.connections.active > 0) {
                used.insert(*key);
            }
        }
        Ok(used)
    }

    /// Reads the timeouts.
    pub(crate) async fn timeouts(&mut self) -> Result<Timeouts, IpvsError> {
        Ok(translate::timeouts(self.handle.timeouts().await?))
    }

    /// Reads the connection-sync daemons.
    pub(crate) async fn sync_daemons(
        &mut self,
    ) -> Result<BTreeMap<SyncRole, SyncDaemon>, IpvsError> {
        let daemons = self.handle.daemons().await?;
        Ok(daemons.iter().filter_map(translate::daemon).collect())
    }

    /// Executes IPVS steps, pipelined, and returns their results in the same order.
    ///
    /// Removing what is gone succeeds. A step whose answer was lost fails with [`StepFailure::unknown`].
    pub(crate) async fn execute(&mut self, steps: &[&IpvsStep]) -> Vec<Result<(), StepFailure>> {
        let mut results = vec![Ok(()); steps.len()];
        let mut requests = Vec::with_capacity(steps.len());
        let mut places = Vec::with_capacity(steps.len());
        for (place, step) in steps.iter().enumerate() {
            match translate::request(step) {
                Ok(request) => {
                    requests.push(request);
                    places.push(place);
                }
                Err(reason) => set(&mut results, place, StepFailure::refused(reason)),
            }
        }
        let existing = self.execute_all(&requests, &places, &mut results).await;
        let (places, requests): (Vec<_>, Vec<_>) = existing.into_iter().unzip();
        if !requests.is_empty() {
            self.execute_all(&requests, &places, &mut results).await;
        }
        results
    }

    /// Executes requests and sets their results. Returns edits of the destinations that exist already: a dump had not shown
    /// them.
    async fn execute_all(
        &mut self,
        requests: &[Request],
        places: &[usize],
        results: &mut [Result<(), StepFailure>],
    ) -> Vec<(usize, Request)> {
        let mut existing = Vec::new();
        match self.handle.execute(requests).await {
            Ok(failures) => {
                for failure in failures {
                    let (Some(request), Some(place)) =
                        (requests.get(failure.index), places.get(failure.index))
                    else {
                        continue;
                    };
                    if let Some(edit) = edit_existing(request, &failure.error) {
                        existing.push((*place, edit));
                    } else if let Some(failure) = explain(request, &failure.error) {
                        set(results, *place, failure);
                    }
                }
            }
            Err(error) => {
                let reason = lvs_runtime::error::chain(&IpvsError::from(error));
                for place in places {
                    set(results, *place, StepFailure::unknown(reason.clone()));
                }
            }
        }
        existing
    }
}

/// Returns the edit of a destination that could not be created because it exists.
fn edit_existing(request: &Request, error: &RequestError) -> Option<Request> {
    match (request, error) {
        (
            Request::CreateDestination {
                service,
                key,
                config,
            },
            RequestError::Refused(error),
        ) if error.kind() == KernelErrorKind::DestinationExists => {
            Some(Request::UpdateDestination {
                service: *service,
                key: *key,
                config: *config,
            })
        }
        _ => None,
    }
}

/// Translates services as they are read, so that nothing else of them is kept, and nothing at all of those that are known.
async fn translated(mut tables: Tables<'_>, known: &Services) -> Result<Services, IpvsError> {
    let mut services = Services::new();
    while let Some(ServiceTable {
        service,
        destinations,
    }) = tables.next().await?
    {
        if let Some(key) = translate::service_key(&service.key) {
            let found = translate::service(&service.config, destinations);
            services.insert(key, shared(known.get(&key), found));
        }
    }
    Ok(services)
}

/// Returns the known service if the one found equals it.
fn shared(known: Option<&Arc<Service>>, found: Service) -> Arc<Service> {
    match known {
        Some(known) if **known == found => Arc::clone(known),
        Some(_) | None => Arc::new(found),
    }
}

fn set(results: &mut [Result<(), StepFailure>], place: usize, failure: StepFailure) {
    if let Some(result) = results.get_mut(place) {
        *result = Err(failure);
    }
}

/// Returns the failure of a request with a message that says what to do. `None` if the failure can be ignored.
fn explain(request: &Request, error: &RequestError) -> Option<StepFailure> {
    let RequestError::Refused(error) = error else {
        return Some(StepFailure::unknown(error.to_string()));
    };
    match (request, error.kind()) {
        (
            Request::DeleteService { .. }
            | Request::DeleteDestination { .. }
            | Request::StopDaemon(_),
            _,
        ) if error.is_not_found() => None,
        (
            Request::CreateService { config, .. } | Request::UpdateService { config, .. },
            KernelErrorKind::UnknownScheduler,
        ) => Some(StepFailure::refused(missing_module(config))),
        (Request::CreateService { .. }, KernelErrorKind::ServiceExists) => Some(
            StepFailure::refused("it exists and was not made by lvs-agent"),
        ),
        _ => Some(StepFailure::refused(error.to_string())),
    }
}

fn missing_module(config: &ipvs_netlink::ServiceConfig) -> String {
    let scheduler = config.scheduler;
    let engine = config
        .persistence
        .and_then(|persistence| persistence.engine);
    match engine {
        None => format!(
            "this kernel has no scheduler '{scheduler}': load it with `modprobe ip_vs_{scheduler}`"
        ),
        Some(engine) => format!(
            "this kernel lacks scheduler '{scheduler}' or persistence engine '{engine}': load them with `modprobe -a \
             ip_vs_{scheduler} ip_vs_pe_{engine}`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use lvs_model::ServiceConfig;

    use super::*;

    #[test]
    fn a_service_that_equals_the_known_one_is_not_held_twice() {
        let known = Arc::new(Service::default());
        let found = Service::default();

        assert!(Arc::ptr_eq(&shared(Some(&known), found), &known));
    }

    #[test]
    fn a_service_that_differs_from_the_known_one_is_kept_as_found() {
        let known = Arc::new(Service::default());
        let config = ServiceConfig {
            one_packet: true,
            ..ServiceConfig::default()
        };
        let found = Service {
            config,
            ..Service::default()
        };

        assert_eq!(*shared(Some(&known), found.clone()), found);
        assert_eq!(*shared(None, found.clone()), found);
    }
}
