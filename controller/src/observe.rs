//! Changes of the watched objects: each is stored, and what depends on it is queued.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::api::core::v1::Node;
use kube::core::PartialObjectMeta;
use lvs_crd::{
    AddressPool, DirectorBinding, DirectorGroup, LvsNode, MemberFailover, RealServerBinding,
    Standing, VirtualService,
    condition::{self, ConditionType},
    convert,
};
use lvs_model::{NodeName, ObjectName, PoolName};

use crate::cluster::{
    Change, Cluster, MachineAddresses, Membership, ReconcileRequest, addresses, has_facts,
    has_reported, is_managed, macs, reserved, standings,
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
            Change::UnreadableSlice(name, object) => {
                for service in self.objects.set_unreadable_slice(&name, object) {
                    self.enqueue_services(self.index.users_of_kube_service(&service));
                }
            }
            Change::Node(name, object) => self.observe_node(&name, object),
            Change::Cordoned(name, is_cordoned) => self.observe_cordon(name, is_cordoned),
            Change::LvsNode(name, object) => self.observe_lvs_node(&name, object),
            Change::DirectorBinding(name, object) => self.observe_binding(name, object),
            Change::Agent(node, is_alive) => {
                self.agents.set(&node, is_alive);
                self.enqueue_reports_of(&node);
                self.elect_bound(&node);
                self.forget_if_gone(&node);
                self.update_contests_of(&node);
            }
            Change::AgentsKnown => {
                self.agents.set_known();
                let nodes: Vec<NodeName> = self.objects.lvs_nodes.keys().cloned().collect();
                let known = self.index.known_machines();
                for node in nodes.iter().chain(&known) {
                    if self.agents.is_silent(node) {
                        self.enqueue_reports_of(node);
                        self.elect_bound(node);
                        self.forget_if_gone(node);
                        self.update_contests_of(node);
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
        self.enqueue_groups_that_lack_routers();
    }

    /// Queues the groups that may get more virtual routers, once another group has given up ids.
    fn enqueue_groups_that_lack_routers(&mut self) {
        for group in self.groups_that_lack_routers() {
            self.enqueue_group(&group);
        }
    }

    /// Finds the directors of a group, and queues what depends on them.
    fn index_group(&mut self, name: &String) {
        let before = self.index.machines_of_group(name);
        let election = self.elect(name);
        self.index.set_election(name, election);
        for machine in &before {
            self.enqueue_node(machine);
        }
        self.enqueue_group(name);
    }

    /// Queues a group, its machines and its virtual services.
    fn enqueue_group(&mut self, name: &str) {
        self.enqueue_machines_of(name);
        self.enqueue_services(self.index.users_of_group(name));
        self.enqueue(ReconcileRequest::Group(name.to_owned()));
    }

    fn enqueue_machines_of(&mut self, group: &str) {
        for machine in self.index.machines_of_group(group) {
            self.enqueue_node(&machine);
        }
    }

    /// Finds the directors of a group again after something changed that may matter.
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
            node.map(|node| (node.metadata.labels.clone(), node.metadata.uid.clone()))
        };
        let before = self.objects.nodes.get(name);
        let is_relabelled = elective(before) != elective(object.as_ref());
        match object {
            Some(object) => drop(self.objects.nodes.insert(name.clone(), object)),
            None => drop(self.objects.nodes.remove(name)),
        }
        self.enqueue_node(name);
        self.forget_if_gone(name);
        self.elect_bound(name);
        if is_relabelled {
            let groups = self.objects.groups.iter();
            let selecting = groups.filter(|(_, group)| group.spec.nodes.selector.is_some());
            let selecting: Vec<String> = selecting.map(|(group, _)| group.clone()).collect();
            for group in selecting {
                self.index_group(&group);
            }
        }
    }

    /// The other directors are concerned too, because one of a group always may hold the VIPs.
    fn observe_cordon(&mut self, name: NodeName, is_cordoned: bool) {
        let groups: Vec<String> = self.index.directed_by(&name).cloned().collect();
        self.enqueue_node(&name);
        if is_cordoned {
            self.objects.cordoned.insert(name);
        } else {
            self.objects.cordoned.remove(&name);
        }
        for group in groups {
            self.enqueue_machines_of(&group);
        }
    }

    fn observe_lvs_node(&mut self, name: &NodeName, object: Option<Arc<LvsNode>>) {
        let before = self.objects.lvs_nodes.get(name).cloned();
        let (before, now) = (before.as_deref(), object.as_deref());
        if is_managed(before) != is_managed(now) {
            self.enqueue_users_of(&(&addresses(before) | &addresses(now)));
            // Why nothing is known of a silent agent changes.
            self.enqueue_reports_of(name);
        }
        if has_facts(now) {
            let reported = MachineAddresses {
                addresses: addresses(now),
                reserved: reserved(now),
            };
            self.set_addresses(name, reported);
        }
        if has_facts(before) != has_facts(now) {
            // Virtual services wait for the first report of a director.
            self.enqueue_waiting();
        }
        for group in standing_in(now) {
            self.index.join(name, &group);
        }
        let problems = |node| standings(node).map(|standing| &standing.problem);
        if !problems(before).eq(problems(now)) {
            let groups = standing_in(now).into_iter();
            self.queue.extend(groups.map(ReconcileRequest::Group));
        }
        let mut regrouped = regrouped(before, now);
        if has_reported(before) != has_reported(now) {
            // Where it leaves, its bindings wait for its report, whether or not it has or changes a standing.
            let groups = self.index.bound_groups(name).cloned();
            let groups = groups.chain(standing_in(now));
            regrouped.extend(groups.filter(|group| self.index.leaving(group).contains(name)));
        }
        regrouped.extend(self.leave_groups(name, now));
        if macs(before) != macs(now) {
            // Another director may wait for a VIP that this machine answers for.
            self.enqueue_reports_of(name);
        }
        match object {
            Some(object) => drop(self.objects.lvs_nodes.insert(name.clone(), object)),
            None => drop(self.objects.lvs_nodes.remove(name)),
        }
        for group in &regrouped {
            self.enqueue_group(group);
            self.update_contest(group);
        }
        if !regrouped.is_empty() {
            self.enqueue_groups_that_lack_routers();
        }
        self.enqueue_node(name);
        self.elect_bound(name);
        self.forget_if_gone(name);
    }

    /// Confirms a contest, if it has not ended since.
    pub(crate) fn confirm_contest(&mut self, group: &str, number: u64) {
        if self.contests.confirm(group, number) {
            self.enqueue_services(self.index.users_of_group(group));
            self.enqueue(ReconcileRequest::Group(group.to_owned()));
        }
    }

    fn update_contests_of(&mut self, machine: &NodeName) {
        let lvs_node = self.objects.lvs_nodes.get(machine);
        for group in standing_in(lvs_node.map(AsRef::as_ref)) {
            self.update_contest(&group);
        }
    }

    fn update_contest(&mut self, group: &str) {
        let is_contested = self.is_contested(group);
        self.contests.set(group, is_contested);
    }

    /// Records which groups a machine has left; returns them.
    fn leave_groups(&mut self, machine: &NodeName, lvs_node: Option<&LvsNode>) -> Vec<String> {
        let unbound = self.index.unbound_groups(machine).into_iter();
        let left: Vec<String> = unbound.filter(|group| has_left(lvs_node, group)).collect();
        for group in &left {
            self.index.leave(machine, group);
        }
        left
    }

    /// Forgets the addresses of a machine that has no Node, no LvsNode and no agent that is alive. Until then it may be about to
    /// be registered anew, and no virtual service gets its addresses.
    fn forget_if_gone(&mut self, name: &NodeName) {
        let is_known =
            self.objects.nodes.contains_key(name) || self.objects.lvs_nodes.contains_key(name);
        if !is_known && self.agents.is_silent(name) {
            self.set_addresses(name, MachineAddresses::default());
        }
    }

    /// Sets the addresses of a machine, and queues what depends on them.
    fn set_addresses(&mut self, name: &NodeName, now: MachineAddresses) {
        let before = self.index.reported(name);
        if before == now {
            return;
        }
        let changed = &before.addresses ^ &now.addresses;
        self.enqueue_users_of(&changed);
        self.enqueue_users_of(&(&before.reserved ^ &now.reserved));
        for address in &changed {
            self.enqueue_services(self.index.without(*address));
        }
        if before.addresses.is_empty() != now.addresses.is_empty() {
            // Without known addresses, a machine keeps those in its RealServerBindings.
            let served = self.index.served_bindings_on(name).into_iter();
            let services = served.filter_map(|binding| self.service_of_served(&binding));
            let services: Vec<ObjectName> = services.collect();
            self.enqueue_services(services);
        }
        if !changed.is_empty() {
            // An endpoint with an address of a director is left out.
            let groups: Vec<String> = self.index.directed_by(name).cloned().collect();
            for group in groups {
                self.enqueue_services(self.index.users_of_group(&group));
            }
        }
        for address in now.addresses.difference(&before.addresses) {
            self.take_from_absent(*address);
        }
        let is_of_pools = self.enqueue_pools_of(&(&changed | &(&before.reserved ^ &now.reserved)));
        self.index.set_reported(name, now);
        if is_of_pools {
            self.enqueue_waiting();
        }
    }

    /// Queues the pools that have one of the addresses: they count those that no VIP may have. Returns whether there is one.
    fn enqueue_pools_of(&mut self, addresses: &BTreeSet<IpAddr>) -> bool {
        let pools = addresses
            .iter()
            .flat_map(|address| self.pools.with(*address));
        let pools: BTreeSet<ReconcileRequest> =
            pools.cloned().map(ReconcileRequest::Pool).collect();
        let is_any = !pools.is_empty();
        self.queue.extend(pools);
        is_any
    }

    /// A machine that reports nothing at the moment no longer has an address that another machine reports.
    fn take_from_absent(&mut self, address: IpAddr) {
        let machines = self.index.machines().get(&address);
        let absent = machines.into_iter().flatten().filter(|machine| {
            let lvs_node = self.objects.lvs_nodes.get(*machine);
            !has_facts(lvs_node.map(AsRef::as_ref))
        });
        let absent: Vec<NodeName> = absent.cloned().collect();
        for machine in absent {
            let mut reported = self.index.reported(&machine);
            reported.addresses.remove(&address);
            self.index.set_reported(&machine, reported);
        }
    }

    /// Queues the virtual services that have one of the addresses as a VIP or among their real servers.
    fn enqueue_users_of(&mut self, addresses: &BTreeSet<IpAddr>) {
        for address in addresses {
            let users = self.claims.users_of(*address).into_iter();
            let users: Vec<ObjectName> = users.cloned().collect();
            self.enqueue_services(users);
        }
    }

    /// Queues what a machine's agent reports on: the machine, its groups, and the virtual services that it directs or serves.
    fn enqueue_reports_of(&mut self, node: &NodeName) {
        self.enqueue_node(node);
        for group in self.index.groups_of_machine(node) {
            self.enqueue_group(&group);
        }
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
            let lvs_node = self.objects.lvs_nodes.get(&machine).cloned();
            self.leave_groups(&machine, lvs_node.as_deref());
            // The others may direct alone without it.
            self.enqueue_group(&group);
            self.enqueue_node(&machine);
            self.elect_again(&group);
        }
        let known = self.objects.bindings.get(&name).cloned();
        let is_same_report =
            known.as_deref().and_then(reason) == object.as_deref().and_then(reason);
        let either = object.as_ref().or(known.as_ref());
        let vips = either.map_or_else(Vec::new, |binding| binding.spec.addresses.clone());
        if let Some(binding) = either.filter(|_| !is_same_report) {
            self.enqueue_leaving(&binding.spec.director_group);
        }
        match object {
            Some(object) => drop(self.objects.bindings.insert(name, object)),
            None => drop(self.objects.bindings.remove(&name)),
        }
        let mut concerned: BTreeSet<ObjectName> = before.into_iter().chain(now).collect();
        for service in &concerned {
            self.update_holding(service);
        }
        if !is_same_report {
            concerned.extend(self.moving_with(&vips));
        }
        self.enqueue_services(concerned);
    }

    /// Queues the machines that leave a group: they wait until others have its services.
    fn enqueue_leaving(&mut self, group: &str) {
        for machine in self.index.leaving(group) {
            self.enqueue_node(&machine);
        }
    }

    /// The virtual services with one of these VIPs that have bindings on several machines: each lets go of the VIP with the
    /// others.
    fn moving_with(&self, vips: &[String]) -> BTreeSet<ObjectName> {
        let vips = vips.iter().filter_map(|vip| vip.parse().ok());
        let holders = vips.flat_map(|vip| self.claims.holders_of(vip));
        let moving = holders.filter(|holder| {
            let directors = self.services.get(*holder);
            let directors = directors.map_or(&[][..], |service| &service.directors);
            let is_leaving = |binding: &DirectorBinding| {
                let mut directors = directors.iter();
                !directors.any(|director| director.as_str() == binding.spec.node)
            };
            self.bindings_of(holder)
                .any(|(_, binding)| is_leaving(binding))
        });
        moving.cloned().collect()
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

/// The reason of what the agent has reported on a binding.
fn reason(binding: &DirectorBinding) -> Option<&str> {
    let status = binding.status.as_ref()?;
    let report = condition::find(&status.conditions, ConditionType::Programmed)?;
    Some(&report.reason)
}

/// The machine and the group of a binding; `None` for a slice.
fn membership(binding: &DirectorBinding) -> Option<Membership> {
    let machine = binding.spec.node.parse().ok()?;
    let is_first = binding.spec.slice.is_none();
    is_first.then(|| Membership {
        machine,
        group: binding.spec.director_group.clone(),
    })
}

/// The groups in which a machine has other settings for failover, or another standing, than before.
fn regrouped(before: Option<&LvsNode>, now: Option<&LvsNode>) -> BTreeSet<String> {
    let (before, now) = (in_groups(before), in_groups(now));
    let names: BTreeSet<&str> = before.keys().chain(now.keys()).copied().collect();
    let changed = names
        .into_iter()
        .filter(|name| before.get(name) != now.get(name));
    changed.map(str::to_owned).collect()
}

/// Returns whether a machine without bindings of a group takes no part in it any more: its LvsNode does not name the group, and its
/// agent has seen that and reports no standing. A machine without an LvsNode, or on which no agent ever ran, takes no part.
fn has_left(node: Option<&LvsNode>, group: &str) -> bool {
    let Some(lvs_node) = node else { return true };
    let mut named = lvs_node.spec.groups.iter();
    let is_named = named.any(|membership| membership.name == group);
    !is_named && has_reported(node) && !standing_in(node).contains(group)
}

/// The groups in which a machine reports that it takes part.
fn standing_in(node: Option<&LvsNode>) -> BTreeSet<String> {
    let groups = standings(node).map(|standing| standing.group.clone());
    groups.collect()
}

/// The settings for failover and the standings of a machine by group, without problems, which concern the group alone.
fn in_groups(node: Option<&LvsNode>) -> BTreeMap<&str, (Option<&MemberFailover>, Vec<Standing>)> {
    let mut groups: BTreeMap<&str, (Option<&MemberFailover>, Vec<Standing>)> = BTreeMap::new();
    for group in node.iter().flat_map(|node| &node.spec.groups) {
        groups.entry(&group.name).or_default().0 = group.failover.as_ref();
    }
    for standing in standings(node) {
        let shown = Standing {
            problem: None,
            ..standing.clone()
        };
        groups.entry(&standing.group).or_default().1.push(shown);
    }
    groups
}
