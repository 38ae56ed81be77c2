//! Where the real servers come from.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The real servers of a virtual service: a Service's endpoints, or machines by their addresses, or both.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backends {
    /// The Service of the same namespace whose EndpointSlices are the real servers. Needs Kubernetes: files that an
    /// agent reads from disk may not name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ServiceReference")]
    pub service: Option<ServiceReference>,

    /// Machines, in the cluster or not: at most 1000, no two with the same address and port. An empty list is
    /// legal: the VIP is held and connections are refused.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub endpoints: Vec<Endpoint>,
}

/// A Service of the same namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceReference {
    /// The name of the Service.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// A real server.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.lowerThreshold <= self.upperThreshold")
        .message("`lowerThreshold` must not be greater than `upperThreshold`").field_path(".lowerThreshold"),
)]
pub struct Endpoint {
    /// The address of the machine, in canonical form; never a VIP of the service.
    #[schemars(length(min = 2, max = 45))]
    #[x_kube(
        validation = Rule::new("isIP(self) && ip.isCanonical(self) && ip(self).isGlobalUnicast()")
            .message("must be a canonical unicast address that is not loopback or link-local"),
    )]
    pub address: String,

    /// The port, 1 to 65535, if it differs from the service's `targetPort`. Allowed with NAT and a single port, and
    /// with NAT and `fwmark`, where the packet keeps its own port when this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 1, max = 65535))]
    pub port: Option<i64>,

    /// Its share of the connections: 0 to 65535; 0 takes no new ones.
    #[serde(default = "default_weight")]
    #[schemars(with = "i32", range(min = 0, max = 65535))]
    pub weight: i64,

    /// The number of connections at which it gets no new ones: 0 to 65535; 0 means no limit.
    #[serde(default)]
    #[schemars(with = "i32", range(min = 0, max = 65535))]
    pub upper_threshold: i64,

    /// The number of connections below which it gets new ones again: 0 to `upperThreshold`; 0 means three quarters
    /// of `upperThreshold`.
    #[serde(default)]
    #[schemars(with = "i32", range(min = 0, max = 65535))]
    pub lower_threshold: i64,
}

const fn default_weight() -> i64 {
    1
}
