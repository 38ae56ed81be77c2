//! The version of an object that a status is about.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::source::api::Key;

/// The version of an object that a status is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObjectVersion {
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its uid, which differs from that of an earlier object of the same name.
    pub uid: Option<String>,
    /// Its generation.
    pub generation: Option<i64>,
}

impl ObjectVersion {
    /// The version of an object with this metadata.
    pub(super) fn of(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone(),
            generation: metadata.generation,
        }
    }

    /// The key of the object.
    pub(super) fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }
}
