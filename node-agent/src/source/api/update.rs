//! Newer versions of some bindings, when nothing else has changed.

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
    /// The binding's place among those of the machine.
    index: usize,
}

/// Returns the updates that are all that has changed; `None` when more has, and everything is to be read.
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

/// A newer version of a binding; `None` when it is not just that.
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
    /// Puts the newer version in the place of the one in force.
    pub(super) fn apply(self, objects: &mut NodeObjects, converted: &mut ObjectSet) {
        let object = ObjectRef::VirtualService(self.name.clone());
        let service = Converted::Service(self.name, self.service);
        converted.converted.insert(object, service);
        objects.update(self.index, self.bound);
    }
}
