//! The timeouts of a network namespace, and the version and size of IPVS in the kernel.

use std::fmt;

use netlink_packet_core::DecodeError;

use crate::wire::{IpvsAttribute, IpvsMessage};

/// The timeouts of connections in a network namespace, in seconds.
///
/// In [`Request::SetTimeouts`](crate::Request::SetTimeouts) a zero keeps the present value. The
/// kernel never reports zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// An idle TCP connection; 900 at boot (`IPVS_CMD_ATTR_TIMEOUT_TCP`).
    pub tcp_seconds: u32,
    /// A TCP connection after a FIN; 120 at boot (`IPVS_CMD_ATTR_TIMEOUT_TCP_FIN`).
    pub tcp_fin_seconds: u32,
    /// An idle UDP flow; 300 at boot (`IPVS_CMD_ATTR_TIMEOUT_UDP`).
    pub udp_seconds: u32,
}

impl Timeouts {
    pub(crate) fn attributes(self) -> impl Iterator<Item = IpvsAttribute> {
        let Self {
            tcp_seconds,
            tcp_fin_seconds,
            udp_seconds,
        } = self;
        [
            IpvsAttribute::TimeoutTcp(tcp_seconds),
            IpvsAttribute::TimeoutTcpFin(tcp_fin_seconds),
            IpvsAttribute::TimeoutUdp(udp_seconds),
        ]
        .into_iter()
    }
}

impl TryFrom<&IpvsMessage> for Timeouts {
    type Error = DecodeError;

    fn try_from(message: &IpvsMessage) -> Result<Self, DecodeError> {
        let (mut tcp, mut tcp_fin, mut udp) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                IpvsAttribute::TimeoutTcp(value) => tcp = Some(*value),
                IpvsAttribute::TimeoutTcpFin(value) => tcp_fin = Some(*value),
                IpvsAttribute::TimeoutUdp(value) => udp = Some(*value),
                IpvsAttribute::Service(_)
                | IpvsAttribute::Destination(_)
                | IpvsAttribute::Daemon(_)
                | IpvsAttribute::Version(_)
                | IpvsAttribute::ConnectionTableSize(_)
                | IpvsAttribute::Other(_) => {}
            }
        }
        Ok(Self {
            tcp_seconds: tcp.ok_or_else(|| missing("IPVS_CMD_ATTR_TIMEOUT_TCP"))?,
            tcp_fin_seconds: tcp_fin.ok_or_else(|| missing("IPVS_CMD_ATTR_TIMEOUT_TCP_FIN"))?,
            udp_seconds: udp.ok_or_else(|| missing("IPVS_CMD_ATTR_TIMEOUT_UDP"))?,
        })
    }
}

/// Version and size of IPVS in the kernel (`IPVS_CMD_GET_INFO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Info {
    /// The version of IPVS, which is not that of the kernel (`IPVS_INFO_ATTR_VERSION`).
    pub version: Version,
    /// The number of buckets of the connection table (`IPVS_INFO_ATTR_CONN_TAB_SIZE`).
    pub connection_table_size: u32,
}

/// A version of IPVS; every kernel of the last decade reports 1.2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The first number.
    pub major: u8,
    /// The second number.
    pub minor: u8,
    /// The third number.
    pub patch: u8,
}

impl From<u32> for Version {
    fn from(code: u32) -> Self {
        let [_, major, minor, patch] = code.to_be_bytes();
        Self {
            major,
            minor,
            patch,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl TryFrom<&IpvsMessage> for Info {
    type Error = DecodeError;

    fn try_from(message: &IpvsMessage) -> Result<Self, DecodeError> {
        let (mut version, mut size) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                IpvsAttribute::Version(value) => version = Some(Version::from(*value)),
                IpvsAttribute::ConnectionTableSize(value) => size = Some(*value),
                IpvsAttribute::Service(_)
                | IpvsAttribute::Destination(_)
                | IpvsAttribute::Daemon(_)
                | IpvsAttribute::TimeoutTcp(_)
                | IpvsAttribute::TimeoutTcpFin(_)
                | IpvsAttribute::TimeoutUdp(_)
                | IpvsAttribute::Other(_) => {}
            }
        }
        Ok(Self {
            version: version.ok_or_else(|| missing("IPVS_INFO_ATTR_VERSION"))?,
            connection_table_size: size.ok_or_else(|| missing("IPVS_INFO_ATTR_CONN_TAB_SIZE"))?,
        })
    }
}

fn missing(attribute: &str) -> DecodeError {
    format!("answer without {attribute}").into()
}
