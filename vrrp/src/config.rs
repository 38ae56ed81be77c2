//! The settings of one router for one virtual router.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use thiserror::Error;

use crate::{Addresses, Family, Interval, Ipv4Checksum, Priority, Vrid};

/// What identifies a virtual router on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterKey {
    /// The id.
    pub vrid: Vrid,
    /// The family. One id stands for different virtual routers in the two families.
    pub family: Family,
}

/// The settings of one router for one virtual router. [`Machine::new`](crate::Machine::new) checks them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The id of the virtual router.
    pub vrid: Vrid,
    /// The virtual addresses that the advertisements list; the first of IPv6 is link-local, for example [`Vrid::link_local`]. A
    /// router may hold more addresses than it lists. What it lists should fit into one frame.
    pub addresses: Addresses,
    /// The address of this router from which it sends: the primary one, or the link-local one over IPv6 (RFC 9568, section 7.2).
    /// Of two routers with one priority, the one with the higher address wins.
    pub source: IpAddr,
    /// How much this router is preferred.
    pub priority: Priority,
    /// The time between two advertisements of this router.
    pub interval: Interval,
    /// Whether this router takes over from a less preferred one that is active.
    pub preemption: Preemption,
    /// Where the advertisements are sent to.
    pub recipients: Recipients,
    /// What the checksum of sent packets covers over IPv4.
    pub checksum: Ipv4Checksum,
}

/// Whether a router takes over from a less preferred one that is active (`Preempt_Mode` of RFC 9568, section 6.1).
///
/// The owner always does, at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Preemption {
    /// The active router stays active as long as it is fit.
    #[default]
    Never,
    /// This router takes over after it has heard a less preferred one for this time and a skew time.
    After(Duration),
}

/// Where the advertisements of a router are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// The multicast group of the family.
    Group,
    /// Each of these addresses, by unicast. Other routers are not [heard](crate::Machine::hears).
    Peers(BTreeSet<IpAddr>),
}

/// Why settings are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The source or a peer is of another family than the virtual addresses.
    #[error("{0} is of another family than the virtual addresses")]
    Family(IpAddr),
    /// The source is no unicast address.
    #[error("{0} cannot be the source of advertisements")]
    Source(IpAddr),
    /// The source is also a peer.
    #[error("{0} is both the source of the advertisements and a peer")]
    OwnPeer(IpAddr),
    /// The virtual addresses of IPv6 do not begin with a link-local one (RFC 9568, section 5.2.9).
    #[error("the first IPv6 address of a virtual router must be link-local")]
    FirstAddressNotLinkLocal,
    /// New settings are those of another virtual router.
    #[error("the settings are those of another virtual router")]
    OtherRouter,
}

impl Config {
    /// Returns what identifies the virtual router.
    #[must_use]
    pub const fn key(&self) -> RouterKey {
        RouterKey {
            vrid: self.vrid,
            family: self.addresses.family(),
        }
    }

    /// Checks that the settings go together.
    ///
    /// # Errors
    ///
    /// What does not.
    pub fn check(&self) -> Result<(), ConfigError> {
        let source = self.source;
        let is_foreign = |address: &IpAddr| Family::of(*address) != self.addresses.family();
        if is_foreign(&source) {
            return Err(ConfigError::Family(source));
        }
        if source.is_unspecified() || source.is_multicast() {
            return Err(ConfigError::Source(source));
        }
        if let Recipients::Peers(peers) = &self.recipients {
            if let Some(peer) = peers.iter().find(|peer| is_foreign(peer)) {
                return Err(ConfigError::Family(*peer));
            }
            if peers.contains(&source) {
                return Err(ConfigError::OwnPeer(source));
            }
        }
        if self.addresses.lacks_link_local() {
            return Err(ConfigError::FirstAddressNotLinkLocal);
        }
        Ok(())
    }

    /// Returns the delay after which this router preempts, without the skew time. `None` if it does not.
    pub(crate) fn preemption_delay(&self) -> Option<Duration> {
        match self.preemption {
            _ if self.priority.is_owner() => Some(Duration::ZERO),
            Preemption::After(delay) => Some(delay),
            Preemption::Never => None,
        }
    }

    /// Returns whether an advertisement with a priority from a source wins over this router's (RFC 9568, section 6.4.3).
    pub(crate) fn is_outranked_by(&self, priority: Priority, source: IpAddr) -> bool {
        (priority, source) > (self.priority, self.source)
    }
}

impl Recipients {
    /// Returns the destinations.
    pub(crate) fn destinations(&self, family: Family) -> BTreeSet<IpAddr> {
        match self {
            Self::Group => BTreeSet::from([family.group()]),
            Self::Peers(peers) => peers.clone(),
        }
    }

    /// Returns whether a router is one of them.
    pub(crate) fn include(&self, source: IpAddr) -> bool {
        match self {
            Self::Group => true,
            Self::Peers(peers) => peers.contains(&source),
        }
    }
}

/// Returns the addresses by which two virtual routers of one id are distinguished. The link-local ones of IPv6 often follow from the
/// id, so they do not count.
pub(crate) fn distinctive(addresses: &Addresses) -> BTreeSet<IpAddr> {
    let is_link_local = |address: &IpAddr| match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => Ipv6Addr::is_unicast_link_local(address),
    };
    addresses
        .iter()
        .filter(|address| !is_link_local(address))
        .collect()
}
