//! The desired bindings of a virtual service.

use std::collections::BTreeMap;

use lvs_crd::DirectorBindingSpec;
use lvs_model::ObjectName;

/// The desired bindings of a virtual service, by their names.
pub(crate) type Bindings = BTreeMap<ObjectName, DesiredBinding>;

/// The desired binding of a director.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DesiredBinding {
    /// The binding itself.
    pub first: DirectorBindingSpec,
    /// Its slices, by their names.
    pub slices: BTreeMap<ObjectName, DirectorBindingSpec>,
}

impl DesiredBinding {
    /// All objects with their specs: the slices, and then the binding itself.
    pub(crate) fn objects<'a>(
        &'a self,
        name: &'a ObjectName,
    ) -> impl Iterator<Item = (&'a ObjectName, &'a DirectorBindingSpec)> {
        self.slices.iter().chain([(name, &self.first)])
    }

    /// Returns whether two bindings differ in the slices of their real servers only.
    pub(crate) fn is_same_but_slices(&self, other: &Self) -> bool {
        let without_slices = |binding: &Self| DirectorBindingSpec {
            slices: Vec::new(),
            ..binding.first.clone()
        };
        without_slices(self) == without_slices(other)
    }
}
