//! Decides what is to be written.
//!
//! Settling a virtual service takes six steps, each in a file of its own:
//!
//! ```text
//! allocate   addresses, if the spec names none
//! claim      resolve what the spec names, refuse what the namespace may not have (admit), and claim its VIPs and ports
//! decide     the state: served, unresolved, kept, waiting or refused; and the machines that are real servers
//! slices     give each of many real servers its slice
//! remember   the real servers before a change, for connections that exist
//! write      the bindings and the status that differ
//! ```

mod active;
mod admit;
mod allocate;
mod binding;
mod claim;
mod decide;
mod group;
mod keep;
mod leave;
mod lvs_node;
mod pool;
mod programming;
mod remember;
mod resolve;
mod served;
mod server_order;
mod silence;
mod slices;
mod status;
mod virtual_routers;
mod write;

use std::collections::BTreeMap;

use lvs_model::ObjectName;

use crate::{
    cluster::{Cluster, ReconcileRequest},
    write::Write,
};

impl Cluster {
    /// Reconciles all that is queued and returns the writes. If a claim causes a virtual service to be reconciled again, its
    /// later writes replace the earlier ones. `progress` is called after each request.
    pub(crate) fn reconcile(&mut self, progress: impl Fn()) -> Vec<Write> {
        let mut writes: BTreeMap<ReconcileRequest, Vec<Write>> = BTreeMap::new();
        while !self.queue.is_empty() {
            while let Some(request) = self.queue.pop_first() {
                let of_request = self.reconcile_one(&request);
                writes.insert(request, of_request);
                progress();
            }
            // What is written from here on is held: a newcomer does not get it, however old.
            let changed = self.claims.commit();
            self.enqueue_services(changed);
            self.enqueue_pools();
        }
        writes.into_values().flatten().collect()
    }

    fn reconcile_one(&mut self, request: &ReconcileRequest) -> Vec<Write> {
        match request {
            ReconcileRequest::Service(name) => self.reconcile_service(name),
            ReconcileRequest::Group(name) => self.reconcile_group(name).into_iter().collect(),
            ReconcileRequest::Pool(name) => self.reconcile_pool(name).into_iter().collect(),
            ReconcileRequest::Node(name) => {
                let spec = self.reconcile_node(name);
                let status = self.write_silent_node(name);
                spec.into_iter().chain(status).collect()
            }
            ReconcileRequest::Served(name) => {
                self.enqueue_services(self.service_of_served(name));
                Vec::new()
            }
            ReconcileRequest::Binding(name) => {
                self.enqueue_services(self.service_of(name));
                Vec::new()
            }
        }
    }

    fn reconcile_service(&mut self, name: &ObjectName) -> Vec<Write> {
        let Some(object) = self.objects.services.get(name).cloned() else {
            if self.objects.unreadable.contains(name) {
                // Its directors keep what they have.
                return Vec::new();
            }
            return self.withdraw(name);
        };
        let addresses = self.allocate(name, &object);
        let resolved = self.claim(name, &object, &addresses);
        self.decide(name, &object, resolved);
        self.place(name);
        self.write(name, &object)
    }

    /// Takes back everything that a deleted virtual service had.
    fn withdraw(&mut self, name: &ObjectName) -> Vec<Write> {
        self.release(name);
        self.unclaim(name);
        self.forget(name);
        let mut writes = self.delete_bindings(name);
        writes.extend(self.delete_served(name));
        writes
    }
}

#[cfg(test)]
mod tests;
