//! A controller with the API server that it writes to.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    Resource as _, api::core::v1::Node, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp,
};
use kube::Resource as _;
use lvs_crd::{
    AddressPoolStatus, DirectorBinding, DirectorBindingSpec, DirectorBindingStatus,
    DirectorGroupStatus, GroupMembership, IpFamily, LvsNode, RealServerBinding,
    RealServerBindingSpec, RealServerBindingStatus, Standing, StandingState, VipInUse,
    VirtualService, VirtualServiceStatus,
    condition::{self, ConditionType, Reason, Status, Verdict},
};
use lvs_model::{NodeName, ObjectName, PoolName};
use serde_json::json;

use super::objects::{mk_group, mk_lvs_node, mk_machine, mk_name, mk_owner, mk_pool};
use crate::{
    cluster::{Change, Cluster, ReconcileRequest},
    write::{Reported, Write},
};

/// A controller with the API server that it writes to.
pub(super) struct World {
    /// The controller.
    pub cluster: Cluster,
    /// The bindings that it has written.
    pub bindings: BTreeMap<ObjectName, DirectorBindingSpec>,
    /// The RealServerBindings that it has written.
    pub served: BTreeMap<ObjectName, RealServerBindingSpec>,
    /// The statuses of virtual services.
    pub statuses: BTreeMap<ObjectName, (VirtualServiceStatus, Vec<Verdict>)>,
    /// How many standings were reported, which is the time of the last one.
    reports: i64,
}

impl Default for World {
    /// A controller that has observed pools which have every address that the tests use.
    fn default() -> Self {
        let mut cluster = Cluster::default();
        cluster.observe(mk_pool(
            "public",
            &json!({"addresses": ["10.9.0.1-10.9.0.2"]}),
        ));
        let fixed = json!({"addresses": ["10.0.0.0/16", "2001:db8::/64"], "autoAssign": false});
        cluster.observe(mk_pool("fixed", &fixed));
        Self {
            cluster,
            bindings: BTreeMap::new(),
            served: BTreeMap::new(),
            statuses: BTreeMap::new(),
            reports: 0,
        }
    }
}

impl World {
    /// A controller that has observed changes and written what follows.
    pub(super) fn of(changes: &[Change]) -> Self {
        let mut world = Self::default();
        for change in changes {
            world.cluster.observe(change.clone());
        }
        world.settle();
        world
    }

    /// The same with the group `default` and its director `lvs1`, whose agent has reported.
    pub(super) fn directed(changes: &[Change]) -> Self {
        let director = [mk_group("lvs1"), mk_lvs_node("lvs1", "10.0.0.250")];
        Self::of(&[&director, changes].concat())
    }

    /// A controller that starts with the objects that are stored, and writes what follows. `others` are the objects that this
    /// controller does not write.
    pub(super) fn restart(&self, others: &[Change]) -> Self {
        let objects = &self.cluster.objects;
        let groups = objects.groups.iter();
        let groups = groups
            .map(|(name, object)| Change::DirectorGroup(name.clone(), Some(Arc::clone(object))));
        let bindings = objects.bindings.iter();
        let bindings = bindings
            .map(|(name, object)| Change::DirectorBinding(name.clone(), Some(Arc::clone(object))));
        let lvs_nodes = objects.lvs_nodes.iter();
        let lvs_nodes =
            lvs_nodes.map(|(name, object)| Change::LvsNode(name.clone(), Some(Arc::clone(object))));
        let served = objects.served.iter();
        let served = served.map(|(name, object)| {
            Change::RealServerBinding(name.clone(), Some(Arc::clone(object)))
        });
        let mut all: Vec<Change> = groups.chain(bindings).chain(lvs_nodes).collect();
        all.extend(served);
        let pools = objects.pools.iter();
        let pools =
            pools.map(|(name, object)| Change::AddressPool(name.clone(), Some(Arc::clone(object))));
        all.extend(pools);
        all.extend(self.services());
        all.extend(others.iter().cloned());
        all.reverse();
        let mut world = Self {
            reports: self.reports,
            bindings: self.bindings.clone(),
            served: self.served.clone(),
            statuses: self.statuses.clone(),
            cluster: Cluster::default(),
        };
        for change in all {
            world.cluster.observe(change);
        }
        world.tick(self.cluster.now);
        world
    }

    /// Observes a change and writes what follows.
    pub(super) fn see(&mut self, change: Change) {
        self.cluster.observe(change);
        self.settle();
    }

    /// Lets time pass, and writes what follows.
    pub(super) fn tick(&mut self, now: u64) {
        self.cluster.tick(now);
        self.settle();
    }

    /// Writes, and observes what was written, until there is nothing to write.
    pub(super) fn settle(&mut self) {
        for _round in 0..20 {
            let writes = self.cluster.reconcile(|| {});
            if writes.is_empty() {
                return;
            }
            for write in writes {
                self.write(write);
            }
        }
        panic!("the controller does not stop writing");
    }

    /// What the controller would write if it reconciled everything that it knows.
    pub(super) fn writes_of_all(&mut self) -> Vec<Write> {
        let cluster = &mut self.cluster;
        let services = cluster.objects.services.keys().cloned();
        cluster
            .queue
            .extend(services.map(ReconcileRequest::Service));
        let groups = cluster.objects.groups.keys().cloned();
        cluster.queue.extend(groups.map(ReconcileRequest::Group));
        let pools = cluster.objects.pools.keys().cloned();
        cluster.queue.extend(pools.map(ReconcileRequest::Pool));
        let machines = cluster.objects.nodes.keys();
        let machines = machines.chain(cluster.objects.lvs_nodes.keys()).cloned();
        cluster.queue.extend(machines.map(ReconcileRequest::Node));
        cluster.reconcile(|| {})
    }

    /// Executes a write, and observes it.
    pub(super) fn write(&mut self, write: Write) {
        match write {
            Write::ApplyBinding {
                name,
                owner_uid,
                spec,
            } => self.apply_binding(name, &owner_uid, *spec),
            Write::DeleteBinding { name, .. } => {
                self.bindings.remove(&name);
                self.cluster.observe(Change::DirectorBinding(name, None));
            }
            Write::ApplyServed {
                name,
                owner_uid,
                spec,
            } => self.apply_served(name, &owner_uid, *spec),
            Write::DeleteServed { name, .. } => {
                self.served.remove(&name);
                self.cluster.observe(Change::RealServerBinding(name, None));
            }
            Write::ApplyNode {
                name,
                uid,
                owner_uid,
                groups,
            } => self.apply_node(name, uid.as_deref(), owner_uid, groups),
            Write::DeleteNode { name, .. } => {
                self.cluster.observe(Change::LvsNode(name, None));
            }
            Write::Silence {
                object, verdict, ..
            } => self.store_silence(object, verdict),
            Write::ServiceStatus {
                name,
                status,
                verdicts,
                ..
            } => {
                self.store_status(&name, &status, &verdicts);
                self.statuses.insert(name, (*status, verdicts));
            }
            Write::GroupStatus {
                name,
                status,
                verdicts,
                ..
            } => self.store_group_status(name, status, verdicts),
            Write::PoolStatus {
                name,
                status,
                verdicts,
                ..
            } => self.store_pool_status(name, status, verdicts),
        }
    }

    fn apply_node(
        &mut self,
        name: NodeName,
        uid: Option<&str>,
        owner_uid: Option<String>,
        groups: Vec<GroupMembership>,
    ) {
        let found = self.cluster.objects.lvs_nodes.get(&name);
        assert_eq!(uid, found.and_then(|found| found.metadata.uid.as_deref()));
        let mut object = found.map_or_else(
            || LvsNode::new(name.as_str(), Default::default()),
            |found| found.as_ref().clone(),
        );
        if object.spec.groups != groups {
            // As the API server does; the status is a subresource.
            object.metadata.generation = Some(object.metadata.generation.unwrap_or(0) + 1);
        }
        object.spec.groups = groups;
        object.metadata.owner_references = owner_uid.map(|uid| vec![mk_owner(Node::KIND, &uid)]);
        self.cluster
            .observe(Change::LvsNode(name, Some(Arc::new(object))));
    }

    fn store_pool_status(
        &mut self,
        name: PoolName,
        mut status: AddressPoolStatus,
        verdicts: Vec<Verdict>,
    ) {
        let mut object = self.cluster.objects.pools[&name].as_ref().clone();
        status.conditions = condition::conditions(verdicts, &[], None, Timestamp::UNIX_EPOCH);
        object.status = Some(status);
        let change = Change::AddressPool(name, Some(Arc::new(object)));
        self.cluster.observe(change);
    }

    fn apply_binding(&mut self, name: ObjectName, owner_uid: &str, spec: DirectorBindingSpec) {
        let mut object = DirectorBinding::new(name.name(), spec.clone());
        object.metadata.namespace = Some(name.namespace().to_owned());
        object.metadata.owner_references =
            Some(vec![mk_owner(&VirtualService::kind(&()), owner_uid)]);
        let known = self.cluster.objects.bindings.get(&name);
        if known.is_none() {
            self.assert_none_is_alone(&spec);
        }
        let generation = known.and_then(|known| known.metadata.generation);
        object.metadata.generation = Some(generation.unwrap_or(0) + 1);
        object.status = known.and_then(|known| known.status.clone());
        self.bindings.insert(name.clone(), spec);
        let change = Change::DirectorBinding(name, Some(Arc::new(object)));
        self.cluster.observe(change);
    }

    /// No machine that directs with others holds VIPs as if it were alone when one of them gets a binding.
    fn assert_none_is_alone(&self, new: &DirectorBindingSpec) {
        let of_service = |spec: &&DirectorBindingSpec| spec.virtual_service == new.virtual_service;
        let others = self.bindings.values().filter(of_service);
        for other in others.filter(|other| other.node != new.node) {
            let lvs_node = self.cluster.objects.lvs_nodes.get(&mk_machine(&other.node));
            let groups = lvs_node.iter().flat_map(|node| &node.spec.groups);
            let mut groups = groups.filter(|group| group.name == new.director_group);
            let is_told = groups.all(|group| group.failover.is_some());
            assert!(
                is_told,
                "{} gets a binding while {} is alone",
                new.node, other.node
            );
        }
    }

    fn store_silence(&mut self, object: Reported, verdict: Verdict) {
        let time = Timestamp::UNIX_EPOCH;
        match object {
            Reported::Binding(name) => {
                // It may be deleted by an earlier write.
                let Some(object) = self.cluster.objects.bindings.get(&name) else {
                    return;
                };
                let mut object = object.as_ref().clone();
                let generation = object.metadata.generation;
                let status = object.status.get_or_insert_default();
                status.conditions =
                    condition::conditions(vec![verdict], &status.conditions, generation, time);
                let change = Change::DirectorBinding(name, Some(Arc::new(object)));
                self.cluster.observe(change);
            }
            Reported::Served(name) => {
                // It may be deleted by an earlier write.
                let Some(object) = self.cluster.objects.served.get(&name) else {
                    return;
                };
                let mut object = object.as_ref().clone();
                let generation = object.metadata.generation;
                let status = object.status.get_or_insert_default();
                status.conditions =
                    condition::conditions(vec![verdict], &status.conditions, generation, time);
                let change = Change::RealServerBinding(name, Some(Arc::new(object)));
                self.cluster.observe(change);
            }
            Reported::Node(name) => {
                // It may be deleted by an earlier write.
                let Some(object) = self.cluster.objects.lvs_nodes.get(&name) else {
                    return;
                };
                let mut object = object.as_ref().clone();
                let status = object.status.get_or_insert_default();
                status.conditions =
                    condition::conditions(vec![verdict], &status.conditions, None, time);
                self.cluster
                    .observe(Change::LvsNode(name, Some(Arc::new(object))));
            }
        }
    }

    fn apply_served(&mut self, name: ObjectName, owner_uid: &str, spec: RealServerBindingSpec) {
        let mut object = RealServerBinding::new(name.name(), spec.clone());
        object.metadata.namespace = Some(name.namespace().to_owned());
        object.metadata.owner_references =
            Some(vec![mk_owner(&VirtualService::kind(&()), owner_uid)]);
        let known = self.cluster.objects.served.get(&name);
        let generation = known.and_then(|known| known.metadata.generation);
        object.metadata.generation = Some(generation.unwrap_or(0) + 1);
        object.status = known.and_then(|known| known.status.clone());
        self.served.insert(name.clone(), spec);
        let change = Change::RealServerBinding(name, Some(Arc::new(object)));
        self.cluster.observe(change);
    }

    fn store_group_status(
        &mut self,
        name: String,
        mut status: DirectorGroupStatus,
        verdicts: Vec<Verdict>,
    ) {
        let Some(known) = self.cluster.objects.groups.get(&name) else {
            return;
        };
        let mut object = known.as_ref().clone();
        let generation = object.metadata.generation;
        status.conditions = condition::conditions(verdicts, &[], generation, Timestamp::UNIX_EPOCH);
        object.status = Some(status);
        self.cluster
            .observe(Change::DirectorGroup(name, Some(Arc::new(object))));
    }

    fn store_status(
        &mut self,
        name: &ObjectName,
        status: &VirtualServiceStatus,
        verdicts: &[Verdict],
    ) {
        let Some(known) = self.cluster.objects.services.get(name) else {
            return;
        };
        let mut object = known.as_ref().clone();
        let mut status = status.clone();
        let generation = object.metadata.generation;
        status.conditions =
            condition::conditions(verdicts.to_vec(), &[], generation, Timestamp::UNIX_EPOCH);
        object.status = Some(status);
        self.cluster
            .observe(Change::VirtualService(name.clone(), Some(Arc::new(object))));
    }

    /// A condition of a virtual service, as `STATUS REASON`.
    pub(super) fn condition(&self, name: &str, kind: ConditionType) -> Option<String> {
        let (_, verdicts) = self.statuses.get(&mk_name(name))?;
        let verdict = verdicts.iter().find(|verdict| verdict.kind == kind)?;
        let (status, reason) = (verdict.status.as_str(), verdict.reason.as_str());
        Some(format!("{status} {reason}"))
    }

    /// The director's agent reports that a binding is in its kernel, or why not.
    pub(super) fn report(&mut self, binding: &str, status: Status, message: &str) {
        let reason = match status {
            Status::True => Reason::Programmed,
            Status::False | Status::Unknown => Reason::ProgrammingFailed,
        };
        self.report_with(binding, status, reason, message);
    }

    /// A machine's agent reports that it has seen its LvsNode, if it ever reported from there.
    pub(super) fn catch_up(&mut self, machine: &str) {
        let name = mk_machine(machine);
        let mut object = self.cluster.objects.lvs_nodes[&name].as_ref().clone();
        let generation = object.metadata.generation;
        let observed = object.status.as_mut();
        if let Some(observed) = observed.and_then(|status| status.observed_generation.as_mut()) {
            *observed = generation.unwrap_or(1);
            self.see(Change::LvsNode(name, Some(Arc::new(object))));
        }
    }

    /// The same with another reason.
    pub(super) fn report_with(
        &mut self,
        binding: &str,
        status: Status,
        reason: Reason,
        message: &str,
    ) {
        let name = mk_name(binding);
        let known = &self.cluster.objects.bindings[&name];
        let mut object = known.as_ref().clone();
        let generation = object.metadata.generation;
        let verdict = Verdict::new(ConditionType::Programmed, status, reason, message);
        let time = Timestamp::UNIX_EPOCH;
        object.status = Some(DirectorBindingStatus {
            observed_generation: generation,
            conditions: condition::conditions(vec![verdict], &[], generation, time),
            vips_in_use: Vec::new(),
            table_digest: None,
        });
        self.see(Change::DirectorBinding(name, Some(Arc::new(object))));
    }

    /// The director's agent reports that another machine answers for a VIP.
    pub(super) fn report_in_use(&mut self, binding: &str, mac: &str) {
        self.report_with(binding, Status::False, Reason::VipInUse, "answered by");
        let name = mk_name(binding);
        let mut object = self.cluster.objects.bindings[&name].as_ref().clone();
        object.status.as_mut().unwrap().vips_in_use = vec![VipInUse {
            address: object.spec.addresses[0].clone(),
            mac_address: mac.to_owned(),
        }];
        self.see(Change::DirectorBinding(name, Some(Arc::new(object))));
    }

    /// The director's agent reports that its kernel has the binding, and a digest of what it has.
    pub(super) fn report_table(&mut self, binding: &str, digest: &str) {
        self.report(binding, Status::True, "");
        let name = mk_name(binding);
        let mut object = self.cluster.objects.bindings[&name].as_ref().clone();
        object.status.as_mut().unwrap().table_digest = Some(digest.to_owned());
        self.see(Change::DirectorBinding(name, Some(Arc::new(object))));
    }

    /// A real server's agent reports whether it is ready.
    pub(super) fn report_served(&mut self, binding: &str, is_ready: bool) {
        let name = mk_name(binding);
        let mut object = self.cluster.objects.served[&name].as_ref().clone();
        let generation = object.metadata.generation;
        let status = Status::of(is_ready);
        let verdict = Verdict::new(ConditionType::Ready, status, Reason::Ready, "");
        let time = Timestamp::UNIX_EPOCH;
        object.status = Some(RealServerBindingStatus {
            observed_generation: generation,
            conditions: condition::conditions(vec![verdict], &[], generation, time),
        });
        self.see(Change::RealServerBinding(name, Some(Arc::new(object))));
    }

    /// The addresses with which each machine serves virtual services, as `BINDING ADDRESSES`.
    pub(super) fn serving(&self) -> Vec<String> {
        let served = self.served.iter().map(|(name, spec)| {
            let own = spec
                .real_servers
                .iter()
                .map(|server| server.address.as_str());
            format!("{} {}", name.name(), own.collect::<Vec<_>>().join(","))
        });
        served.collect()
    }

    /// A machine's agent reports what it is in the first virtual router of the group `default`.
    pub(super) fn stand(&mut self, machine: &str, states: &[(IpFamily, StandingState)]) {
        let first = self.first_router(machine);
        let states = states.iter();
        let states: Vec<_> = states
            .map(|(family, state)| (first, *family, *state))
            .collect();
        self.stand_in(machine, &states);
    }

    /// The id of the first virtual router of the group `default`, as a machine knows it.
    pub(super) fn first_router(&self, machine: &str) -> i64 {
        let node = self.cluster.objects.lvs_nodes.get(&mk_machine(machine));
        let mut groups = node.into_iter().flat_map(|node| &node.spec.groups);
        let group = groups.find(|group| group.name == "default");
        let failover = group.and_then(|group| group.failover.as_ref());
        failover.map_or(0, |failover| failover.virtual_router_id)
    }

    /// A machine's agent reports what it is in virtual routers of the group `default`.
    pub(super) fn stand_in(&mut self, machine: &str, states: &[(i64, IpFamily, StandingState)]) {
        let name = mk_machine(machine);
        let mut object = self.cluster.objects.lvs_nodes[&name].as_ref().clone();
        self.reports += 1;
        let since = Timestamp::from_second(self.reports).unwrap();
        let standings = states.iter().map(|(router_id, family, state)| Standing {
            group: "default".to_owned(),
            interface: "eth0".to_owned(),
            router_id: *router_id,
            family: *family,
            state: *state,
            problem: None,
            since: Time(since),
        });
        let generation = object.metadata.generation;
        let status = object.status.get_or_insert_default();
        status.observed_generation = generation.or(Some(1));
        status.standings = standings.collect();
        self.see(Change::LvsNode(name, Some(Arc::new(object))));
    }

    /// Contests go on for longer than an agent's silence goes unnoticed.
    pub(super) fn confirm_contests(&mut self) {
        let contests = self.cluster.contests.unconfirmed();
        let contests: Vec<(String, u64)> = contests
            .map(|(group, number)| (group.to_owned(), number))
            .collect();
        for (group, number) in contests {
            self.cluster.confirm_contest(&group, number);
        }
        self.settle();
    }

    /// Every director reports that it has its bindings, and has seen its LvsNode.
    pub(super) fn report_all(&mut self) {
        let machines: Vec<NodeName> = self.cluster.objects.lvs_nodes.keys().cloned().collect();
        for machine in machines {
            self.catch_up(machine.as_str());
        }
        let firsts = self
            .bindings
            .iter()
            .filter(|(_, spec)| spec.slice.is_none());
        let firsts: Vec<ObjectName> = firsts.map(|(name, _)| name.clone()).collect();
        for binding in firsts {
            self.report(binding.name(), Status::True, "");
        }
    }

    /// The addresses in the status of a virtual service.
    pub(super) fn addresses(&self, name: &str) -> Vec<&str> {
        let status = &self.statuses[&mk_name(name)].0;
        status.addresses.iter().map(String::as_str).collect()
    }

    /// The weights of the real servers in a binding.
    pub(super) fn weights(&self, binding: &str) -> Vec<i64> {
        let servers = &self.bindings[&mk_name(binding)].real_servers;
        servers.iter().map(|server| server.weight).collect()
    }

    /// The names of the bindings.
    pub(super) fn binding_names(&self) -> Vec<String> {
        self.bindings.keys().map(ToString::to_string).collect()
    }

    /// The VirtualServices as they are, as a controller that starts lists them.
    pub(super) fn services(&self) -> Vec<Change> {
        let services = self.cluster.objects.services.iter();
        let services = services
            .map(|(name, object)| Change::VirtualService(name.clone(), Some(Arc::clone(object))));
        services.collect()
    }
}
