//! What a watch reports.

use crate::cluster::Change;

/// An event of a watch.
#[derive(Debug)]
pub(crate) enum WatchEvent {
    /// An object was created, updated or deleted.
    Changed(Change),
    /// All objects of a kind have been listed.
    Synced(&'static str),
}
