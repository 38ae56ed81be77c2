//! What the objects of a machine want of it.

use std::sync::Arc;

use lvs_crd::{
    DirectorBinding,
    convert::{Bound, NodeView, node_view},
    manifest::Identity,
};
use lvs_model::DirectorGroup;

use super::{
    Cluster,
    saved::{self, SavedObjects},
    status::Machine,
};
use crate::source::{Converted, Objects, Snapshot};

impl Cluster {
    pub(super) fn convert(&mut self, objects: &SavedObjects) -> Snapshot {
        let bound = self.bind(&objects.bindings);
        let NodeView { view, rejected } =
            node_view(&self.node, &bound, objects.lvs_node.as_deref());
        let services = view.services.into_iter().map(|(name, service)| {
            let identity = Identity::VirtualService(name.clone());
            (identity, Converted::Service(name, service))
        });
        let groups = view.groups.into_iter().map(|(name, group)| {
            let identity = Identity::DirectorGroup(name.clone());
            (identity, Converted::Group(name, group))
        });
        let mut fresh = Objects {
            converted: services.chain(groups).collect(),
            ..Objects::default()
        };
        for rejected in rejected {
            fresh.reject(rejected.identity, rejected.rejection);
        }
        fresh.keep(std::mem::take(&mut self.objects), false);
        self.objects = fresh;
        let snapshot = snapshot(&self.objects);
        self.machine = Machine {
            node: self.node.clone(),
            bound,
            lvs_node: objects.lvs_node.clone(),
            rejections: snapshot.rejections.clone(),
        };
        snapshot
    }

    /// Converts the bindings but for those that are the same as before.
    fn bind(&self, bindings: &[Arc<DirectorBinding>]) -> Vec<Bound> {
        let recall = |object: &Arc<DirectorBinding>| {
            let bound = self.machine.bound.get(self.machine.index(object)?)?;
            // A change of the status leaves what is wanted as it was.
            saved::is_same_generation(&bound.object.metadata, &object.metadata)
                .then(|| bound.with(Arc::clone(object)))
        };
        bindings
            .iter()
            .map(|object| recall(object).unwrap_or_else(|| Bound::new(Arc::clone(object))))
            .collect()
    }
}

/// The objects in force. A group of which nobody has told has no director, or `assign` would take none for all.
fn snapshot(objects: &Objects) -> Snapshot {
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
            let nobody = DirectorGroup {
                nodes: Vec::new(),
                interface: None,
                timeouts: None,
            };
            view.groups.insert(service.group.clone(), nobody);
        }
    }
    snapshot
}
