//! What the API server refuses to store.

use std::collections::BTreeMap;

use lvs_model::{NodeName, ObjectName};

/// The objects that the API server refuses to store as they should be, each with its reason. An entry lasts until a write of the
/// object succeeds; it says nothing about an object that is as it should be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals {
    /// The bindings.
    pub bindings: BTreeMap<ObjectName, String>,
    /// The RealServerBindings.
    pub served: BTreeMap<ObjectName, String>,
    /// The LvsNodes.
    pub nodes: BTreeMap<NodeName, String>,
}
