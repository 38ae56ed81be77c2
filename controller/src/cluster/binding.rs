//! What each director is told of a virtual service.

use std::{collections::BTreeMap, sync::Arc};

use lvs_crd::{
    DirectorBinding, DirectorBindingSpec, Forwarding, VirtualService, VirtualServiceSpec,
    binding_name,
};
use lvs_model::ObjectName;

use super::{Cluster, Write, draft::Draft, node};

impl Cluster {
    /// The binding of each director.
    pub(super) fn bindings(
        &self,
        name: &ObjectName,
        draft: &Draft,
    ) -> BTreeMap<ObjectName, DirectorBindingSpec> {
        let Some(service) = draft.service.as_ref().filter(|_| draft.is_programmed()) else {
            return BTreeMap::new();
        };
        let bindings = draft.directors.iter().filter_map(|node| {
            let spec = DirectorBindingSpec {
                node: node.clone(),
                virtual_service: name.name().to_owned(),
                generation: draft.generation,
                service: self.gate(name, draft, service),
            };
            let binding = binding_name(name.name(), node);
            Some((ObjectName::new(name.namespace(), &binding).ok()?, spec))
        });
        bindings.collect()
    }

    /// Writes the bindings that are wanted, and takes back those that are not.
    pub(super) fn bind(
        &self,
        name: &ObjectName,
        object: &VirtualService,
        wanted: &BTreeMap<ObjectName, DirectorBindingSpec>,
    ) -> Vec<Write> {
        let owner_uid = object.metadata.uid.clone().unwrap_or_default();
        let is_written = |binding: &ObjectName, spec: &DirectorBindingSpec| {
            let found = self.objects.bindings.get(binding);
            found.is_some_and(|found| found.spec == *spec && is_owned(found, &owner_uid))
        };
        let missing = wanted.iter().filter(|(name, spec)| !is_written(name, spec));
        let applied = missing.map(|(binding, spec)| Write::ApplyBinding {
            name: binding.clone(),
            owner_uid: owner_uid.clone(),
            spec: Box::new(spec.clone()),
        });
        applied.chain(self.prune(name, wanted)).collect()
    }

    pub(super) fn prune(
        &self,
        name: &ObjectName,
        wanted: &BTreeMap<ObjectName, DirectorBindingSpec>,
    ) -> Vec<Write> {
        let bindings = self.index.bindings_of(name).into_iter();
        let unwanted = bindings.filter(|binding| !wanted.contains_key(binding));
        unwanted.map(Write::DeleteBinding).collect()
    }

    /// A real server whose agent has not said that it can answer gets no weight, where the VIP has to be there first.
    fn gate(
        &self,
        name: &ObjectName,
        draft: &Draft,
        service: &Arc<VirtualServiceSpec>,
    ) -> VirtualServiceSpec {
        let mut spec = service.as_ref().clone();
        if spec.forwarding == Forwarding::Nat {
            return spec;
        }
        for endpoint in &mut spec.backends.endpoints {
            if self.waits_for(name, draft, &endpoint.address).is_some() {
                endpoint.weight = 0;
            }
        }
        spec
    }

    /// The machine that has to get ready before an endpoint takes connections. An endpoint that takes connections already
    /// goes on with it until the agent of its machine has said something of this virtual service: it may have served
    /// before it had an agent.
    pub(super) fn waits_for(
        &self,
        name: &ObjectName,
        draft: &Draft,
        address: &str,
    ) -> Option<&str> {
        let node = self.index.node_with(address.parse().ok()?)?;
        let lvs_node = self.objects.lvs_nodes.get(node)?;
        let is_waiting = draft.serving.contains_key(node)
            && node::is_managed(Some(lvs_node))
            && match node::readiness(lvs_node, name) {
                Some(is_ready) => !is_ready,
                None => !self.takes_connections(name, address),
            };
        is_waiting.then_some(node)
    }

    /// Says whether a director is told already to send new connections to an endpoint.
    fn takes_connections(&self, name: &ObjectName, address: &str) -> bool {
        self.index.bindings_of(name).iter().any(|binding| {
            let binding = self.objects.bindings.get(binding);
            let endpoints = binding.map(|binding| &binding.spec.service.backends.endpoints);
            let mut endpoints = endpoints.into_iter().flatten();
            endpoints.any(|endpoint| endpoint.address == address && endpoint.weight > 0)
        })
    }
}

/// Says whether a binding belongs to this VirtualService, and not to one that had its name before.
fn is_owned(binding: &DirectorBinding, uid: &str) -> bool {
    let owners = binding.metadata.owner_references.iter().flatten();
    owners.map(|owner| owner.uid.as_str()).eq([uid])
}
