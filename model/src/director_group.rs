//! Director groups: the machines that direct virtual services.

use serde::{Deserialize, Serialize};

use crate::{Failover, InterfaceName, NodeName, Timeouts};

/// The machines that direct a set of virtual services, and their common settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectorGroup {
    /// The directors.
    pub nodes: Vec<NodeName>,
    /// The interface for VIPs. `None`: the interface whose subnet contains the VIP.
    pub interface: Option<InterfaceName>,
    /// How the directors agree who holds the VIPs. `None`: there is one director.
    pub failover: Option<Failover>,
    /// The IPVS timeouts. `None`: the kernel's are left as they are.
    pub timeouts: Option<Timeouts>,
}
