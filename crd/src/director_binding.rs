//! The API type DirectorBinding: one virtual service on one director.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::VirtualServiceSpec;

/// The label of an object that one machine's agent reads: the machine's name.
pub const NODE_LABEL: &str = "lvs-operator.io/node";

/// The condition of a binding whose service is in the director's kernel.
pub const PROGRAMMED: &str = "Programmed";

/// One virtual service on one director, with everything that has to be looked up resolved.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lvs-operator.io",
    version = "v1alpha1",
    kind = "DirectorBinding",
    namespaced,
    shortname = "lvsdb",
    category = "lvs",
    derive = "PartialEq",
    status = "DirectorBindingStatus",
    doc = "One virtual service on one director, resolved: written by the controller, and its status by the director's agent. Not for people to write.",
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.virtualService"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Programmed")].status"#
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Programmed")].reason"#,
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct DirectorBindingSpec {
    /// The director.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,

    /// The name of the VirtualService, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub virtual_service: String,

    /// The generation of the VirtualService that this was made from.
    #[schemars(range(min = 0))]
    pub generation: i64,

    /// The virtual service with its VIPs granted, and with the real servers of its Service among its endpoints.
    pub service: VirtualServiceSpec,
}

/// What became of a binding, written by the director's agent.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorBindingStatus {
    /// The generation of the binding that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0))]
    pub observed_generation: Option<i64>,

    /// Programmed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::list_schema")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
