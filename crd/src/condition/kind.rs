//! The types of conditions.

use super::words::words;

words! {
    /// The type of a condition.
    pub enum ConditionType {
        /// The object is valid, and no other object has what it asks for.
        Accepted,
        /// Everything that the object names is there.
        ResolvedRefs,
        /// It is in the kernels of its directors.
        Programmed,
        /// At least one real server takes new connections.
        BackendsHealthy,
        /// A VirtualService is accepted, resolved and programmed; a DirectorGroup has its directors; a machine can do
        /// everything that is asked of it.
        Ready,
        /// The object needs a change by a user or an administrator. Present only while it is true.
        Stalled,
        /// The operator waits for something. Present only while it is true.
        Reconciling,
    }
}
