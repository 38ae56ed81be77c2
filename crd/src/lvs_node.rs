//! The API type LvsNode: one machine, its roles, its facts and its state.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConnectionSync, IpFamily, Timeouts, UnicastDirector};

/// One machine: the groups that it directs for, its facts and its state.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lvs-operator.io",
    version = "v1alpha1",
    kind = "LvsNode",
    shortname = "lvsnode",
    category = "lvs",
    derive = "PartialEq",
    status = "LvsNodeStatus",
    doc = "One machine with an agent: a node of the cluster, or a machine outside the cluster whose LvsNode an administrator has created. The controller writes the machine's groups, its agent writes the status.",
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

    /// The groups that the machine directs for, at most 64; written by the controller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub groups: Vec<GroupMembership>,
}

/// A group that a machine directs for.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupMembership {
    /// The name of the DirectorGroup.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The network interface that gets the VIPs; absent: the one whose subnet holds the VIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 15))]
    pub interface: Option<String>,

    /// The addresses that the director with the VIPs has too: the default gateways of real servers with NAT.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 2, max = 45)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub gateways: Vec<String>,

    /// How the machine tells the other directors its connections; absent: with the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ConnectionSync")]
    pub connection_sync: Option<ConnectionSync>,

    /// The IPVS timeouts of the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Timeouts")]
    pub timeouts: Option<Timeouts>,

    /// How the machine agrees with the other directors of the group who holds the VIPs; absent: it directs alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "MemberFailover")]
    pub failover: Option<MemberFailover>,

    /// The uid of the Node with which the machine was last among the nodes that the group selects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 128))]
    pub node_uid: Option<String>,
}

/// How a director agrees with the others of its group who holds the VIPs (VRRP, RFC 9568).
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberFailover {
    /// The VRRP virtual router id: 1 to 255; of several virtual routers, the first of consecutive ids.
    #[schemars(with = "i32", range(min = 1, max = 255))]
    pub virtual_router_id: i64,

    /// The time between two advertisements in milliseconds: 10 to 40950.
    #[schemars(with = "i32", range(min = 10, max = 40_950))]
    pub advertisement_milliseconds: i64,

    /// The delay after which it takes over from a director with a lower priority that works, in seconds: 0 to 86400; absent: it never
    /// does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 0, max = 86_400))]
    pub preempt_after_seconds: Option<i64>,

    /// The first of `priorities`, 1 to 254, for agents that know one virtual router only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 1, max = 254))]
    pub priority: Option<i64>,

    /// Its priority in each virtual router, 1 to 254, in the order of their ids. There are as many virtual routers, at most 16; absent: one,
    /// with `priority`, or 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<i32>", length(max = 16), inner(range(min = 1, max = 254)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub priorities: Vec<i64>,

    /// Whether it hands the VIPs over as soon as another director takes them; false when absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub standby: bool,

    /// The addresses between which this director and the others send advertisements by unicast, at most 32; absent: they are multicast.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["node".into()]))]
    pub unicast: Vec<UnicastDirector>,

    /// The time for which real servers before a change count for connections that exist, in seconds: 1 to 86400; absent:
    /// connections are not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 1, max = 86_400))]
    pub keep_seconds: Option<i64>,
}

/// The facts and the state of a machine, written by its agent.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LvsNodeStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0))]
    pub observed_generation: Option<i64>,

    /// What the agent has found on the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Facts")]
    pub facts: Option<Facts>,

    /// What the machine is in the groups that it directs for together with others, at most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub standings: Vec<Standing>,

    /// The condition Ready: whether the machine as a whole is as it must be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::list_schema")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// What a machine is in a virtual router of a group: its VIPs of one address family on one interface have one holder.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// The name of the DirectorGroup.
    #[schemars(length(min = 1, max = 253))]
    pub group: String,

    /// The network interface with the VIPs.
    #[schemars(length(min = 1, max = 15))]
    pub interface: String,

    /// The id of the virtual router: 1 to 255; absent: an older agent has reported.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(with = "i32", range(min = 0, max = 255))]
    pub router_id: i64,

    /// The address family of the VIPs: IPv4 or IPv6.
    #[serde(rename = "ipFamily")]
    pub family: IpFamily,

    /// Whether it holds the VIPs (Active), waits to take them over (Standby), or cannot take part (Failed).
    pub state: StandingState,

    /// What is wrong between this director and others, such as another router with the same id, in at most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 1024))]
    pub problem: Option<String>,

    /// Since when.
    #[schemars(schema_with = "crate::condition::time_schema")]
    pub since: Time,
}

/// What a machine is in a group.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StandingState {
    /// It holds the VIPs.
    Active,
    /// It takes the VIPs over if no other director holds them.
    Standby,
    /// It cannot take part.
    Failed,
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

    /// The machine's own addresses, without VIPs of this operator, addresses of lo, and link-local addresses. At most
    /// 1000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub addresses: Vec<InterfaceAddress>,

    /// How many addresses more the machine has than `addresses` holds.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub omitted_addresses: i64,

    /// The MAC addresses under which neighbours reach its addresses and VIPs, at most 64: by them the controller knows whether it is
    /// this machine that answers for a VIP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 17, max = 17)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub mac_addresses: Vec<String>,

    /// Whether the agent can let the machine direct, together with others, a virtual service that it is a real server of by DR or TUN.
    /// Agents of an earlier version cannot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub serves_what_it_directs: bool,

    /// The gateways of its routes. They are never VIPs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 2, max = 45)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub gateways: Vec<String>,
}

/// An address of an interface.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InterfaceAddress {
    /// The name of the interface.
    #[schemars(length(min = 1, max = 15))]
    pub interface: String,

    /// The address with its prefix length: `192.168.100.11/24`.
    #[schemars(length(min = 2, max = 49))]
    pub address: String,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(number: &i64) -> bool {
    *number == 0
}
