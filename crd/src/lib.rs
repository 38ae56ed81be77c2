//! The API types of group `lvs-operator.io`, version `v1alpha1`, and their conversion to the model.
//!
//! ```text
//! bytes of a file  --manifest::parse-->  VirtualServices + DirectorGroups + rejections
//! one object       --convert-->          the model's type, or every rejection
//! ```
//!
//! The same objects come from YAML files and from the Kubernetes API. [`convert`] refuses whatever a cluster
//! refuses by schema and CEL, with the same reasons. The crate uses no client, socket, file or clock.

#[expect(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a function"
)]
#[expect(
    clippy::duplicated_attributes,
    reason = "each printcolumn has its own `type_`"
)]
mod address_pool;
mod agent_lease;
pub mod api_revision;
pub mod condition;
pub mod convert;
#[expect(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a function"
)]
#[expect(
    clippy::duplicated_attributes,
    reason = "each printcolumn has its own `type_`"
)]
mod director_binding;
#[expect(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a function"
)]
#[expect(
    clippy::duplicated_attributes,
    reason = "each printcolumn has its own `type_`"
)]
mod director_group;
pub mod generated;
#[expect(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a function"
)]
#[expect(
    clippy::duplicated_attributes,
    reason = "each printcolumn has its own `type_`"
)]
mod lvs_node;
pub mod manifest;
#[expect(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a function"
)]
mod namespaces;
#[expect(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a function"
)]
#[expect(
    clippy::duplicated_attributes,
    reason = "each printcolumn has its own `type_`"
)]
mod real_server_binding;
mod selector;
#[expect(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a function"
)]
#[expect(
    clippy::duplicated_attributes,
    reason = "each printcolumn has its own `type_`"
)]
mod virtual_service;

pub use address_pool::{AddressCounts, AddressPool, AddressPoolSpec, AddressPoolStatus};
pub use agent_lease::{AGENT_LEASE_DURATION, AGENT_LEASE_PERIOD, agent_lease_name};
pub use director_binding::{
    BindingSlice, BoundPort, BoundServer, DirectorBinding, DirectorBindingSpec,
    DirectorBindingStatus, MAX_ACCEPTED_SPEC, MAX_REAL_SERVERS, MAX_SLICES, NODE_LABEL, VipInUse,
    binding_name, node_label, slice_name, slice_revision,
};
pub use director_group::{
    ConnectionSync, Connections, DirectorGroup, DirectorGroupSpec, DirectorGroupStatus,
    DirectorPriority, Failover, FwmarkRange, Nodes, RealServers, RouterStatus, Timeouts,
    UnicastDirector,
};
pub use lvs_node::{
    Facts, GroupMembership, InterfaceAddress, LvsNode, LvsNodeSpec, LvsNodeStatus, MemberFailover,
    Standing, StandingState,
};
pub use namespaces::Namespaces;
pub use real_server_binding::{
    PreviousServers, RealServerBinding, RealServerBindingSpec, RealServerBindingStatus,
    ServedAddress,
};
pub use selector::NodeSelector;
pub use virtual_service::{
    Backend, Forwarding, IpFamily, Nat, NodeFailure, Persistence, PersistenceEngine, Port,
    Protocol, ReturnPath, Scheduler, SchedulerFlag, ServiceReference, Tunnel, TunnelChecksum,
    TunnelType, VipHolder, VirtualService, VirtualServiceSpec, VirtualServiceStatus,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The CustomResourceDefinitions of every API type.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    let crds = [
        VirtualService::crd(),
        DirectorGroup::crd(),
        AddressPool::crd(),
        DirectorBinding::crd(),
        RealServerBinding::crd(),
        LvsNode::crd(),
    ];
    crds.into_iter().map(api_revision::annotate).collect()
}
