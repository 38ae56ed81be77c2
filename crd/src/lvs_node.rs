//! The API type LvsNode: one machine, its roles, its facts and its state.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{Forwarding, Nat, Port, Timeouts, Tunnel};

/// One machine: the services that it serves as a real server, its facts and its state.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lvs-operator.io",
    version = "v1alpha1",
    kind = "LvsNode",
    shortname = "lvsnode",
    category = "lvs",
    derive = "PartialEq",
    status = "LvsNodeStatus",
    doc = "One machine with an agent: a node of the cluster, or a machine outside the cluster whose LvsNode an administrator has created. The controller writes the machine's groups and services, its agent writes the status.",
    printcolumn(name = "Groups", type_ = "string", json_path = ".spec.groups[*].name"),
    printcolumn(name = "Kernel", type_ = "string", json_path = ".status.facts.kernel"),
    printcolumn(
        name = "IPVS",
        type_ = "string",
        json_path = ".status.facts.ipvsVersion"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct LvsNodeSpec {
    /// The user that may write this object's status, for a machine outside the cluster. An agent on a node of the
    /// cluster is identified by its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 253))]
    pub identity: Option<String>,

    /// The groups that the machine directs for; written by the controller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub groups: Vec<GroupMembership>,

    /// The virtual services that the machine is a real server of; written by the controller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["namespace".into(), "name".into()]))]
    pub serves: Vec<ServedService>,
}

/// A group that a machine directs for.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMembership {
    /// The DirectorGroup.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The interface that gets the VIPs; absent: the one whose subnet holds the VIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 15))]
    pub interface: Option<String>,

    /// The IPVS timeouts of the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Timeouts")]
    pub timeouts: Option<Timeouts>,
}

/// A virtual service that a machine is a real server of.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServedService {
    /// The namespace of the VirtualService.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,

    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Its group.
    #[schemars(length(min = 1, max = 253))]
    pub director_group: String,

    /// Its VIPs.
    #[serde(default)]
    #[schemars(length(max = 2), inner(length(min = 2, max = 45)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub addresses: Vec<String>,

    /// Its firewall mark, in place of VIPs and ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 1, max = 4_294_967_295_i64))]
    pub fwmark: Option<i64>,

    /// Its ports.
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub ports: Vec<Port>,

    /// How packets arrive.
    #[serde(default)]
    pub forwarding: Forwarding,

    /// The encapsulation of TUN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Tunnel")]
    pub tunnel: Option<Tunnel>,

    /// How replies of NAT go back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Nat")]
    pub nat: Option<Nat>,

    /// The machine's own addresses among the real servers.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub endpoints: Vec<crate::Endpoint>,
}

/// The facts and the state of a machine, written by its agent.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LvsNodeStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0))]
    pub observed_generation: Option<i64>,

    /// The facts of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Facts")]
    pub facts: Option<Facts>,

    /// The served virtual services, and whether the machine can answer for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["namespace".into(), "name".into()]))]
    pub serves: Vec<ServedStatus>,

    /// Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::list_schema")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The facts of a machine.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// The kernel's release, as `uname -r`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub kernel: String,

    /// The version of IPVS; empty if the kernel does not have IPVS, or has not loaded it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    pub ipvs_version: String,

    /// The schedulers that the kernel has or, according to `/lib/modules`, can load.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 16)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub schedulers: Vec<String>,

    /// The machine's own addresses, without VIPs of this operator, addresses of lo, and link-local addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub addresses: Vec<InterfaceAddress>,
}

/// An address of an interface.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InterfaceAddress {
    /// The interface.
    #[schemars(length(min = 1, max = 15))]
    pub interface: String,

    /// The address with its prefix length: `192.168.100.11/24`.
    #[schemars(length(min = 2, max = 49))]
    pub address: String,
}

/// Whether a machine can answer for a virtual service.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServedStatus {
    /// The namespace of the VirtualService.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,

    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Whether VIP, ARP settings, tunnel and return path are as they must be.
    pub ready: bool,

    /// What is wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}
