//! The attributes of a connection-sync daemon.

use std::net::{Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{
    DecodeError, DefaultNla, ErrorContext, Nla, NlaBuffer, Parseable, parse_ipv6, parse_u8,
    parse_u16, parse_u32, parse_u32_be,
};

use crate::Name;

const IPVS_DAEMON_ATTR_STATE: u16 = 1;
const IPVS_DAEMON_ATTR_MCAST_IFN: u16 = 2;
const IPVS_DAEMON_ATTR_SYNC_ID: u16 = 3;
const IPVS_DAEMON_ATTR_SYNC_MAXLEN: u16 = 4;
const IPVS_DAEMON_ATTR_MCAST_GROUP: u16 = 5;
const IPVS_DAEMON_ATTR_MCAST_GROUP6: u16 = 6;
const IPVS_DAEMON_ATTR_MCAST_PORT: u16 = 7;
const IPVS_DAEMON_ATTR_MCAST_TTL: u16 = 8;

/// An attribute inside [`IpvsAttribute::Daemon`](super::IpvsAttribute::Daemon).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DaemonAttribute {
    /// `IP_VS_STATE_MASTER` (1) or `IP_VS_STATE_BACKUP` (2) (`IPVS_DAEMON_ATTR_STATE`).
    State(u32),
    /// The interface of the sync messages (`IPVS_DAEMON_ATTR_MCAST_IFN`).
    Interface(Name),
    /// The number that master and backup share (`IPVS_DAEMON_ATTR_SYNC_ID`).
    SyncId(u32),
    /// The largest UDP payload in bytes (`IPVS_DAEMON_ATTR_SYNC_MAXLEN`).
    MaxLength(u16),
    /// The IPv4 multicast group (`IPVS_DAEMON_ATTR_MCAST_GROUP`).
    Group(Ipv4Addr),
    /// The IPv6 multicast group (`IPVS_DAEMON_ATTR_MCAST_GROUP6`).
    Group6(Ipv6Addr),
    /// The UDP port, host order on the wire (`IPVS_DAEMON_ATTR_MCAST_PORT`).
    Port(u16),
    /// The time to live or hop limit (`IPVS_DAEMON_ATTR_MCAST_TTL`).
    Ttl(u8),
    /// An attribute that this crate does not know.
    Other(DefaultNla),
}

impl Nla for DaemonAttribute {
    fn value_len(&self) -> usize {
        match self {
            Self::Ttl(_) => 1,
            Self::MaxLength(_) | Self::Port(_) => 2,
            Self::State(_) | Self::SyncId(_) | Self::Group(_) => 4,
            Self::Group6(_) => 16,
            Self::Interface(name) => name.wire_len(),
            Self::Other(nla) => nla.value_len(),
        }
    }

    fn kind(&self) -> u16 {
        match self {
            Self::State(_) => IPVS_DAEMON_ATTR_STATE,
            Self::Interface(_) => IPVS_DAEMON_ATTR_MCAST_IFN,
            Self::SyncId(_) => IPVS_DAEMON_ATTR_SYNC_ID,
            Self::MaxLength(_) => IPVS_DAEMON_ATTR_SYNC_MAXLEN,
            Self::Group(_) => IPVS_DAEMON_ATTR_MCAST_GROUP,
            Self::Group6(_) => IPVS_DAEMON_ATTR_MCAST_GROUP6,
            Self::Port(_) => IPVS_DAEMON_ATTR_MCAST_PORT,
            Self::Ttl(_) => IPVS_DAEMON_ATTR_MCAST_TTL,
            Self::Other(nla) => nla.kind(),
        }
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        match self {
            Self::State(value) | Self::SyncId(value) => {
                buffer.copy_from_slice(&value.to_ne_bytes());
            }
            Self::Interface(name) => name.emit(buffer),
            Self::MaxLength(value) | Self::Port(value) => {
                buffer.copy_from_slice(&value.to_ne_bytes());
            }
            Self::Group(group) => buffer.copy_from_slice(&group.octets()),
            Self::Group6(group) => buffer.copy_from_slice(&group.octets()),
            Self::Ttl(value) => buffer.copy_from_slice(&[*value]),
            Self::Other(nla) => nla.emit_value(buffer),
        }
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> Parseable<NlaBuffer<&'a T>> for DaemonAttribute {
    fn parse(nla: &NlaBuffer<&'a T>) -> Result<Self, DecodeError> {
        let value = nla.value();
        Ok(match nla.kind() {
            IPVS_DAEMON_ATTR_STATE => {
                Self::State(parse_u32(value).context("invalid IPVS_DAEMON_ATTR_STATE")?)
            }
            IPVS_DAEMON_ATTR_MCAST_IFN => {
                Self::Interface(Name::parse(value).context("invalid IPVS_DAEMON_ATTR_MCAST_IFN")?)
            }
            IPVS_DAEMON_ATTR_SYNC_ID => {
                Self::SyncId(parse_u32(value).context("invalid IPVS_DAEMON_ATTR_SYNC_ID")?)
            }
            IPVS_DAEMON_ATTR_SYNC_MAXLEN => {
                Self::MaxLength(parse_u16(value).context("invalid IPVS_DAEMON_ATTR_SYNC_MAXLEN")?)
            }
            IPVS_DAEMON_ATTR_MCAST_GROUP => Self::Group(
                parse_u32_be(value)
                    .context("invalid IPVS_DAEMON_ATTR_MCAST_GROUP")?
                    .into(),
            ),
            IPVS_DAEMON_ATTR_MCAST_GROUP6 => Self::Group6(
                parse_ipv6(value)
                    .context("invalid IPVS_DAEMON_ATTR_MCAST_GROUP6")?
                    .into(),
            ),
            IPVS_DAEMON_ATTR_MCAST_PORT => {
                Self::Port(parse_u16(value).context("invalid IPVS_DAEMON_ATTR_MCAST_PORT")?)
            }
            IPVS_DAEMON_ATTR_MCAST_TTL => {
                Self::Ttl(parse_u8(value).context("invalid IPVS_DAEMON_ATTR_MCAST_TTL")?)
            }
            _ => Self::Other(DefaultNla::parse(nla)?),
        })
    }
}
