//! The objects that cannot be decoded: their last versions stay in force.

use std::{collections::BTreeMap, sync::Arc};

use kube::Resource;
use lvs_model::Rejection;

use super::{
    cache::{self, CachedObjects, NameOf, find},
    reflector::Key,
};

/// The objects of a machine that cannot be decoded.
pub(super) struct Unreadable {
    /// The DirectorBindings.
    pub bindings: UnreadableKind,
    /// The RealServerBindings.
    pub served: UnreadableKind,
    lvs_nodes: UnreadableKind,
}

/// The objects of one kind that cannot be decoded, and why.
pub(super) struct UnreadableKind {
    kind: &'static str,
    errors: BTreeMap<Key, String>,
}

impl Unreadable {
    /// The objects that the watches could not decode, with the reasons.
    pub(super) const fn new(
        bindings: BTreeMap<Key, String>,
        served: BTreeMap<Key, String>,
        lvs_nodes: BTreeMap<Key, String>,
    ) -> Self {
        Self {
            bindings: UnreadableKind::new("DirectorBinding", bindings),
            served: UnreadableKind::new("RealServerBinding", served),
            lvs_nodes: UnreadableKind::new("LvsNode", lvs_nodes),
        }
    }

    /// Returns those that have no version in `objects`, by kind and name.
    pub(super) fn unknown(&self, objects: &CachedObjects) -> impl Iterator<Item = String> {
        let lvs_nodes = self.lvs_nodes.absent(objects.lvs_node.as_slice());
        let bindings = self.bindings.absent(&objects.bindings);
        bindings
            .chain(self.served.absent(&objects.served))
            .chain(lvs_nodes)
    }

    /// One rejection for each object.
    pub(super) fn rejections(&self) -> Vec<Rejection> {
        let kinds = [&self.bindings, &self.served, &self.lvs_nodes].into_iter();
        kinds.flat_map(UnreadableKind::rejections).collect()
    }
}

impl UnreadableKind {
    const fn new(kind: &'static str, errors: BTreeMap<Key, String>) -> Self {
        Self { kind, errors }
    }

    /// Adds the last versions in `before` of the objects that the watch has never decoded.
    pub(super) fn fill<K: Resource>(
        &self,
        mut objects: Vec<Arc<K>>,
        before: &[Arc<K>],
    ) -> Vec<Arc<K>> {
        let absent = self.names().filter(|name| find(&objects, *name).is_none());
        let last: Vec<_> = absent
            .filter_map(|name| find(before, name).cloned())
            .collect();
        if !last.is_empty() {
            objects.extend(last);
            objects.sort_by(|one, other| cache::key(one.as_ref()).cmp(&cache::key(other.as_ref())));
        }
        objects
    }

    fn names(&self) -> impl Iterator<Item = NameOf<'_>> {
        let names = self.errors.keys();
        names.map(|(namespace, name)| (namespace.as_deref(), Some(name.as_str())))
    }

    fn absent<K: Resource>(&self, objects: &[Arc<K>]) -> impl Iterator<Item = String> {
        let absent = self.errors.keys().filter(move |(namespace, name)| {
            find(objects, (namespace.as_deref(), Some(name.as_str()))).is_none()
        });
        absent.map(|key| self.text(key))
    }

    /// Returns the kind and the name of an object.
    fn text(&self, (namespace, name): &Key) -> String {
        match namespace {
            Some(namespace) => format!("{} {namespace}/{name}", self.kind),
            None => format!("{} {name}", self.kind),
        }
    }

    fn rejections(&self) -> impl Iterator<Item = Rejection> {
        self.errors.iter().map(|(key, error)| Rejection {
            object: None,
            origin: self.text(key),
            field: String::new(),
            reason: format!("cannot be decoded, so its last version stays in force: {error}"),
        })
    }
}
