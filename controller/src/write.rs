//! What the controller writes to the API server.

use kube::Resource;
use lvs_crd::{
    AddressPoolStatus, DirectorBindingSpec, DirectorGroupStatus, GroupMembership,
    RealServerBindingSpec, VirtualServiceStatus, condition::Verdict,
};
use lvs_model::{NodeName, ObjectName, PoolName};

use crate::cluster::ReconcileRequest;

/// The field manager of everything that the controller writes.
pub(crate) const FIELD_MANAGER: &str = "lvs-controller";

/// An object on whose status an agent reports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reported {
    /// A binding.
    Binding(ObjectName),
    /// A RealServerBinding.
    Served(ObjectName),
    /// An LvsNode.
    Node(NodeName),
}

/// The revision of an object that a write was decided on.
///
/// A deletion, and the grant of a VIP, are refused if the object has changed since. So a write that was decided on a later
/// revision is another write, though it says the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Revision {
    /// Its uid.
    pub uid: Option<String>,
    /// Its resource version.
    pub resource_version: Option<String>,
}

impl Revision {
    /// The revision that the watch last showed.
    pub(crate) fn of(object: &impl Resource) -> Self {
        Self {
            uid: object.meta().uid.clone(),
            resource_version: object.meta().resource_version.clone(),
        }
    }
}

/// A write to the API server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Write {
    /// Creates or updates a binding.
    ApplyBinding {
        /// Namespace and name.
        name: ObjectName,
        /// The uid of its VirtualService.
        owner_uid: String,
        /// Its spec.
        spec: Box<DirectorBindingSpec>,
    },
    /// Deletes a binding.
    DeleteBinding {
        /// Namespace and name.
        name: ObjectName,
        /// What is deleted.
        revision: Revision,
    },
    /// Creates or updates a RealServerBinding.
    ApplyServed {
        /// Namespace and name.
        name: ObjectName,
        /// The uid of its VirtualService.
        owner_uid: String,
        /// Its spec.
        spec: Box<RealServerBindingSpec>,
    },
    /// Deletes a RealServerBinding.
    DeleteServed {
        /// Namespace and name.
        name: ObjectName,
        /// Its virtual service.
        service: ObjectName,
        /// What is deleted.
        revision: Revision,
    },
    /// Creates an LvsNode, or updates the controller's part of it.
    ApplyNode {
        /// The machine.
        name: NodeName,
        /// The uid of the LvsNode, if it exists: one that was deleted meanwhile is not created again.
        uid: Option<String>,
        /// The uid of its Node, if it is a node of the cluster.
        owner_uid: Option<String>,
        /// The groups that it directs for.
        groups: Vec<GroupMembership>,
    },
    /// Deletes the LvsNode of a Node that was deleted.
    DeleteNode {
        /// The machine.
        name: NodeName,
        /// What is deleted.
        revision: Revision,
    },
    /// Writes the condition of an object whose agent is silent.
    Silence {
        /// The object.
        object: Reported,
        /// What it was decided on.
        revision: Revision,
        /// The condition.
        verdict: Verdict,
    },
    /// Writes the status of a VirtualService.
    ServiceStatus {
        /// Namespace and name.
        name: ObjectName,
        /// What it was decided on.
        revision: Revision,
        /// The status without conditions.
        status: Box<VirtualServiceStatus>,
        /// The conditions, without the times of their transitions.
        verdicts: Vec<Verdict>,
    },
    /// Writes the status of an AddressPool.
    PoolStatus {
        /// The pool.
        name: PoolName,
        /// What it was decided on.
        revision: Revision,
        /// The status without conditions.
        status: AddressPoolStatus,
        /// The conditions, without the times of their transitions.
        verdicts: Vec<Verdict>,
    },
    /// Writes the status of a DirectorGroup.
    GroupStatus {
        /// The group.
        name: String,
        /// What it was decided on.
        revision: Revision,
        /// The status without conditions.
        status: DirectorGroupStatus,
        /// The conditions, without the times of their transitions.
        verdicts: Vec<Verdict>,
    },
}

impl Write {
    /// The request to reconcile again if the write fails.
    pub(crate) fn request(&self) -> ReconcileRequest {
        match self {
            Self::ApplyBinding { name, spec, .. } => {
                let service = ObjectName::new(name.namespace(), &spec.virtual_service);
                ReconcileRequest::Service(service.unwrap_or_else(|_| name.clone()))
            }
            Self::DeleteBinding { name, .. } => ReconcileRequest::Binding(name.clone()),
            Self::ApplyServed { name, spec, .. } => {
                let service = ObjectName::new(name.namespace(), &spec.virtual_service);
                ReconcileRequest::Service(service.unwrap_or_else(|_| name.clone()))
            }
            Self::DeleteServed { service, .. } => ReconcileRequest::Service(service.clone()),
            Self::ApplyNode { name, .. } | Self::DeleteNode { name, .. } => {
                ReconcileRequest::Node(name.clone())
            }
            Self::Silence { object, .. } => match object {
                Reported::Binding(name) => ReconcileRequest::Binding(name.clone()),
                Reported::Served(name) => ReconcileRequest::Served(name.clone()),
                Reported::Node(name) => ReconcileRequest::Node(name.clone()),
            },
            Self::ServiceStatus { name, .. } => ReconcileRequest::Service(name.clone()),
            Self::PoolStatus { name, .. } => ReconcileRequest::Pool(name.clone()),
            Self::GroupStatus { name, .. } => ReconcileRequest::Group(name.clone()),
        }
    }
}
