//! The status of a virtual service.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The status of a virtual service, written by the controller.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualServiceStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0))]
    pub observed_generation: Option<i64>,

    /// The VIPs of the service, from its spec or allocated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), inner(length(min = 2, max = 45)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub addresses: Vec<String>,

    /// `addresses`, or the firewall mark, in one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub vip: String,

    /// The ports in one line: `80/TCP,53/UDP`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub ports: String,

    /// The director that has the VIPs. IPv4 and IPv6 may have different ones: two names, separated by a comma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 512))]
    pub active_director: Option<String>,

    /// When the last of them took VIPs over; absent with a single director.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::condition::time_schema")]
    pub active_since: Option<Time>,

    /// The director that holds each VIP. Empty if there is a single director, or if none reports that it holds one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub holders: Vec<VipHolder>,

    /// The number of directors.
    #[serde(default)]
    #[schemars(with = "i32", range(min = 0))]
    pub directors: u32,

    /// The number of directors with this generation in their kernel.
    #[serde(default)]
    #[schemars(with = "i32", range(min = 0))]
    pub ready_directors: u32,

    /// `readyDirectors` of `directors`, in one word for the columns of kubectl: `1/1`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    pub directors_column: String,

    /// The number of real servers.
    #[serde(default)]
    #[schemars(with = "i32", range(min = 0))]
    pub real_servers: u32,

    /// The number of real servers that take new connections.
    #[serde(default)]
    #[schemars(with = "i32", range(min = 0))]
    pub ready_real_servers: u32,

    /// `readyRealServers` of `realServers`, in one word for the columns of kubectl: `3/4`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    pub real_servers_column: String,

    /// Machines on which something failed, at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["node".into()]))]
    pub failures: Vec<NodeFailure>,

    /// The conditions Accepted, ResolvedRefs, Programmed, BackendsHealthy and Ready, and Stalled and Reconciling when they are
    /// true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::list_schema")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The director that holds a VIP.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipHolder {
    /// The VIP.
    #[schemars(length(min = 2, max = 45))]
    pub address: String,

    /// The name of the director. There are several, in one line, if they do not hear each other.
    #[schemars(length(min = 1, max = 512))]
    pub director: String,

    /// When it took the VIP over.
    #[schemars(schema_with = "crate::condition::time_schema")]
    pub since: Time,
}

/// A machine on which something failed.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeFailure {
    /// The name of the machine.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,

    /// What failed, and why.
    #[schemars(length(max = 1024))]
    pub message: String,
}
