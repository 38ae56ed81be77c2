//! The commands of the family.

use std::fmt;

use netlink_packet_core::DecodeError;

/// A command of the family, `IPVS_CMD_*`.
///
/// Its text describes the command in error messages: "create service".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum IpvsCommand {
    /// Adds a service, or describes one in an answer (`IPVS_CMD_NEW_SERVICE`).
    NewService,
    /// Changes a service in place (`IPVS_CMD_SET_SERVICE`).
    SetService,
    /// Removes a service and its destinations (`IPVS_CMD_DEL_SERVICE`).
    DelService,
    /// Reads one service, or all of them as a dump (`IPVS_CMD_GET_SERVICE`).
    GetService,
    /// Adds a destination, or describes one in an answer (`IPVS_CMD_NEW_DEST`).
    NewDest,
    /// Changes a destination in place (`IPVS_CMD_SET_DEST`).
    SetDest,
    /// Removes a destination (`IPVS_CMD_DEL_DEST`).
    DelDest,
    /// Reads the destinations of a service, as a dump only (`IPVS_CMD_GET_DEST`).
    GetDest,
    /// Starts a sync daemon, or describes one in an answer (`IPVS_CMD_NEW_DAEMON`).
    NewDaemon,
    /// Stops a sync daemon (`IPVS_CMD_DEL_DAEMON`).
    DelDaemon,
    /// Reads the running sync daemons, as a dump only (`IPVS_CMD_GET_DAEMON`).
    GetDaemon,
    /// Sets the timeouts, or carries them in an answer (`IPVS_CMD_SET_CONFIG`).
    SetConfig,
    /// Reads the timeouts (`IPVS_CMD_GET_CONFIG`).
    GetConfig,
    /// The answer to [`GetInfo`](Self::GetInfo), never a request (`IPVS_CMD_SET_INFO`).
    SetInfo,
    /// Reads version and table size (`IPVS_CMD_GET_INFO`).
    GetInfo,
    /// Zeroes the counters of one service or of all (`IPVS_CMD_ZERO`).
    Zero,
    /// Removes every service of the network namespace (`IPVS_CMD_FLUSH`).
    Flush,
}

const IPVS_CMD_NEW_SERVICE: u8 = 1;
const IPVS_CMD_SET_SERVICE: u8 = 2;
const IPVS_CMD_DEL_SERVICE: u8 = 3;
const IPVS_CMD_GET_SERVICE: u8 = 4;
const IPVS_CMD_NEW_DEST: u8 = 5;
const IPVS_CMD_SET_DEST: u8 = 6;
const IPVS_CMD_DEL_DEST: u8 = 7;
const IPVS_CMD_GET_DEST: u8 = 8;
const IPVS_CMD_NEW_DAEMON: u8 = 9;
const IPVS_CMD_DEL_DAEMON: u8 = 10;
const IPVS_CMD_GET_DAEMON: u8 = 11;
const IPVS_CMD_SET_CONFIG: u8 = 12;
const IPVS_CMD_GET_CONFIG: u8 = 13;
const IPVS_CMD_SET_INFO: u8 = 14;
const IPVS_CMD_GET_INFO: u8 = 15;
const IPVS_CMD_ZERO: u8 = 16;
const IPVS_CMD_FLUSH: u8 = 17;

impl From<IpvsCommand> for u8 {
    fn from(command: IpvsCommand) -> Self {
        match command {
            IpvsCommand::NewService => IPVS_CMD_NEW_SERVICE,
            IpvsCommand::SetService => IPVS_CMD_SET_SERVICE,
            IpvsCommand::DelService => IPVS_CMD_DEL_SERVICE,
            IpvsCommand::GetService => IPVS_CMD_GET_SERVICE,
            IpvsCommand::NewDest => IPVS_CMD_NEW_DEST,
            IpvsCommand::SetDest => IPVS_CMD_SET_DEST,
            IpvsCommand::DelDest => IPVS_CMD_DEL_DEST,
            IpvsCommand::GetDest => IPVS_CMD_GET_DEST,
            IpvsCommand::NewDaemon => IPVS_CMD_NEW_DAEMON,
            IpvsCommand::DelDaemon => IPVS_CMD_DEL_DAEMON,
            IpvsCommand::GetDaemon => IPVS_CMD_GET_DAEMON,
            IpvsCommand::SetConfig => IPVS_CMD_SET_CONFIG,
            IpvsCommand::GetConfig => IPVS_CMD_GET_CONFIG,
            IpvsCommand::SetInfo => IPVS_CMD_SET_INFO,
            IpvsCommand::GetInfo => IPVS_CMD_GET_INFO,
            IpvsCommand::Zero => IPVS_CMD_ZERO,
            IpvsCommand::Flush => IPVS_CMD_FLUSH,
        }
    }
}

impl TryFrom<u8> for IpvsCommand {
    type Error = DecodeError;

    fn try_from(number: u8) -> Result<Self, DecodeError> {
        Ok(match number {
            IPVS_CMD_NEW_SERVICE => Self::NewService,
            IPVS_CMD_SET_SERVICE => Self::SetService,
            IPVS_CMD_DEL_SERVICE => Self::DelService,
            IPVS_CMD_GET_SERVICE => Self::GetService,
            IPVS_CMD_NEW_DEST => Self::NewDest,
            IPVS_CMD_SET_DEST => Self::SetDest,
            IPVS_CMD_DEL_DEST => Self::DelDest,
            IPVS_CMD_GET_DEST => Self::GetDest,
            IPVS_CMD_NEW_DAEMON => Self::NewDaemon,
            IPVS_CMD_DEL_DAEMON => Self::DelDaemon,
            IPVS_CMD_GET_DAEMON => Self::GetDaemon,
            IPVS_CMD_SET_CONFIG => Self::SetConfig,
            IPVS_CMD_GET_CONFIG => Self::GetConfig,
            IPVS_CMD_SET_INFO => Self::SetInfo,
            IPVS_CMD_GET_INFO => Self::GetInfo,
            IPVS_CMD_ZERO => Self::Zero,
            IPVS_CMD_FLUSH => Self::Flush,
            other => return Err(format!("unknown IPVS command {other}").into()),
        })
    }
}

impl fmt::Display for IpvsCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NewService => "create service",
            Self::SetService => "update service",
            Self::DelService => "delete service",
            Self::GetService => "read services",
            Self::NewDest => "create destination",
            Self::SetDest => "update destination",
            Self::DelDest => "delete destination",
            Self::GetDest => "read destinations",
            Self::NewDaemon => "start sync daemon",
            Self::DelDaemon => "stop sync daemon",
            Self::GetDaemon => "read sync daemons",
            Self::SetConfig => "set timeouts",
            Self::GetConfig => "read timeouts",
            Self::SetInfo => "set information",
            Self::GetInfo => "read information",
            Self::Zero => "zero counters",
            Self::Flush => "flush services",
        })
    }
}
