//! The attributes of the first level of a message.

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, ErrorContext, Nla, NlaBuffer, Parseable,
    ParseableParametrized, parse_u32,
};

use super::{
    DaemonAttribute, DestinationAttribute, IpvsCommand, ServiceAttribute, nested::parse_nested,
};

pub(crate) const IPVS_CMD_ATTR_SERVICE: u16 = 1;
pub(crate) const IPVS_CMD_ATTR_DEST: u16 = 2;
pub(crate) const IPVS_CMD_ATTR_DAEMON: u16 = 3;
const IPVS_CMD_ATTR_TIMEOUT_TCP: u16 = 4;
const IPVS_CMD_ATTR_TIMEOUT_TCP_FIN: u16 = 5;
const IPVS_CMD_ATTR_TIMEOUT_UDP: u16 = 6;

const IPVS_INFO_ATTR_VERSION: u16 = 1;
const IPVS_INFO_ATTR_CONN_TAB_SIZE: u16 = 2;

/// An attribute of the first level.
///
/// The numbers of `IPVS_INFO_ATTR_*` overlap those of `IPVS_CMD_ATTR_*`; the command decides which
/// of them a number means, so parsing takes the command as a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IpvsAttribute {
    /// A service, or the key of one (`IPVS_CMD_ATTR_SERVICE`).
    Service(Vec<ServiceAttribute>),
    /// A destination, or the key of one (`IPVS_CMD_ATTR_DEST`).
    Destination(Vec<DestinationAttribute>),
    /// A sync daemon, or only its state (`IPVS_CMD_ATTR_DAEMON`).
    Daemon(Vec<DaemonAttribute>),
    /// Idle timeout of TCP connections in seconds; 0 keeps the present one
    /// (`IPVS_CMD_ATTR_TIMEOUT_TCP`).
    TimeoutTcp(u32),
    /// Timeout of TCP connections after a FIN in seconds; 0 keeps the present one
    /// (`IPVS_CMD_ATTR_TIMEOUT_TCP_FIN`).
    TimeoutTcpFin(u32),
    /// Idle timeout of UDP flows in seconds; 0 keeps the present one
    /// (`IPVS_CMD_ATTR_TIMEOUT_UDP`).
    TimeoutUdp(u32),
    /// The version of IPVS as `0x00MMmmpp` (`IPVS_INFO_ATTR_VERSION`), in answers to
    /// [`IpvsCommand::GetInfo`] only.
    Version(u32),
    /// The number of buckets of the connection table (`IPVS_INFO_ATTR_CONN_TAB_SIZE`), in answers
    /// to [`IpvsCommand::GetInfo`] only.
    ConnectionTableSize(u32),
    /// An attribute that this crate does not know.
    Other(DefaultNla),
}

impl Nla for IpvsAttribute {
    fn value_len(&self) -> usize {
        match self {
            Self::Service(nlas) => nlas.as_slice().buffer_len(),
            Self::Destination(nlas) => nlas.as_slice().buffer_len(),
            Self::Daemon(nlas) => nlas.as_slice().buffer_len(),
            Self::TimeoutTcp(_)
            | Self::TimeoutTcpFin(_)
            | Self::TimeoutUdp(_)
            | Self::Version(_)
            | Self::ConnectionTableSize(_) => 4,
            Self::Other(nla) => nla.value_len(),
        }
    }

    fn kind(&self) -> u16 {
        match self {
            Self::Service(_) => IPVS_CMD_ATTR_SERVICE,
            Self::Destination(_) => IPVS_CMD_ATTR_DEST,
            Self::Daemon(_) => IPVS_CMD_ATTR_DAEMON,
            Self::TimeoutTcp(_) => IPVS_CMD_ATTR_TIMEOUT_TCP,
            Self::TimeoutTcpFin(_) => IPVS_CMD_ATTR_TIMEOUT_TCP_FIN,
            Self::TimeoutUdp(_) => IPVS_CMD_ATTR_TIMEOUT_UDP,
            Self::Version(_) => IPVS_INFO_ATTR_VERSION,
            Self::ConnectionTableSize(_) => IPVS_INFO_ATTR_CONN_TAB_SIZE,
            Self::Other(nla) => nla.kind(),
        }
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        match self {
            Self::Service(nlas) => nlas.as_slice().emit(buffer),
            Self::Destination(nlas) => nlas.as_slice().emit(buffer),
            Self::Daemon(nlas) => nlas.as_slice().emit(buffer),
            Self::TimeoutTcp(value)
            | Self::TimeoutTcpFin(value)
            | Self::TimeoutUdp(value)
            | Self::Version(value)
            | Self::ConnectionTableSize(value) => buffer.copy_from_slice(&value.to_ne_bytes()),
            Self::Other(nla) => nla.emit_value(buffer),
        }
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> ParseableParametrized<NlaBuffer<&'a T>, IpvsCommand>
    for IpvsAttribute
{
    fn parse_with_param(nla: &NlaBuffer<&'a T>, command: IpvsCommand) -> Result<Self, DecodeError> {
        if command == IpvsCommand::SetInfo {
            parse_info(nla)
        } else {
            parse_command(nla)
        }
    }
}

fn parse_command<T: AsRef<[u8]> + ?Sized>(
    nla: &NlaBuffer<&T>,
) -> Result<IpvsAttribute, DecodeError> {
    let value = nla.value();
    Ok(match nla.kind() {
        IPVS_CMD_ATTR_SERVICE => {
            IpvsAttribute::Service(parse_nested(value).context("invalid IPVS_CMD_ATTR_SERVICE")?)
        }
        IPVS_CMD_ATTR_DEST => {
            IpvsAttribute::Destination(parse_nested(value).context("invalid IPVS_CMD_ATTR_DEST")?)
        }
        IPVS_CMD_ATTR_DAEMON => {
            IpvsAttribute::Daemon(parse_nested(value).context("invalid IPVS_CMD_ATTR_DAEMON")?)
        }
        IPVS_CMD_ATTR_TIMEOUT_TCP => IpvsAttribute::TimeoutTcp(
            parse_u32(value).context("invalid IPVS_CMD_ATTR_TIMEOUT_TCP")?,
        ),
        IPVS_CMD_ATTR_TIMEOUT_TCP_FIN => IpvsAttribute::TimeoutTcpFin(
            parse_u32(value).context("invalid IPVS_CMD_ATTR_TIMEOUT_TCP_FIN")?,
        ),
        IPVS_CMD_ATTR_TIMEOUT_UDP => IpvsAttribute::TimeoutUdp(
            parse_u32(value).context("invalid IPVS_CMD_ATTR_TIMEOUT_UDP")?,
        ),
        _ => IpvsAttribute::Other(DefaultNla::parse(nla)?),
    })
}

fn parse_info<T: AsRef<[u8]> + ?Sized>(nla: &NlaBuffer<&T>) -> Result<IpvsAttribute, DecodeError> {
    let value = nla.value();
    Ok(match nla.kind() {
        IPVS_INFO_ATTR_VERSION => {
            IpvsAttribute::Version(parse_u32(value).context("invalid IPVS_INFO_ATTR_VERSION")?)
        }
        IPVS_INFO_ATTR_CONN_TAB_SIZE => IpvsAttribute::ConnectionTableSize(
            parse_u32(value).context("invalid IPVS_INFO_ATTR_CONN_TAB_SIZE")?,
        ),
        _ => IpvsAttribute::Other(DefaultNla::parse(nla)?),
    })
}
