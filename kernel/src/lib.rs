//! The kernel of this network namespace: what it holds is observed, plans are executed on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use lvs_model::{
    Director, Forwarding, KernelState, Ledger, NodeFacts, NodeSpec, ReturnPath, Service, ServiceKey,
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
mod program;
mod route;
mod sysctl;

pub use about::About;
use ipvs::Ipvs;
pub use ipvs::IpvsError;
use route::RouteSocket;

/// Why the kernel could not be observed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
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
pub struct Needs {
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
    pub fn of(spec: &NodeSpec, ledger: &Ledger) -> Self {
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
pub fn has_ipvs() -> bool {
    Path::new("/proc/net/ip_vs").exists()
}

/// The kernel of this network namespace.
pub struct Kernel {
    route: RouteSocket,
    ipvs: Option<Ipvs>,
}

/// The interfaces, addresses and routes of this network namespace.
pub use route::Network;

impl Kernel {
    /// Opens the sockets; IPVS is left alone until it is needed.
    pub async fn connect() -> Result<Self, KernelError> {
        Ok(Self {
            route: RouteSocket::connect().map_err(KernelError::Network)?,
            ipvs: None,
        })
    }

    /// Reads interfaces, addresses, routes and rules.
    pub async fn observe_network(&self) -> Result<Network, KernelError> {
        self.route.observe().await.map_err(KernelError::Network)
    }

    /// Connects to IPVS, which loads its module where it must.
    ///
    /// # Errors
    /// When this kernel has none, or the process may not use it.
    pub async fn load_ipvs(&mut self) -> Result<(), IpvsError> {
        // Connecting is open to everybody; reading takes the permission that everything else takes.
        self.ipvs().await?.timeouts().await.map(drop)
    }

    /// Reads what a pass needs beside the IPVS services, and puts it together with the network.
    ///
    /// IPVS is to be loaded before: `net.ipv4.vs` is there only then.
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
    pub async fn observe_services(
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
}
