//! The bindings of a virtual service: what each director is given.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use kube::Resource;
use lvs_crd::{
    BindingSlice, DirectorBinding, DirectorBindingSpec, VirtualService, binding_name,
    convert::{self, Bound},
};
use lvs_model::{NodeName, ObjectName, Readiness, may_have_weight};

use super::slices::sliced;
use crate::{
    cluster::{
        Bindings, Cluster, DesiredBinding, Reconciled, Version, created, is_managed, is_stored,
        readiness_of,
    },
    write::{Revision, Write},
};

impl Cluster {
    /// The desired binding of each director. `service` is the version with the weights of the moment.
    pub(super) fn desired_bindings(
        &self,
        name: &ObjectName,
        reconciled: &Reconciled,
        service: Option<&lvs_model::VirtualService>,
    ) -> Bindings {
        let (Some(version), Some(service)) = (reconciled.state.programmed(), service) else {
            return Bindings::new();
        };
        let resolved = convert::director_binding(service);
        let bindings = reconciled.directors.iter().filter_map(|director| {
            let binding = binding_name(name.name(), director.as_str());
            let binding = ObjectName::new(name.namespace(), &binding).ok()?;
            let whole = DirectorBindingSpec {
                node: director.to_string(),
                virtual_service: name.name().to_owned(),
                generation: version.generation,
                accepted_spec: version.accepted_spec.clone(),
                ..resolved.clone()
            };
            let desired = sliced(&binding, whole, self.places.get(name));
            Some((binding, desired))
        });
        bindings.collect()
    }

    /// A version in which real servers that are not ready have weight 0.
    pub(super) fn weighted(
        &self,
        name: &ObjectName,
        reconciled: &Reconciled,
    ) -> Option<lvs_model::VirtualService> {
        let version = reconciled.state.version()?;
        let mut service = version.service.as_ref().clone();
        let weighted = self.addresses_with_weight(name);
        let machines = reconciled.machines.iter();
        let machines =
            machines.flat_map(|(machine, own)| own.iter().map(move |own| (*own, machine)));
        let machines: BTreeMap<IpAddr, &NodeName> = machines.collect();
        for server in &mut service.real_servers {
            let machine = machines.get(&server.address).copied();
            let readiness = self.readiness(name, machine);
            let has_weight = weighted.contains(&server.address);
            if !may_have_weight(server.forwarding, readiness, has_weight) {
                server.weight = 0;
            }
        }
        Some(service)
    }

    /// Applies the bindings that are missing or differ, whose VIPs and ports are granted. Deletes those that are not desired.
    ///
    /// 1. A binding that names slices is written once the watch shows them, in the revisions that it names. In between,
    ///    its agent keeps the last complete set of real servers.
    /// 2. A binding is deleted only when a move is complete: when every desired one is in the kernel of its director, apart
    ///    from a VIP that the old director still has, and the old director has handed its VIPs over. A slice is deleted once no
    ///    binding names it.
    pub(super) fn write_bindings(
        &self,
        name: &ObjectName,
        object: &VirtualService,
        desired: &Bindings,
    ) -> Vec<Write> {
        let owner_uid = object.metadata.uid.clone().unwrap_or_default();
        let mut writes = Vec::new();
        for (binding, DesiredBinding { first, slices }) in desired {
            let apply = |name: &ObjectName, spec: &DirectorBindingSpec| Write::ApplyBinding {
                name: name.clone(),
                owner_uid: owner_uid.clone(),
                spec: Box::new(spec.clone()),
            };
            let is_missing = |(name, spec): &(&ObjectName, &DirectorBindingSpec)| {
                !self.is_written(name, spec, &owner_uid)
            };
            let missing: Vec<_> = slices.iter().filter(is_missing).collect();
            writes.extend(missing.iter().map(|(name, spec)| apply(name, spec)));
            let is_new = !self.objects.bindings.contains_key(binding);
            if is_new && !self.knows_others(&first.director_group) {
                // Its LvsNode is written meanwhile, and the watch shows that.
                continue;
            }
            if missing.is_empty() && !self.is_written(binding, first, &owner_uid) {
                writes.push(apply(binding, first));
            }
        }
        let is_desired = |name: &ObjectName| {
            let is_slice = |binding: &DesiredBinding| binding.slices.contains_key(name);
            desired.contains_key(name) || desired.values().any(is_slice)
        };
        let is_needed = |name: &ObjectName| {
            let found = self.objects.bindings.get(name);
            found.is_some_and(|found| self.is_needed(name, found))
        };
        if self.is_moved(name, desired) {
            let stays = |name: &ObjectName| is_desired(name) || is_needed(name);
            writes.extend(self.deletions(name, stays));
        }
        writes
    }

    /// Returns whether the earlier directors of a virtual service may let go of it.
    ///
    /// A new director does not add a VIP that another machine answers for. An earlier one lets go of the VIP then, if it is the
    /// machine that answers. If it is another, the earlier one goes on: letting go would leave the VIP to that machine.
    fn is_moved(&self, name: &ObjectName, desired: &Bindings) -> bool {
        let mut undone = desired
            .iter()
            .filter(|(binding, desired)| !self.is_done(binding, &desired.first))
            .peekable();
        if undone.peek().is_none() {
            return !desired.is_empty();
        }
        let existing = self.index.bindings_of(name);
        let earlier = existing
            .iter()
            .filter(|binding| !desired.contains_key(binding));
        let earlier: Vec<&NodeName> = earlier
            .filter_map(|binding| self.may_let_go(binding, desired))
            .collect();
        undone.all(|(binding, desired)| self.waits_for_vips_of(&earlier, binding, &desired.first))
    }

    /// Returns the machine of an earlier director that has what its successors wait for: its agent is alive and reports the
    /// service as programmed, and the VIPs are the same. It does not let go while it is unknown: a Node may be being registered
    /// anew.
    fn may_let_go(&self, binding: &ObjectName, desired: &Bindings) -> Option<&NodeName> {
        let found = self.objects.bindings.get(binding)?;
        let machine = found.spec.node.parse::<NodeName>().ok()?;
        let (machine, _) = self.objects.lvs_nodes.get_key_value(&machine)?;
        let has_vips = desired.values().all(|desired| {
            let mut vips = desired.first.addresses.iter();
            vips.all(|vip| found.spec.addresses.contains(vip))
        });
        let may = has_vips && self.is_held(binding) && self.others_leave(binding, machine);
        may.then_some(machine)
    }

    /// Returns whether the other virtual services with the VIPs of a binding leave its machine too: each is programmed at its new
    /// director, or lacks only VIPs that the machine answers for. While one stays, the machine keeps the VIPs for it.
    fn others_leave(&self, binding: &ObjectName, machine: &NodeName) -> bool {
        let own = self.service_of(binding);
        let vips = self.objects.bindings.get(binding).into_iter();
        let vips = vips.flat_map(|found| &found.spec.addresses);
        let vips = vips.filter_map(|vip| vip.parse().ok());
        let holders: BTreeSet<&ObjectName> =
            vips.flat_map(|vip| self.claims.holders_of(vip)).collect();
        let others = holders
            .into_iter()
            .filter(|other| Some(*other) != own.as_ref());
        others.into_iter().all(|other| self.leaves(other, machine))
    }

    /// Returns whether a virtual service can do without a machine: others have it, or lack only VIPs of the machine.
    pub(super) fn leaves(&self, service: &ObjectName, machine: &NodeName) -> bool {
        let bindings: Vec<_> = self.bindings_of(service).collect();
        let is_here = |binding: &DirectorBinding| binding.spec.node == machine.as_str();
        if !bindings.iter().any(|(_, binding)| is_here(binding)) {
            return true;
        }
        let elsewhere = bindings.iter().filter(|(_, binding)| !is_here(binding));
        let mut elsewhere = elsewhere.peekable();
        elsewhere.peek().is_some()
            && elsewhere.all(|(name, binding)| {
                self.is_held(name) || self.waits_for_vips_of(&[machine], name, &binding.spec)
            })
    }

    /// Deletes the bindings of a virtual service.
    pub(super) fn delete_bindings(&self, name: &ObjectName) -> Vec<Write> {
        self.deletions(name, |_| false).collect()
    }

    fn deletions(
        &self,
        name: &ObjectName,
        is_desired: impl Fn(&ObjectName) -> bool,
    ) -> impl Iterator<Item = Write> {
        let existing = self.index.bindings_of(name).into_iter();
        existing
            .filter(move |binding| !is_desired(binding) && !self.is_named(binding))
            .filter_map(|name| {
                let found = self.objects.bindings.get(&name)?;
                let revision = Revision::of(found.as_ref());
                Some(Write::DeleteBinding { name, revision })
            })
    }

    /// Returns whether the watch shows an object as it is desired.
    pub(super) fn is_written(
        &self,
        binding: &ObjectName,
        spec: &DirectorBindingSpec,
        uid: &str,
    ) -> bool {
        let found = self.objects.bindings.get(binding);
        found.is_some_and(|found| found.spec == *spec && is_owned(found.as_ref(), uid))
    }

    /// Returns whether a binding names an object as one of its slices.
    fn is_named(&self, object: &ObjectName) -> bool {
        let found = self.objects.bindings.get(object);
        let slice = found.and_then(|found| found.spec.slice.as_ref());
        let Some(BindingSlice { of, number, .. }) = slice else {
            return false;
        };
        let binding = ObjectName::new(object.namespace(), of).ok();
        let binding = binding.and_then(|binding| self.objects.bindings.get(&binding));
        let count = binding.map_or(0, |binding| binding.spec.slices.len());
        usize::try_from(*number).is_ok_and(|number| number <= count)
    }

    /// A binding with its slices, as its director's agent reads it.
    pub(super) fn with_slices(
        &self,
        binding: &Arc<DirectorBinding>,
    ) -> Option<Bound<DirectorBinding>> {
        let namespace = binding.metadata.namespace.as_deref()?;
        let find = |slice: &str| {
            let slice = ObjectName::new(namespace, slice).ok()?;
            self.objects.bindings.get(&slice).cloned()
        };
        Some(Bound::directed(Arc::clone(binding), find))
    }

    /// The version that a director was given.
    pub(super) fn version_of(
        &self,
        binding: &Arc<DirectorBinding>,
        object: &VirtualService,
    ) -> Option<Version> {
        let bound = self.with_slices(binding)?;
        let service = lvs_model::VirtualService {
            created: created(&object.metadata),
            ..bound.service.ok()?.as_ref().clone()
        };
        Some(Version {
            generation: binding.spec.generation,
            service: Arc::new(service),
            accepted_spec: binding.spec.accepted_spec.clone(),
        })
    }

    /// The addresses to which a director sends new connections already, or will once a decision is written.
    fn addresses_with_weight(&self, name: &ObjectName) -> BTreeSet<IpAddr> {
        if let Some(history) = self.histories.get(name) {
            let servers = history.present.real_servers.iter();
            let servers = servers.filter(|server| server.weight > 0);
            return servers.map(|server| server.address).collect();
        }
        let bindings = self.index.bindings_of(name);
        bindings
            .iter()
            .filter_map(|binding| self.objects.bindings.get(binding))
            .flat_map(|binding| &binding.spec.real_servers)
            .filter(|server| server.weight > 0)
            .filter_map(|server| server.address.parse().ok())
            .collect()
    }

    /// Whether the machine of a real server is ready to serve.
    fn readiness(&self, name: &ObjectName, machine: Option<&NodeName>) -> Readiness {
        let Some(machine) = machine else {
            return Readiness::Unmanaged;
        };
        let lvs_node = self.objects.lvs_nodes.get(machine);
        let binding = self.served_binding(name, machine);
        if self.agents.is_silent(machine) {
            return Readiness::Unknown;
        }
        if binding.is_some() || is_managed(lvs_node.map(AsRef::as_ref)) {
            readiness_of(binding)
        } else {
            Readiness::Unmanaged
        }
    }
}

/// Returns whether the grant of the VIPs and ports of bindings is stored.
pub(super) fn is_granted(object: &VirtualService, desired: &Bindings) -> bool {
    let mut firsts = desired.values().map(|binding| &binding.first);
    firsts.all(|binding| is_stored(object, binding))
}

/// Returns whether a binding belongs to this VirtualService, and not to an earlier one of its name.
pub(super) fn is_owned(binding: &impl Resource, uid: &str) -> bool {
    let owners = binding.meta().owner_references.iter().flatten();
    owners.map(|owner| owner.uid.as_str()).eq([uid])
}
