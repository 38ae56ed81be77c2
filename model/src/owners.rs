//! Which virtual services need which targets.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::{ObjectName, Target};

/// The virtual services that need each target: they do not work if the target is not as desired.
///
/// A target without owners concerns the machine as a whole: something to remove, or the IPVS timeouts of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners(BTreeMap<Target, SmallVec<[ObjectName; 1]>>);

impl Owners {
    /// Adds a virtual service to the owners of a target.
    ///
    /// Additions to one target must be grouped by service: only the last owner is checked for a duplicate.
    pub(crate) fn add(&mut self, target: Target, service: &ObjectName) {
        let services = self.0.entry(target).or_default();
        if services.last() != Some(service) {
            services.push(service.clone());
        }
    }

    /// Returns the virtual services that need a target.
    #[must_use]
    pub fn of(&self, target: &Target) -> &[ObjectName] {
        self.0.get(target).map_or(&[], SmallVec::as_slice)
    }

    /// Removes the IPVS services from the owners and returns them.
    pub(crate) fn split_off_services(&mut self) -> Self {
        Self(self.0.split_off(&Target::first_service()))
    }

    /// Iterates over the targets with the virtual services that need them.
    pub fn iter(&self) -> impl Iterator<Item = (&Target, &[ObjectName])> {
        self.0
            .iter()
            .map(|(target, services)| (target, services.as_slice()))
    }
}
