//! The API type DirectorGroup: which machines direct.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use lvs_model::{DEFAULT_SYNC_PORT, DEFAULT_SYNC_TTL};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{IpFamily, Namespaces, NodeSelector};

/// A group of directors and what they share.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "lvs-operator.io",
    version = "v1alpha1",
    kind = "DirectorGroup",
    shortname = "lvsdg",
    category = "lvs",
    derive = "PartialEq",
    status = "DirectorGroupStatus",
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.directors"),
    printcolumn(name = "Active", type_ = "string", json_path = ".status.active"),
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
    doc = "A group of directors: the machines that take packets for the VIPs of its virtual services and forward them."
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("size(self.nodes.names) == 0 || !has(self.failover) || !self.nodes.names.all(n, n in self.failover.standby)")
        .message("`standby` must leave a director that can hold the VIPs").field_path(".failover.standby"),
    validation = Rule::new("size(self.nodes.names) == 0 || !has(self.failover) || size(self.failover.unicast) == 0 || self.nodes.names.all(n, self.failover.unicast.exists(d, d.node == n))")
        .message("`unicast` must name every director").field_path(".failover.unicast"),
    validation = Rule::new("!has(self.failover) || self.failover.routers == 1 || size(self.gateways) == 0")
        .message("`routers` must be 1 with `gateways`, which move with all VIPs of their family").field_path(".failover.routers"),
)]
pub struct DirectorGroupSpec {
    /// The machines: either `names` or a `selector`.
    pub nodes: Nodes,

    /// The network interface that gets the VIPs, at most 15 characters; absent: the one whose subnet holds the VIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "Option<String>",
        length(min = 1, max = 15),
        regex(pattern = r"^[^\s/:]+$")
    )]
    pub interface: Option<String>,

    /// Addresses that the director with the VIPs has too, at most 16: the default gateways of real servers with NAT, so that their
    /// replies find the director that has the connection. They move with the VIPs of the same family.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(min = 2, max = 45)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("self.all(a, isIP(a))").message("must hold addresses, such as 192.168.100.1"),
    )]
    pub gateways: Vec<String>,

    /// The addresses that virtual services of a cluster may list as real servers; absent: none. The pods of a namespace's own
    /// Services need no entry. Files are not restricted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<RealServers>")]
    pub real_servers: Option<RealServers>,

    /// The firewall marks that virtual services of a cluster may have, at most 64 ranges; empty: none. Files are not
    /// restricted.
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub fwmarks: Vec<FwmarkRange>,

    /// How several directors agree who holds the VIPs (VRRP, RFC 9568); absent: with the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Failover>")]
    pub failover: Option<Failover>,

    /// How the directors tell each other their connections; absent: with the defaults. They do so if there are several, `connections`
    /// is Keep, and a virtual service needs it: one with NAT (but not Masquerade), with persistence or with another scheduler than mh. A machine tells all of its
    /// connections in one way, so groups that share a machine must agree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ConnectionSync>")]
    pub connection_sync: Option<ConnectionSync>,

    /// How long IPVS remembers connections on these machines; absent: the kernel's values are left as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Timeouts>")]
    pub timeouts: Option<Timeouts>,
}

/// The machines of a group: named, or nodes of the cluster by their labels.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("(size(self.names) > 0) != has(self.selector)")
        .message("must hold either `names` or a `selector`"),
)]
pub struct Nodes {
    /// Their node names, or host names outside of a cluster, at most 32. All direct; each VIP is on one of them at a time.
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub names: Vec<String>,

    /// The nodes of the cluster that have these labels. Needs Kubernetes: files that an agent reads from disk may not
    /// use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<NodeSelector>")]
    pub selector: Option<NodeSelector>,
}

/// The addresses that virtual services may list as real servers.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealServers {
    /// Networks of either family, such as 192.168.100.0/24; at most 64.
    #[schemars(length(min = 1, max = 64), inner(length(min = 2, max = 49)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("self.all(a, isCIDR(a))").message("must hold networks, such as 192.168.100.0/24"),
    )]
    pub cidrs: Vec<String>,

    /// The namespaces whose virtual services may list them; absent: every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Namespaces>")]
    pub namespaces: Option<Namespaces>,
}

/// Firewall marks that virtual services may have.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("self.from <= self.to").message("`from` must not be greater than `to`").field_path(".from"),
)]
pub struct FwmarkRange {
    /// The first mark: 1 to 4294967295.
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub from: i64,

    /// The last mark: `from` to 4294967295.
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub to: i64,

    /// The namespaces whose virtual services may have them; absent: every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Namespaces>")]
    pub namespaces: Option<Namespaces>,
}

/// How several directors agree who holds the VIPs.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.advertisementMilliseconds % 10 == 0")
        .message("`advertisementMilliseconds` must be a multiple of 10")
        .field_path(".advertisementMilliseconds"),
    validation = Rule::new("self.unicast.all(d, d.addresses.all(a, self.unicast.exists_one(o, a in o.addresses)))")
        .message("`unicast` must not give one address to two directors").field_path(".unicast"),
    validation = Rule::new("self.unicast.all(d, size(d.addresses) == size(self.unicast[0].addresses) && d.addresses.all(a, !isIP(a) || self.unicast[0].addresses.exists(o, isIP(o) && ip(o).family() == ip(a).family())))")
        .message("`unicast` must give all directors addresses of the same families").field_path(".unicast"),
    validation = Rule::new("!has(self.virtualRouterId) || self.virtualRouterId + self.routers <= 256")
        .message("`virtualRouterId` must leave ids up to 255 for all `routers`").field_path(".virtualRouterId"),
)]
pub struct Failover {
    /// The VRRP virtual router id: 1 to 255; absent: made from the name of the group, and in a cluster one that no other group has. With
    /// several `routers`, it is the first of as many consecutive ids. No other group and no router on the same network may have any of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 255))]
    pub virtual_router_id: Option<i64>,

    /// The number of virtual routers: 1 to 16; 1 when absent. With several, all directors carry load: each VIP belongs to one of the routers, by a
    /// hash of its address, and each router prefers another director. `preemptAfterSeconds` should be given too, or the load stays where it
    /// is after a failover. Must be 1 with `gateways`.
    #[serde(default = "default_routers")]
    #[schemars(with = "i32", range(min = 1, max = 16))]
    pub routers: i64,

    /// The time between two advertisements in milliseconds: 10 to 40950, in steps of 10; 1000 when absent. A director that is silent
    /// for three of them is replaced.
    #[serde(default = "default_advertisement")]
    #[schemars(with = "i32", range(min = 10, max = 40_950))]
    pub advertisement_milliseconds: i64,

    /// The delay after which a director takes over from one with a lower priority that works, in seconds: 0 to 86400; absent: it never
    /// does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 0, max = 86_400))]
    pub preempt_after_seconds: Option<i64>,

    /// The priorities of directors, at most 32; one that is not listed has 100. With several `routers`, directors are ranked by priority and
    /// by name, each rank lower than the one before. In the first router, each has its own priority; in each further router, the one of the
    /// rank before it, and the first has that of the last.
    #[serde(default)]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["node".into()]))]
    pub priorities: Vec<DirectorPriority>,

    /// The directors that are to be on standby, at most 32, for example before maintenance. In files, they must be in `nodes.names`. One that has the VIPs hands them over
    /// without a gap, and keeps them as long as no other director takes them. In a cluster, cordoned nodes are on standby too, unless
    /// all directors are.
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub standby: Vec<String>,

    /// The addresses between which the directors send advertisements by unicast, for a network that filters multicast; absent: they are
    /// multicast. Must name every director, at most 32, with an address of each family that the VIPs have.
    #[serde(default)]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["node".into()]))]
    pub unicast: Vec<UnicastDirector>,

    /// What happens to open connections when another director takes over; Keep when absent. Keep: TCP connections go on, also if real
    /// servers are added or removed at the same moment. That needs the scheduler mh with the flags Port and Fallback, real servers by
    /// DR or TUN with an agent on each, and a service without persistence. The connections of other services go on if they are older
    /// than about three seconds (see `connectionSync`), except with the return path Masquerade. Drop: they end.
    #[serde(default)]
    pub connections: Connections,

    /// How long open connections still find the real servers from before a change of the set, in seconds: 1 to 86400; 300 when absent.
    #[serde(default = "default_keep")]
    #[schemars(with = "i32", range(min = 1, max = 86_400))]
    pub keep_seconds: i64,
}

/// What happens to open connections when another director takes over.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Connections {
    /// They go on.
    #[default]
    Keep,
    /// They end.
    Drop,
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            virtual_router_id: None,
            routers: default_routers(),
            advertisement_milliseconds: default_advertisement(),
            preempt_after_seconds: None,
            priorities: Vec::new(),
            standby: Vec::new(),
            unicast: Vec::new(),
            connections: Connections::default(),
            keep_seconds: default_keep(),
        }
    }
}

const fn default_routers() -> i64 {
    1
}

const fn default_advertisement() -> i64 {
    1000
}

const fn default_keep() -> i64 {
    300
}

/// How directors tell each other their connections (`ipvsadm --start-daemon`). The messages are neither encrypted nor authenticated: use
/// a network that only directors are on, or filter the port.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionSync {
    /// The network interface of the messages, at most 15 characters; absent: that of the first VIP whose connections need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "Option<String>",
        length(min = 1, max = 15),
        regex(pattern = r"^[^\s/:]+$")
    )]
    pub interface: Option<String>,

    /// The number that the directors share: 0 to 255; 0 when absent. With 0, a director takes the messages of all, so give one if other
    /// directors use the same network.
    #[serde(default)]
    #[schemars(with = "i32", range(min = 0, max = 255))]
    pub sync_id: i64,

    /// The largest message in bytes, without its IP and UDP headers: 1024 to 65487; absent: 1472, or 1452 with an
    /// IPv6 group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1024, max = 65_487))]
    pub max_message_bytes: Option<i64>,

    /// The multicast group of the messages, IPv4 or IPv6; absent: 224.0.0.81.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(min = 3, max = 45))]
    #[x_kube(
        validation = Rule::new("isIP(self) && (cidr('224.0.0.0/4').containsIP(self) || cidr('ff00::/8').containsIP(self))")
            .message("must be a multicast address, such as 224.0.0.81"),
    )]
    pub multicast_group: Option<String>,

    /// The UDP port of the messages: 1 to 65535; 8848 when absent.
    #[serde(default = "default_sync_port")]
    #[schemars(with = "i32", range(min = 1, max = 65_535))]
    pub port: i64,

    /// The time to live or hop limit of the messages: 1 to 255; 1 when absent.
    #[serde(default = "default_ttl")]
    #[schemars(with = "i32", range(min = 1, max = 255))]
    pub ttl: i64,
}

impl Default for ConnectionSync {
    fn default() -> Self {
        Self {
            interface: None,
            sync_id: 0,
            max_message_bytes: None,
            multicast_group: None,
            port: default_sync_port(),
            ttl: default_ttl(),
        }
    }
}

const fn default_sync_port() -> i64 {
    DEFAULT_SYNC_PORT as i64
}

const fn default_ttl() -> i64 {
    DEFAULT_SYNC_TTL as i64
}

/// The priority of a director.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectorPriority {
    /// The name of the director. In files, it must be in `nodes.names`.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,

    /// Its priority: 1 to 254. The highest holds the VIPs when all start at once.
    #[schemars(with = "i32", range(min = 1, max = 254))]
    pub priority: i64,
}

/// The addresses of a director from which it sends advertisements, and to which the others send theirs.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnicastDirector {
    /// The name of the director. In files, it must be in `nodes.names`.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,

    /// Its own addresses on the interface of the VIPs: an IPv4 address, an IPv6 address, or one of each.
    #[schemars(length(min = 1, max = 2), inner(length(min = 2, max = 45)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("self.all(a, isIP(a))").message("must hold addresses, such as 192.168.220.11"),
        validation = Rule::new("size(self) == 1 || !self.all(a, isIP(a)) || ip(self[0]).family() != ip(self[1]).family()")
            .message("must not hold two addresses of one family"),
    )]
    pub addresses: Vec<String>,
}

/// The status of a group, written by the controller.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorGroupStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0))]
    pub observed_generation: Option<i64>,

    /// The machines that direct, in one line; of many, the first ones and the number of the others.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub directors: String,

    /// The directors that hold VIPs of the group, in one line. IPv4 and IPv6, each interface, and each of several routers have holders of
    /// their own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub active: String,

    /// When the last of them took VIPs over; absent for a group of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::condition::time_schema")]
    pub active_since: Option<Time>,

    /// The virtual routers in which directors take part, at most 32: each of them for each address family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub routers: Vec<RouterStatus>,

    /// The conditions Accepted and Ready, and Stalled when it is true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::list_schema")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A virtual router of a group.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouterStatus {
    /// Its id: 1 to 255.
    #[schemars(with = "i32", range(min = 1, max = 255))]
    pub router_id: i64,

    /// The address family of its VIPs: IPv4 or IPv6.
    #[serde(rename = "ipFamily")]
    pub family: IpFamily,

    /// The directors that hold its VIPs, in one line; absent if none does. There are several if it has VIPs on several interfaces, or if
    /// they do not hear each other.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub active: String,

    /// When the last of them took VIPs over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::condition::time_schema")]
    pub active_since: Option<Time>,
}

/// IPVS connection timeouts (`ipvsadm --set`). A machine has one set of timeouts, so groups that share a machine must
/// agree.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// How long an established TCP connection is remembered after its last packet, in seconds: 1 to 2147483; 900 when absent.
    #[serde(default = "default_tcp")]
    #[schemars(with = "i32", range(min = 1, max = 2_147_483))]
    pub tcp_seconds: i64,

    /// How long a TCP connection that the real server has closed on its side is remembered after its last packet, in seconds: 1
    /// to 2147483; 120 when absent. One that the client has closed on its side is remembered for 60 seconds; that cannot be
    /// changed.
    #[serde(default = "default_tcp_fin")]
    #[schemars(with = "i32", range(min = 1, max = 2_147_483))]
    pub tcp_fin_seconds: i64,

    /// How long a UDP client is remembered after its last packet, in seconds: 1 to 2147483; 300 when absent.
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
