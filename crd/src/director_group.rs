//! The API type DirectorGroup: which machines direct.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A group of directors and what they share.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "lvs-operator.io",
    version = "v1alpha1",
    kind = "DirectorGroup",
    shortname = "lvsdg",
    category = "lvs",
    derive = "PartialEq",
    doc = "A group of directors: the machines that take packets for the VIPs of its virtual services and forward them."
)]
#[serde(rename_all = "camelCase")]
pub struct DirectorGroupSpec {
    /// The machines.
    pub nodes: Nodes,

    /// The interface that gets the VIPs, at most 15 characters; absent: the one whose subnet holds the VIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String",
        length(min = 1, max = 15),
        regex(pattern = r"^[^\s/:]+$")
    )]
    pub interface: Option<String>,

    /// How long IPVS remembers connections on these machines; absent: the kernel's values are left as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Timeouts")]
    pub timeouts: Option<Timeouts>,
}

/// The machines of a group.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nodes {
    /// Their node names, or host names outside of a cluster. Exactly one: failover between several directors is not
    /// there yet.
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("size(self) > 0").message("must hold a name"),
        validation = Rule::new("size(self) < 2")
            .message("must not hold more than one name: failover between several directors is not there yet"),
    )]
    pub names: Vec<String>,
}

/// IPVS connection timeouts (`ipvsadm --set`). One value for each machine: groups that share one must agree.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// Established TCP connections, in seconds: 1 to 2147483.
    #[serde(default = "default_tcp")]
    #[schemars(with = "i32", range(min = 1, max = 2_147_483))]
    pub tcp_seconds: i64,

    /// TCP connections after a FIN, in seconds: 1 to 2147483.
    #[serde(default = "default_tcp_fin")]
    #[schemars(with = "i32", range(min = 1, max = 2_147_483))]
    pub tcp_fin_seconds: i64,

    /// UDP, in seconds: 1 to 2147483.
    #[serde(default = "default_udp")]
    #[schemars(with = "i32", range(min = 1, max = 2_147_483))]
    pub udp_seconds: i64,
}

const fn default_tcp() -> i64 {
    900
}

const fn default_tcp_fin() -> i64 {
    120
}

const fn default_udp() -> i64 {
    300
}
