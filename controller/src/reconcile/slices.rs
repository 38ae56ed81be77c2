//! Spreads many real servers over the slices of a binding.

use std::collections::BTreeMap;

use lvs_crd::{
    BindingSlice, DirectorBindingSpec, MAX_REAL_SERVERS, convert, slice_name, slice_revision,
};
use lvs_model::ObjectName;

use crate::cluster::{Cluster, Places, Version};

/// The desired binding of a director.
pub(super) struct DesiredBinding {
    /// The binding itself.
    pub first: DirectorBindingSpec,
    /// Its slices, by their names.
    pub slices: BTreeMap<ObjectName, DirectorBindingSpec>,
}

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
