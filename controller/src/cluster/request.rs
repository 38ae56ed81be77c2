//! What is to be reconciled.

use lvs_model::{NodeName, ObjectName, PoolName};

/// Something to reconcile. Virtual services come first, as the parts of machines follow from them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ReconcileRequest {
    /// A VirtualService.
    Service(ObjectName),
    /// A DirectorGroup.
    Group(String),
    /// An AddressPool.
    Pool(PoolName),
    /// A machine.
    Node(NodeName),
    /// A binding that could not be deleted, or whose status could not be written.
    Binding(ObjectName),
    /// A RealServerBinding whose status could not be written.
    Served(ObjectName),
}
