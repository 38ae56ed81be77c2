//! What a source reports after it was read.

use std::collections::BTreeSet;

use lvs_model::ObjectName;

/// What has changed since the last read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Changes {
    /// These virtual services, which were in force before, have newer versions; nothing else has changed.
    Services(BTreeSet<ObjectName>),
    /// Anything may have changed.
    Anything,
}
