//! The counters inside the attributes of a service or destination, in 32 and in 64 bits.

use netlink_packet_core::{
    DecodeError, DefaultNla, ErrorContext, Nla, NlaBuffer, Parseable, parse_u32, parse_u64,
};

const IPVS_STATS_ATTR_CONNS: u16 = 1;
const IPVS_STATS_ATTR_INPKTS: u16 = 2;
const IPVS_STATS_ATTR_OUTPKTS: u16 = 3;
const IPVS_STATS_ATTR_INBYTES: u16 = 4;
const IPVS_STATS_ATTR_OUTBYTES: u16 = 5;
const IPVS_STATS_ATTR_CPS: u16 = 6;
const IPVS_STATS_ATTR_INPPS: u16 = 7;
const IPVS_STATS_ATTR_OUTPPS: u16 = 8;
const IPVS_STATS_ATTR_INBPS: u16 = 9;
const IPVS_STATS_ATTR_OUTBPS: u16 = 10;

/// A counter inside the `STATS` (`N` = `u32`) or `STATS64` (`N` = `u64`) attribute of a service
/// or destination.
///
/// The two differ only in the width of the generic values. `IPVS_STATS_ATTR_PAD`, which some
/// machines put before a number of 64 bits, is padding, and is kept as [`Other`](Self::Other).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatsAttribute<N> {
    /// Connections scheduled (`IPVS_STATS_ATTR_CONNS`).
    Connections(N),
    /// Packets from clients (`IPVS_STATS_ATTR_INPKTS`).
    InPackets(N),
    /// Packets to clients through this machine (`IPVS_STATS_ATTR_OUTPKTS`).
    OutPackets(N),
    /// Bytes from clients (`IPVS_STATS_ATTR_INBYTES`).
    InBytes(u64),
    /// Bytes to clients through this machine (`IPVS_STATS_ATTR_OUTBYTES`).
    OutBytes(u64),
    /// Connections a second (`IPVS_STATS_ATTR_CPS`).
    ConnectionRate(N),
    /// Packets a second from clients (`IPVS_STATS_ATTR_INPPS`).
    InPacketRate(N),
    /// Packets a second to clients (`IPVS_STATS_ATTR_OUTPPS`).
    OutPacketRate(N),
    /// Bytes a second from clients (`IPVS_STATS_ATTR_INBPS`).
    InByteRate(N),
    /// Bytes a second to clients (`IPVS_STATS_ATTR_OUTBPS`).
    OutByteRate(N),
    /// An attribute that this crate does not know, or padding.
    Other(DefaultNla),
}

/// The width of the numbers in a [`StatsAttribute`]: `u32` or `u64`.
pub trait StatsWidth: Copy + sealed::Number {}

impl StatsWidth for u32 {}
impl StatsWidth for u64 {}

mod sealed {
    use netlink_packet_core::DecodeError;

    pub trait Number: Sized {
        fn parse(value: &[u8]) -> Result<Self, DecodeError>;
        fn emit(self, buffer: &mut [u8]);
    }
}

impl sealed::Number for u32 {
    fn parse(value: &[u8]) -> Result<Self, DecodeError> {
        parse_u32(value)
    }

    fn emit(self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.to_ne_bytes());
    }
}

impl sealed::Number for u64 {
    fn parse(value: &[u8]) -> Result<Self, DecodeError> {
        parse_u64(value)
    }

    fn emit(self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.to_ne_bytes());
    }
}

impl<N: StatsWidth> Nla for StatsAttribute<N> {
    fn value_len(&self) -> usize {
        match self {
            Self::Connections(_)
            | Self::InPackets(_)
            | Self::OutPackets(_)
            | Self::ConnectionRate(_)
            | Self::InPacketRate(_)
            | Self::OutPacketRate(_)
            | Self::InByteRate(_)
            | Self::OutByteRate(_) => size_of::<N>(),
            Self::InBytes(_) | Self::OutBytes(_) => 8,
            Self::Other(nla) => nla.value_len(),
        }
    }

    fn kind(&self) -> u16 {
        match self {
            Self::Connections(_) => IPVS_STATS_ATTR_CONNS,
            Self::InPackets(_) => IPVS_STATS_ATTR_INPKTS,
            Self::OutPackets(_) => IPVS_STATS_ATTR_OUTPKTS,
            Self::InBytes(_) => IPVS_STATS_ATTR_INBYTES,
            Self::OutBytes(_) => IPVS_STATS_ATTR_OUTBYTES,
            Self::ConnectionRate(_) => IPVS_STATS_ATTR_CPS,
            Self::InPacketRate(_) => IPVS_STATS_ATTR_INPPS,
            Self::OutPacketRate(_) => IPVS_STATS_ATTR_OUTPPS,
            Self::InByteRate(_) => IPVS_STATS_ATTR_INBPS,
            Self::OutByteRate(_) => IPVS_STATS_ATTR_OUTBPS,
            Self::Other(nla) => nla.kind(),
        }
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        match self {
            Self::Connections(value)
            | Self::InPackets(value)
            | Self::OutPackets(value)
            | Self::ConnectionRate(value)
            | Self::InPacketRate(value)
            | Self::OutPacketRate(value)
            | Self::InByteRate(value)
            | Self::OutByteRate(value) => value.emit(buffer),
            Self::InBytes(value) | Self::OutBytes(value) => {
                buffer.copy_from_slice(&value.to_ne_bytes());
            }
            Self::Other(nla) => nla.emit_value(buffer),
        }
    }
}

impl<N: StatsWidth> StatsAttribute<N> {
    /// Reads an attribute of this kind, unless the kind is unknown.
    #[inline]
    pub(crate) fn known(kind: u16, value: &[u8]) -> Result<Option<Self>, DecodeError> {
        let number = |name| N::parse(value).context(name);
        Ok(Some(match kind {
            IPVS_STATS_ATTR_CONNS => Self::Connections(number("invalid IPVS_STATS_ATTR_CONNS")?),
            IPVS_STATS_ATTR_INPKTS => Self::InPackets(number("invalid IPVS_STATS_ATTR_INPKTS")?),
            IPVS_STATS_ATTR_OUTPKTS => Self::OutPackets(number("invalid IPVS_STATS_ATTR_OUTPKTS")?),
            IPVS_STATS_ATTR_INBYTES => {
                Self::InBytes(parse_u64(value).context("invalid IPVS_STATS_ATTR_INBYTES")?)
            }
            IPVS_STATS_ATTR_OUTBYTES => {
                Self::OutBytes(parse_u64(value).context("invalid IPVS_STATS_ATTR_OUTBYTES")?)
            }
            IPVS_STATS_ATTR_CPS => Self::ConnectionRate(number("invalid IPVS_STATS_ATTR_CPS")?),
            IPVS_STATS_ATTR_INPPS => Self::InPacketRate(number("invalid IPVS_STATS_ATTR_INPPS")?),
            IPVS_STATS_ATTR_OUTPPS => {
                Self::OutPacketRate(number("invalid IPVS_STATS_ATTR_OUTPPS")?)
            }
            IPVS_STATS_ATTR_INBPS => Self::InByteRate(number("invalid IPVS_STATS_ATTR_INBPS")?),
            IPVS_STATS_ATTR_OUTBPS => Self::OutByteRate(number("invalid IPVS_STATS_ATTR_OUTBPS")?),
            _ => return Ok(None),
        }))
    }
}

impl<'a, N: StatsWidth, T: AsRef<[u8]> + ?Sized> Parseable<NlaBuffer<&'a T>> for StatsAttribute<N> {
    fn parse(nla: &NlaBuffer<&'a T>) -> Result<Self, DecodeError> {
        match Self::known(nla.kind(), nla.value())? {
            Some(attribute) => Ok(attribute),
            None => DefaultNla::parse(nla).map(Self::Other),
        }
    }
}
