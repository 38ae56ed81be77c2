//! Virtual services and groups: what a change of one concerns, and what is written for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::api::core::v1::Node;
use lvs_crd::{DirectorGroup, VirtualService, condition::Reason, convert};
use lvs_model::{ObjectName, allocate};

use super::{
    Cluster, Subject, Write,
    claims::{Claimant, Conflict},
    draft::{self, Draft, Fault},
    node, status,
};

impl Cluster {
    pub(super) fn observe_service(
        &mut self,
        name: ObjectName,
        object: Option<Arc<VirtualService>>,
    ) {
        // One that is being deleted is wanted no more, whatever its finalizers wait for.
        let object = object.filter(|object| object.metadata.deletion_timestamp.is_none());
        match object {
            Some(object) => {
                self.remember_grant(&name, &object);
                self.objects.services.insert(name.clone(), object);
            }
            None => drop(self.objects.services.remove(&name)),
        }
        self.dirty.insert(Subject::Service(name));
    }

    /// An address that was allocated once stays with its virtual service: its status holds it over a restart.
    fn remember_grant(&mut self, name: &ObjectName, object: &VirtualService) {
        let status = object.status.as_ref();
        let before = status.and_then(|status| status.addresses.first()?.parse::<IpAddr>().ok());
        if let Some(address) = before.filter(|_| object.spec.addresses.is_empty())
            && !self.granted.contains_key(name)
        {
            self.granted.insert(name.clone(), address);
            self.claims.reserve(address);
        }
    }

    pub(super) fn observe_group(&mut self, name: &str, object: Option<Arc<DirectorGroup>>) {
        match object {
            Some(object) => drop(self.objects.groups.insert(name.to_owned(), object)),
            None => drop(self.objects.groups.remove(name)),
        }
        self.regroup(name);
    }

    /// Looks up a group's machines again, and marks what that concerns.
    fn regroup(&mut self, name: &str) {
        let now = self
            .objects
            .groups
            .get(name)
            .map_or_else(BTreeSet::new, |group| {
                let members = draft::members(&self.objects, group);
                if draft::group_fault(&members).is_none() {
                    members
                } else {
                    BTreeSet::new()
                }
            });
        let before = self.index.set_directed_by_group(name, &now);
        for node in before.union(&now) {
            self.mark_node(node);
        }
        self.mark_services(self.index.users_of_group(name));
        self.dirty.insert(Subject::Group(name.to_owned()));
    }

    pub(super) fn observe_node(&mut self, name: &str, object: Option<Arc<Node>>) {
        let labels = |node: Option<&Arc<Node>>| node.and_then(|node| node.metadata.labels.clone());
        let before = self.objects.nodes.get(name);
        let is_relabelled =
            before.is_none() != object.is_none() || labels(before) != labels(object.as_ref());
        match object {
            Some(object) => drop(self.objects.nodes.insert(name.to_owned(), object)),
            None => drop(self.objects.nodes.remove(name)),
        }
        self.mark_node(name);
        if is_relabelled {
            let selecting: Vec<String> = self
                .objects
                .groups
                .iter()
                .filter(|(_, group)| group.spec.nodes.selector.is_some())
                .map(|(group, _)| group.clone())
                .collect();
            for group in selecting {
                self.regroup(&group);
            }
        }
    }

    /// Works out one virtual service afresh and everything that follows for it.
    pub(super) fn settle_service(&mut self, name: &ObjectName) -> Vec<Write> {
        let object = self.objects.services.get(name).cloned();
        let before = self.drafts.remove(name).unwrap_or_default();
        let mut now = match object.as_deref() {
            Some(object) => self.draw(name, object),
            None => Draft::default(),
        };
        self.reindex(name, &before, &now);
        // After the claims have changed: one that is dropped, as of an invalid spec, gives no address back.
        self.grant(name, now.granted);
        if now.refusal.is_none() {
            now.refusal = self.refuse(name, &now);
        }
        if now.granted.is_some()
            && self
                .claims
                .check(&claimant(name, &now), &now.claim)
                .is_err()
        {
            // Another one names the address that was allocated here, which is taken now: the next is another.
            self.granted.remove(name);
            now.serving.clone_from(&before.serving);
            self.drafts.insert(name.clone(), now);
            return self.settle_service(name);
        }
        self.set_serving(name, &before, &mut now);
        let Some(object) = object else {
            return self.prune(name, &BTreeMap::new());
        };
        let wanted = self.bindings(name, &now);
        let mut writes = self.bind(name, &object, &wanted);
        writes.extend(status::of_service(self, name, &object, &now, &wanted));
        self.drafts.insert(name.clone(), now);
        writes
    }

    /// Notes the address that a virtual service was given. One that becomes free is for those that wait.
    fn grant(&mut self, name: &ObjectName, address: Option<IpAddr>) {
        let before = match address {
            Some(address) => {
                self.claims.reserve(address);
                self.granted.insert(name.clone(), address)
            }
            None => self.granted.remove(name),
        };
        if let Some(freed) = before.filter(|before| Some(*before) != address) {
            self.claims.release(freed);
        }
    }

    fn draw(&mut self, name: &ObjectName, object: &VirtualService) -> Draft {
        let wants_address = object.spec.addresses.is_empty() && object.spec.fwmark.is_none();
        let pools = self
            .objects
            .groups
            .get(&object.spec.director_group)
            .map(|group| convert::pools_of(group));
        let namespace = name.namespace();
        let before = self.granted.get(name).copied();
        let granted = match &pools {
            _ if !wants_address => None,
            // The group may come back, and its address must not be another's then.
            None => before,
            Some(pools) => {
                let fits = |address: &IpAddr| {
                    let mut all = pools.iter();
                    all.any(|pool| pool.serves(namespace) && pool.contains(*address))
                };
                let before = before.filter(fits);
                before.or_else(|| {
                    allocate(pools, namespace, |address| {
                        self.claims.taken().contains(&address)
                    })
                })
            }
        };
        let mut draft = Draft {
            created: created(object),
            granted,
            ..draft::draw(&self.objects, name, object, granted)
        };
        self.waiting.remove(name);
        if wants_address && granted.is_none() && pools.is_some() {
            self.waiting.insert(name.clone());
            let group = &object.spec.director_group;
            let message = format!(
                "no address is free in the pools of DirectorGroup '{group}' for namespace '{namespace}'"
            );
            draft
                .refusal
                .get_or_insert(Fault::new(Reason::NoFreeAddress, message));
        }
        self.keep_last_good(name, &mut draft);
        draft
    }

    /// What was programmed goes on working when the object becomes one that cannot be.
    fn keep_last_good(&self, name: &ObjectName, draft: &mut Draft) {
        let is_invalid = draft
            .refusal
            .as_ref()
            .is_some_and(|fault| fault.reason == Reason::Invalid);
        if !is_invalid
            && draft
                .unresolved
                .as_ref()
                .is_none_or(|fault| fault.reason != Reason::DirectorGroupNotFound)
        {
            return;
        }
        let bindings = self.index.bindings_of(name);
        let last = bindings
            .iter()
            .find_map(|binding| self.objects.bindings.get(binding));
        if let Some(last) = last {
            let fault = (draft.refusal.take(), draft.unresolved.take());
            draft.restore(&last.spec);
            (draft.refusal, draft.unresolved) = fault;
        }
    }

    fn reindex(&mut self, name: &ObjectName, before: &Draft, now: &Draft) {
        let group = |draft: &Draft| Some(draft.group.clone()).filter(|group| !group.is_empty());
        let (old, new) = (before.kube_service.as_ref(), now.kube_service.as_ref());
        self.index.set_service(name, old, new);
        let (old, new) = (group(before), group(now));
        self.index.set_group(name, old.as_ref(), new.as_ref());
        self.index
            .set_addresses(name, &before.servers, &now.servers);
        // A VIP must be no real server's address.
        let moved = &before.servers ^ &now.servers;
        let users = moved
            .iter()
            .flat_map(|address| self.claims.users_of(*address));
        let mut concerned: BTreeSet<ObjectName> = users.cloned().collect();
        let taken = self.claims.taken().len();
        let (old, new) = (claimant(name, before), claimant(name, now));
        concerned.extend(
            self.claims
                .replace((&old, &before.claim), (&new, &now.claim)),
        );
        if self.claims.taken().len() < taken || before.granted != now.granted {
            concerned.extend(std::mem::take(&mut self.waiting));
        }
        concerned.remove(name);
        self.mark_services(concerned);
    }

    /// Why a virtual service may not have what it claims.
    fn refuse(&self, name: &ObjectName, draft: &Draft) -> Option<Fault> {
        for (index, vip) in draft.claim.vips.iter().enumerate() {
            let field = format!("`spec.addresses[{index}]`");
            if let Some(owner) = self.index.first_user_of_address(*vip) {
                let message = format!(
                    "{field} must not be the address of a real server: '{vip}' is one of VirtualService {owner}"
                );
                return Some(Fault::new(Reason::Conflict, message));
            }
            let foreign = self
                .index
                .nodes_with(*vip)
                .find(|node| !draft.directors.iter().any(|own| own == node));
            if let Some(node) = foreign {
                let message = format!(
                    "{field} must not be the address of a machine that does not direct it: '{vip}' is one of {node}"
                );
                return Some(Fault::new(Reason::Conflict, message));
            }
        }
        match self.claims.check(&claimant(name, draft), &draft.claim) {
            Ok(()) => None,
            Err(Conflict::Key(key, owner)) => Some(Fault::new(
                Reason::Conflict,
                format!("must not be in use: {key} belongs to VirtualService {owner}"),
            )),
            Err(Conflict::Vip(vip, group, owner)) => Some(Fault::new(
                Reason::Conflict,
                format!(
                    "must not be a VIP of another group: '{vip}' is held by DirectorGroup {group} for VirtualService {owner}"
                ),
            )),
        }
    }

    /// Finds the machines that are real servers, and marks them.
    fn set_serving(&mut self, name: &ObjectName, before: &Draft, now: &mut Draft) {
        if now.is_programmed() {
            for address in &now.servers {
                let Some(node) = self.index.node_with(*address) else {
                    continue;
                };
                if !now.directors.iter().any(|director| director == node) {
                    now.serving
                        .entry(node.to_owned())
                        .or_default()
                        .push(*address);
                }
            }
        }
        let old: BTreeSet<String> = before.serving.keys().cloned().collect();
        let new: BTreeSet<String> = now.serving.keys().cloned().collect();
        self.index.set_served(name, &old, &new);
        for node in old.union(&new) {
            if node::served_service(name, before, node) != node::served_service(name, now, node) {
                self.mark_node(node);
            }
        }
        // Those that have to go on serving until the directors have let go of them.
        for node in self.index.told_to_serve(name).difference(&new) {
            self.mark_node(node);
        }
    }
}

fn claimant(name: &ObjectName, draft: &Draft) -> Claimant {
    Claimant {
        created: draft.created,
        name: name.clone(),
    }
}

fn created(object: &VirtualService) -> i64 {
    let created = object.metadata.creation_timestamp.as_ref();
    created.map_or(i64::MAX, |time| time.0.as_second())
}
