//! Which part of a kernel was observed.

use std::collections::BTreeSet;

use crate::{ServiceKey, Target};

/// Which part of a kernel was observed. Nothing is concluded about the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Whether everything except the IPVS services was observed.
    pub network: bool,
    /// The IPVS services that were observed.
    pub services: ServiceExtent,
}

/// Which IPVS services were observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceExtent {
    /// All of them.
    All,
    /// Only these.
    Only(BTreeSet<ServiceKey>),
}

impl Extent {
    /// Everything.
    pub const ALL: Self = Self {
        network: true,
        services: ServiceExtent::All,
    };

    /// Returns whether a target was observed.
    #[must_use]
    pub fn covers(&self, target: &Target) -> bool {
        match target {
            Target::Service(key) => self.services.covers(key),
            Target::Sysctl(_)
            | Target::FouPort(_)
            | Target::Link(_)
            | Target::Address(_)
            | Target::Route(_)
            | Target::Rule(_)
            | Target::Masquerade
            | Target::Timeouts => self.network,
        }
    }
}

impl ServiceExtent {
    /// Returns whether a service was observed.
    #[must_use]
    pub fn covers(&self, key: &ServiceKey) -> bool {
        match self {
            Self::All => true,
            Self::Only(keys) => keys.contains(key),
        }
    }
}
