//! Converts the objects of a machine into the model's types.

use std::sync::Arc;

use lvs_crd::{
    DirectorBinding,
    convert::{Bound, NodeView, node_view},
};
use lvs_model::{DirectorGroup, ObjectRef};

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
    before: ObjectSet,
) -> (ObjectSet, NodeObjects) {
    let bound = bind(known, &objects.bindings);
    let NodeView { view, rejected } = node_view(&known.node, &bound, objects.lvs_node.as_deref());
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
    set.keep(before, false);
    let objects = known.with(bound, objects.lvs_node.clone(), set.rejections.clone());
    (set, objects)
}

/// Converts the bindings, except those whose generation is known.
fn bind(known: &NodeObjects, bindings: &[Arc<DirectorBinding>]) -> Vec<Bound> {
    let recall = |object: &Arc<DirectorBinding>| {
        let bound = known.bound.get(known.index(object)?)?;
        cache::is_same_generation(&bound.object.metadata, &object.metadata)
            .then(|| bound.with(Arc::clone(object)))
    };
    bindings
        .iter()
        .map(|object| recall(object).unwrap_or_else(|| Bound::new(Arc::clone(object))))
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
    for service in view.services.values() {
        if !view.groups.contains_key(&service.group) {
            let without_directors = DirectorGroup {
                nodes: Vec::new(),
                interface: None,
                timeouts: None,
            };
            view.groups.insert(service.group.clone(), without_directors);
        }
    }
    snapshot
}
