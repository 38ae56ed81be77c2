//! The objects that a source has converted, and the snapshot of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lvs_model::{
    ClusterView, DirectorGroup, GroupName, ObjectName, ObjectRef, Pool, PoolName, Rejection,
    VirtualService,
};

/// The objects in force, and the rejections.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Snapshot {
    /// The objects in force; a faulty one is here in its last good version, if it ever had one.
    pub view: ClusterView,
    /// The rejections of faulty objects.
    pub rejections: Vec<Rejection>,
}

impl Snapshot {
    pub(super) fn add(&mut self, converted: Converted) {
        match converted {
            Converted::Service(name, service) => drop(self.view.services.insert(name, service)),
            Converted::Group(name, group) => drop(self.view.groups.insert(name, group)),
            Converted::Pool(name, pool) => self.view.pools.set(name, Some(pool)),
        }
    }
}

/// An object in the model's type.
#[derive(Clone)]
pub(super) enum Converted {
    /// A virtual service.
    Service(ObjectName, Arc<VirtualService>),
    /// A group of directors.
    Group(GroupName, DirectorGroup),
    /// A pool of addresses.
    Pool(PoolName, Pool),
}

/// The objects of one file, or of the API server, with their rejections.
#[derive(Default)]
pub(super) struct ObjectSet {
    /// The objects in force.
    pub converted: BTreeMap<ObjectRef, Converted>,
    /// The rejections of other objects, or of newer versions of these.
    pub rejections: Vec<Rejection>,
    faulty: BTreeSet<ObjectRef>,
}

impl ObjectSet {
    /// A set of objects without a rejection.
    #[cfg(feature = "kube")]
    pub(super) fn new(converted: impl IntoIterator<Item = (ObjectRef, Converted)>) -> Self {
        Self {
            converted: converted.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Keeps the previous version of faulty objects, and, if an unreadable part may hide them, of all missing objects.
    pub(super) fn keep(&mut self, before: Self, hides_more: bool) {
        for (object, converted) in before.converted {
            if hides_more || self.faulty.contains(&object) {
                self.converted.entry(object).or_insert(converted);
            }
        }
    }

    /// Returns the faulty objects that have no version in force, so that it is not known what they ask for.
    #[cfg(feature = "kube")]
    pub(super) fn unknown(&self) -> BTreeSet<String> {
        let faulty = self.faulty.iter();
        faulty
            .filter(|object| !self.converted.contains_key(object))
            .map(ToString::to_string)
            .collect()
    }

    /// Adds a rejection; the last good version of the object that it names stays in force.
    pub(super) fn reject(&mut self, object: Option<ObjectRef>, rejection: Rejection) {
        self.faulty.extend(object);
        self.rejections.push(rejection);
    }
}
