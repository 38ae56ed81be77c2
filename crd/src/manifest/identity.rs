//! Kind and name of an API object.

use std::fmt;

use lvs_model::{GroupName, InvalidName, ObjectName};

/// What tells an object from every other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// A VirtualService.
    VirtualService(ObjectName),
    /// A DirectorGroup.
    DirectorGroup(GroupName),
}

impl Identity {
    pub(super) fn of_service(namespace: Option<&str>, name: &str) -> Result<Self, InvalidName> {
        ObjectName::new(namespace.unwrap_or("default"), name).map(Self::VirtualService)
    }

    pub(super) fn of_group(name: &str) -> Result<Self, InvalidName> {
        name.parse().map(Self::DirectorGroup)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VirtualService(name) => write!(f, "VirtualService {name}"),
            Self::DirectorGroup(name) => write!(f, "DirectorGroup {name}"),
        }
    }
}
