//! Director groups: the machines that direct virtual services.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{ConnectionSync, Failover, InterfaceName, NodeName, Timeouts};

/// The machines that direct a set of virtual services, and their common settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectorGroup {
    /// The directors.
    pub nodes: Vec<NodeName>,
    /// The interface for VIPs. `None`: the interface whose subnet contains the VIP.
    pub interface: Option<InterfaceName>,
    /// The addresses that the director with the VIPs has too: the default gateways of real servers with NAT.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// How the directors agree who holds the VIPs. `None`: there is one director.
    pub failover: Option<Failover>,
    /// How the directors tell each other the connections that need it.
    #[serde(default)]
    pub connection_sync: ConnectionSync,
    /// The IPVS timeouts. `None`: the kernel's are left as they are.
    pub timeouts: Option<Timeouts>,
}
