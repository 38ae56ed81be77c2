//! How much of a kernel was looked at.

use std::collections::BTreeSet;

use crate::{ServiceKey, Target};

/// How much of a kernel was looked at: nothing is concluded about the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Whether everything beside the IPVS services was looked at.
    pub network: bool,
    /// The IPVS services that were looked at.
    pub services: ServiceExtent,
}

/// Which IPVS services were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceExtent {
    /// All of them.
    All,
    /// These.
    Only(BTreeSet<ServiceKey>),
}

impl Extent {
    /// Everything.
    pub const ALL: Self = Self {
        network: true,
        services: ServiceExtent::All,
    };

    /// Returns whether something was looked at.
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
    /// Returns whether a service was looked at.
    #[must_use]
    pub fn covers(&self, key: &ServiceKey) -> bool {
        match self {
            Self::All => true,
            Self::Only(keys) => keys.contains(key),
        }
    }
}
