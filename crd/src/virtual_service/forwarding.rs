//! How packets reach real servers and come back.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How directors hand packets to real servers.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Forwarding {
    /// Addresses and ports are rewritten both ways (`ipvsadm -m`); replies must come back through the director.
    Nat,
    /// Direct routing (`ipvsadm -g`): the packet goes on unchanged to a real server on the director's own network.
    #[default]
    Dr,
    /// Tunnelling (`ipvsadm -i`): the packet goes on inside another one, to a real server anywhere.
    Tun,
}

/// The tunnel from the directors to the real servers.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.type != 'GUE' || has(self.port)")
        .message("`port` must be set when `type` is 'GUE'").field_path(".port"),
    validation = Rule::new("self.type == 'GUE' || !has(self.port)")
        .message("`port` must not be set unless `type` is 'GUE'").field_path(".port"),
    validation = Rule::new("self.checksum != 'Remote' || self.type == 'GUE'")
        .message("`checksum` must not be 'Remote' unless `type` is 'GUE'").field_path(".checksum"),
    validation = Rule::new("self.checksum == 'None' || self.type != 'IPIP'")
        .message("`checksum` must be 'None' when `type` is 'IPIP'").field_path(".checksum"),
)]
pub struct Tunnel {
    /// The encapsulation: IPIP, IP in IP; GUE, generic UDP encapsulation, which needs `port` and kernel 5.2; GRE, generic
    /// routing encapsulation, which needs kernel 5.3.
    #[serde(rename = "type", default)]
    pub kind: TunnelType,

    /// The UDP port on which real servers decapsulate, 1 to 65535; required with GUE, not allowed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 65535))]
    pub port: Option<i64>,

    /// The checksum of the outer packet: None; Outer, over the whole outer packet, with GUE and GRE; Remote, GUE's remote
    /// checksum offload.
    #[serde(default)]
    pub checksum: TunnelChecksum,
}

/// An encapsulation.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TunnelType {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation (kernel 5.2).
    Gue,
    /// Generic routing encapsulation (kernel 5.3).
    Gre,
}

/// The checksum of a tunnel's outer header.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TunnelChecksum {
    /// None.
    #[default]
    None,
    /// Over the outer packet; with GUE and GRE.
    Outer,
    /// GUE's remote checksum offload.
    Remote,
}

/// How the replies of NAT come back through the director.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Nat {
    /// DefaultGateway: the real servers' default route leads to the director; it is checked, never changed. PolicyRoute: the
    /// agents of the real servers add a rule and a routing table for the replies of this service. Masquerade: the director
    /// puts its own address in as the source, so that real servers do not see the client's.
    #[serde(default)]
    pub return_path: ReturnPath,

    /// The director's addresses on the real servers' network, at most one a family. PolicyRoute needs them. With
    /// DefaultGateway, the agents of the real servers compare their default route with them.
    #[serde(default)]
    #[schemars(length(max = 2), inner(length(min = 2, max = 45)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("self.all(a, isIP(a) && ip.isCanonical(a) && ip(a).isGlobalUnicast())")
            .message("must hold canonical unicast addresses that are not loopback or link-local"),
        validation = Rule::new("size(self) < 2 || self[0].contains(':') != self[1].contains(':')")
            .message("must not hold two addresses of one family"),
    )]
    pub gateways: Vec<String>,
}

/// The return path of NAT replies.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReturnPath {
    /// The real servers' default route leads to the director: checked and reported, never changed.
    #[default]
    DefaultGateway,
    /// A rule and a routing table on the real servers send replies of this service to the director.
    PolicyRoute,
    /// The director puts its own address in as the source, so that the real servers do not see the client's.
    Masquerade,
}
