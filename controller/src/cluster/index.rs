//! From an object to those that depend on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lvs_model::ObjectName;

type Names = BTreeSet<ObjectName>;

/// From an object to those that depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// Virtual services by the Service that they name.
    by_service: BTreeMap<ObjectName, Names>,
    /// Virtual services by their group.
    by_group: BTreeMap<String, Names>,
    /// Virtual services by the addresses of their real servers.
    by_address: BTreeMap<IpAddr, Names>,
    /// Bindings by their virtual service.
    bindings: BTreeMap<ObjectName, Names>,
    /// Machines by their addresses. Some addresses, a container bridge's for one, are those of many.
    nodes: BTreeMap<IpAddr, BTreeSet<String>>,
    /// Virtual services by the machine that serves them.
    served: BTreeMap<String, Names>,
    /// Machines by the virtual services that their LvsNodes tell them to serve.
    told: BTreeMap<ObjectName, BTreeSet<String>>,
    /// Groups by the machine that directs for them.
    directed: BTreeMap<String, BTreeSet<String>>,
    /// The machines that direct for a group.
    members: BTreeMap<String, BTreeSet<String>>,
}

impl Index {
    pub(super) fn users_of_service(&self, service: &ObjectName) -> Names {
        self.by_service.get(service).cloned().unwrap_or_default()
    }

    pub(super) fn users_of_group(&self, group: &str) -> Names {
        self.by_group.get(group).cloned().unwrap_or_default()
    }

    pub(super) fn users_of_address(&self, address: IpAddr) -> Names {
        self.by_address.get(&address).cloned().unwrap_or_default()
    }

    /// The first virtual service that has an address among its real servers.
    pub(super) fn first_user_of_address(&self, address: IpAddr) -> Option<&ObjectName> {
        self.by_address.get(&address)?.first()
    }

    pub(super) fn bindings_of(&self, service: &ObjectName) -> Names {
        self.bindings.get(service).cloned().unwrap_or_default()
    }

    /// The machines that have an address.
    pub(super) fn nodes_with(&self, address: IpAddr) -> impl Iterator<Item = &str> {
        self.nodes
            .get(&address)
            .into_iter()
            .flatten()
            .map(String::as_str)
    }

    /// The machine that has an address; `None` when there is none or more than one.
    pub(super) fn node_with(&self, address: IpAddr) -> Option<&str> {
        let mut nodes = self.nodes_with(address);
        nodes.next().filter(|_| nodes.next().is_none())
    }

    pub(super) fn served_by(&self, node: &str) -> impl Iterator<Item = &ObjectName> {
        self.served.get(node).into_iter().flatten()
    }

    /// The machines that are told to serve a virtual service, still or already.
    pub(super) fn told_to_serve(&self, service: &ObjectName) -> BTreeSet<String> {
        self.told.get(service).cloned().unwrap_or_default()
    }

    pub(super) fn directed_by(&self, node: &str) -> impl Iterator<Item = &String> {
        self.directed.get(node).into_iter().flatten()
    }

    pub(super) fn set_service(
        &mut self,
        name: &ObjectName,
        before: Option<&ObjectName>,
        now: Option<&ObjectName>,
    ) {
        replace(&mut self.by_service, name, before, now);
    }

    pub(super) fn set_group(
        &mut self,
        name: &ObjectName,
        before: Option<&String>,
        now: Option<&String>,
    ) {
        replace(&mut self.by_group, name, before, now);
    }

    pub(super) fn set_addresses(
        &mut self,
        name: &ObjectName,
        before: &BTreeSet<IpAddr>,
        now: &BTreeSet<IpAddr>,
    ) {
        replace_all(&mut self.by_address, name, before, now);
    }

    pub(super) fn set_binding(
        &mut self,
        binding: &ObjectName,
        before: Option<&ObjectName>,
        now: Option<&ObjectName>,
    ) {
        replace(&mut self.bindings, binding, before, now);
    }

    pub(super) fn set_node_addresses(
        &mut self,
        node: &str,
        before: &BTreeSet<IpAddr>,
        now: &BTreeSet<IpAddr>,
    ) {
        replace_all(&mut self.nodes, &node.to_owned(), before, now);
    }

    pub(super) fn set_served(
        &mut self,
        name: &ObjectName,
        before: &BTreeSet<String>,
        now: &BTreeSet<String>,
    ) {
        replace_all(&mut self.served, name, before, now);
    }

    pub(super) fn set_told(&mut self, node: &str, before: &Names, now: &Names) {
        replace_all(&mut self.told, &node.to_owned(), before, now);
    }

    /// Sets the machines of a group; returns those of before.
    pub(super) fn set_directed_by_group(
        &mut self,
        group: &str,
        now: &BTreeSet<String>,
    ) -> BTreeSet<String> {
        let before = self.members.get(group).cloned().unwrap_or_default();
        replace_all(&mut self.directed, &group.to_owned(), &before, now);
        if now.is_empty() {
            self.members.remove(group);
        } else {
            self.members.insert(group.to_owned(), now.clone());
        }
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
