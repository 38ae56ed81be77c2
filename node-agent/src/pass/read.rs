//! Reads the kernel, as much of it as a pass needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use lvs_model::{
    KernelState, Needs, Network, NodeFacts, Observation, Part, RouteAnswers, ServiceExtent,
    ServiceKey, Services, Tables,
};

use super::{Agent, PassError, Scope, Seen};
use crate::kernel::{Kernel, KernelError};

impl<K: Kernel, H> Agent<K, H> {
    /// Reads the network. A pass over everything finds our routes even if the ledger was lost.
    pub(super) async fn observe_network(&mut self, scope: &Scope) -> Result<Network, PassError> {
        let tables = match scope {
            Scope::Everything => Tables::All,
            Scope::Services(_) | Scope::Objects | Scope::Network => Tables::of(&self.ledger),
        };
        Ok(self.kernel.observe_network(&tables).await?)
    }

    /// Reads what a pass needs, except IPVS services.
    pub(super) async fn observe(
        &mut self,
        network: Network,
        needs: Needs,
    ) -> Result<Seen, PassError> {
        let Observation {
            state,
            facts,
            unread,
        } = self.kernel.observe(network, needs).await?;
        let facts = NodeFacts {
            essentials: self.essentials.clone(),
            ..facts.without_ours(&state, &self.ledger)
        };
        Ok(Seen {
            needs,
            observed: Arc::new(state),
            facts,
            unread,
        })
    }

    /// Asks for the routes to addresses, if there are any.
    pub(super) async fn routes_to(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<RouteAnswers, PassError> {
        if addresses.is_empty() {
            return Ok(RouteAnswers::new());
        }
        Ok(self.kernel.routes_to(addresses).await?)
    }

    /// Reads everything, as `show` and a cleanup do.
    pub(super) async fn read_all(
        &mut self,
        needs: Needs,
    ) -> Result<(KernelState, BTreeMap<Part, String>), PassError> {
        let network = self.kernel.observe_network(&Tables::All).await?;
        let Observation {
            mut state, unread, ..
        } = self.kernel.observe(network, needs).await?;
        if needs.ipvs {
            let (all, none) = (ServiceExtent::All, Services::new());
            state.services = self.read_services(&all, &none).await?;
        }
        Ok((state, unread))
    }

    /// Reads IPVS services. Each owned one that is missing from a dump of all is asked for by itself, since a dump can have
    /// gaps.
    pub(super) async fn read_services(
        &mut self,
        extent: &ServiceExtent,
        known: &Services,
    ) -> Result<Services, KernelError> {
        let mut found = self.kernel.observe_services(extent, known).await?;
        if *extent == ServiceExtent::All {
            let owned = self.ledger.services();
            let missing = owned.filter(|key| !found.contains_key(key));
            let missing: BTreeSet<ServiceKey> = missing.copied().collect();
            if !missing.is_empty() {
                let missing = ServiceExtent::Only(missing);
                found.extend(self.kernel.observe_services(&missing, known).await?);
            }
        }
        Ok(found)
    }
}
