//! The attributes of a virtual service.

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, ErrorContext, Nla, NlaBuffer, Parseable, parse_ipv6,
    parse_u16, parse_u16_be, parse_u32,
};

use super::{StatsAttribute, nested::parse_nested};
use crate::Name;

const IPVS_SVC_ATTR_AF: u16 = 1;
const IPVS_SVC_ATTR_PROTOCOL: u16 = 2;
const IPVS_SVC_ATTR_ADDR: u16 = 3;
const IPVS_SVC_ATTR_PORT: u16 = 4;
const IPVS_SVC_ATTR_FWMARK: u16 = 5;
const IPVS_SVC_ATTR_SCHED_NAME: u16 = 6;
const IPVS_SVC_ATTR_FLAGS: u16 = 7;
const IPVS_SVC_ATTR_TIMEOUT: u16 = 8;
const IPVS_SVC_ATTR_NETMASK: u16 = 9;
pub(crate) const IPVS_SVC_ATTR_STATS: u16 = 10;
const IPVS_SVC_ATTR_PE_NAME: u16 = 11;
pub(crate) const IPVS_SVC_ATTR_STATS64: u16 = 12;

/// An attribute inside [`IpvsAttribute::Service`](super::IpvsAttribute::Service).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceAttribute {
    /// `AF_INET` or `AF_INET6` (`IPVS_SVC_ATTR_AF`).
    AddressFamily(u16),
    /// The IP protocol number, host order (`IPVS_SVC_ATTR_PROTOCOL`).
    Protocol(u16),
    /// The virtual address as `union nf_inet_addr`: 16 bytes, of which IPv4 uses the first four
    /// (`IPVS_SVC_ATTR_ADDR`).
    Address([u8; 16]),
    /// The virtual port; network order on the wire (`IPVS_SVC_ATTR_PORT`).
    Port(u16),
    /// The firewall mark (`IPVS_SVC_ATTR_FWMARK`).
    Fwmark(u32),
    /// The name of the scheduler (`IPVS_SVC_ATTR_SCHED_NAME`).
    Scheduler(Name),
    /// `IP_VS_SVC_F_*` with their mask (`IPVS_SVC_ATTR_FLAGS`).
    Flags(FlagsAndMask),
    /// The persistence timeout in seconds (`IPVS_SVC_ATTR_TIMEOUT`).
    Timeout(u32),
    /// The four bytes of the persistence granularity as in the kernel's memory: for IPv4 a netmask
    /// in network order, for IPv6 a prefix length in host order (`IPVS_SVC_ATTR_NETMASK`).
    Netmask([u8; 4]),
    /// Counters, 32 bits wide but for the bytes (`IPVS_SVC_ATTR_STATS`).
    Stats(Vec<StatsAttribute<u32>>),
    /// The name of the persistence engine (`IPVS_SVC_ATTR_PE_NAME`).
    PersistenceEngine(Name),
    /// Counters, 64 bits wide, since Linux 4.1 (`IPVS_SVC_ATTR_STATS64`).
    Stats64(Vec<StatsAttribute<u64>>),
    /// An attribute that this crate does not know.
    Other(DefaultNla),
}

/// `struct ip_vs_flags`: the flags of a service, and a mask that selects the flags to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlagsAndMask {
    /// `IP_VS_SVC_F_*`.
    pub flags: u32,
    /// The bits of `flags` that the kernel sets or clears; all ones in answers.
    pub mask: u32,
}

impl FlagsAndMask {
    fn to_bytes(self) -> [u8; 8] {
        let [a, b, c, d] = self.flags.to_ne_bytes();
        let [e, f, g, h] = self.mask.to_ne_bytes();
        [a, b, c, d, e, f, g, h]
    }

    fn parse(value: &[u8]) -> Result<Self, DecodeError> {
        let (flags, mask) = value
            .split_at_checked(4)
            .ok_or_else(|| DecodeError::invalid_number(8, value.len()))?;
        Ok(Self {
            flags: parse_u32(flags)?,
            mask: parse_u32(mask)?,
        })
    }
}

impl Nla for ServiceAttribute {
    fn value_len(&self) -> usize {
        match self {
            Self::AddressFamily(_) | Self::Protocol(_) | Self::Port(_) => 2,
            Self::Fwmark(_) | Self::Timeout(_) | Self::Netmask(_) => 4,
            Self::Flags(_) => 8,
            Self::Address(_) => 16,
            Self::Scheduler(name) | Self::PersistenceEngine(name) => name.wire_len(),
            Self::Stats(nlas) => nlas.as_slice().buffer_len(),
            Self::Stats64(nlas) => nlas.as_slice().buffer_len(),
            Self::Other(nla) => nla.value_len(),
        }
    }

    fn kind(&self) -> u16 {
        match self {
            Self::AddressFamily(_) => IPVS_SVC_ATTR_AF,
            Self::Protocol(_) => IPVS_SVC_ATTR_PROTOCOL,
            Self::Address(_) => IPVS_SVC_ATTR_ADDR,
            Self::Port(_) => IPVS_SVC_ATTR_PORT,
            Self::Fwmark(_) => IPVS_SVC_ATTR_FWMARK,
            Self::Scheduler(_) => IPVS_SVC_ATTR_SCHED_NAME,
            Self::Flags(_) => IPVS_SVC_ATTR_FLAGS,
            Self::Timeout(_) => IPVS_SVC_ATTR_TIMEOUT,
            Self::Netmask(_) => IPVS_SVC_ATTR_NETMASK,
            Self::Stats(_) => IPVS_SVC_ATTR_STATS,
            Self::PersistenceEngine(_) => IPVS_SVC_ATTR_PE_NAME,
            Self::Stats64(_) => IPVS_SVC_ATTR_STATS64,
            Self::Other(nla) => nla.kind(),
        }
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        match self {
            Self::AddressFamily(value) | Self::Protocol(value) => {
                buffer.copy_from_slice(&value.to_ne_bytes());
            }
            Self::Port(value) => buffer.copy_from_slice(&value.to_be_bytes()),
            Self::Fwmark(value) | Self::Timeout(value) => {
                buffer.copy_from_slice(&value.to_ne_bytes());
            }
            Self::Netmask(bytes) => buffer.copy_from_slice(bytes),
            Self::Flags(flags) => buffer.copy_from_slice(&flags.to_bytes()),
            Self::Address(bytes) => buffer.copy_from_slice(bytes),
            Self::Scheduler(name) | Self::PersistenceEngine(name) => name.emit(buffer),
            Self::Stats(nlas) => nlas.as_slice().emit(buffer),
            Self::Stats64(nlas) => nlas.as_slice().emit(buffer),
            Self::Other(nla) => nla.emit_value(buffer),
        }
    }
}

impl ServiceAttribute {
    /// Reads an attribute of this kind, unless the kind is unknown.
    #[inline]
    pub(crate) fn known(kind: u16, value: &[u8]) -> Result<Option<Self>, DecodeError> {
        Ok(Some(match kind {
            IPVS_SVC_ATTR_AF => {
                Self::AddressFamily(parse_u16(value).context("invalid IPVS_SVC_ATTR_AF")?)
            }
            IPVS_SVC_ATTR_PROTOCOL => {
                Self::Protocol(parse_u16(value).context("invalid IPVS_SVC_ATTR_PROTOCOL")?)
            }
            IPVS_SVC_ATTR_ADDR => {
                Self::Address(parse_ipv6(value).context("invalid IPVS_SVC_ATTR_ADDR")?)
            }
            IPVS_SVC_ATTR_PORT => {
                Self::Port(parse_u16_be(value).context("invalid IPVS_SVC_ATTR_PORT")?)
            }
            IPVS_SVC_ATTR_FWMARK => {
                Self::Fwmark(parse_u32(value).context("invalid IPVS_SVC_ATTR_FWMARK")?)
            }
            IPVS_SVC_ATTR_SCHED_NAME => {
                Self::Scheduler(Name::parse(value).context("invalid IPVS_SVC_ATTR_SCHED_NAME")?)
            }
            IPVS_SVC_ATTR_FLAGS => {
                Self::Flags(FlagsAndMask::parse(value).context("invalid IPVS_SVC_ATTR_FLAGS")?)
            }
            IPVS_SVC_ATTR_TIMEOUT => {
                Self::Timeout(parse_u32(value).context("invalid IPVS_SVC_ATTR_TIMEOUT")?)
            }
            IPVS_SVC_ATTR_NETMASK => Self::Netmask(
                parse_u32(value)
                    .context("invalid IPVS_SVC_ATTR_NETMASK")?
                    .to_ne_bytes(),
            ),
            IPVS_SVC_ATTR_STATS => {
                Self::Stats(parse_nested(value).context("invalid IPVS_SVC_ATTR_STATS")?)
            }
            IPVS_SVC_ATTR_PE_NAME => Self::PersistenceEngine(
                Name::parse(value).context("invalid IPVS_SVC_ATTR_PE_NAME")?,
            ),
            IPVS_SVC_ATTR_STATS64 => {
                Self::Stats64(parse_nested(value).context("invalid IPVS_SVC_ATTR_STATS64")?)
            }
            _ => return Ok(None),
        }))
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> Parseable<NlaBuffer<&'a T>> for ServiceAttribute {
    fn parse(nla: &NlaBuffer<&'a T>) -> Result<Self, DecodeError> {
        match Self::known(nla.kind(), nla.value())? {
            Some(attribute) => Ok(attribute),
            None => DefaultNla::parse(nla).map(Self::Other),
        }
    }
}
