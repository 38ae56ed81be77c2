//! Changes of the watched objects: each is stored, and what depends on it is queued.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::api::core::v1::Node;
use kube::core::PartialObjectMeta;
use lvs_crd::{
    AddressPool, DirectorBinding, DirectorGroup, LvsNode, RealServerBinding, VirtualService,
    convert,
};
use lvs_model::{NodeName, ObjectName, PoolName};

use crate::cluster::{
    Change, Cluster, DatedMembership, Membership, ReconcileRequest, addresses, created, is_managed,
    macs, reserved,
};

impl Cluster {
    /// Stores a change and queues what depends on it. The work follows the change, not the number of objects.
    pub(crate) fn observe(&mut self, change: Change) {
        match change {
            Change::VirtualService(name, object) => self.observe_service(name, object),
            Change::UnreadableService(name) => drop(self.objects.unreadable.insert(name)),
            Change::DirectorGroup(name, object) => self.observe_group(&name, object),
            Change::AddressPool(name, object) => self.observe_pool(name, object),
            Change::Namespace(name, labels) => self.observe_namespace(name, labels),
            Change::Service(name, service) => {
                self.objects.set_kube_service(&name, service);
                self.enqueue_services(self.index.users_of_kube_service(&name));
            }
            Change::EndpointSlice(name, object) => {
                for service in self.objects.set_slice(name, object) {
                    self.enqueue_services(self.index.users_of_kube_service(&service));
                }
            }
            Change::Node(name, object) => self.observe_node(&name, object),
            Change::LvsNode(name, object) => self.observe_lvs_node(&name, object),
            Change::DirectorBinding(name, object) => self.observe_binding(name, object),
            Change::Agent(node, is_alive) => {
                self.agents.set(&node, is_alive);
                self.enqueue_reports_of(&node);
                self.elect_bound(&node);
            }
            Change::AgentsKnown => {
                self.agents.set_known();
                let nodes: Vec<NodeName> = self.objects.lvs_nodes.keys().cloned().collect();
                let bound = self.index.bound_machines();
                for node in nodes.iter().chain(&bound) {
                    if self.agents.is_silent(node) {
                        self.enqueue_reports_of(node);
                        self.elect_bound(node);
                    }
                }
            }
            Change::RealServerBinding(name, object) => self.observe_served(name, object),
        }
    }

    fn observe_service(&mut self, name: ObjectName, object: Option<Arc<VirtualService>>) {
        // One that is being deleted counts as deleted, even if finalizers keep it.
        let object = object.filter(|object| object.metadata.deletion_timestamp.is_none());
        self.objects.unreadable.remove(&name);
        match object {
            Some(object) => {
                self.restore_allocation(&name, &object);
                self.objects.services.insert(name.clone(), object);
            }
            None => drop(self.objects.services.remove(&name)),
        }
        self.update_holding(&name);
        self.enqueue(ReconcileRequest::Service(name));
    }

    /// Takes an allocated address over from the status, which keeps it over a restart of the controller.
    fn restore_allocation(&mut self, name: &ObjectName, object: &VirtualService) {
        let status = object.status.as_ref();
        let addresses = status.into_iter().flat_map(|status| &status.addresses);
        let addresses = addresses.filter_map(|address| address.parse().ok());
        if object.spec.addresses.is_empty() && self.allocations.get(name).is_empty() {
            self.allocations.set(name, addresses.collect());
        }
    }

    /// A pool concerns every virtual service and every other pool. An administrator rarely changes one.
    fn observe_pool(&mut self, name: PoolName, object: Option<Arc<AddressPool>>) {
        let spec = |object: Option<&Arc<AddressPool>>| object.map(|object| object.spec.clone());
        let is_same = spec(self.objects.pools.get(&name)) == spec(object.as_ref());
        match object {
            Some(object) => drop(self.objects.pools.insert(name.clone(), object)),
            None => drop(self.objects.pools.remove(&name)),
        }
        if is_same {
            return self.enqueue(ReconcileRequest::Pool(name));
        }
        self.index_pools();
        let services: Vec<ObjectName> = self.objects.services.keys().cloned().collect();
        self.enqueue_services(services);
        let pools = self.objects.pools.keys().cloned();
        self.queue.extend(pools.map(ReconcileRequest::Pool));
    }

    fn index_pools(&mut self) {
        let namespaces = &self.objects.namespaces;
        let pools = self.objects.pools.iter();
        let pools = pools.map(|(name, object)| {
            let (pool, _) = convert::pool_with_errors(object, namespaces);
            (name.clone(), pool)
        });
        self.pools = pools.collect();
    }

    /// The labels of a namespace decide which pools, real servers and marks its virtual services may have.
    fn observe_namespace(&mut self, name: String, labels: Option<BTreeMap<String, String>>) {
        if self.objects.namespaces.get(&name) == labels.as_ref() {
            return;
        }
        let services = self.objects.services.keys();
        let services = services.filter(|service| service.namespace() == name);
        let services: Vec<ObjectName> = services.cloned().collect();
        self.enqueue_services(services);
        match labels {
            Some(labels) => drop(self.objects.namespaces.insert(name, labels)),
            None => drop(self.objects.namespaces.remove(&name)),
        }
        self.index_pools();
    }

    fn observe_group(&mut self, name: &String, object: Option<Arc<DirectorGroup>>) {
        match object {
            Some(object) => drop(self.objects.groups.insert(name.clone(), object)),
            None => drop(self.objects.groups.remove(name)),
        }
        self.index_group(name);
    }

    /// Finds the director of a group, and queues what depends on it.
    fn index_group(&mut self, name: &String) {
        let election = self.elect(name);
        let directors = self.index.set_election(name, election);
        for machine in directors.iter().flatten() {
            self.enqueue_node(machine);
        }
        self.enqueue_services(self.index.users_of_group(name));
        self.enqueue(ReconcileRequest::Group(name.clone()));
    }

    /// Finds the director of a group again after something changed that may matter.
    fn elect_again(&mut self, group: &String) {
        if self.elect(group).as_ref() != self.index.election(group) {
            self.index_group(group);
        }
    }

    /// Finds the directors again of the groups of which a machine has bindings.
    fn elect_bound(&mut self, machine: &NodeName) {
        let groups: Vec<String> = self.index.bound_groups(machine).cloned().collect();
        for group in groups {
            self.elect_again(&group);
        }
    }

    fn observe_node(&mut self, name: &NodeName, object: Option<Arc<PartialObjectMeta<Node>>>) {
        let elective = |node: Option<&Arc<PartialObjectMeta<Node>>>| {
            node.map(|node| (node.metadata.labels.clone(), created(&node.metadata)))
        };
        let before = self.objects.nodes.get(name);
        let is_relabelled = elective(before) != elective(object.as_ref());
        match object {
            Some(object) => drop(self.objects.nodes.insert(name.clone(), object)),
            None => drop(self.objects.nodes.remove(name)),
        }
        self.enqueue_node(name);
        if is_relabelled {
            let groups = self.objects.groups.iter();
            let selecting = groups.filter(|(_, group)| group.spec.nodes.selector.is_some());
            let selecting: Vec<String> = selecting.map(|(group, _)| group.clone()).collect();
            for group in selecting {
                self.index_group(&group);
            }
        }
    }

    fn observe_lvs_node(&mut self, name: &NodeName, object: Option<Arc<LvsNode>>) {
        let before = self.objects.lvs_nodes.get(name).cloned();
        let (before, now) = (before.as_deref(), object.as_deref());
        let (old, new) = (addresses(before), addresses(now));
        let concerned = if is_managed(before) == is_managed(now) {
            &old ^ &new
        } else {
            &old | &new
        };
        self.enqueue_users_of(&concerned);
        if old.is_empty() != new.is_empty() {
            // Without known addresses, a machine keeps those in its RealServerBindings.
            let served = self.index.served_bindings_on(name).into_iter();
            let services = served.filter_map(|binding| self.service_of_served(&binding));
            let services: Vec<ObjectName> = services.collect();
            self.enqueue_services(services);
        }
        if old != new {
            // An endpoint with an address of a director is left out.
            let groups: Vec<String> = self.index.directed_by(name).cloned().collect();
            for group in groups {
                self.enqueue_services(self.index.users_of_group(&group));
            }
        }
        self.index.set_addresses(name, &old, &new);
        let (old, new) = (reserved(before), reserved(now));
        self.enqueue_users_of(&(&old ^ &new));
        self.index.set_reserved(name, &old, &new);
        if macs(before) != macs(now) {
            // Another director may wait for a VIP that this machine answers for.
            self.enqueue_reports_of(name);
        }
        match object {
            Some(object) => drop(self.objects.lvs_nodes.insert(name.clone(), object)),
            None => drop(self.objects.lvs_nodes.remove(name)),
        }
        self.enqueue_node(name);
    }

    /// Queues the virtual services that have one of the addresses as a VIP or among their real servers.
    fn enqueue_users_of(&mut self, addresses: &BTreeSet<IpAddr>) {
        for address in addresses {
            let users = self.claims.users_of(*address).into_iter();
            let users: Vec<ObjectName> = users.cloned().collect();
            self.enqueue_services(users);
        }
    }

    /// Queues what a machine's agent reports on: the machine, and the virtual services that it directs or serves.
    fn enqueue_reports_of(&mut self, node: &NodeName) {
        self.enqueue_node(node);
        let bindings = self.index.bindings_on(node);
        let services = bindings.iter().filter_map(|name| self.service_of(name));
        let served = self.index.served_bindings_on(node);
        let served = served
            .iter()
            .filter_map(|name| self.service_of_served(name));
        let services: Vec<ObjectName> = services.chain(served).collect();
        self.enqueue_services(services);
    }

    fn observe_binding(&mut self, name: ObjectName, object: Option<Arc<DirectorBinding>>) {
        let service = |binding: &DirectorBinding| {
            ObjectName::new(name.namespace(), &binding.spec.virtual_service).ok()
        };
        let before = self.service_of(&name);
        let now = object.as_deref().and_then(service);
        let old = self.objects.bindings.get(&name);
        let was_bound = old.and_then(|old| membership(old));
        let is_bound = object.as_deref().and_then(membership);
        self.index.set_binding(&name, before.as_ref(), now.as_ref());
        let changed = self
            .index
            .set_bound(&name, was_bound.as_ref(), is_bound.as_ref());
        // A machine with bindings stays director.
        for Membership { machine, group } in changed {
            self.enqueue_node(&machine);
            self.elect_again(&group);
        }
        match object {
            Some(object) => drop(self.objects.bindings.insert(name, object)),
            None => drop(self.objects.bindings.remove(&name)),
        }
        let concerned: BTreeSet<ObjectName> = before.into_iter().chain(now).collect();
        for service in &concerned {
            self.update_holding(service);
        }
        self.enqueue_services(concerned);
    }

    fn observe_served(&mut self, name: ObjectName, object: Option<Arc<RealServerBinding>>) {
        let service = |binding: &RealServerBinding| {
            ObjectName::new(name.namespace(), &binding.spec.virtual_service).ok()
        };
        let machine = |binding: &RealServerBinding| binding.spec.node.parse::<NodeName>().ok();
        let before = self.objects.served.get(&name);
        let was_on = before.and_then(|binding| machine(binding));
        let before = before.and_then(|binding| service(binding));
        let is_on = object.as_deref().and_then(machine);
        self.index
            .set_served_machine(&name, was_on.as_ref(), is_on.as_ref());
        let now = object.as_deref().and_then(service);
        self.index
            .set_served_binding(&name, before.as_ref(), now.as_ref());
        match object {
            Some(object) => drop(self.objects.served.insert(name, object)),
            None => drop(self.objects.served.remove(&name)),
        }
        self.enqueue_services(before.into_iter().chain(now));
    }
}

/// The machine and the group of a binding, and when it was made; `None` for a slice.
fn membership(binding: &DirectorBinding) -> Option<DatedMembership> {
    let membership = Membership {
        machine: binding.spec.node.parse().ok()?,
        group: binding.spec.director_group.clone(),
    };
    let is_first = binding.spec.slice.is_none();
    is_first.then(|| DatedMembership {
        membership,
        made: created(&binding.metadata),
    })
}
