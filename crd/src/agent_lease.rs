//! The Lease by which an agent shows that it is there.

use std::time::Duration;

use crate::node_label;

/// How often an agent renews its Lease.
pub const AGENT_LEASE_PERIOD: Duration = Duration::from_secs(10);
/// How long an agent may be silent before what it reported last no longer counts.
pub const AGENT_LEASE_DURATION: Duration = Duration::from_secs(40);

/// Returns the name of the Lease of a machine's agent, in the namespace of the controller. It carries
/// [`NODE_LABEL`](crate::NODE_LABEL), and its holder is the machine.
#[must_use]
pub fn agent_lease_name(node: &str) -> String {
    format!("lvs-agent-{}", node_label(node))
}
