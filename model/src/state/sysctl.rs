//! The sysctls that this project sets.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::InterfaceName;

/// A sysctl below /proc/sys/net (Documentation/networking/ip-sysctl.rst, ipvs-sysctl.rst).
///
/// The order of the variants matters. When `ip_forward` changes, the kernel changes other sysctls too
/// (`inet_forward_change`, net/ipv4/devinet.c), so it comes first: it is set and restored before them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Sysctl {
    /// `net.ipv4.ip_forward`.
    Ipv4Forward,
    /// `net.ipv6.conf.all.forwarding`.
    Ipv6Forward,
    /// `net.ipv4.conf.*.forwarding`; changed by the kernel with `ip_forward`.
    Forwarding(Option<InterfaceName>),
    /// `net.ipv4.conf.*.accept_redirects`; `None` is `all`, changed by the kernel with `ip_forward`.
    AcceptRedirects(Option<InterfaceName>),
    /// `net.ipv4.conf.*.arp_ignore`; the larger of `all` and the interface's counts.
    ArpIgnore(Option<InterfaceName>),
    /// `net.ipv4.conf.*.arp_announce`; the larger of `all` and the interface's counts.
    ArpAnnounce(Option<InterfaceName>),
    /// `net.ipv4.conf.*.rp_filter`; the larger of `all` and the interface's counts.
    RpFilter(Option<InterfaceName>),
    /// `net.ipv4.conf.*.send_redirects`; redirects are sent if it is set for `all` or for the interface.
    SendRedirects(Option<InterfaceName>),
    /// `net.ipv4.vs.conntrack`.
    VsConntrack,
    /// `net.ipv4.vs.conn_reuse_mode`.
    VsConnReuseMode,
    /// `net.ipv4.vs.expire_nodest_conn`.
    VsExpireNodestConn,
    /// `net.ipv4.vs.expire_quiescent_template`.
    VsExpireQuiescentTemplate,
    /// `net.ipv4.vs.sloppy_tcp`.
    VsSloppyTcp,
    /// `net.ipv4.vs.backup_only`.
    VsBackupOnly,
}

impl Sysctl {
    /// Returns the interface that it belongs to. `None` for a sysctl of the whole namespace.
    #[must_use]
    pub const fn interface(&self) -> Option<&InterfaceName> {
        match self {
            Self::Forwarding(interface)
            | Self::AcceptRedirects(interface)
            | Self::ArpIgnore(interface)
            | Self::ArpAnnounce(interface)
            | Self::RpFilter(interface)
            | Self::SendRedirects(interface) => interface.as_ref(),
            Self::Ipv4Forward
            | Self::Ipv6Forward
            | Self::VsConntrack
            | Self::VsConnReuseMode
            | Self::VsExpireNodestConn
            | Self::VsExpireQuiescentTemplate
            | Self::VsSloppyTcp
            | Self::VsBackupOnly => None,
        }
    }

    /// Returns whether the module `ip_vs` provides it.
    #[must_use]
    pub const fn is_of_ipvs(&self) -> bool {
        matches!(
            self,
            Self::VsConntrack
                | Self::VsConnReuseMode
                | Self::VsExpireNodestConn
                | Self::VsExpireQuiescentTemplate
                | Self::VsSloppyTcp
                | Self::VsBackupOnly
        )
    }

    /// Returns whether it keeps this host from announcing the VIPs on lo by ARP.
    pub(crate) const fn is_of_arp(&self) -> bool {
        matches!(self, Self::ArpIgnore(_) | Self::ArpAnnounce(_))
    }

    /// Returns whether it belongs to one of our tunnel devices, and so is removed with the device.
    pub(crate) fn is_of_tunnel(&self) -> bool {
        self.interface().is_some_and(InterfaceName::is_of_tunnel)
    }

    /// Returns whether the kernel changes it when `ip_forward` changes.
    pub(crate) const fn follows_forwarding(&self) -> bool {
        matches!(self, Self::Forwarding(_) | Self::AcceptRedirects(_))
    }

    /// Returns the value that the kernel gives it when `ip_forward` becomes 0. `None` if the kernel does not change it
    /// then.
    pub(crate) const fn after_forwarding_ends(&self) -> Option<i64> {
        match self {
            Self::Forwarding(Some(_)) => Some(0),
            Self::AcceptRedirects(None) => Some(1),
            Self::Forwarding(None)
            | Self::AcceptRedirects(Some(_))
            | Self::Ipv4Forward
            | Self::Ipv6Forward
            | Self::ArpIgnore(_)
            | Self::ArpAnnounce(_)
            | Self::RpFilter(_)
            | Self::SendRedirects(_)
            | Self::VsConntrack
            | Self::VsConnReuseMode
            | Self::VsExpireNodestConn
            | Self::VsExpireQuiescentTemplate
            | Self::VsSloppyTcp
            | Self::VsBackupOnly => None,
        }
    }

    /// Returns its path below /proc/sys.
    #[must_use]
    pub fn path(&self) -> String {
        self.join('/')
    }

    fn join(&self, separator: char) -> String {
        let parts = match self {
            Self::Ipv4Forward => ["ipv4", "ip_forward"].to_vec(),
            Self::Ipv6Forward => ["ipv6", "conf", "all", "forwarding"].to_vec(),
            Self::VsConntrack => ["ipv4", "vs", "conntrack"].to_vec(),
            Self::VsConnReuseMode => ["ipv4", "vs", "conn_reuse_mode"].to_vec(),
            Self::VsExpireNodestConn => ["ipv4", "vs", "expire_nodest_conn"].to_vec(),
            Self::VsExpireQuiescentTemplate => ["ipv4", "vs", "expire_quiescent_template"].to_vec(),
            Self::VsSloppyTcp => ["ipv4", "vs", "sloppy_tcp"].to_vec(),
            Self::VsBackupOnly => ["ipv4", "vs", "backup_only"].to_vec(),
            Self::Forwarding(interface) => conf(interface.as_ref(), "forwarding"),
            Self::AcceptRedirects(interface) => conf(interface.as_ref(), "accept_redirects"),
            Self::ArpIgnore(interface) => conf(interface.as_ref(), "arp_ignore"),
            Self::ArpAnnounce(interface) => conf(interface.as_ref(), "arp_announce"),
            Self::RpFilter(interface) => conf(interface.as_ref(), "rp_filter"),
            Self::SendRedirects(interface) => conf(interface.as_ref(), "send_redirects"),
        };
        parts.iter().fold("net".to_owned(), |path, part| {
            path + separator.encode_utf8(&mut [0; 4]) + part
        })
    }
}

fn conf<'a>(interface: Option<&'a InterfaceName>, key: &'a str) -> Vec<&'a str> {
    vec![
        "ipv4",
        "conf",
        interface.map_or("all", InterfaceName::as_str),
        key,
    ]
}

/// The form that `sysctl -w` takes: with dots, or with slashes if the interface's name contains a dot.
impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dotted = self
            .interface()
            .is_some_and(|name| name.as_str().contains('.'));
        f.write_str(&self.join(if dotted { '/' } else { '.' }))
    }
}

/// A path that is not one of the sysctls that this project sets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown sysctl '{0}'")]
pub struct UnknownSysctl(String);

impl FromStr for Sysctl {
    type Err = UnknownSysctl;

    fn from_str(path: &str) -> Result<Self, UnknownSysctl> {
        let unknown = || UnknownSysctl(path.to_owned());
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            ["net", "ipv4", "ip_forward"] => Ok(Self::Ipv4Forward),
            ["net", "ipv6", "conf", "all", "forwarding"] => Ok(Self::Ipv6Forward),
            ["net", "ipv4", "vs", "conntrack"] => Ok(Self::VsConntrack),
            ["net", "ipv4", "vs", "conn_reuse_mode"] => Ok(Self::VsConnReuseMode),
            ["net", "ipv4", "vs", "expire_nodest_conn"] => Ok(Self::VsExpireNodestConn),
            ["net", "ipv4", "vs", "expire_quiescent_template"] => {
                Ok(Self::VsExpireQuiescentTemplate)
            }
            ["net", "ipv4", "vs", "sloppy_tcp"] => Ok(Self::VsSloppyTcp),
            ["net", "ipv4", "vs", "backup_only"] => Ok(Self::VsBackupOnly),
            ["net", "ipv4", "conf", scope, key] => {
                let interface = match *scope {
                    "all" => None,
                    name => Some(name.parse().map_err(|_| unknown())?),
                };
                match *key {
                    "forwarding" => Ok(Self::Forwarding(interface)),
                    "accept_redirects" => Ok(Self::AcceptRedirects(interface)),
                    "arp_ignore" => Ok(Self::ArpIgnore(interface)),
                    "arp_announce" => Ok(Self::ArpAnnounce(interface)),
                    "rp_filter" => Ok(Self::RpFilter(interface)),
                    "send_redirects" => Ok(Self::SendRedirects(interface)),
                    _ => Err(unknown()),
                }
            }
            _ => Err(unknown()),
        }
    }
}

impl TryFrom<String> for Sysctl {
    type Error = UnknownSysctl;

    fn try_from(path: String) -> Result<Self, UnknownSysctl> {
        path.parse()
    }
}

impl From<Sysctl> for String {
    fn from(sysctl: Sysctl) -> Self {
        sysctl.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sysctl_parses_back_from_its_path() {
        let vlan: InterfaceName = "eth0.100".parse().unwrap();
        for sysctl in [
            Sysctl::Ipv4Forward,
            Sysctl::Ipv6Forward,
            Sysctl::VsConntrack,
            Sysctl::VsConnReuseMode,
            Sysctl::VsExpireNodestConn,
            Sysctl::VsExpireQuiescentTemplate,
            Sysctl::VsSloppyTcp,
            Sysctl::VsBackupOnly,
            Sysctl::Forwarding(Some(vlan.clone())),
            Sysctl::AcceptRedirects(None),
            Sysctl::ArpIgnore(None),
            Sysctl::ArpAnnounce(Some(vlan.clone())),
            Sysctl::RpFilter(Some(vlan)),
            Sysctl::SendRedirects(None),
        ] {
            assert_eq!(sysctl.path().parse(), Ok(sysctl));
        }
    }

    #[test]
    fn an_interface_with_a_dot_is_written_with_slashes() {
        assert_eq!(
            Sysctl::ArpIgnore(None).to_string(),
            "net.ipv4.conf.all.arp_ignore"
        );
        let vlan = Sysctl::ArpIgnore(Some("eth0.100".parse().unwrap()));
        assert_eq!(vlan.to_string(), "net/ipv4/conf/eth0.100/arp_ignore");
    }
}
