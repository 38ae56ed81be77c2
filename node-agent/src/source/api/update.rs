//! Finds the newer versions of bindings that can be applied without reading everything.

use std::sync::Arc;

use lvs_crd::{DirectorBinding, LvsNode, RealServerBinding, convert::Bound};
use lvs_model::{ObjectName, ObjectRef, VirtualService};

use super::{
    cache,
    node_objects::NodeObjects,
    reflector::{ObjectChanges, Reflector},
};
use crate::source::objects::{Converted, ObjectSet};

/// A newer version of a binding that is in force.
pub(super) struct BindingUpdate {
    /// The binding.
    pub bound: Bound<DirectorBinding>,
    /// Its virtual service.
    pub name: ObjectName,
    /// The virtual service in its newer version.
    pub service: Arc<VirtualService>,
    /// The binding's index among those of the machine.
    index: usize,
}

/// The changes since the last read.
pub(super) type AllChanges = (
    ObjectChanges<DirectorBinding>,
    ObjectChanges<RealServerBinding>,
    ObjectChanges<LvsNode>,
);

/// Returns the updates; `None` if anything else has changed, so that everything must be read.
pub(super) fn updates(
    objects: &NodeObjects,
    converted: &ObjectSet,
    changes: AllChanges,
    stored: &Reflector<DirectorBinding>,
) -> Option<Vec<BindingUpdate>> {
    let (
        ObjectChanges::Versions(bindings),
        ObjectChanges::Versions(served),
        ObjectChanges::Versions(nodes),
    ) = changes
    else {
        return None;
    };
    if !nodes.is_empty() || !served.is_empty() {
        return None;
    }
    let mut updates = Vec::new();
    for object in bindings.into_values() {
        if object.spec.slice.is_some() {
            // Its binding names it by its revision, and changes after it.
            if is_waited_for(objects, &object) {
                return None;
            }
        } else {
            updates.push(update(objects, converted, object, stored)?);
        }
    }
    Some(updates)
}

/// Returns whether the binding of a slice waits for slices, or is not known.
fn is_waited_for(objects: &NodeObjects, slice: &DirectorBinding) -> bool {
    let (namespace, _) = cache::key(slice);
    let of = slice.spec.slice.as_ref().map(|slice| slice.of.as_str());
    let index = objects.index((namespace, of));
    let bound = index.and_then(|index| objects.bound.get(index));
    bound.is_none_or(|bound| !bound.waits.is_empty())
}

/// The update to a newer version of a binding; `None` if the version has further effects.
fn update(
    objects: &NodeObjects,
    converted: &ObjectSet,
    object: Arc<DirectorBinding>,
    stored: &Reflector<DirectorBinding>,
) -> Option<BindingUpdate> {
    let index = objects.index(cache::key(object.as_ref()))?;
    let before = objects.bound.get(index)?;
    let name = before.name()?;
    let in_force = converted
        .converted
        .get(&ObjectRef::VirtualService(name.clone()))?;
    let is_in_force = matches!((in_force, &before.service),
        (Converted::Service(_, in_force), Ok(before)) if Arc::ptr_eq(in_force, before));
    let namespace = object.metadata.namespace.clone();
    let bound = Bound::directed(object, |name| stored.find(namespace.as_deref(), name));
    let service = Arc::clone(bound.service.as_ref().ok()?);
    let is_update = is_in_force
        && bound.name().as_ref() == Some(&name)
        && bound.slices.len() == before.slices.len()
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
    /// The binding and its slices.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Arc<DirectorBinding>> {
        self.bound.slices.iter().chain([&self.bound.object])
    }

    /// Replaces the version in force with the newer one.
    pub(super) fn apply(self, objects: &mut NodeObjects, converted: &mut ObjectSet) {
        let object = ObjectRef::VirtualService(self.name.clone());
        let service = Converted::Service(self.name, self.service);
        converted.converted.insert(object, service);
        objects.update(self.index, self.bound);
    }
}
