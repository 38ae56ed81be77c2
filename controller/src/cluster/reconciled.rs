//! A virtual service as it was last reconciled.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use lvs_crd::condition::{LONGEST_MESSAGE, Reason};
use lvs_model::{NodeName, ObjectName, Rejection, VirtualService, abridged};

/// A virtual service as it was last reconciled.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reconciled {
    /// Its group.
    pub group: String,
    /// The Services that it names.
    pub kube_services: BTreeSet<ObjectName>,
    /// Its directors.
    pub directors: Vec<NodeName>,
    /// The state of its spec.
    pub state: ServiceState,
    /// Whether its bindings are due: they wait neither for a grant nor for RealServerBindings, and each that differs is written.
    pub bindings_are_due: bool,
    /// What is wrong although it is served.
    pub warning: Option<Fault>,
    /// Which endpoints are left out; empty if none is.
    pub left_out: String,
    /// The addresses of endpoints that are left out: one of them may become that of a machine with an agent.
    pub left_out_addresses: BTreeSet<IpAddr>,
    /// The machines that are its real servers, each with its addresses. None unless it is programmed.
    pub machines: BTreeMap<NodeName, Vec<IpAddr>>,
}

/// The state of the spec of a virtual service. `decide` has the transitions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ServiceState {
    /// The spec is served.
    Served(Version),
    /// The spec names something that is not there. What is there is served.
    Unresolved {
        /// What is served; `None` as long as there is no address.
        version: Option<Version>,
        /// What is not there.
        missing: Fault,
    },
    /// The spec cannot be served. Directors keep the last version that they got.
    Kept {
        /// The last version.
        version: Version,
        /// Why the spec is refused.
        refusal: Option<Fault>,
        /// What the spec names that is not there.
        missing: Option<Fault>,
    },
    /// The spec needs an address, and none can be allocated yet. Nothing is served.
    Waiting {
        /// Why no address can be allocated.
        unallocated: Fault,
        /// What the spec names that is not there.
        missing: Option<Fault>,
    },
    /// The spec is refused. Nothing is served.
    Refused {
        /// The version that is refused; `None` if the spec is invalid or has no address.
        version: Option<Version>,
        /// Why.
        refusal: Fault,
        /// What the spec names that is not there.
        missing: Option<Fault>,
    },
}

/// A version that can be programmed: with its VIPs, and with all its real servers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Version {
    /// The generation of the VirtualService.
    pub generation: i64,
    /// The virtual service.
    pub service: Arc<VirtualService>,
    /// Its spec as JSON if Services are among the backends, to follow their endpoints while a later spec is refused.
    pub accepted_spec: Option<Arc<str>>,
}

/// Why something is not as the spec asks: a reason for programs and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The reason.
    pub reason: Reason,
    /// The sentence.
    pub message: String,
}

impl Fault {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// The fault of a spec with rejections.
    pub(crate) fn of_rejections(reason: Reason, rejections: &[Rejection]) -> Self {
        let texts = rejections.iter();
        let texts = texts.map(|rejection| format!("`{}` {}", rejection.field, rejection.reason));
        let texts: Vec<String> = texts.collect();
        Self::new(reason, abridged(&texts, "; ", LONGEST_MESSAGE))
    }
}

impl ServiceState {
    /// The version that the directors get; `None` if they get none.
    pub(crate) const fn programmed(&self) -> Option<&Version> {
        match self {
            Self::Served(version) | Self::Kept { version, .. } => Some(version),
            Self::Unresolved { version, .. } => version.as_ref(),
            Self::Waiting { .. } | Self::Refused { .. } => None,
        }
    }

    /// The version of [`programmed`](Self::programmed), mutable.
    pub(crate) const fn programmed_mut(&mut self) -> Option<&mut Version> {
        match self {
            Self::Served(version) | Self::Kept { version, .. } => Some(version),
            Self::Unresolved { version, .. } => version.as_mut(),
            Self::Waiting { .. } | Self::Refused { .. } => None,
        }
    }

    /// The version that the status describes: that of [`programmed`](Self::programmed), or the refused one.
    pub(crate) const fn version(&self) -> Option<&Version> {
        match self {
            Self::Refused { version, .. } => version.as_ref(),
            Self::Served(_)
            | Self::Kept { .. }
            | Self::Unresolved { .. }
            | Self::Waiting { .. } => self.programmed(),
        }
    }

    /// Why the spec is not accepted.
    pub(crate) const fn refusal(&self) -> Option<&Fault> {
        match self {
            Self::Served(_) | Self::Unresolved { .. } => None,
            Self::Kept { refusal, .. } => refusal.as_ref(),
            Self::Waiting { unallocated, .. } => Some(unallocated),
            Self::Refused { refusal, .. } => Some(refusal),
        }
    }

    /// What the spec names that is not there.
    pub(crate) const fn missing(&self) -> Option<&Fault> {
        match self {
            Self::Served(_) => None,
            Self::Unresolved { missing, .. } => Some(missing),
            Self::Kept { missing, .. }
            | Self::Waiting { missing, .. }
            | Self::Refused { missing, .. } => missing.as_ref(),
        }
    }

    /// The generation of the version that directors keep; `None` if it is that of the object.
    pub(crate) fn kept_generation(&self, generation: i64) -> Option<i64> {
        match self {
            Self::Kept { version, .. } => {
                Some(version.generation).filter(|kept| *kept != generation)
            }
            Self::Served(_)
            | Self::Unresolved { .. }
            | Self::Waiting { .. }
            | Self::Refused { .. } => None,
        }
    }
}
