//! From an object to those that depend on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lvs_model::{NodeName, ObjectName};

use super::{group::Election, reconciled::Fault};

type Names = BTreeSet<ObjectName>;

/// The addresses of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MachineAddresses {
    /// Its own.
    pub addresses: BTreeSet<IpAddr>,
    /// Those round it that no VIP may have: gateways, and the ends of networks.
    pub reserved: BTreeSet<IpAddr>,
}

/// A machine, and a group of which it has bindings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Membership {
    /// The machine.
    pub machine: NodeName,
    /// The group.
    pub group: String,
}

impl Membership {
    fn new(machine: &NodeName, group: &str) -> Self {
        Self {
            machine: machine.clone(),
            group: group.to_owned(),
        }
    }
}

/// From an object to those that depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    /// Virtual services by the Service that they name.
    by_kube_service: BTreeMap<ObjectName, Names>,
    /// Virtual services by the addresses of endpoints that are left out of them.
    by_left_out: BTreeMap<IpAddr, Names>,
    /// Virtual services by their group.
    by_group: BTreeMap<String, Names>,
    /// DirectorBindings, with their slices, by their virtual service.
    bindings: BTreeMap<ObjectName, Names>,
    /// RealServerBindings by the machine that they are for.
    served_by_machine: BTreeMap<NodeName, Names>,
    /// RealServerBindings by their virtual service.
    served_bindings: BTreeMap<ObjectName, Names>,
    /// Machines by their addresses. Some addresses, such as that of a container bridge, belong to several machines.
    machines: BTreeMap<IpAddr, BTreeSet<NodeName>>,
    /// The addresses of each machine, and those round it that no VIP may have, as they were last reported.
    reported: BTreeMap<NodeName, MachineAddresses>,
    /// Addresses that no VIP may have, with the machines near which they are: gateways, and the ends of networks.
    reserved: BTreeMap<IpAddr, BTreeSet<NodeName>>,
    /// Groups by their directors.
    by_director: BTreeMap<NodeName, BTreeSet<String>>,
    /// Who directs each group.
    elections: BTreeMap<String, Result<Election, Fault>>,
    /// The machines that had bindings of a group, or report a standing in it, and have not reported since that they have left it.
    members: BTreeMap<String, BTreeSet<NodeName>>,
    /// The bindings that a machine has of each group.
    bound: BTreeMap<Membership, Names>,
}

impl Index {
    /// The virtual services that name a Service.
    pub(crate) fn users_of_kube_service(&self, service: &ObjectName) -> Names {
        let users = self.by_kube_service.get(service);
        users.cloned().unwrap_or_default()
    }

    /// The virtual services of which an endpoint with this address is left out.
    pub(crate) fn without(&self, address: IpAddr) -> Names {
        self.by_left_out.get(&address).cloned().unwrap_or_default()
    }

    /// The virtual services of a group.
    pub(crate) fn users_of_group(&self, group: &str) -> Names {
        self.by_group.get(group).cloned().unwrap_or_default()
    }

    /// Returns whether a group has virtual services.
    pub(crate) fn has_users(&self, group: &str) -> bool {
        self.by_group.contains_key(group)
    }

    /// The RealServerBindings of a virtual service.
    pub(crate) fn served_bindings_of(&self, service: &ObjectName) -> Names {
        let found = self.served_bindings.get(service);
        found.cloned().unwrap_or_default()
    }

    /// The DirectorBindings of a virtual service, with their slices.
    pub(crate) fn bindings_of(&self, service: &ObjectName) -> Names {
        self.bindings.get(service).cloned().unwrap_or_default()
    }

    /// The RealServerBindings for a machine.
    pub(crate) fn served_bindings_on(&self, machine: &NodeName) -> Names {
        let found = self.served_by_machine.get(machine);
        found.cloned().unwrap_or_default()
    }

    /// The bindings for a machine, without slices.
    pub(crate) fn bindings_on(&self, machine: &NodeName) -> Names {
        let bindings = self.bound_on(machine).flat_map(|(_, bindings)| bindings);
        bindings.cloned().collect()
    }

    /// The machines that direct, that have bindings, or whose addresses are known.
    pub(crate) fn known_machines(&self) -> BTreeSet<NodeName> {
        let bound = self.bound.keys().map(|membership| &membership.machine);
        let all = bound.chain(self.by_director.keys());
        let all = all.chain(self.served_by_machine.keys());
        let all = all.chain(self.reported.keys());
        all.cloned().collect()
    }

    /// The machines by their addresses.
    pub(crate) const fn machines(&self) -> &BTreeMap<IpAddr, BTreeSet<NodeName>> {
        &self.machines
    }

    /// Returns whether an address is a gateway, or an end of a network of a machine.
    pub(crate) fn is_reserved(&self, address: IpAddr) -> bool {
        self.reserved.contains_key(&address)
    }

    /// The number of such addresses in a range.
    pub(crate) fn reserved_between(&self, first: IpAddr, last: IpAddr) -> usize {
        self.reserved.range(first..=last).count()
    }

    /// The machine that has an address; `None` if there is none or more than one.
    pub(crate) fn machine_with(&self, address: IpAddr) -> Option<&NodeName> {
        let mut machines = self.machines.get(&address)?.iter();
        machines.next().filter(|_| machines.next().is_none())
    }

    /// The groups that a machine directs for.
    pub(crate) fn directed_by(&self, machine: &NodeName) -> impl Iterator<Item = &String> {
        self.by_director.get(machine).into_iter().flatten()
    }

    /// Who directs a group; `None` if the group does not exist.
    pub(crate) fn election(&self, group: &str) -> Option<&Result<Election, Fault>> {
        self.elections.get(group)
    }

    /// The groups of which a machine has bindings.
    pub(crate) fn bound_groups(&self, machine: &NodeName) -> impl Iterator<Item = &String> {
        self.bound_on(machine)
            .map(|(membership, _)| &membership.group)
    }

    fn bound_on(&self, machine: &NodeName) -> impl Iterator<Item = (&Membership, &Names)> {
        let all = self.bound.range(Membership::new(machine, "")..);
        all.take_while(move |(membership, _)| membership.machine == *machine)
    }

    /// The machines that have bindings of a group.
    pub(crate) fn bound_to(&self, group: &str) -> impl Iterator<Item = &NodeName> {
        let memberships = self.bound.keys();
        let of_group = memberships.filter(move |membership| membership.group == group);
        of_group.map(|membership| &membership.machine)
    }

    /// Sets the machine and group of a binding. Returns those of which it is the first binding, or was the last one.
    pub(crate) fn set_bound(
        &mut self,
        binding: &ObjectName,
        before: Option<&Membership>,
        now: Option<&Membership>,
    ) -> BTreeSet<Membership> {
        let was_bound = now.is_some_and(|now| self.bound.contains_key(now));
        replace(&mut self.bound, binding, before, now);
        if let Some(Membership { machine, group }) = now {
            self.join(machine, group);
        }
        let gained = now.filter(|_| !was_bound);
        let lost = before.filter(|before| !self.bound.contains_key(*before));
        gained.into_iter().chain(lost).cloned().collect()
    }

    /// Sets the Services of a virtual service.
    pub(crate) fn set_kube_services(
        &mut self,
        name: &ObjectName,
        before: &BTreeSet<ObjectName>,
        now: &BTreeSet<ObjectName>,
    ) {
        replace_all(&mut self.by_kube_service, name, before, now);
    }

    /// Sets the addresses of the endpoints that are left out of a virtual service.
    pub(crate) fn set_left_out(
        &mut self,
        name: &ObjectName,
        before: &BTreeSet<IpAddr>,
        now: &BTreeSet<IpAddr>,
    ) {
        replace_all(&mut self.by_left_out, name, before, now);
    }

    /// Sets the group of a virtual service.
    pub(crate) fn set_group(
        &mut self,
        name: &ObjectName,
        before: Option<&String>,
        now: Option<&String>,
    ) {
        replace(&mut self.by_group, name, before, now);
    }

    /// Sets the virtual service of a binding.
    pub(crate) fn set_binding(
        &mut self,
        binding: &ObjectName,
        before: Option<&ObjectName>,
        now: Option<&ObjectName>,
    ) {
        replace(&mut self.bindings, binding, before, now);
    }

    /// Sets the machine of a RealServerBinding.
    pub(crate) fn set_served_machine(
        &mut self,
        binding: &ObjectName,
        before: Option<&NodeName>,
        now: Option<&NodeName>,
    ) {
        replace(&mut self.served_by_machine, binding, before, now);
    }

    /// What was last reported of a machine.
    pub(crate) fn reported(&self, machine: &NodeName) -> MachineAddresses {
        self.reported.get(machine).cloned().unwrap_or_default()
    }

    /// Sets what is reported of a machine; nothing if the machine is gone.
    pub(crate) fn set_reported(&mut self, machine: &NodeName, now: MachineAddresses) {
        let before = self.reported.remove(machine).unwrap_or_default();
        replace_all(
            &mut self.machines,
            machine,
            &before.addresses,
            &now.addresses,
        );
        replace_all(&mut self.reserved, machine, &before.reserved, &now.reserved);
        if now != MachineAddresses::default() {
            self.reported.insert(machine.clone(), now);
        }
    }

    /// Sets the virtual service of a RealServerBinding.
    pub(crate) fn set_served_binding(
        &mut self,
        binding: &ObjectName,
        before: Option<&ObjectName>,
        now: Option<&ObjectName>,
    ) {
        replace(&mut self.served_bindings, binding, before, now);
    }

    /// The machines that direct a group; none if it does not exist or has a fault.
    pub(crate) fn directors(&self, group: &str) -> &[NodeName] {
        directors(self.election(group))
    }

    /// The machines that direct a group, and those that have not left it yet.
    pub(crate) fn machines_of_group(&self, group: &str) -> BTreeSet<NodeName> {
        let directors = self.directors(group).iter();
        let members = self.members.get(group).into_iter().flatten();
        directors.chain(members).cloned().collect()
    }

    /// The groups that a machine directs, and those that it has not left yet.
    pub(crate) fn groups_of_machine(&self, machine: &NodeName) -> BTreeSet<String> {
        let joined = self.members.iter();
        let joined = joined.filter(|(_, machines)| machines.contains(machine));
        let joined = joined.map(|(group, _)| group);
        self.directed_by(machine).chain(joined).cloned().collect()
    }

    /// The machines that have not left a group yet although they do not direct it any more.
    pub(crate) fn leaving(&self, group: &str) -> Vec<NodeName> {
        let directors = self.directors(group);
        let members = self.members.get(group).into_iter().flatten();
        members
            .filter(|machine| !directors.contains(machine))
            .cloned()
            .collect()
    }

    /// The groups that a machine has not left yet although it has no bindings of them any more.
    pub(crate) fn unbound_groups(&self, machine: &NodeName) -> Vec<String> {
        let joined = self.members.iter();
        let joined = joined.filter(|(_, machines)| machines.contains(machine));
        let unbound = joined.filter(|(group, _)| {
            let membership = Membership::new(machine, group);
            !self.bound.contains_key(&membership)
        });
        unbound.map(|(group, _)| group.clone()).collect()
    }

    /// Records that a machine takes part in a group.
    pub(crate) fn join(&mut self, machine: &NodeName, group: &str) {
        insert(&mut self.members, &group.to_owned(), machine);
    }

    /// Records that a machine takes no part in a group any more.
    pub(crate) fn leave(&mut self, machine: &NodeName, group: &str) {
        remove(&mut self.members, &group.to_owned(), machine);
    }

    /// The index without what a restart does not restore in full: which machines have not left a group yet.
    #[cfg(test)]
    pub(crate) fn without_members(self) -> Self {
        Self {
            members: BTreeMap::new(),
            ..self
        }
    }

    /// Sets who directs a group.
    pub(crate) fn set_election(
        &mut self,
        group: &String,
        election: Option<Result<Election, Fault>>,
    ) {
        let now = directors(election.as_ref()).iter().cloned().collect();
        let before = match election {
            Some(election) => self.elections.insert(group.clone(), election),
            None => self.elections.remove(group),
        };
        let before = directors(before.as_ref()).iter().cloned().collect();
        replace_all(&mut self.by_director, group, &before, &now);
    }
}

fn directors(election: Option<&Result<Election, Fault>>) -> &[NodeName] {
    match election {
        Some(Ok(election)) => &election.directors,
        Some(Err(_)) | None => &[],
    }
}

fn replace<K: Ord + Clone, V: Ord + Clone>(
    map: &mut BTreeMap<K, BTreeSet<V>>,
    value: &V,
    before: Option<&K>,
    now: Option<&K>,
) {
    if before != now {
        before.into_iter().for_each(|key| remove(map, key, value));
        now.into_iter().for_each(|key| insert(map, key, value));
    }
}

fn replace_all<K: Ord + Clone, V: Ord + Clone>(
    map: &mut BTreeMap<K, BTreeSet<V>>,
    value: &V,
    before: &BTreeSet<K>,
    now: &BTreeSet<K>,
) {
    before
        .difference(now)
        .for_each(|key| remove(map, key, value));
    now.difference(before)
        .for_each(|key| insert(map, key, value));
}

fn insert<K: Ord + Clone, V: Ord + Clone>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    map.entry(key.clone()).or_default().insert(value.clone());
}

fn remove<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = map.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            map.remove(key);
        }
    }
}
