//! Which agents are alive.

use std::collections::BTreeSet;

use lvs_crd::{LvsNode, condition::Reason};
use lvs_model::NodeName;

use super::machine::is_managed;

/// Which agents are alive, according to their Leases.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agents {
    alive: BTreeSet<NodeName>,
    /// Whether an agent without a Lease is silent. Before the controller has watched for long enough, it may only be late.
    are_known: bool,
}

impl Agents {
    /// Records whether an agent is alive.
    pub(crate) fn set(&mut self, node: &NodeName, is_alive: bool) {
        if is_alive {
            self.alive.insert(node.clone());
        } else {
            self.alive.remove(node);
        }
    }

    /// Records that every agent that is alive has been seen.
    pub(crate) const fn set_known(&mut self) {
        self.are_known = true;
    }

    /// Returns whether what a machine's agent reported last no longer counts.
    pub(crate) fn is_silent(&self, node: &NodeName) -> bool {
        self.are_known && !self.alive.contains(node)
    }
}

/// Why the state of a machine with a silent agent is unknown: a reason for programs and a sentence for people. `unreachable` is
/// the reason if the agent has reported before.
pub(crate) fn silence(node: Option<&LvsNode>, unreachable: Reason) -> (Reason, &'static str) {
    if is_managed(node) {
        let message = "its agent has not renewed its Lease for 40 s";
        (unreachable, message)
    } else {
        let message = "no agent has reported from this machine yet";
        (Reason::NotReported, message)
    }
}
