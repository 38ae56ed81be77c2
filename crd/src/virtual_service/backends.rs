//! Where the real servers come from.

use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::Forwarding;

/// Real servers of a virtual service: a machine by its address, or the endpoints of a Service.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.address) != has(self.service)")
        .message("must have either `address` or `service`, and not both"),
    validation = Rule::new("has(self.address) || !has(self.port)")
        .message("`port` must not be set with `service`").field_path(".port"),
    validation = Rule::new("has(self.address) || self.upperThreshold == 0")
        .message("`upperThreshold` must not be set with `service`").field_path(".upperThreshold"),
    validation = Rule::new("self.lowerThreshold <= self.upperThreshold")
        .message("`lowerThreshold` must not be greater than `upperThreshold`").field_path(".lowerThreshold"),
)]
pub struct Backend {
    /// The address of a machine, in the cluster or not, in canonical form; never a VIP of the service. Not together with
    /// `service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(min = 2, max = 45))]
    #[x_kube(
        validation = Rule::new("isIP(self) && ip.isCanonical(self) && ip(self).isGlobalUnicast()")
            .message("must be a canonical unicast address that is not loopback or link-local"),
    )]
    pub address: Option<String>,

    /// A Service of the same namespace, whose endpoints are real servers. Not together with `address`. Needs Kubernetes:
    /// files that an agent reads from disk may not name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ServiceReference>")]
    pub service: Option<ServiceReference>,

    /// The port of the machine, 1 to 65535, if it differs from the service's `targetPort`. Allowed with NAT and a single
    /// port, and with NAT and `fwmark`, where the packet keeps its own port when this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 65535))]
    pub port: Option<i64>,

    /// Its share of the connections beside the other backends: 0 to 65535; 1 when absent; 0 takes no new ones. That of a
    /// Service is divided among its endpoints.
    #[serde(default = "default_weight")]
    #[schemars(with = "i32", range(min = 0, max = 65535))]
    pub weight: i64,

    /// The number of connections at which the machine gets no new ones: 0 to 65535; 0 means no limit.
    #[serde(default)]
    #[schemars(with = "i32", range(min = 0, max = 65535))]
    pub upper_threshold: i64,

    /// The number of connections below which it gets new ones again: 0 to `upperThreshold`; 0 means three quarters of
    /// `upperThreshold`.
    #[serde(default)]
    #[schemars(with = "i32", range(min = 0, max = 65535))]
    pub lower_threshold: i64,

    /// How the director hands packets to it: NAT, DR or TUN; absent: as `spec.forwarding` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "forwarding_or_null")]
    pub forwarding: Option<Forwarding>,
}

/// A Service of the same namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceReference {
    /// The name of the Service, in the namespace of the virtual service.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// Returns the schema of an optional forwarding method. An `enum` would refuse null, whatever it lists.
fn forwarding_or_null(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "nullable": true, "maxLength": 3, "pattern": "^(NAT|DR|TUN)$"})
}

const fn default_weight() -> i64 {
    1
}
