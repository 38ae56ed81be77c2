//! What a pass remembers of sets of real servers, for connections that another real server had.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use lvs_model::{
    Node, NodeSpec, ObjectName, Problem, ServiceKey, Subject, ending, forget, recall, remember,
};
use lvs_runtime::{clock::seconds_since_1970, error::chain};
use tracing::debug;

use super::Agent;
use crate::kernel::{Kernel, KernelError};

impl<K: Kernel, H> Agent<K, H> {
    /// Compares the sets of real servers with those that the ledger remembers, and adds to the machine's roles what follows; holds sets
    /// back that have just changed. Returns how long until it is to be looked again whether a previous set counts, or the first change
    /// is due.
    pub(super) async fn recall_servers(
        &mut self,
        spec: &mut NodeSpec,
        node: &Node,
    ) -> Option<Duration> {
        let now = seconds_since_1970();
        let is_own =
            |address: &IpAddr| node.addresses.contains(address) || node.absent.contains(address);
        self.is_ledger_changed |= remember(&mut self.ledger.server_sets, &spec.kept, now, is_own);
        let existing: BTreeSet<ServiceKey> = self.ledger.second_services().copied().collect();
        let ending = ending(&self.ledger.server_sets, &spec.kept, now);
        let in_use = self.in_use(&existing & &ending).await;
        let sets = &mut self.ledger.server_sets;
        self.is_ledger_changed |= forget(sets, &spec.kept, &in_use, now, is_own);
        let replaced = self.ledger.server_sets.iter().flat_map(|set| &set.replaced);
        let formerly = replaced.flat_map(|replaced| replaced.servers.destinations.keys());
        let formerly = formerly.map(|server| server.address).filter(is_own);
        let formerly: BTreeSet<IpAddr> = formerly.collect();
        let staying = &(&existing - &ending) | &in_use;
        let check = recall(spec, &self.ledger.server_sets, &staying, now, is_own);
        self.is_ledger_changed |= self.ledger.formerly_served_at != formerly;
        self.ledger.formerly_served_at = formerly;
        // The clock may be in the middle of a second.
        let check = check.map(|check| Duration::from_secs(check.saturating_sub(now) + 1));
        let settled = self.memory.settle(spec);
        settled.into_iter().chain(check).min()
    }

    /// Returns those of some second services that have active connections: all of them if that cannot be read.
    async fn in_use(&mut self, services: BTreeSet<ServiceKey>) -> BTreeSet<ServiceKey> {
        if services.is_empty() || !self.kernel.has_ipvs() {
            return BTreeSet::new();
        }
        match self.kernel.services_in_use(&services).await {
            Ok(in_use) => in_use,
            Err(error) => {
                debug!(
                    error = chain(&error),
                    "cannot read which second services have connections"
                );
                services
            }
        }
    }

    /// Loads IPVS for second chances. If there is none, removes them from the spec: the rest of what the machine does needs no IPVS.
    pub(super) async fn require_ipvs_for_second_chances(
        &mut self,
        spec: &mut NodeSpec,
    ) -> Result<Vec<Problem>, KernelError> {
        if spec.second_chances.is_empty() {
            return Ok(Vec::new());
        }
        let Err(error) = self.kernel.load_ipvs().await else {
            return Ok(Vec::new());
        };
        if self.kernel.has_ipvs() {
            return Err(error);
        }
        let chances = spec.second_chances.drain(..);
        let owners: BTreeSet<ObjectName> = chances.map(|chance| chance.owner).collect();
        let message = format!(
            "connections that another real server had are lost when the director changes: {}",
            chain(&error)
        );
        let problems = owners.into_iter().map(|owner| {
            let subject = Subject::Service(owner);
            Problem::warning(subject, message.clone())
        });
        Ok(problems.collect())
    }

    /// Forgets all sets of real servers.
    pub(super) fn forget_servers(&mut self) {
        self.is_ledger_changed |= !self.ledger.server_sets.is_empty();
        self.ledger.server_sets.clear();
        self.ledger.formerly_served_at.clear();
    }
}
