//! Director groups: which machines direct.

use serde::{Deserialize, Serialize};

use crate::{InterfaceName, NodeName, Timeouts};

/// The machines that direct a set of virtual services, and what they share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectorGroup {
    /// The directors.
    pub nodes: Vec<NodeName>,
    /// The interface for VIPs; `None`: the one whose subnet holds the VIP.
    pub interface: Option<InterfaceName>,
    /// IPVS timeouts; `None`: the kernel's are left as they are.
    pub timeouts: Option<Timeouts>,
}
