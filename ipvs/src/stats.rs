//! The counters of a service or destination.

use netlink_packet_core::DecodeError;

use crate::wire::{StatsAttribute, StatsWidth, attributes};

/// The counters of a service or destination (`IPVS_SVC_ATTR_STATS64`, `IPVS_DEST_ATTR_STATS64`).
///
/// The counters start at the creation of the object, or at the last
/// [`Request::Zero`](crate::Request::Zero). A kernel without the 64-bit attributes gives counters
/// of connections and packets that wrap at 2^32. "Out" counts replies that pass through this
/// machine; there are none with direct routing and tunnels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
    /// Connections a second, as the kernel estimates it (`IPVS_STATS_ATTR_CPS`).
    pub connections_per_second: u64,
    /// Packets a second from clients (`IPVS_STATS_ATTR_INPPS`).
    pub in_packets_per_second: u64,
    /// Packets a second to clients (`IPVS_STATS_ATTR_OUTPPS`).
    pub out_packets_per_second: u64,
    /// Bytes a second from clients (`IPVS_STATS_ATTR_INBPS`).
    pub in_bytes_per_second: u64,
    /// Bytes a second to clients (`IPVS_STATS_ATTR_OUTBPS`).
    pub out_bytes_per_second: u64,
}

impl Stats {
    /// Reads the values of the wider of the two attributes, or zeros when there is neither.
    pub(crate) fn choose(
        stats: Option<&[u8]>,
        stats64: Option<&[u8]>,
    ) -> Result<Self, DecodeError> {
        match (stats64, stats) {
            (Some(nlas), _) => Self::read::<u64>(nlas),
            (None, Some(nlas)) => Self::read::<u32>(nlas),
            (None, None) => Ok(Self::default()),
        }
    }

    fn read<N: StatsWidth + Into<u64>>(nlas: &[u8]) -> Result<Self, DecodeError> {
        let mut stats = Self::default();
        for nla in attributes(nlas) {
            let (kind, value) = nla?;
            if let Some(attribute) = StatsAttribute::<N>::known(kind, value)? {
                stats.take(&attribute);
            }
        }
        Ok(stats)
    }

    fn take<N: StatsWidth + Into<u64>>(&mut self, attribute: &StatsAttribute<N>) {
        match attribute {
            StatsAttribute::Connections(value) => self.connections = (*value).into(),
            StatsAttribute::InPackets(value) => self.in_packets = (*value).into(),
            StatsAttribute::OutPackets(value) => self.out_packets = (*value).into(),
            StatsAttribute::InBytes(value) => self.in_bytes = *value,
            StatsAttribute::OutBytes(value) => self.out_bytes = *value,
            StatsAttribute::ConnectionRate(value) => self.connections_per_second = (*value).into(),
            StatsAttribute::InPacketRate(value) => self.in_packets_per_second = (*value).into(),
            StatsAttribute::OutPacketRate(value) => self.out_packets_per_second = (*value).into(),
            StatsAttribute::InByteRate(value) => self.in_bytes_per_second = (*value).into(),
            StatsAttribute::OutByteRate(value) => self.out_bytes_per_second = (*value).into(),
            StatsAttribute::Other(_) => {}
        }
    }
}
