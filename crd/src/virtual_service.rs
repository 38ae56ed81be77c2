//! The API type VirtualService, which users write.
//!
//! The doc comments of this module are the descriptions that `kubectl explain` shows. Rules across fields are CEL in
//! the attributes of the types; [`crate::convert`] refuses the same objects and more.

mod backends;
mod forwarding;
mod scheduling;
mod status;

pub use backends::{Backend, ServiceReference};
pub use forwarding::{Forwarding, Nat, ReturnPath, Tunnel, TunnelChecksum, TunnelType};
pub use scheduling::{Persistence, PersistenceEngine, Scheduler, SchedulerFlag};
pub use status::{NodeFailure, VipHolder, VirtualServiceStatus};

use std::fmt;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A virtual service: virtual IPs (VIPs) with ports, or a firewall mark, and the real servers behind them.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lvs-operator.io",
    version = "v1alpha1",
    kind = "VirtualService",
    namespaced,
    shortname = "lvsvs",
    category = "lvs",
    derive = "PartialEq",
    status = "VirtualServiceStatus",
    printcolumn(name = "VIP", type_ = "string", json_path = ".status.vip"),
    printcolumn(name = "Ports", type_ = "string", json_path = ".status.ports"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.forwarding"),
    printcolumn(
        name = "Backends",
        type_ = "string",
        json_path = ".status.realServersColumn"
    ),
    printcolumn(
        name = "Directors",
        type_ = "string",
        json_path = ".status.directorsColumn"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Scheduler",
        type_ = "string",
        json_path = ".spec.scheduler.name",
        priority = 1
    ),
    printcolumn(
        name = "Group",
        type_ = "string",
        json_path = ".spec.directorGroup",
        priority = 1
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
    doc = "A virtual service of Linux Virtual Server: its virtual IPs or firewall mark, its ports, how a real server is chosen and how packets reach it."
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.fwmark) || size(self.addresses) == 0")
        .message("`addresses` must not be set together with `fwmark`").field_path(".addresses"),
    validation = Rule::new("!has(self.addressPool) || !has(self.fwmark) && size(self.addresses) == 0")
        .message("`addressPool` must not be set together with `addresses` or `fwmark`").field_path(".addressPool"),
    validation = Rule::new("!has(self.ipFamilies) || !has(self.fwmark) && size(self.addresses) == 0")
        .message("`ipFamilies` must not be set together with `addresses` or `fwmark`").field_path(".ipFamilies"),
    validation = Rule::new("has(self.fwmark) || size(self.ports) > 0")
        .message("`ports` must hold a port, or `fwmark` must be set").field_path(".ports"),
    validation = Rule::new("!has(self.fwmark) || size(self.ports) == 0")
        .message("`ports` must not be set together with `fwmark`").field_path(".ports"),
    validation = Rule::new("!has(self.fwmark) || self.fwmark < 1280704512 || self.fwmark > 1280720895")
        .message("`fwmark` must not be between 1280704512 and 1280720895: lvs-operator sets these marks itself").field_path(".fwmark"),
    validation = Rule::new("size(self.ports) <= 64")
        .message("`ports` must not hold more than 64: a range of ports, or all of them, is served by `fwmark`").field_path(".ports"),
    validation = Rule::new("self.ports.all(p, p.port != 0)")
        .message("`port` must not be 0: a range of ports, or all of them, is served by `fwmark`").field_path(".ports"),
    validation = Rule::new("self.ports.all(p, !has(p.name) || self.ports.exists_one(q, has(q.name) && q.name == p.name))")
        .message("`ports` must not hold a `name` twice").field_path(".ports"),
    validation = Rule::new("(self.forwarding == 'NAT' || self.backends.exists(b, has(b.forwarding) && b.forwarding == 'NAT')) || self.ports.all(p, !has(p.targetPort) || p.targetPort == p.port)")
        .message("`targetPort` must not differ from `port`: only NAT changes the port").field_path(".ports"),
    validation = Rule::new("!has(self.tunnel) || (self.forwarding == 'TUN' || self.backends.exists(b, has(b.forwarding) && b.forwarding == 'TUN'))")
        .message("`tunnel` must not be set unless `forwarding` of the spec or of a backend is 'TUN'").field_path(".tunnel"),
    validation = Rule::new("!has(self.tunnel) || !has(self.tunnel.port) || self.ports.all(p, p.protocol != 'UDP' || p.port != self.tunnel.port)")
        .message("`tunnel.port` must not be a UDP port of the service").field_path(".tunnel.port"),
    validation = Rule::new("!has(self.nat) || (self.forwarding == 'NAT' || self.backends.exists(b, has(b.forwarding) && b.forwarding == 'NAT'))")
        .message("`nat` must not be set unless `forwarding` of the spec or of a backend is 'NAT'").field_path(".nat"),
    validation = Rule::new("!has(self.nat) || self.nat.gateways.all(g, !(g in self.addresses))")
        .message("`nat.gateways` must not hold a VIP").field_path(".nat.gateways"),
    validation = Rule::new("!has(self.nat) || self.nat.gateways.all(g, self.backends.all(b, !has(b.address) || b.address != g))")
        .message("`nat.gateways` must not hold a backend's address").field_path(".nat.gateways"),
    validation = Rule::new("!self.onePacket || self.ports.all(p, p.protocol == 'UDP')")
        .message("`onePacket` must not be set unless all ports are UDP").field_path(".onePacket"),
    validation = Rule::new("!self.onePacket || !(self.forwarding == 'NAT' || self.backends.exists(b, has(b.forwarding) && b.forwarding == 'NAT'))")
        .message("`onePacket` must not be set with NAT: the kernel does not translate the replies of a one-packet service").field_path(".onePacket"),
    validation = Rule::new("!has(self.persistence) || self.persistence.timeoutSeconds != 0")
        .message("`timeoutSeconds` must not be 0: leave `persistence` out for a service without persistence").field_path(".persistence.timeoutSeconds"),
    validation = Rule::new("!has(self.persistence) || !has(self.persistence.engine) || self.ports.all(p, p.protocol == 'UDP')")
        .message("`persistence.engine` must not be set unless all ports are UDP").field_path(".persistence.engine"),
    validation = Rule::new("self.backends.all(b, !has(b.address) || !(b.address in self.addresses))")
        .message("`address` of a backend must not be a VIP of the service").field_path(".backends"),
    validation = Rule::new("has(self.fwmark) || size(self.addresses) == 0 || self.backends.all(b, !has(b.address) || (has(b.forwarding) ? b.forwarding : self.forwarding) == 'TUN' || self.addresses.exists(a, a.contains(':') == b.address.contains(':')))")
        .message("`address` of a backend must be of a VIP's family: only TUN mixes families").field_path(".backends"),
    validation = Rule::new("size(self.ports) <= 1 || self.backends.all(b, !has(b.port))")
        .message("`port` of a backend must not be set when the service has several ports").field_path(".backends"),
    validation = Rule::new("self.backends.all(b, !has(b.port) || (has(b.forwarding) ? b.forwarding : self.forwarding) == 'NAT' || self.ports.exists(p, p.port == b.port))")
        .message("`port` of a backend must not differ from the service's port: only NAT changes the port").field_path(".backends"),
)]
pub struct VirtualServiceSpec {
    /// The name of the DirectorGroup whose machine takes the packets of this service; `default` when absent.
    #[serde(default = "default_director_group")]
    #[schemars(length(min = 1, max = 253))]
    pub director_group: String,

    /// The VIPs: at most one IPv4 and one IPv6 address, each in canonical form. Not together with `fwmark`. Without
    /// either, a cluster allocates VIPs from an AddressPool, once a director of the group has reported its addresses; files must name one.
    #[serde(default)]
    #[schemars(length(max = 2), inner(length(min = 2, max = 45)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("self.all(a, isIP(a) && ip.isCanonical(a) && ip(a).isGlobalUnicast())")
            .message("must hold canonical unicast addresses that are not loopback or link-local"),
        validation = Rule::new("size(self) < 2 || self[0].contains(':') != self[1].contains(':')")
            .message("must not hold two addresses of one family: write an object for each"),
    )]
    pub addresses: Vec<String>,

    /// The name of the AddressPool from which a cluster allocates the VIPs. Not together with `addresses` or `fwmark`. Absent: any pool
    /// that serves the namespace and the group and allocates by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(min = 1, max = 253))]
    pub address_pool: Option<String>,

    /// The families of which a cluster allocates one VIP each, IPv4 or IPv6 or both; absent: IPv4. Not together with `addresses` or `fwmark`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<IpFamily>>", length(min = 1, max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub ip_families: Option<Vec<IpFamily>>,

    /// The firewall mark that packets of this service carry, in place of addresses and ports: 1 to 4294967295.
    /// The administrator sets up the VIPs and the firewall rules that set the mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", range(min = 1, max = 4_294_967_295_i64))]
    pub fwmark: Option<i64>,

    /// The ports, at most 64, no two with the same protocol and port. Not together with `fwmark`, which serves a range of
    /// ports, or all of them.
    #[serde(default)]
    // A list above the bound of the schema is refused with the bound alone. The rule refuses 65 ports with what to write.
    #[schemars(length(max = 512))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["port".into(), "protocol".into()]))]
    pub ports: Vec<Port>,

    /// How the director hands packets to the real servers. NAT rewrites addresses and ports, and replies come back through the
    /// director. DR, direct routing, sends packets on unchanged to real servers on the director's own network. TUN sends them
    /// inside other packets to real servers anywhere. With DR and TUN, real servers have the VIP and answer clients themselves.
    #[serde(default)]
    pub forwarding: Forwarding,

    /// The tunnel to the real servers, with TUN only; IPIP when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Tunnel>")]
    pub tunnel: Option<Tunnel>,

    /// How replies come back through the director, with NAT only; DefaultGateway when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Nat>")]
    pub nat: Option<Nat>,

    /// How a real server is chosen for a new connection.
    #[serde(default)]
    pub scheduler: Scheduler,

    /// Sends clients that come back to the same real server; absent: each connection is scheduled by itself. Each port remembers
    /// its clients by itself: for one real server on several ports (80 and 443), use `fwmark`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Persistence>")]
    pub persistence: Option<Persistence>,

    /// Schedules each datagram by itself, for UDP services such as DNS (`ipvsadm -o`). Not with NAT.
    #[serde(default)]
    pub one_packet: bool,

    /// The real servers: machines by their addresses, and Services. At most 1000 backends, which may have up to 10,000 real
    /// servers. Backends get connections in the ratio of their weights, however many endpoints a Service has. Without any,
    /// the VIP is held and connections are refused.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub backends: Vec<Backend>,
}

/// An address family.
#[derive(
    JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum IpFamily {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A port of a virtual service.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// A name for the port: a DNS label of at most 63 characters, unique within the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "Option<String>",
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: Option<String>,

    /// The transport protocol: TCP, UDP or SCTP.
    #[serde(default)]
    pub protocol: Protocol,

    /// The port of the VIP, 1 to 65535.
    #[schemars(with = "i32", range(min = 1, max = 65535))]
    pub port: i64,

    /// The port of the real servers, 1 to 65535; `port` when absent. It may differ from `port` with NAT only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 65535))]
    pub target_port: Option<i64>,
}

/// A transport protocol.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: &[Self] = &[Self::Tcp, Self::Udp, Self::Sctp];

    /// Returns the protocol as the API spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

fn default_director_group() -> String {
    "default".to_owned()
}
