//! Spreads many real servers over the slices of a binding.

use std::{collections::BTreeMap, sync::Arc};

use lvs_crd::{
    BindingSlice, DirectorBindingSpec, MAX_REAL_SERVERS, convert, slice_name, slice_revision,
};
use lvs_model::ObjectName;

use crate::cluster::{Bindings, Cluster, DesiredBinding, Places, Version};

impl Cluster {
    /// Gives each real server of a virtual service its slice, if they are more than one object may have.
    pub(super) fn place(&mut self, name: &ObjectName) {
        let before = self.places.remove(name);
        let reconciled = self.services.get(name);
        let version = reconciled.and_then(|reconciled| reconciled.state.programmed());
        let is_sliced = |version: &&Version| version.service.real_servers.len() > MAX_REAL_SERVERS;
        let Some(version) = version.filter(is_sliced) else {
            return;
        };
        let before = before.unwrap_or_else(|| self.observed_places(name));
        let servers = convert::director_binding(&version.service).real_servers;
        let places = Places::new(&servers, &before);
        self.places.insert(name.clone(), places);
    }

    /// The places that the slices show which exist, after a restart.
    fn observed_places(&self, name: &ObjectName) -> Places {
        let names = self.index.bindings_of(name);
        let bindings = names
            .iter()
            .filter_map(|name| self.objects.bindings.get(name));
        Places::observed(bindings.map(AsRef::as_ref))
    }

    /// Returns the bindings to write: those that were begun, until the watch shows all of their slices and themselves.
    ///
    /// Otherwise no set of slices would ever be complete while endpoints change faster than slices are written and observed, and
    /// directors would keep an old one. What was begun is given up if the API server refuses a part of it, or if more than real
    /// servers has changed.
    pub(super) fn begin(
        &mut self,
        name: &ObjectName,
        owner_uid: &str,
        desired: Bindings,
    ) -> Arc<Bindings> {
        let begun = self.begun.remove(name);
        let begun = begun.filter(|begun| self.goes_on(owner_uid, begun, &desired));
        let to_write = begun.unwrap_or_else(|| Arc::new(desired));
        if to_write.values().any(|binding| !binding.slices.is_empty()) {
            self.begun.insert(name.clone(), Arc::clone(&to_write));
        }
        to_write
    }

    fn goes_on(&self, owner_uid: &str, begun: &Bindings, desired: &Bindings) -> bool {
        let mut pairs = begun.values().zip(desired.values());
        let is_same = begun.keys().eq(desired.keys())
            && pairs.all(|(begun, desired)| begun.is_same_but_slices(desired));
        let mut bindings = begun.iter();
        if !is_same
            || bindings.any(|(name, binding)| self.refusal_of_binding(name, binding).is_some())
        {
            return false;
        }
        let mut objects = begun
            .iter()
            .flat_map(|(name, binding)| binding.objects(name));
        !objects.all(|(name, spec)| self.is_written(name, spec, owner_uid))
    }
}

/// Moves the real servers of a binding into slices if they have places in slices. The binding itself has none then.
pub(super) fn sliced(
    binding: &ObjectName,
    mut whole: DirectorBindingSpec,
    places: Option<&Places>,
) -> DesiredBinding {
    let mut slices = BTreeMap::new();
    if let Some(places) = places {
        let servers = std::mem::take(&mut whole.real_servers);
        for (number, real_servers) in (1..).zip(places.slices(servers)) {
            let revision = slice_revision(&real_servers).unwrap_or_default();
            whole.slices.push(revision.clone());
            let name = slice_name(binding.name(), number);
            let spec = DirectorBindingSpec {
                node: whole.node.clone(),
                virtual_service: whole.virtual_service.clone(),
                real_servers,
                slice: Some(BindingSlice {
                    of: binding.name().to_owned(),
                    number: i64::try_from(number).unwrap_or(i64::MAX),
                    revision,
                }),
                ..DirectorBindingSpec::default()
            };
            let name = ObjectName::new(binding.namespace(), &name).ok();
            slices.extend(name.map(|name| (name, spec)));
        }
    }
    DesiredBinding {
        first: whole,
        slices,
    }
}

#[cfg(test)]
mod tests;
