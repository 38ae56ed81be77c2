//! The cluster as the controller knows it, and what has to be written because of what changed.
//!
//! ```text
//! Change --observe--> marks what it concerns --settle--> Writes
//! ```
//!
//! Everything here is pure. The work that a change causes follows what it concerns, not how much exists: indices lead
//! from each object to those that depend on it. Whatever is remembered can be computed afresh from the objects, and a
//! test compares both.

mod binding;
mod claims;
mod draft;
mod index;
mod node;
mod objects;
mod service;
mod status;

pub(crate) use objects::{Change, Objects};

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lvs_crd::{
    DirectorBinding, DirectorBindingSpec, DirectorGroupStatus, GroupMembership, LvsNode,
    ServedService, VirtualServiceStatus, condition::Verdict,
};
use lvs_model::ObjectName;

use claims::Claims;
use draft::Draft;
use index::Index;

/// Something to write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Write {
    /// A binding that is missing or differs.
    ApplyBinding {
        /// Namespace and name.
        name: ObjectName,
        /// The uid of its VirtualService.
        owner_uid: String,
        /// What it says.
        spec: Box<DirectorBindingSpec>,
    },
    /// A binding that is not wanted any more.
    DeleteBinding(ObjectName),
    /// The controller's part of an LvsNode.
    ApplyNode {
        /// The machine.
        name: String,
        /// The uid of the LvsNode that is there: one that is deleted meanwhile is not to be made again.
        uid: Option<String>,
        /// The uid of its Node, of a machine of the cluster.
        owner_uid: Option<String>,
        /// The groups that it directs for.
        groups: Vec<GroupMembership>,
        /// What it serves.
        serves: Vec<ServedService>,
    },
    /// The LvsNode of a Node that is gone.
    DeleteNode {
        /// The machine.
        name: String,
        /// The uid of the LvsNode.
        uid: Option<String>,
    },
    /// The status of a VirtualService; its conditions are made of the verdicts when it is written.
    ServiceStatus {
        /// Namespace and name.
        name: ObjectName,
        /// All of it but the conditions.
        status: Box<VirtualServiceStatus>,
        /// The conditions.
        verdicts: Vec<Verdict>,
    },
    /// The status of a DirectorGroup; its conditions are made of the verdicts when it is written.
    GroupStatus {
        /// The group.
        name: String,
        /// All of it but the conditions.
        status: DirectorGroupStatus,
        /// The conditions.
        verdicts: Vec<Verdict>,
    },
}

/// What has to be looked at again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// A VirtualService.
    Service(ObjectName),
    /// A DirectorGroup.
    Group(String),
    /// A machine.
    Node(String),
    /// A binding that is to be deleted.
    Binding(ObjectName),
}

/// The cluster as the controller knows it.
#[derive(Default)]
pub(crate) struct Cluster {
    objects: Objects,
    index: Index,
    claims: Claims,
    /// What each virtual service was last worked out to be.
    drafts: BTreeMap<ObjectName, Draft>,
    /// VIPs that were allocated.
    granted: BTreeMap<ObjectName, IpAddr>,
    /// Virtual services for which no address was free.
    waiting: BTreeSet<ObjectName>,
    dirty: BTreeSet<Subject>,
}

impl Cluster {
    /// Takes in a change and marks what it concerns.
    pub(crate) fn observe(&mut self, change: Change) {
        match change {
            Change::VirtualService(name, object) => self.observe_service(name, object),
            Change::DirectorGroup(name, object) => self.observe_group(&name, object),
            Change::Service(name, exists) => {
                self.objects.set_kube_service(&name, exists);
                self.mark_services(self.index.users_of_service(&name));
            }
            Change::EndpointSlice(name, object) => {
                for service in self.objects.set_slice(name, object) {
                    self.mark_services(self.index.users_of_service(&service));
                }
            }
            Change::Node(name, object) => self.observe_node(&name, object),
            Change::LvsNode(name, object) => self.observe_lvs_node(&name, object),
            Change::DirectorBinding(name, object) => self.observe_binding(name, object),
        }
    }

    /// Works out what is to be written. Virtual services come first, as the parts of machines follow from them. One
    /// that is worked out again in the same round, since another claims what it has, is written as it was last.
    pub(crate) fn settle(&mut self) -> Vec<Write> {
        let mut writes: BTreeMap<Subject, Vec<Write>> = BTreeMap::new();
        while let Some(subject) = self.dirty.pop_first() {
            let written = match &subject {
                Subject::Service(name) => self.settle_service(name),
                Subject::Group(name) => self.settle_group(name).into_iter().collect(),
                Subject::Node(name) => self.settle_node(name).into_iter().collect(),
                Subject::Binding(name) => {
                    self.mark_services(self.service_of(name));
                    Vec::new()
                }
            };
            writes.insert(subject, written);
        }
        writes.into_values().flatten().collect()
    }

    /// Marks something again, after a write that failed.
    pub(crate) fn mark(&mut self, subject: Subject) {
        self.dirty.insert(subject);
    }

    /// The objects as they were last seen.
    pub(crate) const fn objects(&self) -> &Objects {
        &self.objects
    }

    fn mark_services(&mut self, names: impl IntoIterator<Item = ObjectName>) {
        self.dirty.extend(names.into_iter().map(Subject::Service));
    }

    /// Marks the virtual services that have one of the addresses as a VIP or among their real servers.
    fn mark_users_of(&mut self, addresses: &BTreeSet<IpAddr>) {
        for address in addresses {
            self.mark_services(self.index.users_of_address(*address));
            let users: Vec<ObjectName> = self.claims.users_of(*address).cloned().collect();
            self.mark_services(users);
        }
    }

    fn mark_node(&mut self, name: &str) {
        self.dirty.insert(Subject::Node(name.to_owned()));
    }

    fn service_of(&self, binding: &ObjectName) -> Option<ObjectName> {
        let found = self.objects.bindings.get(binding)?;
        ObjectName::new(binding.namespace(), &found.spec.virtual_service).ok()
    }

    fn observe_binding(
        &mut self,
        name: ObjectName,
        object: Option<std::sync::Arc<DirectorBinding>>,
    ) {
        let service = |binding: &DirectorBinding| {
            ObjectName::new(name.namespace(), &binding.spec.virtual_service).ok()
        };
        let before = self.service_of(&name);
        let now = object.as_ref().and_then(|binding| service(binding));
        self.index.set_binding(&name, before.as_ref(), now.as_ref());
        match object {
            Some(object) => drop(self.objects.bindings.insert(name, object)),
            None => drop(self.objects.bindings.remove(&name)),
        }
        self.mark_services(before.into_iter().chain(now));
    }

    fn observe_lvs_node(&mut self, name: &str, object: Option<std::sync::Arc<LvsNode>>) {
        let before = self.objects.lvs_nodes.get(name).cloned();
        let (old, new) = (
            node::addresses(before.as_deref()),
            node::addresses(object.as_deref()),
        );
        let is_managed_alike =
            node::is_managed(before.as_deref()) == node::is_managed(object.as_deref());
        let concerned = if is_managed_alike {
            &old ^ &new
        } else {
            &old | &new
        };
        self.mark_users_of(&concerned);
        self.mark_services(node::changed_readiness(
            before.as_deref(),
            object.as_deref(),
        ));
        self.index.set_node_addresses(name, &old, &new);
        let (old, new) = (node::told(before.as_deref()), node::told(object.as_deref()));
        self.index.set_told(name, &old, &new);
        match object {
            Some(object) => drop(self.objects.lvs_nodes.insert(name.to_owned(), object)),
            None => drop(self.objects.lvs_nodes.remove(name)),
        }
        self.mark_node(name);
    }
}

#[cfg(test)]
mod tests;
