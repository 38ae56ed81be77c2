//! The API type DirectorBinding: one virtual service on one director.
//!
//! A binding with many real servers has none itself. They are in further objects of the kind, its slices, and
//! `spec.slices` holds the revision of each. A slice belongs to the set if it has that revision.

use std::{hash::Hasher, sync::Arc};

use fnv::FnvHasher;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{Forwarding, Nat, Persistence, Protocol, Scheduler, Tunnel};

/// The most real servers in one object; more go into slices.
pub const MAX_REAL_SERVERS: usize = 500;
/// The longest accepted spec in a binding, in bytes.
pub const MAX_ACCEPTED_SPEC: usize = 262_144;
/// The most slices of a binding.
pub const MAX_SLICES: usize = 64;

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

/// Returns the name of a slice of a binding: `BINDING-NUMBER-HASH`. Without the hash, it could be the name of the binding
/// on another machine: that of `web` on `lvs1-1`.
#[must_use]
pub fn slice_name(binding: &str, number: usize) -> String {
    const LONGEST: usize = 253;
    hashed(
        &format!("{binding}-{number}"),
        &format!("{binding}/{number}"),
        LONGEST,
    )
}

/// Returns a hash (FNV-1a) that tells the lists of real servers of a slice apart.
///
/// # Errors
/// If a list could not be converted to JSON, which does not happen.
pub fn slice_revision(real_servers: &[BoundServer]) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string(real_servers)?;
    Ok(format!("{:016x}", fnv_1a(&text)))
}

/// Returns a hash that is the same on every machine and in every version (FNV-1a).
pub(crate) fn fnv_1a(text: &str) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// Returns as much of a name as fits, and a hash of `whole`.
fn hashed(name: &str, whole: &str, longest: usize) -> String {
    let hash = fnv_1a(whole);
    let end = name.floor_char_boundary(longest - 17);
    let kept = name.get(..end).unwrap_or(name);
    format!("{}-{hash:016x}", kept.trim_end_matches(['.', '-']))
}

/// One virtual service on one director, with all references resolved.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// The name of the director.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,

    /// The name of the VirtualService, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub virtual_service: String,

    /// The generation of the VirtualService that this was made from; 0 in a slice.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub generation: i64,

    /// The name of the DirectorGroup; empty in a slice, like all that follows except `realServers`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub director_group: String,

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

    /// How packets reach the real servers, NAT, DR or TUN, unless a real server has a method of its own.
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

    /// How a real server is chosen for a new connection.
    #[serde(default)]
    pub scheduler: Scheduler,

    /// How clients are kept at their real servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Persistence")]
    pub persistence: Option<Persistence>,

    /// Whether each datagram is scheduled by itself; false when absent.
    #[serde(default)]
    pub one_packet: bool,

    /// Whether the director has the VIPs whatever the other directors of the group do; false when absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,

    /// The real servers in the order in which the director adds them; more than 500 are in slices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub real_servers: Vec<BoundServer>,

    /// The spec of the VirtualService that this was made from, as JSON, if Services are among its backends: their endpoints are
    /// followed while a later spec is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 262_144))]
    pub accepted_spec: Option<Arc<str>>,

    /// The revision of each slice. Until every slice has its revision, the agent keeps the last complete set of real
    /// servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 32)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub slices: Vec<String>,

    /// Set in a slice only: where it belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BindingSlice")]
    pub slice: Option<BindingSlice>,
}

/// The place of a slice.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingSlice {
    /// The binding that the real servers belong to.
    #[schemars(length(min = 1, max = 253))]
    pub of: String,

    /// Its number among the slices of the binding: 1 to 64.
    #[schemars(with = "i32", range(min = 1, max = 64))]
    pub number: i64,

    /// The revision of its real servers.
    #[schemars(length(min = 1, max = 32))]
    pub revision: String,
}

/// A port of a virtual service.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundPort {
    /// The transport protocol: TCP, UDP or SCTP.
    #[serde(default)]
    pub protocol: Protocol,

    /// The port of the VIPs, 1 to 65535.
    #[schemars(with = "i32", range(min = 1, max = 65535))]
    pub port: i64,
}

/// A real server.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BoundServer {
    /// Its address.
    #[schemars(length(min = 2, max = 45))]
    pub address: String,

    /// Its port for each of `ports`, in the same order; absent if they are the same. With `fwmark`, the port of all
    /// packets; absent if they keep their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(range(min = 1, max = 65535)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub ports: Vec<i64>,

    /// Its weight in the kernel, 0 to 65535; 1 when absent; 0 takes no new connections.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(with = "i32", range(min = 0, max = 65535))]
    pub weight: i64,

    /// The number of connections at which it gets no new ones: 0 to 65535; 0 means no limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(with = "i32", range(min = 0, max = 65535))]
    pub upper_threshold: i64,

    /// The number of connections below which it gets new ones again: 0 to 65535; 0 means three quarters of
    /// `upperThreshold`.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(with = "i32", range(min = 0, max = 65535))]
    pub lower_threshold: i64,

    /// How packets reach it, NAT, DR or TUN; absent: as `spec.forwarding` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Forwarding")]
    pub forwarding: Option<Forwarding>,

    /// The Service whose endpoint it is; absent if it is listed by its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 253))]
    pub service: Option<String>,
}

const fn one() -> i64 {
    1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_one(number: &i64) -> bool {
    *number == 1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// The status of a binding, written by the director's agent.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorBindingStatus {
    /// The generation of the binding that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0))]
    pub observed_generation: Option<i64>,

    /// The condition Programmed: whether the director's kernel has this generation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::list_schema")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The VIPs that another machine answers for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub vips_in_use: Vec<VipInUse>,

    /// A digest of the IPVS services and destinations that the director's kernel has for the binding, if the group has several
    /// directors. It is the same on all of them if their tables are equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 16, max = 16))]
    pub table_digest: Option<String>,
}

/// A VIP that another machine answers for.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VipInUse {
    /// The VIP.
    #[schemars(length(min = 2, max = 45))]
    pub address: String,

    /// The MAC address of the machine that answers.
    #[schemars(length(min = 17, max = 17))]
    pub mac_address: String,
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
    fn a_slice_never_has_the_name_of_a_binding() {
        let slice = slice_name(&binding_name("web", "lvs1"), 1);
        assert!(slice.starts_with("web.lvs1-1-"), "{slice}");
        assert_ne!(slice, binding_name("web", "lvs1-1"));
        assert_ne!(slice, slice_name("web.lvs1-1", 1));
        let long = "a".repeat(253);
        assert_eq!(slice_name(&long, 20).len(), 253);
        assert_ne!(slice_name(&long, 20), slice_name(&long, 21));
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
