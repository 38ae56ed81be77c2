//! What a machine remembers of sets of real servers, and what it does by it. `second_chance` has the rules.

use std::{num::NonZeroU32, ops::RangeInclusive, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Family, ObjectName, Service, ServiceKey, VirtualService};

/// The firewall marks of second services, and [`LOCAL_MARK`]. Virtual services cannot have them.
pub const RESERVED_MARKS: RangeInclusive<u32> = 0x4c56_0000..=0x4c56_3fff;

/// The firewall mark of packets that are delivered here although there is an IPVS service for them.
pub const LOCAL_MARK: NonZeroU32 = match NonZeroU32::new(*RESERVED_MARKS.end()) {
    Some(mark) => mark,
    None => NonZeroU32::MAX,
};

/// The firewall marks of second services.
pub(crate) const SECOND_MARKS: RangeInclusive<u32> =
    *RESERVED_MARKS.start()..=*RESERVED_MARKS.end() - 1;

/// A virtual service whose connections are kept, on a machine that is or may become a real server of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptService {
    /// The virtual service.
    pub service: Arc<VirtualService>,
    /// How long its previous set of real servers counts after a change, in seconds. `None`: the controller decides that, and the
    /// virtual service has the previous set as long as it counts.
    pub keep_seconds: Option<u32>,
    /// Whether the machine is one of its directors. Then it remembers the sets only while it is in them.
    #[serde(default)]
    pub is_directed: bool,
}

/// The real servers of one TCP port of a VIP, as a machine remembers them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSet {
    /// The IPVS service on the directors.
    pub key: ServiceKey,
    /// The set in force: what directors program. Empty if the controller remembers the sets.
    pub present: Service,
    /// The sets before the last changes, the newest first, while they count or have connections.
    #[serde(default, alias = "previous", deserialize_with = "one_or_several")]
    pub replaced: Vec<ReplacedSet>,
}

/// Earlier versions stored one set or none.
fn one_or_several<'de, D: Deserializer<'de>>(found: D) -> Result<Vec<ReplacedSet>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Found {
        Several(Vec<ReplacedSet>),
        One(Option<ReplacedSet>),
    }
    Ok(match Found::deserialize(found)? {
        Found::Several(several) => several,
        Found::One(one) => one.into_iter().collect(),
    })
}

/// The real servers before a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacedSet {
    /// What directors had programmed.
    pub servers: Service,
    /// The mark of the second service, one of [`RESERVED_MARKS`] but [`LOCAL_MARK`].
    pub mark: NonZeroU32,
    /// When the set was replaced, in seconds since 1970.
    pub since: u64,
}

/// A second IPVS service of a real server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondChance {
    /// The virtual service.
    pub owner: ObjectName,
    /// The IPVS service on the directors.
    pub key: ServiceKey,
    /// The mark of stray packets to it: those that are no SYN and belong to no socket here.
    pub mark: NonZeroU32,
    /// Whether stray packets get the mark. Otherwise, the service is there for the connections that it has.
    pub takes_strays: bool,
    /// The set of real servers before a change.
    pub servers: Service,
}

impl SecondChance {
    /// Returns the key of the second service.
    #[must_use]
    pub const fn service_key(&self) -> ServiceKey {
        second_service(self.mark, &self.key)
    }
}

impl ReplacedSet {
    /// Returns the key of the second service that leads to this set, for an IPVS service on the directors.
    pub(crate) const fn service_key(&self, key: &ServiceKey) -> ServiceKey {
        second_service(self.mark, key)
    }
}

const fn second_service(mark: NonZeroU32, key: &ServiceKey) -> ServiceKey {
    ServiceKey::Fwmark {
        mark,
        family: key.family(),
    }
}

/// Returns the key of the IPVS service that delivers packets with [`LOCAL_MARK`] here.
#[must_use]
pub const fn local_service(family: Family) -> ServiceKey {
    ServiceKey::Fwmark {
        mark: LOCAL_MARK,
        family,
    }
}

/// Returns whether an IPVS service is a second service.
pub(crate) fn is_second(key: &ServiceKey) -> bool {
    match key {
        ServiceKey::Fwmark { mark, .. } => SECOND_MARKS.contains(&mark.get()),
        ServiceKey::Address { .. } => false,
    }
}

/// Returns whether an IPVS service is for packets that our rules have marked: not one of a director.
pub(crate) fn is_marked_by_us(key: &ServiceKey) -> bool {
    match key {
        ServiceKey::Fwmark { mark, .. } => RESERVED_MARKS.contains(&mark.get()),
        ServiceKey::Address { .. } => false,
    }
}
