//! The attributes of a destination.

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, ErrorContext, Nla, NlaBuffer, Parseable, parse_ipv6,
    parse_u8, parse_u16, parse_u16_be, parse_u32,
};

use super::{StatsAttribute, nested::parse_nested};

const IPVS_DEST_ATTR_ADDR: u16 = 1;
const IPVS_DEST_ATTR_PORT: u16 = 2;
const IPVS_DEST_ATTR_FWD_METHOD: u16 = 3;
const IPVS_DEST_ATTR_WEIGHT: u16 = 4;
const IPVS_DEST_ATTR_U_THRESH: u16 = 5;
const IPVS_DEST_ATTR_L_THRESH: u16 = 6;
const IPVS_DEST_ATTR_ACTIVE_CONNS: u16 = 7;
const IPVS_DEST_ATTR_INACT_CONNS: u16 = 8;
const IPVS_DEST_ATTR_PERSIST_CONNS: u16 = 9;
pub(crate) const IPVS_DEST_ATTR_STATS: u16 = 10;
const IPVS_DEST_ATTR_ADDR_FAMILY: u16 = 11;
pub(crate) const IPVS_DEST_ATTR_STATS64: u16 = 12;
const IPVS_DEST_ATTR_TUN_TYPE: u16 = 13;
const IPVS_DEST_ATTR_TUN_PORT: u16 = 14;
const IPVS_DEST_ATTR_TUN_FLAGS: u16 = 15;

/// An attribute inside [`IpvsAttribute::Destination`](super::IpvsAttribute::Destination).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DestinationAttribute {
    /// The address of the real server as `union nf_inet_addr`: 16 bytes, of which IPv4 uses the
    /// first four (`IPVS_DEST_ATTR_ADDR`).
    Address([u8; 16]),
    /// The port of the real server; network order on the wire (`IPVS_DEST_ATTR_PORT`).
    Port(u16),
    /// `IP_VS_CONN_F_*`; the three lowest bits are the forwarding method
    /// (`IPVS_DEST_ATTR_FWD_METHOD`).
    ForwardingMethod(u32),
    /// The weight (`IPVS_DEST_ATTR_WEIGHT`).
    Weight(u32),
    /// The number of connections above which the destination gets no new ones; 0 is no limit
    /// (`IPVS_DEST_ATTR_U_THRESH`).
    UpperThreshold(u32),
    /// The number of connections below which an overloaded destination gets new ones again
    /// (`IPVS_DEST_ATTR_L_THRESH`).
    LowerThreshold(u32),
    /// The number of active connections (`IPVS_DEST_ATTR_ACTIVE_CONNS`).
    ActiveConnections(u32),
    /// The number of inactive connections (`IPVS_DEST_ATTR_INACT_CONNS`).
    InactiveConnections(u32),
    /// The number of persistence templates (`IPVS_DEST_ATTR_PERSIST_CONNS`).
    PersistentConnections(u32),
    /// Counters, 32 bits wide but for the bytes (`IPVS_DEST_ATTR_STATS`).
    Stats(Vec<StatsAttribute<u32>>),
    /// `AF_INET` or `AF_INET6`; the family of the service when absent
    /// (`IPVS_DEST_ATTR_ADDR_FAMILY`).
    AddressFamily(u16),
    /// Counters, 64 bits wide, since Linux 4.1 (`IPVS_DEST_ATTR_STATS64`).
    Stats64(Vec<StatsAttribute<u64>>),
    /// `IP_VS_CONN_F_TUNNEL_TYPE_*`, since Linux 5.2 (`IPVS_DEST_ATTR_TUN_TYPE`).
    TunnelType(u8),
    /// The UDP port of the tunnel; network order on the wire (`IPVS_DEST_ATTR_TUN_PORT`).
    TunnelPort(u16),
    /// `IP_VS_TUNNEL_ENCAP_FLAG_*`, since Linux 5.3 (`IPVS_DEST_ATTR_TUN_FLAGS`).
    TunnelFlags(u16),
    /// An attribute that this crate does not know.
    Other(DefaultNla),
}

impl Nla for DestinationAttribute {
    fn value_len(&self) -> usize {
        match self {
            Self::TunnelType(_) => 1,
            Self::Port(_) | Self::AddressFamily(_) | Self::TunnelPort(_) | Self::TunnelFlags(_) => {
                2
            }
            Self::ForwardingMethod(_)
            | Self::Weight(_)
            | Self::UpperThreshold(_)
            | Self::LowerThreshold(_)
            | Self::ActiveConnections(_)
            | Self::InactiveConnections(_)
            | Self::PersistentConnections(_) => 4,
            Self::Address(_) => 16,
            Self::Stats(nlas) => nlas.as_slice().buffer_len(),
            Self::Stats64(nlas) => nlas.as_slice().buffer_len(),
            Self::Other(nla) => nla.value_len(),
        }
    }

    fn kind(&self) -> u16 {
        match self {
            Self::Address(_) => IPVS_DEST_ATTR_ADDR,
            Self::Port(_) => IPVS_DEST_ATTR_PORT,
            Self::ForwardingMethod(_) => IPVS_DEST_ATTR_FWD_METHOD,
            Self::Weight(_) => IPVS_DEST_ATTR_WEIGHT,
            Self::UpperThreshold(_) => IPVS_DEST_ATTR_U_THRESH,
            Self::LowerThreshold(_) => IPVS_DEST_ATTR_L_THRESH,
            Self::ActiveConnections(_) => IPVS_DEST_ATTR_ACTIVE_CONNS,
            Self::InactiveConnections(_) => IPVS_DEST_ATTR_INACT_CONNS,
            Self::PersistentConnections(_) => IPVS_DEST_ATTR_PERSIST_CONNS,
            Self::Stats(_) => IPVS_DEST_ATTR_STATS,
            Self::AddressFamily(_) => IPVS_DEST_ATTR_ADDR_FAMILY,
            Self::Stats64(_) => IPVS_DEST_ATTR_STATS64,
            Self::TunnelType(_) => IPVS_DEST_ATTR_TUN_TYPE,
            Self::TunnelPort(_) => IPVS_DEST_ATTR_TUN_PORT,
            Self::TunnelFlags(_) => IPVS_DEST_ATTR_TUN_FLAGS,
            Self::Other(nla) => nla.kind(),
        }
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        match self {
            Self::Address(bytes) => buffer.copy_from_slice(bytes),
            Self::TunnelType(value) => buffer.copy_from_slice(&[*value]),
            Self::Port(value) | Self::TunnelPort(value) => {
                buffer.copy_from_slice(&value.to_be_bytes());
            }
            Self::AddressFamily(value) | Self::TunnelFlags(value) => {
                buffer.copy_from_slice(&value.to_ne_bytes());
            }
            Self::ForwardingMethod(value)
            | Self::Weight(value)
            | Self::UpperThreshold(value)
            | Self::LowerThreshold(value)
            | Self::ActiveConnections(value)
            | Self::InactiveConnections(value)
            | Self::PersistentConnections(value) => buffer.copy_from_slice(&value.to_ne_bytes()),
            Self::Stats(nlas) => nlas.as_slice().emit(buffer),
            Self::Stats64(nlas) => nlas.as_slice().emit(buffer),
            Self::Other(nla) => nla.emit_value(buffer),
        }
    }
}

impl DestinationAttribute {
    /// Reads an attribute of this kind, unless the kind is unknown.
    #[inline]
    pub(crate) fn known(kind: u16, value: &[u8]) -> Result<Option<Self>, DecodeError> {
        Ok(Some(match kind {
            IPVS_DEST_ATTR_ADDR => {
                Self::Address(parse_ipv6(value).context("invalid IPVS_DEST_ATTR_ADDR")?)
            }
            IPVS_DEST_ATTR_PORT => {
                Self::Port(parse_u16_be(value).context("invalid IPVS_DEST_ATTR_PORT")?)
            }
            IPVS_DEST_ATTR_FWD_METHOD => Self::ForwardingMethod(
                parse_u32(value).context("invalid IPVS_DEST_ATTR_FWD_METHOD")?,
            ),
            IPVS_DEST_ATTR_WEIGHT => {
                Self::Weight(parse_u32(value).context("invalid IPVS_DEST_ATTR_WEIGHT")?)
            }
            IPVS_DEST_ATTR_U_THRESH => {
                Self::UpperThreshold(parse_u32(value).context("invalid IPVS_DEST_ATTR_U_THRESH")?)
            }
            IPVS_DEST_ATTR_L_THRESH => {
                Self::LowerThreshold(parse_u32(value).context("invalid IPVS_DEST_ATTR_L_THRESH")?)
            }
            IPVS_DEST_ATTR_ACTIVE_CONNS => Self::ActiveConnections(
                parse_u32(value).context("invalid IPVS_DEST_ATTR_ACTIVE_CONNS")?,
            ),
            IPVS_DEST_ATTR_INACT_CONNS => Self::InactiveConnections(
                parse_u32(value).context("invalid IPVS_DEST_ATTR_INACT_CONNS")?,
            ),
            IPVS_DEST_ATTR_PERSIST_CONNS => Self::PersistentConnections(
                parse_u32(value).context("invalid IPVS_DEST_ATTR_PERSIST_CONNS")?,
            ),
            IPVS_DEST_ATTR_STATS => {
                Self::Stats(parse_nested(value).context("invalid IPVS_DEST_ATTR_STATS")?)
            }
            IPVS_DEST_ATTR_ADDR_FAMILY => {
                Self::AddressFamily(parse_u16(value).context("invalid IPVS_DEST_ATTR_ADDR_FAMILY")?)
            }
            IPVS_DEST_ATTR_STATS64 => {
                Self::Stats64(parse_nested(value).context("invalid IPVS_DEST_ATTR_STATS64")?)
            }
            IPVS_DEST_ATTR_TUN_TYPE => {
                Self::TunnelType(parse_u8(value).context("invalid IPVS_DEST_ATTR_TUN_TYPE")?)
            }
            IPVS_DEST_ATTR_TUN_PORT => {
                Self::TunnelPort(parse_u16_be(value).context("invalid IPVS_DEST_ATTR_TUN_PORT")?)
            }
            IPVS_DEST_ATTR_TUN_FLAGS => {
                Self::TunnelFlags(parse_u16(value).context("invalid IPVS_DEST_ATTR_TUN_FLAGS")?)
            }
            _ => return Ok(None),
        }))
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> Parseable<NlaBuffer<&'a T>> for DestinationAttribute {
    fn parse(nla: &NlaBuffer<&'a T>) -> Result<Self, DecodeError> {
        match Self::known(nla.kind(), nla.value())? {
            Some(attribute) => Ok(attribute),
            None => DefaultNla::parse(nla).map(Self::Other),
        }
    }
}
