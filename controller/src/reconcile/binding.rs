//! The bindings of a virtual service: what each director is given.

use std::collections::{BTreeMap, BTreeSet};

use lvs_crd::{
    DirectorBinding, DirectorBindingSpec, VirtualService, VirtualServiceSpec, binding_name,
};
use lvs_model::{ObjectName, Readiness, may_have_weight};

use crate::{
    cluster::{Cluster, Reconciled, is_managed, is_stored, report},
    write::Write,
};

/// The desired bindings of a virtual service, by their names.
pub(super) type Bindings = BTreeMap<ObjectName, DirectorBindingSpec>;

impl Cluster {
    /// The desired binding of each director.
    pub(super) fn desired_bindings(&self, name: &ObjectName, reconciled: &Reconciled) -> Bindings {
        let Some(version) = reconciled.state.programmed() else {
            return Bindings::new();
        };
        let Some(service) = self.weighted_spec(name, reconciled) else {
            return Bindings::new();
        };
        let bindings = reconciled.directors.iter().filter_map(|director| {
            let binding = binding_name(name.name(), director.as_str());
            let spec = DirectorBindingSpec {
                node: director.to_string(),
                virtual_service: name.name().to_owned(),
                generation: version.generation,
                service: service.clone(),
            };
            Some((ObjectName::new(name.namespace(), &binding).ok()?, spec))
        });
        bindings.collect()
    }

    /// The spec of a virtual service in which real servers that are not ready have weight 0.
    pub(super) fn weighted_spec(
        &self,
        name: &ObjectName,
        reconciled: &Reconciled,
    ) -> Option<VirtualServiceSpec> {
        let version = reconciled.state.version()?;
        let mut spec = version.spec.as_ref().clone();
        let weighted = self.addresses_with_weight(name);
        for endpoint in &mut spec.backends.endpoints {
            let readiness = self.readiness(name, reconciled, &endpoint.address);
            let has_weight = weighted.contains(endpoint.address.as_str());
            if !may_have_weight(version.forwarding, readiness, has_weight) {
                endpoint.weight = 0;
            }
        }
        Some(spec)
    }

    /// Applies the bindings that are missing or differ, once the grant of their VIPs and ports is stored. Deletes a binding
    /// that is not desired only when a move is complete: when every desired one is in the kernel of its director.
    pub(super) fn write_bindings(
        &self,
        name: &ObjectName,
        object: &VirtualService,
        desired: &Bindings,
    ) -> Vec<Write> {
        if !desired
            .values()
            .all(|binding| is_stored(object, &binding.service))
        {
            return Vec::new();
        }
        let owner_uid = object.metadata.uid.clone().unwrap_or_default();
        let is_written = |binding: &ObjectName, spec: &DirectorBindingSpec| {
            let found = self.objects.bindings.get(binding);
            found.is_some_and(|found| found.spec == *spec && is_owned(found, &owner_uid))
        };
        let applied = desired
            .iter()
            .filter(|(binding, spec)| !is_written(binding, spec))
            .map(|(binding, spec)| Write::ApplyBinding {
                name: binding.clone(),
                owner_uid: owner_uid.clone(),
                spec: Box::new(spec.clone()),
            });
        let is_moved = !desired.is_empty()
            && desired
                .iter()
                .all(|(binding, spec)| self.is_done(binding, spec));
        let existing = self.index.bindings_of(name).into_iter();
        let undesired = existing.filter(|binding| is_moved && !desired.contains_key(binding));
        applied.chain(undesired.map(Write::DeleteBinding)).collect()
    }

    /// Deletes the bindings of a virtual service.
    pub(super) fn delete_bindings(&self, name: &ObjectName) -> Vec<Write> {
        let existing = self.index.bindings_of(name).into_iter();
        existing.map(Write::DeleteBinding).collect()
    }

    /// The addresses to which a director sends new connections already.
    fn addresses_with_weight(&self, name: &ObjectName) -> BTreeSet<&str> {
        let bindings = self.index.bindings_of(name);
        bindings
            .iter()
            .filter_map(|binding| self.objects.bindings.get(binding))
            .flat_map(|binding| &binding.spec.service.backends.endpoints)
            .filter(|endpoint| endpoint.weight > 0)
            .map(|endpoint| endpoint.address.as_str())
            .collect()
    }

    /// Whether the machine with an address is ready to serve.
    fn readiness(&self, name: &ObjectName, reconciled: &Reconciled, address: &str) -> Readiness {
        let machine = address.parse().ok();
        let machine = machine.and_then(|address| self.index.machine_with(address));
        let machine = machine.filter(|machine| reconciled.machines.contains_key(machine));
        let lvs_node = machine.and_then(|machine| self.objects.lvs_nodes.get(machine));
        let lvs_node = lvs_node.filter(|lvs_node| is_managed(Some(lvs_node)));
        let Some(lvs_node) = lvs_node else {
            return Readiness::Unmanaged;
        };
        match report(lvs_node, name) {
            None => Readiness::Unknown,
            Some(report) if report.ready => Readiness::Ready,
            Some(_) => Readiness::NotReady,
        }
    }
}

/// Returns whether a binding belongs to this VirtualService, and not to an earlier one of its name.
fn is_owned(binding: &DirectorBinding, uid: &str) -> bool {
    let owners = binding.metadata.owner_references.iter().flatten();
    owners.map(|owner| owner.uid.as_str()).eq([uid])
}
