//! What a virtual service needs and that is on no network of the machine at the moment. `desired::keep` decides what of it stays.

use std::net::IpAddr;

use crate::{Destination, DestinationKey, ObjectName, Problem, ServiceKey};

/// Something that a virtual service needs and that is on no network of this machine at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absence {
    /// The virtual service.
    pub service: ObjectName,
    /// What is missing.
    pub what: Absent,
    /// The problem, unless it is something that stays.
    pub problem: Problem,
}

/// What is on no network of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// A VIP that stays where it is.
    Vip(IpAddr),
    /// A real server of an IPVS service.
    Server {
        /// The service.
        key: ServiceKey,
        /// The real server in it.
        destination: DestinationKey,
        /// Its desired settings.
        settings: Destination,
    },
}

impl Absent {
    pub(crate) const fn address(&self) -> IpAddr {
        match self {
            Self::Vip(address) => *address,
            Self::Server { destination, .. } => destination.address,
        }
    }
}
