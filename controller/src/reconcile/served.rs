//! The RealServerBindings of a virtual service: what each machine that is a real server of it is given.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lvs_crd::{
    RealServerBinding, RealServerBindingSpec, VirtualService, binding_name, condition::Reason,
    convert,
};
use lvs_model::{NodeName, ObjectName, PreviousVersion, ServerHistory};

use super::binding::is_owned;
use crate::{
    cluster::{Bindings, Cluster, Fault, Reconciled},
    write::{Revision, Write},
};

/// The desired RealServerBindings of a virtual service, by their names.
pub(super) type Served = BTreeMap<ObjectName, RealServerBindingSpec>;

impl Cluster {
    /// The machines with the addresses of real servers, without the directors, which deliver to themselves. With several directors,
    /// one is a real server like the others if it has an address in `shared`.
    ///
    /// A machine keeps the addresses in its RealServerBinding until another one has them: that its agent does not report one, or
    /// that several machines report it, may be so for a moment only.
    pub(super) fn machines_of(
        &self,
        name: &ObjectName,
        servers: &BTreeSet<IpAddr>,
        directors: &[NodeName],
        shared: &BTreeSet<IpAddr>,
    ) -> BTreeMap<NodeName, Vec<IpAddr>> {
        let mut machines: BTreeMap<NodeName, Vec<IpAddr>> = BTreeMap::new();
        for address in servers {
            if let Some(machine) = self.index.machine_with(*address) {
                let addresses = machines.entry(machine.clone()).or_default();
                addresses.push(*address);
            }
        }
        for binding in self.index.served_bindings_of(name) {
            let Some(binding) = self.objects.served.get(&binding) else {
                continue;
            };
            let Ok(machine) = binding.spec.node.parse::<NodeName>() else {
                continue;
            };
            let own = binding.spec.real_servers.iter();
            let own = own.filter_map(|server| server.address.parse().ok());
            let own = own.filter(|address| {
                servers.contains(address) && self.index.machine_with(*address).is_none()
            });
            machines.entry(machine).or_default().extend(own);
        }
        machines.retain(|machine, own| {
            let is_shared = own.iter().any(|address| shared.contains(address));
            !own.is_empty() && (is_shared || !directors.contains(machine))
        });
        machines
    }

    /// The real servers that DR or TUN reaches, if several machines direct a virtual service, which each may be one of them.
    pub(super) fn shared_servers(
        &self,
        group: &str,
        service: &lvs_model::VirtualService,
    ) -> BTreeSet<IpAddr> {
        let is_shared = self.index.machines_of_group(group).len() > 1
            && !service.alone
            && !service.frontend.vips().is_empty();
        let servers = service.real_servers.iter().filter(|_| is_shared);
        let routed = servers.filter(|server| server.forwarding.keeps_vip());
        routed.map(|server| server.address).collect()
    }

    /// The desired RealServerBinding of each machine that is a real server, or goes on serving connections that it had as one.
    pub(super) fn desired_served(&self, name: &ObjectName, reconciled: &Reconciled) -> Served {
        let Some(version) = reconciled.state.programmed() else {
            return Served::new();
        };
        let history = self.histories.get(name);
        let leading = history.and_then(ServerHistory::leading);
        let leading = leading.map(convert::previous_servers);
        let machines = reconciled.machines.iter();
        let machines = machines.map(|(machine, own)| (machine, own.as_slice(), leading.clone()));
        let formers = self.former_machines(name, reconciled);
        let formers = formers
            .iter()
            .map(|(machine, version)| (machine, &[][..], Some(convert::previous_servers(version))));
        let specs = machines
            .chain(formers)
            .filter_map(|(machine, own, previous)| {
                let spec = RealServerBindingSpec {
                    node: machine.to_string(),
                    virtual_service: name.name().to_owned(),
                    previous,
                    ..convert::real_server_binding(&version.service, own)
                };
                Some((served_binding_name(name, machine)?, spec))
            });
        specs.collect()
    }

    /// The machines that are no real servers any more, and may have connections since they were, each with the last version in which it
    /// was one.
    fn former_machines(
        &self,
        name: &ObjectName,
        reconciled: &Reconciled,
    ) -> BTreeMap<NodeName, &PreviousVersion> {
        // Of several versions, the newest counts.
        let versions = self.previous_versions(name).iter().rev();
        let formers = versions.flat_map(|version| {
            let formers = self.former_machines_of(name, reconciled, version);
            let formers = formers.into_iter();
            formers.map(move |machine| (machine, version))
        });
        formers.collect()
    }

    /// The machines that are no real servers any more, and were in a previous version.
    fn former_machines_of(
        &self,
        name: &ObjectName,
        reconciled: &Reconciled,
        previous: &PreviousVersion,
    ) -> Vec<NodeName> {
        let servers = previous.service.real_servers.iter();
        let servers: BTreeSet<IpAddr> = servers.map(|server| server.address).collect();
        let directors = &reconciled.directors;
        let shared = self.shared_servers(&reconciled.group, &previous.service);
        let machines = self.machines_of(name, &servers, directors, &shared);
        // An address that is not reported for a moment may be of a machine that is a former real server already.
        let mut reported = servers.iter();
        let may_be_any = reported.any(|server| self.index.machine_with(*server).is_none());
        let existing = self.index.served_bindings_of(name).into_iter();
        let existing = existing.filter_map(|binding| self.objects.served.get(&binding));
        let former = existing.filter_map(|binding| {
            let machine: NodeName = binding.spec.node.parse().ok()?;
            let has_it = || {
                let found = binding.spec.previous.as_ref();
                found.is_some_and(|found| {
                    found.real_servers == convert::previous_servers(previous).real_servers
                })
            };
            let is_former = machines.contains_key(&machine)
                || (may_be_any && binding.spec.real_servers.is_empty() && has_it());
            let has_role = reconciled.machines.contains_key(&machine)
                || (shared.is_empty() && directors.contains(&machine));
            (is_former && !has_role).then_some(machine)
        });
        former.collect()
    }

    /// Applies the RealServerBindings that are missing or differ. Those that are not desired are deleted once no director
    /// may send packets to their machines.
    pub(super) fn write_served(
        &self,
        name: &ObjectName,
        object: &VirtualService,
        bindings: &Bindings,
        desired: &Served,
    ) -> Vec<Write> {
        let owner_uid = object.metadata.uid.clone().unwrap_or_default();
        let existing = self.index.served_bindings_of(name);
        let mut undesired = existing
            .into_iter()
            .filter(|found| !desired.contains_key(found));
        let mut deletions = undesired.by_ref().peekable();
        let may_delete = deletions.peek().is_some() && !self.may_be_directed(name, bindings);
        let deletions: Vec<Write> = deletions
            .filter(|_| may_delete)
            .filter_map(|binding| self.delete_one(name, binding))
            .collect();
        let applied = desired
            .iter()
            .filter(|(binding, spec)| !self.is_served_written(binding, spec, &owner_uid))
            .map(|(binding, spec)| Write::ApplyServed {
                name: binding.clone(),
                owner_uid: owner_uid.clone(),
                spec: Box::new(spec.clone()),
            });
        applied.chain(deletions).collect()
    }

    /// Returns whether the watch shows a RealServerBinding as it is desired.
    pub(super) fn is_served_written(
        &self,
        binding: &ObjectName,
        spec: &RealServerBindingSpec,
        uid: &str,
    ) -> bool {
        let found = self.objects.served.get(binding);
        found.is_some_and(|found| found.spec == *spec && is_owned(found.as_ref(), uid))
    }

    /// Why the API server refuses to store a RealServerBinding that a virtual service should have and has not.
    pub(super) fn refusal_of_served(
        &self,
        name: &ObjectName,
        reconciled: &Reconciled,
    ) -> Option<Fault> {
        if self.refusals.served.is_empty() {
            return None;
        }
        let desired = self.desired_served(name, reconciled).into_iter();
        let mut missing = desired.filter(|(binding, spec)| {
            let found = self.objects.served.get(binding);
            found.is_none_or(|found| found.spec != *spec)
        });
        let (binding, cause) = missing.find_map(|(binding, _)| {
            let cause = self.refusals.served.get(&binding)?;
            Some((binding, cause))
        })?;
        let message = format!("RealServerBinding {binding} cannot be written: {cause}");
        Some(Fault::new(Reason::WriteRefused, message))
    }

    /// Deletes the RealServerBindings of a deleted virtual service once its directors have let go.
    pub(super) fn delete_served(&self, name: &ObjectName) -> Vec<Write> {
        if self.may_be_directed(name, &Bindings::new()) {
            return Vec::new();
        }
        let existing = self.index.served_bindings_of(name).into_iter();
        existing
            .filter_map(|binding| self.delete_one(name, binding))
            .collect()
    }

    fn delete_one(&self, service: &ObjectName, binding: ObjectName) -> Option<Write> {
        let found = self.objects.served.get(&binding)?;
        Some(Write::DeleteServed {
            revision: Revision::of(found.as_ref()),
            name: binding,
            service: service.clone(),
        })
    }

    /// The RealServerBinding of a virtual service on a machine.
    pub(super) fn served_binding(
        &self,
        name: &ObjectName,
        machine: &NodeName,
    ) -> Option<&RealServerBinding> {
        let binding = served_binding_name(name, machine)?;
        self.objects.served.get(&binding).map(AsRef::as_ref)
    }
}

fn served_binding_name(name: &ObjectName, machine: &NodeName) -> Option<ObjectName> {
    ObjectName::new(
        name.namespace(),
        &binding_name(name.name(), machine.as_str()),
    )
    .ok()
}
