//! Converts the objects of a machine into the model's types.

use std::sync::Arc;

use lvs_crd::{
    DirectorBinding, RealServerBinding,
    convert::{Bound, NodeView, node_view},
};
use lvs_model::{DirectorGroup, ObjectRef, Rejection};

use super::{
    cache::{self, CachedObjects},
    node_objects::NodeObjects,
};
use crate::source::objects::{Converted, ObjectSet, Snapshot};

/// Converts the objects of a machine. The version in `before` of a faulty object stays in force; a binding that is in
/// `known` with the same generation is not converted again.
pub(super) fn convert(
    known: &NodeObjects,
    objects: &CachedObjects,
    unreadable: Vec<Rejection>,
    before: ObjectSet,
) -> (ObjectSet, NodeObjects) {
    let bound = bind(known, objects);
    let served = serve(known, &objects.served);
    let lvs_node = objects.lvs_node.as_deref();
    let NodeView { view, rejected } = node_view(&known.node, &bound, &served, lvs_node);
    let services = view.services.into_iter().map(|(name, service)| {
        let object = ObjectRef::VirtualService(name.clone());
        (object, Converted::Service(name, service))
    });
    let groups = view.groups.into_iter().map(|(name, group)| {
        let object = ObjectRef::DirectorGroup(name.clone());
        (object, Converted::Group(name, group))
    });
    let mut set = ObjectSet::new(services.chain(groups));
    for rejected in rejected {
        set.reject(rejected.identity, rejected.rejection);
    }
    for rejection in &unreadable {
        set.reject(None, rejection.clone());
    }
    set.keep(before, false);
    let lvs_node = objects.lvs_node.clone();
    let mut objects = NodeObjects::new(known.node.clone());
    (objects.bound, objects.served, objects.lvs_node) = (bound, served, lvs_node);
    (objects.rejections, objects.unreadable) = (set.rejections.clone(), unreadable);
    (set, objects)
}

/// Converts the DirectorBindings, except those whose generation is known, and so are those of their slices.
fn bind(known: &NodeObjects, objects: &CachedObjects) -> Vec<Bound<DirectorBinding>> {
    let recall = |object: &Arc<DirectorBinding>| {
        let bound = known.bound.get(known.index(cache::key(object.as_ref()))?)?;
        let is_same = |slice: &Arc<DirectorBinding>| {
            let found = objects.binding(cache::key(slice.as_ref()));
            found.is_some_and(|found| cache::is_same_generation(&found.metadata, &slice.metadata))
        };
        (cache::is_same_generation(&bound.object.metadata, &object.metadata)
            && bound.waits.is_empty()
            && bound.slices.iter().all(is_same))
        .then(|| bound.with(Arc::clone(object)))
    };
    let firsts = objects
        .bindings
        .iter()
        .filter(|object| object.spec.slice.is_none());
    firsts
        .map(|object| {
            recall(object).unwrap_or_else(|| {
                let namespace = object.metadata.namespace.as_deref();
                let find = |name: &str| objects.binding((namespace, Some(name))).cloned();
                Bound::directed(Arc::clone(object), find)
            })
        })
        .collect()
}

/// Converts the RealServerBindings, except those whose generation is known.
fn serve(known: &NodeObjects, objects: &[Arc<RealServerBinding>]) -> Vec<Bound<RealServerBinding>> {
    let recall = |object: &Arc<RealServerBinding>| {
        let bound = known.served(cache::key(object.as_ref()))?;
        cache::is_same_generation(&bound.object.metadata, &object.metadata)
            .then(|| bound.with(Arc::clone(object)))
    };
    objects
        .iter()
        .map(|object| recall(object).unwrap_or_else(|| Bound::served(Arc::clone(object))))
        .collect()
}

/// The snapshot of the objects in force. A group without an object is added without directors; otherwise `assign` would
/// make the machine its director.
pub(super) fn snapshot(objects: &ObjectSet) -> Snapshot {
    let mut snapshot = Snapshot {
        rejections: objects.rejections.clone(),
        ..Snapshot::default()
    };
    for converted in objects.converted.values() {
        snapshot.add(converted.clone());
    }
    let view = &mut snapshot.view;
    view.unreadable_objects = objects.unknown();
    for service in view.services.values() {
        if !view.groups.contains_key(&service.group) {
            let without_directors = DirectorGroup::default();
            view.groups.insert(service.group.clone(), without_directors);
        }
    }
    snapshot
}
