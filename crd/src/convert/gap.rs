//! What is missing or left out of the real servers of a virtual service.

use std::{fmt, net::IpAddr};

/// What is missing or left out of the real servers of a virtual service. The rest is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gap {
    /// There is no such Service.
    ServiceNotFound(String),
    /// The Service is a name outside the cluster.
    ExternalName(String),
    /// The Service does not have a port.
    PortNotFound {
        /// The Service.
        service: String,
        /// The port of the virtual service.
        port: String,
        /// The ports that the Service has.
        has: Vec<String>,
    },
    /// Pods can be real servers of NAT only.
    PodsNeedNat(String),
    /// Pods can be real servers of NAT with `returnPath: Masquerade` only.
    PodsNeedMasquerade(String),
    /// An endpoint is left out.
    Endpoint {
        /// The slice.
        slice: String,
        /// The endpoint's address.
        address: String,
        /// Why.
        reason: &'static str,
    },
    /// The endpoints of a slice are left out because it does not have a port.
    Slice {
        /// The slice.
        slice: String,
        /// The port of the virtual service.
        port: String,
        /// The number of endpoints.
        count: usize,
    },
    /// The endpoints of a slice are left out because they are host names.
    HostNames {
        /// The slice.
        slice: String,
        /// The number of endpoints.
        count: usize,
    },
    /// A slice cannot be decoded.
    Unreadable {
        /// The slice.
        slice: String,
        /// Why.
        error: String,
        /// Whether it is as it was last seen; otherwise it is left out.
        is_kept: bool,
    },
    /// Endpoints of another family than the VIPs are left out.
    OtherFamily {
        /// The Service.
        service: String,
        /// Their number.
        count: usize,
    },
    /// There are more real servers than a virtual service can have.
    Surplus {
        /// How many it can have.
        limit: usize,
        /// How many are left out.
        count: usize,
    },
}

impl Gap {
    /// Returns whether the Service, or a port of it, is missing.
    pub(super) fn is_missing(&self, name: &str) -> bool {
        match self {
            Self::ServiceNotFound(service) | Self::PortNotFound { service, .. } => service == name,
            Self::ExternalName(_)
            | Self::PodsNeedNat(_)
            | Self::PodsNeedMasquerade(_)
            | Self::Endpoint { .. }
            | Self::Slice { .. }
            | Self::HostNames { .. }
            | Self::Unreadable { .. }
            | Self::OtherFamily { .. }
            | Self::Surplus { .. } => false,
        }
    }

    /// The address of the endpoint that is left out, if it is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Endpoint { address, .. } => address.parse().ok(),
            Self::ServiceNotFound(_)
            | Self::ExternalName(_)
            | Self::PortNotFound { .. }
            | Self::PodsNeedNat(_)
            | Self::PodsNeedMasquerade(_)
            | Self::Slice { .. }
            | Self::HostNames { .. }
            | Self::Unreadable { .. }
            | Self::OtherFamily { .. }
            | Self::Surplus { .. } => None,
        }
    }

    /// Returns whether it is a slice that cannot be decoded. How many endpoints it has is not known.
    #[must_use]
    pub const fn is_unreadable(&self) -> bool {
        matches!(self, Self::Unreadable { .. })
    }

    /// The number of endpoints that are left out.
    #[must_use]
    pub const fn left_out(&self) -> usize {
        match self {
            Self::Endpoint { .. } => 1,
            Self::Slice { count, .. }
            | Self::HostNames { count, .. }
            | Self::OtherFamily { count, .. }
            | Self::Surplus { count, .. } => *count,
            Self::ServiceNotFound(_)
            | Self::ExternalName(_)
            | Self::PortNotFound { .. }
            | Self::PodsNeedNat(_)
            | Self::PodsNeedMasquerade(_)
            | Self::Unreadable { .. } => 0,
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServiceNotFound(service) => write!(f, "there is no Service '{service}'"),
            Self::ExternalName(service) => write!(
                f,
                "Service '{service}' is of type ExternalName, which has no endpoints: name the addresses in `spec.backends`"
            ),
            Self::PortNotFound { service, port, has } => {
                let has = match has.as_slice() {
                    [] => "none".to_owned(),
                    ports => ports.join(", "),
                };
                write!(f, "Service '{service}' has no port '{port}'; it has {has}")
            }
            Self::PodsNeedNat(service) => write!(
                f,
                "`spec.forwarding` must be 'NAT' for Service '{service}': pods as real servers in DR or TUN are not \
                 supported yet"
            ),
            Self::PodsNeedMasquerade(service) => write!(
                f,
                "`spec.nat.returnPath` must be 'Masquerade' for Service '{service}': pods do not send their replies \
                 through a director"
            ),
            Self::Endpoint {
                slice,
                address,
                reason,
            } => write!(f, "{address} of EndpointSlice {slice} {reason}"),
            Self::Slice { slice, port, .. } => {
                write!(f, "EndpointSlice {slice} has no port '{port}'")
            }
            Self::HostNames { slice, .. } => {
                write!(
                    f,
                    "EndpointSlice {slice} holds host names, and a real server is an address"
                )
            }
            Self::Unreadable {
                slice,
                error,
                is_kept,
            } => {
                let state = if *is_kept {
                    "stays as it was last seen"
                } else {
                    "is left out"
                };
                write!(f, "EndpointSlice {slice} {state}: {error}")
            }
            Self::OtherFamily { service, count } => write!(
                f,
                "{count} of Service '{service}' are of a family without a VIP"
            ),
            Self::Surplus { limit, .. } => {
                write!(f, "a virtual service can have {limit} real servers")
            }
        }
    }
}
