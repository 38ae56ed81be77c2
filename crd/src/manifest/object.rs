//! The objects and rejections that a file holds.

use lvs_model::{ObjectRef, Rejection};

use super::identity;
use crate::{AddressPool, DirectorGroup, VirtualService};

/// What a file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest<T = Object> {
    /// The objects that could be read, in the order of the file; no two with the same identity.
    pub objects: Vec<Entry<T>>,
    /// Why the others could not be read, in the order of the file.
    pub rejections: Vec<Rejected>,
    /// Whether the file holds something whose identity is not known. It may be an object that is missing from
    /// [`objects`](Self::objects) and [`rejections`](Self::rejections), so the caller deletes nothing because of this file.
    pub unreadable: bool,
}

/// An object with its identity.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<T = Object> {
    /// Kind and name.
    pub identity: ObjectRef,
    /// A 64-bit hash of the text of its document. Equal texts have equal hashes within one process.
    pub digest: u64,
    /// The object, or what the caller keeps of it.
    pub object: T,
}

/// An object of the API.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A virtual service.
    VirtualService(Box<VirtualService>),
    /// A group of directors.
    DirectorGroup(Box<DirectorGroup>),
    /// A pool of addresses.
    AddressPool(Box<AddressPool>),
}

/// A rejection with the object that it concerns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rejected {
    /// The object, if it is known: its last good version stays in force. If it is declared twice, an accepted object has the
    /// same identity.
    pub identity: Option<ObjectRef>,
    /// What is wrong.
    pub rejection: Rejection,
}

impl<T> Manifest<T> {
    /// Returns the result for a file that cannot be read at all.
    pub(super) fn unreadable(origin: &str, reason: String) -> Self {
        let rejection = Rejection {
            object: None,
            origin: origin.to_owned(),
            field: String::new(),
            reason,
        };
        Self {
            objects: Vec::new(),
            rejections: vec![Rejected {
                identity: None,
                rejection,
            }],
            unreadable: true,
        }
    }
}

impl Object {
    /// Returns kind and name; `None` if the name is invalid, which parsing rules out.
    pub(super) fn identity(&self) -> Option<ObjectRef> {
        match self {
            Self::VirtualService(object) => identity::of_service(
                object.metadata.namespace.as_deref(),
                object.metadata.name.as_deref()?,
            )
            .ok(),
            Self::DirectorGroup(object) => {
                identity::of_group(object.metadata.name.as_deref()?).ok()
            }
            Self::AddressPool(object) => identity::of_pool(object.metadata.name.as_deref()?).ok(),
        }
    }
}

impl Rejected {
    pub(super) fn of(
        identity: ObjectRef,
        place: &str,
        field: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        let rejection = Rejection::new(identity.clone(), field, reason).in_file(place);
        Self {
            identity: Some(identity),
            rejection,
        }
    }
}
