//! What the messages of a pass have in common.

/// The longest list in a message, in bytes.
pub(super) const LONGEST_LIST: usize = 400;
