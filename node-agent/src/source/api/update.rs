//! Finds the newer versions of bindings that can be applied without reading everything.

use std::sync::Arc;

use lvs_crd::{DirectorBinding, LvsNode, convert::Bound};
use lvs_model::{ObjectName, ObjectRef, VirtualService};

use super::{node_objects::NodeObjects, reflector::ObjectChanges};
use crate::source::objects::{Converted, ObjectSet};

/// A newer version of a binding that is in force.
pub(super) struct BindingUpdate {
    /// The binding.
    pub bound: Bound,
    /// Its virtual service.
    pub name: ObjectName,
    /// The virtual service in its newer version.
    pub service: Arc<VirtualService>,
    /// The binding's index among those of the machine.
    index: usize,
}

/// Returns the updates; `None` if anything else has changed, so that everything must be read.
pub(super) fn updates(
    objects: &NodeObjects,
    converted: &ObjectSet,
    changes: (ObjectChanges<DirectorBinding>, ObjectChanges<LvsNode>),
) -> Option<Vec<BindingUpdate>> {
    let (ObjectChanges::Versions(bindings), ObjectChanges::Versions(nodes)) = changes else {
        return None;
    };
    if !nodes.is_empty() {
        return None;
    }
    bindings
        .into_values()
        .map(|object| update(objects, converted, object))
        .collect()
}

/// The update to a newer version of a binding; `None` if the version has further effects.
fn update(
    objects: &NodeObjects,
    converted: &ObjectSet,
    object: Arc<DirectorBinding>,
) -> Option<BindingUpdate> {
    let index = objects.index(&object)?;
    let before = objects.bound.get(index)?;
    let name = before.name()?;
    let in_force = converted
        .converted
        .get(&ObjectRef::VirtualService(name.clone()))?;
    let is_in_force = matches!((in_force, &before.service),
        (Converted::Service(_, in_force), Ok(before)) if Arc::ptr_eq(in_force, before));
    let bound = Bound::new(object);
    let service = Arc::clone(bound.service.as_ref().ok()?);
    let is_update = is_in_force
        && bound.name().as_ref() == Some(&name)
        && bound.is_for(&objects.node)
        && before.is_for(&objects.node);
    is_update.then_some(BindingUpdate {
        bound,
        name,
        service,
        index,
    })
}

impl BindingUpdate {
    /// Replaces the version in force with the newer one.
    pub(super) fn apply(self, objects: &mut NodeObjects, converted: &mut ObjectSet) {
        let object = ObjectRef::VirtualService(self.name.clone());
        let service = Converted::Service(self.name, self.service);
        converted.converted.insert(object, service);
        objects.update(self.index, self.bound);
    }
}
