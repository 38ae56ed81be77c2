//! The kinds of objects that files may hold.

use serde_json::Value;

/// The API group with its slash.
pub(super) const GROUP: &str = "lvs-operator.io/";
/// The API version of every kind.
pub(super) const API_VERSION: &str = "lvs-operator.io/v1alpha1";

/// The kinds of objects that files may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    VirtualService,
    DirectorGroup,
    AddressPool,
}

impl Kind {
    pub(super) const ALL: [Self; 3] =
        [Self::VirtualService, Self::DirectorGroup, Self::AddressPool];

    /// Returns the kind as the API spells it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::VirtualService => "VirtualService",
            Self::DirectorGroup => "DirectorGroup",
            Self::AddressPool => "AddressPool",
        }
    }

    /// Returns the kind of a document; `None` if it is not one of these.
    pub(super) fn of(document: &Value) -> Option<Self> {
        let found = document.get("kind")?.as_str()?;
        Self::ALL.into_iter().find(|kind| kind.as_str() == found)
    }

    /// Guesses the kind of a document from its text, assuming that it is one of ours.
    pub(super) fn guess(text: &str) -> Self {
        if text.contains(Self::AddressPool.as_str()) {
            Self::AddressPool
        } else if text.contains(Self::DirectorGroup.as_str()) {
            Self::DirectorGroup
        } else {
            Self::VirtualService
        }
    }
}
