//! Steps for sysctls.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::change::{Action, Change};
use crate::{Sysctl, Target};

/// A change of a sysctl.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SysctlStep {
    /// Writes a value and verifies it.
    Set {
        /// The sysctl.
        sysctl: Sysctl,
        /// The value to write.
        value: i64,
        /// The value found before. `None` if it could not be read, or if the sysctl belongs to one of our tunnel
        /// devices.
        previous: Option<i64>,
    },
    /// Restores the value found before.
    Restore {
        /// The sysctl.
        sysctl: Sysctl,
        /// The value found before.
        value: i64,
    },
}

impl SysctlStep {
    /// Returns the sysctl and the value to write.
    #[must_use]
    pub const fn write(&self) -> (&Sysctl, i64) {
        match self {
            Self::Set { sysctl, value, .. } | Self::Restore { sysctl, value } => (sysctl, *value),
        }
    }
}

impl Change for SysctlStep {
    fn target(&self) -> Target {
        Target::Sysctl(self.write().0.clone())
    }

    fn action(&self) -> Action {
        match self {
            Self::Set { sysctl, .. } if sysctl.is_of_tunnel() => Action::Edit,
            Self::Set { .. } => Action::Set,
            Self::Restore { .. } => Action::Remove,
        }
    }

    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Set { sysctl, .. } => Some(reason(sysctl)),
            Self::Restore { .. } => Some("the value found before"),
        }
    }
}

impl fmt::Display for SysctlStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sysctl, value) = self.write();
        write!(f, "sysctl -w {sysctl}={value}")
    }
}

const fn reason(sysctl: &Sysctl) -> &'static str {
    match sysctl {
        Sysctl::Ipv4Forward | Sysctl::Ipv6Forward | Sysctl::Forwarding(_) => {
            "NAT replies are forwarded through this host"
        }
        Sysctl::AcceptRedirects(_) => "a router does not accept redirects",
        Sysctl::ArpIgnore(_) => "no ARP answer for a VIP that sits on lo",
        Sysctl::ArpAnnounce(_) => "no ARP request with a VIP as its sender",
        Sysctl::RpFilter(_) => "packets from clients arrive where no route leads back",
        Sysctl::SendRedirects(_) => {
            "real servers on the clients' network must not be redirected past the director"
        }
        Sysctl::VsConntrack => "firewalls recognise NAT replies by connection tracking",
        Sysctl::VsConnReuseMode => {
            "before 5.9, 1 costs a client a second when it uses a port again"
        }
        Sysctl::VsExpireNodestConn => "clients of a removed real server are not left hanging",
        Sysctl::VsExpireQuiescentTemplate => "persistent clients leave a real server of weight 0",
        Sysctl::VsBackupOnly => "a director that learns connections forwards all the same",
        Sysctl::VsSloppyTcp => "connections go on that this machine has not seen begin",
    }
}
