//! Observes the kernel of this network namespace, and executes plans on it.

use std::{collections::BTreeSet, path::Path};

use lvs_model::{KernelState, Needs, Network, NodeFacts, Outcomes, Plan, ServiceExtent, Services};

mod about;
pub mod announce;
pub mod events;
mod execute;
pub mod fault;
mod fou;
mod iptables;
mod ipvs;
mod listeners;
mod masquerade;
mod nft;
mod program;
mod route;
mod sysctl;
mod vips;

pub use about::About;
use ipvs::Ipvs;
pub use ipvs::IpvsError;
use route::RouteSocket;
pub use vips::{VipFailure, VipSocket};

/// Why the kernel could not be observed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Interfaces, addresses, routes or rules cannot be read.
    #[error("reading interfaces, addresses and routes")]
    Network(#[source] route::RouteError),
    /// IPVS cannot be read.
    #[error(transparent)]
    Ipvs(#[from] IpvsError),
    /// The masquerading rules cannot be read.
    #[error("reading the masquerading rules")]
    Masquerade(#[source] masquerade::MasqueradeError),
    /// The GUE ports cannot be read.
    #[error("reading the GUE ports")]
    Fou(#[source] fou::FouError),
}

/// Returns whether IPVS is available, without loading it.
#[must_use]
pub fn has_ipvs() -> bool {
    Path::new("/proc/net/ip_vs").exists()
}

/// The kernel of this network namespace.
pub struct Kernel {
    route: RouteSocket,
    ipvs: Option<Ipvs>,
}

impl Kernel {
    /// Opens the sockets, except that for IPVS, which is opened when it is needed. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// When the kernel refuses to open a socket.
    pub fn connect() -> Result<Self, KernelError> {
        Ok(Self {
            route: RouteSocket::connect().map_err(KernelError::Network)?,
            ipvs: None,
        })
    }

    /// Reads interfaces, addresses, routes and rules.
    ///
    /// # Errors
    /// When one of them cannot be read completely.
    pub async fn observe_network(&self) -> Result<Network, KernelError> {
        self.route.observe().await.map_err(KernelError::Network)
    }

    /// Connects to IPVS. The kernel loads its module if necessary.
    ///
    /// # Errors
    /// When this kernel has no IPVS, or the process lacks the capability for it.
    pub async fn load_ipvs(&mut self) -> Result<(), KernelError> {
        // Any process can connect. Reading needs the capability that all other requests need.
        self.ipvs().await?.timeouts().await?;
        Ok(())
    }

    /// Reads what a pass needs beside the IPVS services, and combines it with the network.
    ///
    /// If IPVS is needed, call [`Kernel::load_ipvs`] first: the sysctls of `net.ipv4.vs` exist only then.
    ///
    /// # Errors
    /// When something that is needed cannot be read.
    pub async fn observe(
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
        let services = Services::new();
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

    /// Reads IPVS services. Those that equal `known` ones share their memory.
    ///
    /// # Errors
    /// When this kernel has no IPVS, the process lacks the capability for it, or reading fails.
    pub async fn observe_services(
        &mut self,
        extent: &ServiceExtent,
        known: &Services,
    ) -> Result<Services, KernelError> {
        let ipvs = self.ipvs().await?;
        Ok(match extent {
            ServiceExtent::All => ipvs.services(known).await?,
            ServiceExtent::Only(keys) => ipvs.some_services(keys, known).await?,
        })
    }

    /// Executes a plan in its order, and returns the outcome of each step. A step that depends on a failed one is
    /// skipped.
    pub async fn execute(&mut self, plan: &Plan) -> Outcomes {
        execute::execute(plan, &self.route, &mut self.ipvs).await
    }

    async fn ipvs(&mut self) -> Result<&mut Ipvs, IpvsError> {
        Ipvs::connected(&mut self.ipvs).await
    }
}
