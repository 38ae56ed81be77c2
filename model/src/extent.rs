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
    /// The parts that could not be read.
    pub unread: BTreeSet<Part>,
}

/// A part of a kernel that can fail to be read by itself. Nothing is concluded about it, and the rest is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The masquerading rules.
    Masquerade,
    /// The GUE ports.
    FouPorts,
    /// The rules that mark stray packets.
    Strays,
}

impl Part {
    /// Returns the part that a target is in; `None` if it is in none.
    #[must_use]
    pub const fn of(target: &Target) -> Option<Self> {
        match target {
            Target::Masquerade => Some(Self::Masquerade),
            Target::FouPort(_) => Some(Self::FouPorts),
            Target::Strays => Some(Self::Strays),
            Target::Sysctl(_)
            | Target::Link(_)
            | Target::Address(_)
            | Target::Route(_)
            | Target::Rule(_)
            | Target::Timeouts
            | Target::SyncDaemon(_)
            | Target::Service(_) => None,
        }
    }
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
        unread: BTreeSet::new(),
    };

    /// Returns whether a target was observed.
    #[must_use]
    pub fn covers(&self, target: &Target) -> bool {
        match target.service() {
            Some(key) => self.services.covers(key),
            None => Part::of(target).map_or(self.network, |part| self.reads(part)),
        }
    }

    /// Returns whether a part was observed.
    pub(crate) fn reads(&self, part: Part) -> bool {
        self.network && !self.unread.contains(&part)
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
