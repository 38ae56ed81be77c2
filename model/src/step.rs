//! One change to a kernel, as plain data.

use serde::{Deserialize, Serialize};

use crate::{
    AddressConfig, AddressKey, Destination, DestinationKey, FouPort, InterfaceName, LinkKind,
    Masquerade, PolicyRule, Route, ServiceConfig, ServiceKey, Sysctl, Timeouts,
};

mod command;

/// One change to a kernel. Leaves no choice to whoever executes it.
///
/// Executing a step twice equals executing it once, and removing what is gone succeeds. `Display` is the command that
/// an administrator would type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Writes a sysctl and verifies it.
    SetSysctl {
        /// Which.
        sysctl: Sysctl,
        /// The value to write.
        value: i64,
        /// The value found before; `None` when it appears only with a link of the same plan.
        previous: Option<i64>,
    },
    /// Makes the kernel decapsulate GUE on a UDP port.
    AddFouPort(FouPort),
    /// Makes a tunnel device with our alias and brings it up.
    AddLink {
        /// Its name.
        name: InterfaceName,
        /// Its kind and local address.
        kind: LinkKind,
    },
    /// Brings a tunnel device up.
    SetLinkUp(InterfaceName),
    /// Adds an address with our mark.
    AddAddress {
        /// Where and which.
        key: AddressKey,
        /// Its attributes.
        config: AddressConfig,
        /// Whether others must learn it: it is probed for before (RFC 5227) and announced after.
        announce: bool,
    },
    /// Changes an address of ours in place.
    EditAddress {
        /// Where and which.
        key: AddressKey,
        /// Its attributes.
        config: AddressConfig,
    },
    /// Adds a route with our protocol number.
    AddRoute(Route),
    /// Adds a policy routing rule with our protocol number.
    AddRule(PolicyRule),
    /// Makes our nft table hold exactly this.
    SetMasquerade(Masquerade),
    /// Sets the IPVS timeouts.
    SetTimeouts {
        /// The timeouts to set.
        timeouts: Timeouts,
        /// The timeouts found before.
        previous: Option<Timeouts>,
    },
    /// Adds an IPVS service.
    AddService {
        /// Which.
        key: ServiceKey,
        /// Its settings.
        config: Box<ServiceConfig>,
    },
    /// Changes an IPVS service in place: connections and counters stay.
    EditService {
        /// Which.
        key: ServiceKey,
        /// Its settings.
        config: Box<ServiceConfig>,
    },
    /// Adds a real server to an IPVS service.
    AddDestination {
        /// The service.
        service: ServiceKey,
        /// The real server.
        key: DestinationKey,
        /// Its settings.
        destination: Destination,
    },
    /// Changes a real server in place: connections and counters stay.
    EditDestination {
        /// The service.
        service: ServiceKey,
        /// The real server.
        key: DestinationKey,
        /// Its settings.
        destination: Destination,
    },
    /// Removes a real server from an IPVS service.
    RemoveDestination {
        /// The service.
        service: ServiceKey,
        /// The real server.
        key: DestinationKey,
    },
    /// Removes an IPVS service with its destinations.
    RemoveService(ServiceKey),
    /// Removes an address.
    RemoveAddress(AddressKey),
    /// Removes our nft table.
    RemoveMasquerade,
    /// Removes a policy routing rule.
    RemoveRule(PolicyRule),
    /// Removes a route.
    RemoveRoute(Route),
    /// Removes a tunnel device.
    RemoveLink(InterfaceName),
    /// Stops decapsulating GUE on a UDP port.
    RemoveFouPort(FouPort),
    /// Sets the IPVS timeouts to what they were before us.
    RestoreTimeouts(Timeouts),
    /// Writes back what a sysctl was before us.
    RestoreSysctl {
        /// Which.
        sysctl: Sysctl,
        /// The value found before us.
        value: i64,
    },
}

impl Step {
    /// Why an administrator would type it, in a few words; `None` where the command says it all.
    #[must_use]
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::SetSysctl { sysctl, .. } => Some(sysctl_reason(sysctl)),
            Self::AddAddress { announce: true, .. } => Some("the VIP, announced to the neighbours"),
            Self::AddAddress { key, .. } if key.interface.as_str() == "lo" => {
                Some("the VIP, known to this host only")
            }
            Self::AddAddress { .. } => {
                Some("loose rp_filter accepts packets of a device with an address")
            }
            Self::EditAddress { config, .. } if config.deprecated => {
                Some("the kernel never picks the VIP as a source by itself")
            }
            Self::AddLink { .. } => Some("takes packets out of the directors' tunnels"),
            Self::AddRule(rule) => Some(match rule.selector {
                crate::RuleSelector::Replies { .. } => "replies go back through the director",
                crate::RuleSelector::Fwmark { .. } => "marked packets are delivered to IPVS",
            }),
            Self::SetMasquerade(_) => Some("replies come back to the director's own address"),
            Self::RestoreSysctl { .. } | Self::RestoreTimeouts(_) => Some("the value found before"),
            Self::AddFouPort(_)
            | Self::SetLinkUp(_)
            | Self::EditAddress { .. }
            | Self::AddRoute(_)
            | Self::SetTimeouts { .. }
            | Self::AddService { .. }
            | Self::EditService { .. }
            | Self::AddDestination { .. }
            | Self::EditDestination { .. }
            | Self::RemoveDestination { .. }
            | Self::RemoveService(_)
            | Self::RemoveAddress(_)
            | Self::RemoveMasquerade
            | Self::RemoveRule(_)
            | Self::RemoveRoute(_)
            | Self::RemoveLink(_)
            | Self::RemoveFouPort(_) => None,
        }
    }
}

const fn sysctl_reason(sysctl: &Sysctl) -> &'static str {
    match sysctl {
        Sysctl::Ipv4Forward | Sysctl::Ipv6Forward | Sysctl::Forwarding(_) => {
            "NAT replies are forwarded through this host"
        }
        Sysctl::AcceptRedirects(_) => "a router takes no redirects",
        Sysctl::ArpIgnore(_) => "no ARP answer for a VIP that sits on lo",
        Sysctl::ArpAnnounce(_) => "no ARP request with a VIP as its sender",
        Sysctl::RpFilter(_) => "packets from clients arrive where no route leads back",
        Sysctl::SendRedirects(_) => {
            "real servers on the clients' network must not be redirected past the director"
        }
        Sysctl::VsConntrack => "firewalls know the replies of NAT by connection tracking",
        Sysctl::VsExpireNodestConn => "clients of a removed real server are not left hanging",
        Sysctl::VsExpireQuiescentTemplate => "persistent clients leave a real server of weight 0",
    }
}
