//! The cluster as the controller knows it: the watched objects, what was decided from them, and what is to be reconciled.
//!
//! Everything here is pure. All state besides the objects can be computed from them again, except for allocated addresses,
//! last accepted versions and weights, which depend on history on purpose. A test recomputes it and compares.

mod allocations;
mod group;
mod index;
mod machine;
mod objects;
mod reconciled;
mod request;

pub(crate) use allocations::Allocations;
pub(crate) use group::{director, members};
pub(crate) use index::Index;
pub(crate) use machine::{
    addresses, changed_reports, is_managed, owner, report, served_name, served_names,
};
pub(crate) use objects::{Change, Objects};
pub(crate) use reconciled::{Fault, Reconciled, ServiceState, Version};
pub(crate) use request::ReconcileRequest;

use std::collections::{BTreeMap, BTreeSet};

use lvs_model::{Claims, NodeName, ObjectName};

/// The cluster as the controller knows it.
#[derive(Default)]
pub(crate) struct Cluster {
    /// The watched objects.
    pub objects: Objects,
    /// From an object to those that depend on it.
    pub index: Index,
    /// What each virtual service claims, and whether it is granted.
    pub claims: Claims,
    /// The addresses that virtual services were given from pools.
    pub allocations: Allocations,
    /// Each virtual service as it was last reconciled.
    pub services: BTreeMap<ObjectName, Reconciled>,
    /// What is to be reconciled.
    pub queue: BTreeSet<ReconcileRequest>,
}

impl Cluster {
    /// Queues a request, such as that of a write that failed.
    pub(crate) fn enqueue(&mut self, request: ReconcileRequest) {
        self.queue.insert(request);
    }

    /// Queues virtual services.
    pub(crate) fn enqueue_services(&mut self, names: impl IntoIterator<Item = ObjectName>) {
        let requests = names.into_iter().map(ReconcileRequest::Service);
        self.queue.extend(requests);
    }

    /// Queues a machine.
    pub(crate) fn enqueue_node(&mut self, name: &NodeName) {
        self.enqueue(ReconcileRequest::Node(name.clone()));
    }

    /// Queues the virtual services for which no address was free.
    pub(crate) fn enqueue_waiting(&mut self) {
        let waiting = self.allocations.take_waiting();
        self.enqueue_services(waiting);
    }

    /// The virtual service that a binding is for.
    pub(crate) fn service_of(&self, binding: &ObjectName) -> Option<ObjectName> {
        let found = self.objects.bindings.get(binding)?;
        ObjectName::new(binding.namespace(), &found.spec.virtual_service).ok()
    }
}
