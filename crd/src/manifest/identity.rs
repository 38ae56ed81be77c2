//! Kind and name of an object in a file.

use lvs_model::{InvalidName, ObjectName, ObjectRef};

/// A VirtualService; without a namespace it is in `default`.
pub(super) fn of_service(namespace: Option<&str>, name: &str) -> Result<ObjectRef, InvalidName> {
    ObjectName::new(namespace.unwrap_or("default"), name).map(ObjectRef::VirtualService)
}

/// A DirectorGroup.
pub(super) fn of_group(name: &str) -> Result<ObjectRef, InvalidName> {
    name.parse().map(ObjectRef::DirectorGroup)
}

/// An AddressPool.
pub(super) fn of_pool(name: &str) -> Result<ObjectRef, InvalidName> {
    name.parse().map(ObjectRef::AddressPool)
}
