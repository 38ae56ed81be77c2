//! How a real server is chosen, and for how long.

use kube::KubeSchema;
use lvs_model::SchedulerName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A scheduler with its flags.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("size(self.flags) == 0 || self.name in ['sh', 'mh']")
        .message("`flags` must be empty unless `name` is 'sh' or 'mh'").field_path(".flags")
)]
pub struct Scheduler {
    /// The scheduler, by its name in the kernel (`ipvsadm -s`); `wlc`, weighted least connections, when absent.
    #[serde(default)]
    #[schemars(schema_with = "scheduler_name")]
    pub name: SchedulerName,

    /// Flags of the hashing schedulers sh and mh (`ipvsadm -b`). Fallback: clients of a real server with weight 0 go to another
    /// one; without it they are refused. Port: the source port takes part in the hash.
    #[serde(default)]
    #[schemars(length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub flags: Vec<SchedulerFlag>,
}

/// Returns the schema of a scheduler's name. The type of the model has no schema.
fn scheduler_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "enum": SchedulerName::ALL.map(SchedulerName::as_str),
    })
}

/// Returns the schema of an optional persistence engine. An `enum` would refuse null, whatever it lists.
fn engine_or_null(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "nullable": true, "maxLength": 3, "pattern": "^sip$"})
}

/// A flag of the hashing schedulers.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SchedulerFlag {
    /// Clients of a real server with weight 0 go to another one; without this flag they are refused.
    Fallback,
    /// The source port takes part in the hash.
    Port,
}

/// Keeps a client at its real server.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Persistence {
    /// How long a client is remembered after its last connection, in seconds: 1 to 2678400 (31 days);
    /// 300 when absent.
    #[serde(default = "default_timeout")]
    #[schemars(with = "i32", range(min = 1, max = 2_678_400))]
    pub timeout_seconds: i64,

    /// IPv4 clients whose addresses agree in this many leading bits count as one: 1 to 32; 32 when absent.
    #[serde(default = "default_prefix_length")]
    #[schemars(with = "i32", range(min = 1, max = 32))]
    pub ipv4_prefix_length: i64,

    /// IPv6 clients whose addresses agree in this many leading bits count as one: 1 to 128; 128 when absent.
    #[serde(default = "default_prefix_length_v6")]
    #[schemars(with = "i32", range(min = 1, max = 128))]
    pub ipv6_prefix_length: i64,

    /// What identifies a client in place of its address: `sip`, the Call-ID of SIP; UDP ports only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "engine_or_null")]
    pub engine: Option<PersistenceEngine>,
}

impl Default for Persistence {
    fn default() -> Self {
        Self {
            timeout_seconds: default_timeout(),
            ipv4_prefix_length: default_prefix_length(),
            ipv6_prefix_length: default_prefix_length_v6(),
            engine: None,
        }
    }
}

/// A persistence engine of the kernel.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PersistenceEngine {
    /// The Call-ID of SIP.
    Sip,
}

const fn default_timeout() -> i64 {
    300
}

const fn default_prefix_length() -> i64 {
    32
}

const fn default_prefix_length_v6() -> i64 {
    128
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_schema_lists_the_schedulers_as_they_are_written() {
        let schema = serde_json::to_value(schemars::schema_for!(Scheduler)).unwrap();
        let listed = &schema["properties"]["name"];
        assert_eq!(listed["type"], "string");
        assert_eq!(listed["default"], "wlc");
        assert_eq!(listed["enum"], json!(SchedulerName::ALL));
    }
}
