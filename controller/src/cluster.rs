//! The cluster as the controller knows it: the watched objects, what was decided from them, and what is to be reconciled.
//!
//! Everything here is pure. All state besides the objects can be computed from them again, except for allocated addresses,
//! last accepted versions, places in slices, weights, the order of real servers, real servers before a change and contests, which depend
//! on history on purpose.
//! A test recomputes it and compares.

mod agents;
mod allocations;
mod contests;
mod deadlines;
mod desired;
mod group;
mod holding;
mod index;
mod machine;
mod objects;
mod places;
mod reconciled;
mod refusals;
mod request;

pub(crate) use agents::{Agents, silence};
pub(crate) use allocations::Allocations;
pub(crate) use contests::Contests;
pub(crate) use deadlines::Deadlines;
pub(crate) use desired::{Bindings, DesiredBinding};
pub(crate) use group::{Election, members};
pub(crate) use holding::{created, held_by_binding, held_by_status, is_stored};
pub(crate) use index::{Index, MachineAddresses, Membership};
pub(crate) use machine::{
    addresses, has_facts, has_reported, is_managed, macs, owner, readiness_of, report, reserved,
    standings,
};
pub(crate) use objects::{Change, Objects};
pub(crate) use places::Places;
pub(crate) use reconciled::{Fault, Reconciled, ServiceState, Version};
pub(crate) use refusals::Refusals;
pub(crate) use request::ReconcileRequest;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lvs_crd::{DirectorBinding, slice_name};
use lvs_model::{Claims, NodeName, ObjectName, Pools, ServerHistory, Sharing};

/// The cluster as the controller knows it.
pub(crate) struct Cluster {
    /// The watched objects.
    pub objects: Objects,
    /// Which agents are alive.
    pub agents: Agents,
    /// From an object to those that depend on it.
    pub index: Index,
    /// What each virtual service claims, and whether it is granted.
    pub claims: Claims,
    /// The pools, with the namespaces that they serve.
    pub pools: Pools,
    /// The addresses that virtual services were given from pools.
    pub allocations: Allocations,
    /// Each virtual service as it was last reconciled.
    pub services: BTreeMap<ObjectName, Reconciled>,
    /// The slice of each real server, for virtual services with more than one object may have.
    pub places: BTreeMap<ObjectName, Places>,
    /// The bindings with slices that were last begun to be written.
    pub begun: BTreeMap<ObjectName, Arc<Bindings>>,
    /// The real servers of the virtual services whose connections are kept, and those before the last change.
    pub histories: BTreeMap<ObjectName, ServerHistory>,
    /// When virtual services are reconciled although no object has changed.
    pub deadlines: Deadlines,
    /// The time of the present round, in seconds since 1970.
    pub now: u64,
    /// The groups in which two directors report that they hold the same VIPs.
    pub contests: Contests,
    /// What the API server refuses to store.
    pub refusals: Refusals,
    /// What is to be reconciled.
    pub queue: BTreeSet<ReconcileRequest>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            agents: Agents::default(),
            contests: Contests::default(),
            refusals: Refusals::default(),
            objects: Objects::default(),
            index: Index::default(),
            claims: Claims::new(Sharing::WithinNamespace),
            pools: Pools::default(),
            allocations: Allocations::default(),
            services: BTreeMap::new(),
            places: BTreeMap::new(),
            begun: BTreeMap::new(),
            histories: BTreeMap::new(),
            deadlines: Deadlines::default(),
            now: 0,
            queue: BTreeSet::new(),
        }
    }
}

impl Cluster {
    /// Queues a request, such as that of a write that failed.
    pub(crate) fn enqueue(&mut self, request: ReconcileRequest) {
        self.queue.insert(request);
    }

    /// Sets the time, and queues what is due.
    pub(crate) fn tick(&mut self, now: u64) {
        self.now = now;
        let due = self.deadlines.take_due(now);
        self.enqueue_services(due);
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

    /// Queues the groups that a machine directs for, and their virtual services.
    pub(crate) fn enqueue_directed_by(&mut self, name: &NodeName) {
        let groups: Vec<String> = self.index.directed_by(name).cloned().collect();
        for group in groups {
            self.enqueue_services(self.index.users_of_group(&group));
            self.enqueue(ReconcileRequest::Group(group));
        }
    }

    /// Queues the virtual services that wait for an address.
    pub(crate) fn enqueue_waiting(&mut self) {
        let waiting = self.allocations.take_waiting();
        self.enqueue_services(waiting);
    }

    /// Updates what the objects show a virtual service to hold, and queues those whose claims are decided differently by that.
    pub(crate) fn update_holding(&mut self, name: &ObjectName) {
        let object = self.objects.services.get(name);
        let object = object.map(AsRef::as_ref);
        let bound = self.bindings_of(name).filter_map(|(binding, first)| {
            let names = (1..=first.spec.slices.len())
                .map(|number| slice_name(binding.name(), number))
                .filter_map(|slice| ObjectName::new(binding.namespace(), &slice).ok());
            let slices = names.filter_map(|slice| self.objects.bindings.get(&slice));
            held_by_binding(first, slices.map(AsRef::as_ref), object)
        });
        let stored = bound.chain(object.and_then(held_by_status)).collect();
        let changed = self.claims.set_stored(name, stored);
        self.enqueue_services(changed);
    }

    /// The bindings of a virtual service, without slices, by their names.
    pub(crate) fn bindings_of(
        &self,
        name: &ObjectName,
    ) -> impl Iterator<Item = (ObjectName, &Arc<DirectorBinding>)> {
        let names = self.index.bindings_of(name).into_iter();
        let bindings = names.filter_map(|name| {
            let found = self.objects.bindings.get(&name)?;
            Some((name, found))
        });
        bindings.filter(|(_, binding)| binding.spec.slice.is_none())
    }

    /// The virtual service that a RealServerBinding is for.
    pub(crate) fn service_of_served(&self, binding: &ObjectName) -> Option<ObjectName> {
        let found = self.objects.served.get(binding)?;
        ObjectName::new(binding.namespace(), &found.spec.virtual_service).ok()
    }

    /// The virtual service that a binding is for.
    pub(crate) fn service_of(&self, binding: &ObjectName) -> Option<ObjectName> {
        let found = self.objects.bindings.get(binding)?;
        ObjectName::new(binding.namespace(), &found.spec.virtual_service).ok()
    }
}
