//! What a cluster knows of the Services that a virtual service names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};

use lvs_model::NodeName;

use crate::{BoundServer, Protocol};

/// What a cluster knows of the Services that a virtual service names, and of its machines.
pub struct KubeServices<'a> {
    /// The Services by their names, with their slices.
    pub services: BTreeMap<&'a str, KubeService<'a>>,
    /// The addresses of the directors of the virtual service.
    pub directors: BTreeSet<IpAddr>,
    /// The addresses of machines. A pod with such an address is on the network of its machine.
    pub machines: &'a BTreeMap<IpAddr, BTreeSet<NodeName>>,
    /// Returns whether the virtual service may have an address as a real server that is not a pod's.
    pub may_name: Box<dyn Fn(IpAddr) -> bool + 'a>,
    /// Returns the real servers that the directors have of a Service, for when the Service or its port is missing.
    pub bound: BoundServers<'a>,
}

/// Returns the real servers that directors have of a Service.
pub type BoundServers<'a> = Box<dyn Fn(&str) -> Vec<BoundServer> + 'a>;

/// A Service and its slices.
pub struct KubeService<'a> {
    /// Its ports; `None` if there is no such Service.
    pub spec: Option<&'a KubeServiceSpec>,
    /// Its slices.
    pub slices: Vec<&'a EndpointSlice>,
    /// Its slices that cannot be decoded.
    pub unreadable: Vec<UnreadableSlice<'a>>,
}

/// A slice that cannot be decoded.
#[derive(Clone, Copy, Debug)]
pub struct UnreadableSlice<'a> {
    /// Its name.
    pub name: &'a str,
    /// Why it cannot be decoded.
    pub error: &'a str,
    /// Whether its last version is among the slices.
    pub is_kept: bool,
}

impl KubeService<'_> {
    /// Returns whether its endpoints are not known: it does not exist, and its slices go one by one, or it was just made and has
    /// none yet, or none of its slices could ever be decoded.
    pub(super) fn is_unknown(&self) -> bool {
        let is_new = |spec: &KubeServiceSpec| spec.has_selector || !self.unreadable.is_empty();
        self.spec
            .is_none_or(|spec| self.slices.is_empty() && is_new(spec))
    }
}

/// The part of a Service that matters to virtual services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeServiceSpec {
    /// Its ports.
    pub ports: Vec<KubePort>,
    /// Whether it is a name outside the cluster, which has no endpoints.
    pub is_external_name: bool,
    /// Whether Kubernetes writes its slices: at least one, even if it has no endpoints.
    pub has_selector: bool,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubePort {
    /// Its name; empty if it has none.
    pub name: String,
    /// Its protocol, as Kubernetes writes it.
    pub protocol: String,
    /// Its number.
    pub port: i64,
}

impl KubeServiceSpec {
    /// Takes the part of a Service that matters.
    #[must_use]
    pub fn of(service: &Service) -> Self {
        let spec = service.spec.as_ref();
        let ports = spec.and_then(|spec| spec.ports.as_deref());
        let ports = ports.unwrap_or_default().iter().map(|port| KubePort {
            name: port.name.clone().unwrap_or_default(),
            protocol: protocol(port.protocol.as_deref()).to_owned(),
            port: port.port.into(),
        });
        Self {
            ports: ports.collect(),
            has_selector: spec.is_some_and(|spec| {
                let selector = spec.selector.as_ref();
                selector.is_some_and(|labels| !labels.is_empty())
            }),
            is_external_name: spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName"),
        }
    }
}

impl fmt::Display for KubePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            protocol,
            port,
        } = self;
        let separator = if name.is_empty() { "" } else { " " };
        match port {
            0 => write!(f, "{name}{separator}{protocol}"),
            port => write!(f, "{name}{separator}{port}/{protocol}"),
        }
    }
}

/// Returns a protocol of Kubernetes; absent means TCP.
pub(super) fn protocol(text: Option<&str>) -> &str {
    text.unwrap_or(Protocol::Tcp.as_str())
}
