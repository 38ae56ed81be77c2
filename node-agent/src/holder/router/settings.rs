//! The settings of a virtual router, as the state machine takes them.

use std::{collections::BTreeMap, io, net::IpAddr, time::Duration};

use lvs_model::{
    AddressConfig, AddressKey, Family, InterfaceName, Owner, RouterKey, VirtualRouter,
};
use lvs_vrrp::{
    Addresses, AddressesError, Config, ConfigError, Interval, IntervalError, Ipv4Checksum, Link,
    Preemption, Priority, PriorityError, Recipients, Start, Vrid, VridError,
};

/// Why a virtual router cannot take part.
#[derive(Debug, thiserror::Error)]
pub(in crate::holder) enum RouterError {
    /// The interface has no address to send from.
    #[error("{0} has no address of its own to send VRRP advertisements from")]
    NoSource(InterfaceName),
    /// The group gives this machine no address to send from.
    #[error(
        "`spec.failover.unicast` of the DirectorGroup must give this machine an {0} address, since the group has {0} VIPs"
    )]
    NotListed(Family),
    /// The interface does not have the address that the group gives.
    #[error(
        "{interface} does not have {address}, the address of this machine in `spec.failover.unicast` of the DirectorGroup"
    )]
    NotOwn {
        /// The interface.
        interface: InterfaceName,
        /// The address.
        address: IpAddr,
    },
    /// The socket cannot be opened.
    #[error("opening a socket for VRRP on {interface}")]
    Socket {
        /// The interface.
        interface: InterfaceName,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The id is 0.
    #[error(transparent)]
    Vrid(#[from] VridError),
    /// The priority is 0.
    #[error(transparent)]
    Priority(#[from] PriorityError),
    /// The interval cannot be advertised.
    #[error(transparent)]
    Interval(#[from] IntervalError),
    /// The VIPs cannot be advertised.
    #[error(transparent)]
    Addresses(#[from] AddressesError),
    /// The settings do not go together.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// A virtual router, and what is known about this machine at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::holder) struct Wanted {
    /// The router.
    pub router: VirtualRouter,
    /// The address that it sends from. `None`: the interface has none, or not the one that the group gives.
    pub source: Option<IpAddr>,
    /// How it begins: whether this process has its VIPs, or an earlier one had them.
    pub start: Start,
    /// The state of the interface.
    pub link: Link,
}

/// The settings of a virtual router for this machine.
pub(super) fn config(key: &RouterKey, wanted: &Wanted) -> Result<Config, RouterError> {
    let source = source(key, wanted)?;
    let candidacy = &wanted.router.candidacy;
    let vrid = Vrid::new(key.router_id)?;
    // VIPs on other interfaces are not advertised.
    let vips = wanted.router.vips.iter();
    let vips = vips.filter(|vip| vip.interface == key.interface);
    let mut addresses: Vec<IpAddr> = vips.map(|vip| vip.address).collect();
    if source.is_ipv6() {
        // An advertisement for IPv6 begins with a link-local address.
        addresses.insert(0, vrid.link_local().into());
    }
    // More do not fit into an advertisement. All VIPs of a router move together, so the first ones stand for all.
    addresses.truncate(usize::from(u8::MAX));
    Ok(Config {
        vrid,
        addresses: Addresses::new(&addresses)?,
        source,
        priority: Priority::new(candidacy.priority_in(key.router_id))?,
        interval: Interval::from_centiseconds(candidacy.interval)?,
        preemption: candidacy
            .preempt_after
            .map_or(Preemption::Never, |seconds| {
                Preemption::After(Duration::from_secs(seconds.into()))
            }),
        recipients: candidacy
            .unicast
            .as_ref()
            .map_or(Recipients::Group, |unicast| {
                Recipients::Peers(unicast.peers_of(key.family))
            }),
        checksum: Ipv4Checksum::PseudoHeader,
    })
}

fn source(key: &RouterKey, wanted: &Wanted) -> Result<IpAddr, RouterError> {
    let interface = || key.interface.clone();
    let missing = || match &wanted.router.candidacy.unicast {
        None => RouterError::NoSource(interface()),
        Some(unicast) => match unicast.own_of(key.family) {
            None => RouterError::NotListed(key.family),
            Some(address) => RouterError::NotOwn {
                interface: interface(),
                address,
            },
        },
    };
    wanted.source.ok_or_else(missing)
}

/// The address of the interface from which advertisements are sent: the one that the group gives, or one that is not a VIP, for IPv6 a
/// link-local one. One that expires, as VIPs do and those of DHCP, comes last.
pub(in crate::holder) fn own_address(
    key: &RouterKey,
    router: &VirtualRouter,
    observed: &BTreeMap<AddressKey, AddressConfig>,
) -> Option<IpAddr> {
    let own = observed.iter().filter(|(found, config)| {
        let is_own = match (&router.candidacy.unicast, found.address) {
            (Some(unicast), address) => unicast.own.contains(&address),
            (None, IpAddr::V4(_)) => found.prefix < 32,
            (None, IpAddr::V6(v6)) => v6.is_unicast_link_local(),
        };
        found.interface == key.interface
            && Family::of(found.address) == key.family
            && is_own
            && config.owner != Owner::Ours
            && !router.vips.contains(*found)
    });
    let own = own.min_by_key(|(_, config)| config.expires);
    own.map(|(found, _)| found.address)
}

#[cfg(test)]
mod tests;
