//! Connection sync: the directors of a group tell each other their connections.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use serde::{Deserialize, Serialize};

use crate::InterfaceName;

/// The multicast group of the kernel's connection sync (`IP_VS_SYNC_GROUP`, net/netfilter/ipvs/ip_vs_sync.c).
pub const DEFAULT_SYNC_GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 81));

/// The UDP port of the kernel's connection sync (`IP_VS_SYNC_PORT`).
pub const DEFAULT_SYNC_PORT: u16 = 8848;

/// The time to live or hop limit of the kernel's connection sync.
pub const DEFAULT_SYNC_TTL: u8 = 1;

/// The largest UDP payload of the kernel's connection sync if none is given: what fits an MTU of 1500 (`start_sync_thread`).
#[must_use]
pub const fn default_sync_length(group: IpAddr) -> u16 {
    match group {
        IpAddr::V4(_) => 1472,
        IpAddr::V6(_) => 1452,
    }
}

/// How the directors of a group tell each other their connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionSync {
    /// The interface of the messages. `None`: that of the first VIP whose connections need it.
    pub interface: Option<InterfaceName>,
    /// The other settings.
    pub settings: SyncSettings,
}

/// The settings of connection-sync daemons, except the interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncSettings {
    /// The number that directors share, 0 to 255. A director with 0 takes the messages of all.
    pub sync_id: u8,
    /// The largest UDP payload in bytes, 1024 to 65487.
    pub max_length: u16,
    /// The multicast group.
    pub group: IpAddr,
    /// The UDP port.
    pub port: u16,
    /// The time to live or hop limit.
    pub ttl: u8,
}

impl Default for SyncSettings {
    fn default() -> Self {
        Self {
            sync_id: 0,
            max_length: default_sync_length(DEFAULT_SYNC_GROUP),
            group: DEFAULT_SYNC_GROUP,
            port: DEFAULT_SYNC_PORT,
            ttl: DEFAULT_SYNC_TTL,
        }
    }
}

/// One of the two connection-sync daemons of a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SyncRole {
    /// Takes over the connections of other directors.
    Backup,
    /// Tells other directors this machine's connections.
    Master,
}

impl SyncRole {
    /// Both. A director has both daemons: only the one with the VIPs has connections to tell, and nothing changes at a failover.
    pub const BOTH: [Self; 2] = [Self::Backup, Self::Master];
}

impl fmt::Display for SyncRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backup => "backup",
            Self::Master => "master",
        })
    }
}

/// A connection-sync daemon that is to run, or that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncDaemon {
    /// The interface of the messages.
    pub interface: InterfaceName,
    /// The other settings.
    pub settings: SyncSettings,
}
