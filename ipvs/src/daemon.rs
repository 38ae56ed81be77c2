//! The connection-sync daemons of a network namespace.

use std::{fmt, net::IpAddr};

use netlink_packet_core::{DecodeError, NlasIterator, Parseable};

use crate::{Name, wire::DaemonAttribute};

const IP_VS_STATE_MASTER: u32 = 1;
const IP_VS_STATE_BACKUP: u32 = 2;

/// One of the two connection-sync daemons of a network namespace (`IPVS_DAEMON_ATTR_STATE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DaemonState {
    /// Sends this machine's connections (`IP_VS_STATE_MASTER`).
    Master,
    /// Takes over the connections of others (`IP_VS_STATE_BACKUP`).
    Backup,
}

/// A connection-sync daemon: one to start, or one that runs.
///
/// For a field that is `None` the kernel chooses a value, which it reports once the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Daemon {
    /// Whether this is the master or the backup.
    pub state: DaemonState,
    /// The interface of the messages (`IPVS_DAEMON_ATTR_MCAST_IFN`).
    pub interface: Name,
    /// The number that a master and its backups share, 0 to 255; a backup with 0 takes every
    /// master's messages (`IPVS_DAEMON_ATTR_SYNC_ID`).
    pub sync_id: u32,
    /// The largest UDP payload in bytes; by default what fits the interface's MTU
    /// (`IPVS_DAEMON_ATTR_SYNC_MAXLEN`).
    pub max_length: Option<u16>,
    /// The multicast group; by default 224.0.0.81 (`IPVS_DAEMON_ATTR_MCAST_GROUP`, `_GROUP6`).
    pub group: Option<IpAddr>,
    /// The UDP port; by default 8848 (`IPVS_DAEMON_ATTR_MCAST_PORT`).
    pub port: Option<u16>,
    /// The time to live or hop limit; by default 1 (`IPVS_DAEMON_ATTR_MCAST_TTL`).
    pub ttl: Option<u8>,
}

impl DaemonState {
    fn number(self) -> u32 {
        match self {
            Self::Master => IP_VS_STATE_MASTER,
            Self::Backup => IP_VS_STATE_BACKUP,
        }
    }

    fn from_number(number: u32) -> Result<Self, DecodeError> {
        match number {
            IP_VS_STATE_MASTER => Ok(Self::Master),
            IP_VS_STATE_BACKUP => Ok(Self::Backup),
            other => Err(format!("unknown sync daemon state {other}").into()),
        }
    }

    /// Yields the attributes that name the daemon to stop.
    pub(crate) fn attributes(self) -> impl Iterator<Item = DaemonAttribute> {
        std::iter::once(DaemonAttribute::State(self.number()))
    }
}

impl fmt::Display for DaemonState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Master => "master",
            Self::Backup => "backup",
        })
    }
}

impl Daemon {
    /// Creates a daemon with the kernel's choice of everything that is optional.
    #[must_use]
    pub fn new(state: DaemonState, interface: Name, sync_id: u32) -> Self {
        let (max_length, group, port, ttl) = (None, None, None, None);
        Self {
            state,
            interface,
            sync_id,
            max_length,
            group,
            port,
            ttl,
        }
    }

    /// Yields the attributes of a daemon to start.
    pub(crate) fn attributes(self) -> impl Iterator<Item = DaemonAttribute> {
        let Self {
            state,
            interface,
            sync_id,
            max_length,
            group,
            port,
            ttl,
        } = self;
        let optional = [
            max_length.map(DaemonAttribute::MaxLength),
            group.map(|group| match group {
                IpAddr::V4(group) => DaemonAttribute::Group(group),
                IpAddr::V6(group) => DaemonAttribute::Group6(group),
            }),
            port.map(DaemonAttribute::Port),
            ttl.map(DaemonAttribute::Ttl),
        ];
        state
            .attributes()
            .chain([
                DaemonAttribute::Interface(interface),
                DaemonAttribute::SyncId(sync_id),
            ])
            .chain(optional.into_iter().flatten())
    }
}

/// Reads the value of an `IPVS_CMD_ATTR_DAEMON` attribute.
impl Parseable<[u8]> for Daemon {
    fn parse(nlas: &[u8]) -> Result<Self, DecodeError> {
        let (mut state, mut interface, mut sync_id) = (None, None, None);
        let (mut max_length, mut group, mut port, mut ttl) = (None, None, None, None);
        for nla in NlasIterator::new(nlas) {
            match DaemonAttribute::parse(&nla?)? {
                DaemonAttribute::State(value) => state = Some(DaemonState::from_number(value)?),
                DaemonAttribute::Interface(value) => interface = Some(value),
                DaemonAttribute::SyncId(value) => sync_id = Some(value),
                DaemonAttribute::MaxLength(value) => max_length = Some(value),
                DaemonAttribute::Group(value) => group = Some(value.into()),
                DaemonAttribute::Group6(value) => group = Some(value.into()),
                DaemonAttribute::Port(value) => port = Some(value),
                DaemonAttribute::Ttl(value) => ttl = Some(value),
                DaemonAttribute::Other(_) => {}
            }
        }
        Ok(Self {
            state: state.ok_or_else(|| missing("IPVS_DAEMON_ATTR_STATE"))?,
            interface: interface.ok_or_else(|| missing("IPVS_DAEMON_ATTR_MCAST_IFN"))?,
            sync_id: sync_id.ok_or_else(|| missing("IPVS_DAEMON_ATTR_SYNC_ID"))?,
            max_length,
            group,
            port,
            ttl,
        })
    }
}

fn missing(attribute: &str) -> DecodeError {
    format!("sync daemon without {attribute}").into()
}
