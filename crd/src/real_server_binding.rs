//! The API type RealServerBinding: one virtual service on one machine that is a real server of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{BoundPort, BoundServer, Forwarding, Nat, Scheduler, Tunnel};

/// One virtual service on one machine that is a real server of it.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lvs-operator.io",
    version = "v1alpha1",
    kind = "RealServerBinding",
    namespaced,
    shortname = "lvsrb",
    category = "lvs",
    derive = "PartialEq",
    status = "RealServerBindingStatus",
    doc = "One virtual service on one machine with an agent that is a real server of it. The controller writes it, and the machine's agent writes its status. Users do not edit it.",
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.virtualService"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
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
pub struct RealServerBindingSpec {
    /// The name of the machine.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,

    /// The name of the VirtualService, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub virtual_service: String,

    /// The VIPs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), inner(length(min = 2, max = 45)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub addresses: Vec<String>,

    /// The firewall mark, in place of VIPs and ports: 1 to 4294967295.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 1, max = 4_294_967_295_i64))]
    pub fwmark: Option<i64>,

    /// The ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub ports: Vec<BoundPort>,

    /// How packets arrive, by NAT, DR or TUN, unless an address has a method of its own.
    #[serde(default)]
    pub forwarding: Forwarding,

    /// The tunnel of TUN; IPIP when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Tunnel")]
    pub tunnel: Option<Tunnel>,

    /// How replies of NAT go back; DefaultGateway when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Nat")]
    pub nat: Option<Nat>,

    /// The machine's own addresses among the real servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub real_servers: Vec<ServedAddress>,

    /// The virtual service as directors had it before its real servers changed, as long as that counts: the machine forwards packets of
    /// connections that it does not know by this version. A machine without `realServers` is no real server any more; it goes on serving
    /// the connections that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PreviousServers")]
    pub previous: Option<PreviousServers>,
}

/// A virtual service as directors had it before its real servers changed.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviousServers {
    /// When the real servers were replaced.
    #[schemars(schema_with = "crate::condition::time_schema")]
    pub since: Time,

    /// The VIPs.
    #[schemars(length(max = 2), inner(length(min = 2, max = 45)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub addresses: Vec<String>,

    /// The ports.
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub ports: Vec<BoundPort>,

    /// How packets reached the real servers, NAT, DR or TUN, unless a real server had a method of its own.
    #[serde(default)]
    pub forwarding: Forwarding,

    /// The tunnel of TUN; IPIP when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Tunnel")]
    pub tunnel: Option<Tunnel>,

    /// How a real server was chosen for a connection.
    #[serde(default)]
    pub scheduler: Scheduler,

    /// The real servers, at most 100.
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub real_servers: Vec<BoundServer>,
}

/// An address of a machine that is a real server.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedAddress {
    /// The address.
    #[schemars(length(min = 2, max = 45))]
    pub address: String,

    /// Its port for each of `ports`, in the same order; absent if they are the same. With `fwmark`, the port of all
    /// packets; absent if they keep their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(range(min = 1, max = 65535)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub ports: Vec<i64>,

    /// How packets reach it, NAT, DR or TUN; absent: as `spec.forwarding` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Forwarding")]
    pub forwarding: Option<Forwarding>,
}

/// The status of a RealServerBinding, written by the machine's agent.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RealServerBindingStatus {
    /// The generation of the binding that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0))]
    pub observed_generation: Option<i64>,

    /// The condition Ready: whether VIP, ARP settings, tunnel and return path are as they must be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::list_schema")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
