//! Which virtual services want what in a kernel.

use std::collections::BTreeMap;

use crate::{ObjectName, Target};

/// The virtual services that want each thing in a kernel: those that do not work when it is not as it is wanted.
///
/// What nothing wants is the business of the machine: the removal of something, the IPVS timeouts of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners(BTreeMap<Target, Vec<ObjectName>>);

impl Owners {
    /// Adds a virtual service to those that want something. They are added one after the other.
    pub(crate) fn add(&mut self, target: Target, service: &ObjectName) {
        let services = self.0.entry(target).or_default();
        if services.last() != Some(service) {
            services.push(service.clone());
        }
    }

    /// The virtual services that want something.
    #[must_use]
    pub fn of(&self, target: &Target) -> &[ObjectName] {
        self.0.get(target).map_or(&[], Vec::as_slice)
    }

    /// Takes the IPVS services out.
    pub(crate) fn split_off_services(&mut self) -> Self {
        Self(self.0.split_off(&Target::first_service()))
    }

    /// Everything that is wanted, with the virtual services that want it.
    pub fn iter(&self) -> impl Iterator<Item = (&Target, &[ObjectName])> {
        self.0
            .iter()
            .map(|(target, services)| (target, services.as_slice()))
    }
}
