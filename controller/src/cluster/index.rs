//! From an object to those that depend on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lvs_model::{NodeName, ObjectName};

type Names = BTreeSet<ObjectName>;

/// From an object to those that depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    /// Virtual services by the Service that they name.
    by_kube_service: BTreeMap<ObjectName, Names>,
    /// Virtual services by their group.
    by_group: BTreeMap<String, Names>,
    /// DirectorBindings, with their slices, by their virtual service.
    bindings: BTreeMap<ObjectName, Names>,
    /// RealServerBindings by the machine that they are for.
    served_by_machine: BTreeMap<NodeName, Names>,
    /// Bindings by the machine that they are for.
    by_machine: BTreeMap<NodeName, Names>,
    /// RealServerBindings by their virtual service.
    served_bindings: BTreeMap<ObjectName, Names>,
    /// Machines by their addresses. Some addresses, such as that of a container bridge, belong to several machines.
    machines: BTreeMap<IpAddr, BTreeSet<NodeName>>,
    /// Addresses that no VIP may have, with the machines near which they are: gateways, and the ends of networks.
    reserved: BTreeMap<IpAddr, BTreeSet<NodeName>>,
    /// Groups by their director.
    by_director: BTreeMap<NodeName, BTreeSet<String>>,
    /// The director of each group.
    directors: BTreeMap<String, NodeName>,
    /// How many bindings a machine has of each group.
    bound: BTreeMap<(NodeName, String), usize>,
}

impl Index {
    /// The virtual services that name a Service.
    pub(crate) fn users_of_kube_service(&self, service: &ObjectName) -> Names {
        let users = self.by_kube_service.get(service);
        users.cloned().unwrap_or_default()
    }

    /// The virtual services of a group.
    pub(crate) fn users_of_group(&self, group: &str) -> Names {
        self.by_group.get(group).cloned().unwrap_or_default()
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

    /// The bindings for a machine.
    pub(crate) fn bindings_on(&self, machine: &NodeName) -> Names {
        self.by_machine.get(machine).cloned().unwrap_or_default()
    }

    /// The machines that have bindings.
    pub(crate) fn bound_machines(&self) -> BTreeSet<NodeName> {
        let directors = self.by_machine.keys();
        let all = directors.chain(self.served_by_machine.keys());
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

    /// The director of a group.
    pub(crate) fn director_of(&self, group: &str) -> Option<&NodeName> {
        self.directors.get(group)
    }

    /// Returns whether a machine has bindings of a group.
    pub(crate) fn is_bound(&self, machine: &NodeName, group: &str) -> bool {
        self.bound
            .contains_key(&(machine.clone(), group.to_owned()))
    }

    /// The groups of which a machine has bindings.
    pub(crate) fn bound_groups(&self, machine: &NodeName) -> impl Iterator<Item = &String> {
        let all = self.bound.range((machine.clone(), String::new())..);
        let own = all.take_while(move |((owner, _), _)| owner == machine);
        own.map(|((_, group), _)| group)
    }

    /// Counts a binding of a machine and group. Returns whether it is the first one.
    pub(crate) fn add_bound(&mut self, bound: &(NodeName, String)) -> bool {
        let count = self.bound.entry(bound.clone()).or_insert(0);
        *count += 1;
        *count == 1
    }

    /// Discounts a binding of a machine and group. Returns whether it was the last one.
    pub(crate) fn remove_bound(&mut self, bound: &(NodeName, String)) -> bool {
        let Some(count) = self.bound.get_mut(bound) else {
            return false;
        };
        *count = count.saturating_sub(1);
        let is_last = *count == 0;
        if is_last {
            self.bound.remove(bound);
        }
        is_last
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

    /// Sets the machine of a binding.
    pub(crate) fn set_binding_machine(
        &mut self,
        binding: &ObjectName,
        before: Option<&NodeName>,
        now: Option<&NodeName>,
    ) {
        replace(&mut self.by_machine, binding, before, now);
    }

    /// Sets the addresses of a machine.
    pub(crate) fn set_addresses(
        &mut self,
        machine: &NodeName,
        before: &BTreeSet<IpAddr>,
        now: &BTreeSet<IpAddr>,
    ) {
        replace_all(&mut self.machines, machine, before, now);
    }

    /// Sets the addresses round a machine that no VIP may have.
    pub(crate) fn set_reserved(
        &mut self,
        machine: &NodeName,
        before: &BTreeSet<IpAddr>,
        now: &BTreeSet<IpAddr>,
    ) {
        replace_all(&mut self.reserved, machine, before, now);
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

    /// Sets the director of a group. Returns the one that it had before.
    pub(crate) fn set_director(
        &mut self,
        group: &String,
        director: Option<&NodeName>,
    ) -> Option<NodeName> {
        let before = match director {
            Some(director) => self.directors.insert(group.clone(), director.clone()),
            None => self.directors.remove(group),
        };
        replace(&mut self.by_director, group, before.as_ref(), director);
        before
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
