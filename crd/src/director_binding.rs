//! The API type DirectorBinding: one virtual service on one director.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::VirtualServiceSpec;

/// The label that names the machine whose agent reads the object.
pub const NODE_LABEL: &str = "lvs-operator.io/node";

/// Returns the value of [`NODE_LABEL`] for a machine: its name. A label holds at most 63 characters, a name up to 253. A
/// longer name is cut and ends in a hash of the whole name.
#[must_use]
pub fn node_label(node: &str) -> String {
    const LONGEST: usize = 63;
    if node.len() > LONGEST {
        hashed(node, node, LONGEST)
    } else {
        node.to_owned()
    }
}

/// Returns the name of the binding of a virtual service on a machine: `SERVICE.NODE`. It ends in a hash if it would be
/// too long or ambiguous: `a.b` on `c` is not `a` on `b.c`.
#[must_use]
pub fn binding_name(service: &str, node: &str) -> String {
    const LONGEST: usize = 253;
    let plain = format!("{service}.{node}");
    if plain.len() > LONGEST || service.contains('.') {
        hashed(&plain, &format!("{service}/{node}"), LONGEST)
    } else {
        plain
    }
}

/// Returns as much of a name as fits, and a hash (FNV-1a) of `whole`.
fn hashed(name: &str, whole: &str, longest: usize) -> String {
    let hash = whole.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let end = name.floor_char_boundary(longest - 17);
    let kept = name.get(..end).unwrap_or(name);
    format!("{}-{hash:016x}", kept.trim_end_matches(['.', '-']))
}

/// One virtual service on one director, with all references resolved.
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
    doc = "One virtual service on one director, with all references resolved. The controller writes it, and the director's agent writes its status. Users do not edit it.",
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

    /// The virtual service, with its allocated VIPs and with the real servers of its Service among its endpoints.
    pub service: VirtualServiceSpec,
}

/// The status of a binding, written by the director's agent.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_label_can_hold_ends_in_a_hash() {
        assert_eq!(node_label("lvs1.example.net"), "lvs1.example.net");
        let (one, other) = ("n.".repeat(100) + "a", "n.".repeat(100) + "b");
        assert_eq!(node_label(&one).len(), 62);
        assert!(node_label(&one).starts_with("n.n.n.n"));
        assert_ne!(node_label(&one), node_label(&other));
        assert_eq!(node_label(&"n".repeat(63)), "n".repeat(63));
        assert_eq!(node_label(&"n".repeat(64)).len(), 63);
    }

    #[test]
    fn two_services_on_two_machines_never_share_a_binding() {
        assert_eq!(binding_name("web", "lvs1.example"), "web.lvs1.example");
        assert_ne!(binding_name("web.lvs1", "example"), "web.lvs1.example");
        let long = "a".repeat(200);
        assert_eq!(binding_name(&long, &long).len(), 253);
        assert_ne!(binding_name(&long, &long), binding_name(&long, &long[1..]));
    }
}
