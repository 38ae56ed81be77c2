//! The agent's interface to a kernel, and the real kernel behind it.

use std::{collections::BTreeSet, error::Error, net::IpAddr};

use lvs_model::{
    Needs, Network, Observation, Outcomes, Plan, RouteAnswers, ServiceExtent, ServiceKey, Services,
    Tables,
};

#[cfg(any(test, feature = "fake"))]
mod fake;

#[cfg(any(test, feature = "fake"))]
pub use fake::SharedFake;

/// A kernel could not be read. The text names what was read and why that failed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct KernelError(Box<dyn Error + Send + Sync>);

impl KernelError {
    /// Wraps a reason.
    pub fn new(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(reason.into())
    }
}

/// A kernel to observe and to execute plans on.
///
/// A method that cannot read everything it is asked for fails or names the parts that are missing: an error is never "nothing".
#[expect(
    async_fn_in_trait,
    reason = "the agent runs on one thread, and its futures never move to another"
)]
pub trait Kernel {
    /// Reads links and addresses, our rules, and our routes in these tables and in those that our rules name.
    async fn observe_network(&mut self, tables: &Tables) -> Result<Network, KernelError>;

    /// Asks for the routes to addresses. The links must have been read before.
    async fn routes_to(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<RouteAnswers, KernelError>;

    /// Loads IPVS unless it is loaded; without it, `net.ipv4.vs` does not exist.
    async fn load_ipvs(&mut self) -> Result<(), KernelError>;

    /// Returns whether IPVS is loaded.
    fn has_ipvs(&self) -> bool;

    /// Reads what else a pass needs, except IPVS services, and combines it with the network.
    async fn observe(&mut self, network: Network, needs: Needs)
    -> Result<Observation, KernelError>;

    /// Reads IPVS services with their destinations. A read of all can miss some, without an error, while others change the table;
    /// a read of some cannot. Those that equal `known` ones share their memory: in a large table that
    /// is as it should be, nothing is held twice.
    async fn observe_services(
        &mut self,
        extent: &ServiceExtent,
        known: &Services,
    ) -> Result<Services, KernelError>;

    /// Returns those of some IPVS services that have active connections.
    async fn services_in_use(
        &mut self,
        services: &BTreeSet<ServiceKey>,
    ) -> Result<BTreeSet<ServiceKey>, KernelError>;

    /// Executes a plan in order and returns the outcome of each step. A step that depends on a failed one is skipped.
    async fn execute(&mut self, plan: &Plan) -> Outcomes;
}

impl From<lvs_kernel::KernelError> for KernelError {
    fn from(error: lvs_kernel::KernelError) -> Self {
        Self::new(error)
    }
}

impl Kernel for lvs_kernel::Kernel {
    async fn observe_network(&mut self, tables: &Tables) -> Result<Network, KernelError> {
        Ok(self.observe_network(tables).await?)
    }

    async fn routes_to(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<RouteAnswers, KernelError> {
        Ok(self.routes_to(addresses).await?)
    }

    async fn load_ipvs(&mut self) -> Result<(), KernelError> {
        Ok(self.load_ipvs().await?)
    }

    fn has_ipvs(&self) -> bool {
        lvs_kernel::has_ipvs()
    }

    async fn observe(
        &mut self,
        network: Network,
        needs: Needs,
    ) -> Result<Observation, KernelError> {
        Ok(self.observe(network, needs).await?)
    }

    async fn observe_services(
        &mut self,
        extent: &ServiceExtent,
        known: &Services,
    ) -> Result<Services, KernelError> {
        Ok(self.observe_services(extent, known).await?)
    }

    async fn services_in_use(
        &mut self,
        services: &BTreeSet<ServiceKey>,
    ) -> Result<BTreeSet<ServiceKey>, KernelError> {
        Ok(self.services_in_use(services).await?)
    }

    async fn execute(&mut self, plan: &Plan) -> Outcomes {
        self.execute(plan).await
    }
}
