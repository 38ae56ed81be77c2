//! Observes the kernel of this network namespace, and executes plans on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use lvs_model::{
    FouPort, InterfaceName, KernelState, Masquerade, Needs, Network, NodeFacts, Observation,
    Outcomes, Part, Plan, RouteAnswers, ServiceExtent, ServiceKey, Services, Strays, SyncDaemon,
    SyncRole, Tables, Timeouts,
};

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
mod offload;
mod program;
mod route;
mod strays;
mod sysctl;
mod vips;
mod vrrp;

pub use about::About;
use ipvs::Ipvs;
pub use ipvs::IpvsError;
use route::RouteSocket;
pub use vips::{VipFailure, VipSocket};
pub use vrrp::{VrrpPacket, VrrpSocket};

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
    /// The rules that mark stray packets cannot be read.
    #[error("reading the rules that mark stray packets")]
    Strays(#[source] strays::StrayError),
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

    /// Reads interfaces and addresses, and our routes and rules.
    ///
    /// # Errors
    /// When one of them cannot be read completely.
    pub async fn observe_network(&mut self, tables: &Tables) -> Result<Network, KernelError> {
        let network = self.route.observe(tables).await;
        network.map_err(KernelError::Network)
    }

    /// Asks for the routes to addresses. [`Kernel::observe_network`] must have read the interfaces before.
    ///
    /// # Errors
    /// When one of the routes cannot be read. That there is none is no error.
    pub async fn routes_to(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<RouteAnswers, KernelError> {
        let routes = self.route.routes_to(addresses).await;
        routes.map_err(KernelError::Network)
    }

    /// Connects to IPVS. The kernel loads its module if necessary.
    ///
    /// # Errors
    /// When this kernel has no IPVS, or the process lacks the capability for it.
    pub async fn load_ipvs(&mut self) -> Result<(), KernelError> {
        // Any process can connect. Reading needs the capability that all other requests need.
        self.timeouts().await.map(drop)
    }

    /// Reads what a pass needs beside the IPVS services, and combines it with the network. Masquerading rules and GUE ports that
    /// cannot be read are named in the result.
    ///
    /// If IPVS is needed, call [`Kernel::load_ipvs`] first: the sysctls of `net.ipv4.vs` exist only then.
    ///
    /// # Errors
    /// When something else that is needed cannot be read.
    pub async fn observe(
        &mut self,
        network: Network,
        needs: Needs,
    ) -> Result<Observation, KernelError> {
        let (timeouts, sync_daemons) = match needs.ipvs {
            true => (Some(self.timeouts().await?), self.sync_daemons().await?),
            false => (None, BTreeMap::new()),
        };
        let mut unread = BTreeMap::new();
        let masquerade = part(
            Part::Masquerade,
            observe_masquerade(needs).await,
            &mut unread,
        );
        let strays = part(Part::Strays, observe_strays(needs).await, &mut unread);
        let fou_ports = part(Part::FouPorts, observe_fou_ports(needs).await, &mut unread);
        let Network {
            interfaces,
            links,
            addresses,
            routes,
            rules,
            interface_addresses,
            gateways,
        } = network;
        let listeners = if needs.listeners {
            listeners::observe().await
        } else {
            None
        };
        let sysctls = sysctl::observe(interfaces.keys());
        let facts = NodeFacts {
            kernel: about::version(),
            conntrack: needs.ipvs.then(sysctl::conntrack).flatten(),
            lro: observe_lro(needs).await,
            interfaces,
            addresses: interface_addresses,
            gateways,
            sysctls: sysctls.clone(),
            listeners,
            ..NodeFacts::default()
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
            strays,
            timeouts,
            sync_daemons,
            services,
            routers: BTreeMap::new(),
        };
        Ok(Observation {
            state,
            facts,
            unread,
        })
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
        let read = match extent {
            ServiceExtent::All => ipvs.services(known).await,
            ServiceExtent::Only(keys) => ipvs.some_services(keys, known).await,
        };
        Ok(self.checked(read)?)
    }

    /// Returns those of some IPVS services that have active connections.
    ///
    /// # Errors
    /// When this kernel has no IPVS, the process lacks the capability for it, or reading fails.
    pub async fn services_in_use(
        &mut self,
        services: &BTreeSet<ServiceKey>,
    ) -> Result<BTreeSet<ServiceKey>, KernelError> {
        let read = self.ipvs().await?.in_use(services).await;
        Ok(self.checked(read)?)
    }

    /// Executes a plan in its order, and returns the outcome of each step. A step that depends on a failed one is
    /// skipped.
    pub async fn execute(&mut self, plan: &Plan) -> Outcomes {
        execute::execute(plan, &mut self.route, &mut self.ipvs).await
    }

    async fn timeouts(&mut self) -> Result<Timeouts, KernelError> {
        let read = self.ipvs().await?.timeouts().await;
        Ok(self.checked(read)?)
    }

    async fn sync_daemons(&mut self) -> Result<BTreeMap<SyncRole, SyncDaemon>, KernelError> {
        let read = self.ipvs().await?.sync_daemons().await;
        Ok(self.checked(read)?)
    }

    async fn ipvs(&mut self) -> Result<&mut Ipvs, IpvsError> {
        Ipvs::connected(&mut self.ipvs).await
    }

    /// Closes the IPVS socket after an error: the next request opens it again.
    fn checked<T>(&mut self, read: Result<T, IpvsError>) -> Result<T, IpvsError> {
        if read.is_err() {
            self.ipvs = None;
        }
        read
    }
}

async fn observe_masquerade(needs: Needs) -> Result<Option<Masquerade>, KernelError> {
    if !needs.masquerade {
        return Ok(None);
    }
    let observed = masquerade::observe().await;
    observed.map_err(KernelError::Masquerade)
}

async fn observe_strays(needs: Needs) -> Result<Option<Strays>, KernelError> {
    if !needs.strays {
        return Ok(None);
    }
    strays::observe().await.map_err(KernelError::Strays)
}

async fn observe_lro(needs: Needs) -> BTreeSet<InterfaceName> {
    if needs.ipvs {
        offload::lro().await
    } else {
        BTreeSet::new()
    }
}

async fn observe_fou_ports(needs: Needs) -> Result<BTreeSet<FouPort>, KernelError> {
    if !needs.fou_ports {
        return Ok(BTreeSet::new());
    }
    fou::observe().await.map_err(KernelError::Fou)
}

/// Returns what was read of a part. If it could not be read, nothing, and the reason goes into `unread`.
fn part<T: Default>(
    part: Part,
    read: Result<T, KernelError>,
    unread: &mut BTreeMap<Part, String>,
) -> T {
    read.unwrap_or_else(|error| {
        unread.insert(part, lvs_runtime::error::chain(&error));
        T::default()
    })
}
