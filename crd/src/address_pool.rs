//! The API type AddressPool: addresses that virtual services may have.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::Namespaces;

/// Addresses that virtual services may have as VIPs.
#[derive(
    CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
#[kube(
    group = "lvs-operator.io",
    version = "v1alpha1",
    kind = "AddressPool",
    shortname = "lvspool",
    category = "lvs",
    derive = "PartialEq",
    status = "AddressPoolStatus",
    printcolumn(name = "IPv4", type_ = "integer", json_path = ".status.ipv4.allocated"),
    printcolumn(name = "Of", type_ = "integer", json_path = ".status.ipv4.total"),
    printcolumn(name = "IPv6", type_ = "integer", json_path = ".status.ipv6.allocated"),
    printcolumn(name = "Auto", type_ = "boolean", json_path = ".spec.autoAssign"),
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
    ),
    doc = "Addresses that virtual services may have as VIPs: which groups hold them, and which namespaces may ask for them. In a cluster, a VIP is always from a pool. In files, a VIP is from a pool if there is one."
)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolSpec {
    /// Single addresses, ranges `first-last` and networks, of either family; at most 32. They are allocated in this order.
    #[schemars(length(min = 1, max = 32), inner(length(min = 2, max = 91)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("self.all(a, isIP(a) || isCIDR(a) || (a.contains('-') && size(a.split('-')) == 2 && a.split('-').all(b, isIP(b))))")
            .message("must hold addresses, ranges `first-last` and networks"),
    )]
    pub addresses: Vec<String>,

    /// The names of the DirectorGroups whose virtual services may have these addresses, at most 64; absent: every group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "Option<Vec<String>>",
        length(min = 1, max = 64),
        inner(length(min = 1, max = 253))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub director_groups: Option<Vec<String>>,

    /// The namespaces whose virtual services may have these addresses; absent: every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Namespaces>")]
    pub namespaces: Option<Namespaces>,

    /// Whether a virtual service that names neither an address nor a pool gets one of these; true when absent.
    #[serde(default = "default_true")]
    pub auto_assign: bool,

    /// Whether the first and the last address of each network are left out; true when absent. The addresses of gateways, real servers, the
    /// API server and machines with an agent are never allocated; leave those of other machines out of the pool.
    #[serde(default = "default_true")]
    pub avoid_network_addresses: bool,
}

/// The status of a pool, written by the controller.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0))]
    pub observed_generation: Option<i64>,

    /// How many IPv4 addresses the pool has.
    #[serde(default)]
    pub ipv4: AddressCounts,

    /// How many IPv6 addresses the pool has.
    #[serde(default)]
    pub ipv6: AddressCounts,

    /// The conditions Accepted and Ready, and Stalled when it is true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::list_schema")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// How many addresses of a family a pool has. A number that does not fit is 9007199254740991.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressCounts {
    /// The number of addresses that virtual services can have.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub total: i64,

    /// The number of addresses that virtual services have.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub allocated: i64,

    /// The number of addresses that are free.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub free: i64,
}

const fn default_true() -> bool {
    true
}
