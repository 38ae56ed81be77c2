//! Reads a destination from the attributes that the kernel sends.

use netlink_packet_core::{DecodeError, ParseableParametrized};

use super::{Connections, Destination, DestinationConfig, DestinationKey, Forwarding, Tunnel};
use crate::{
    Family, Stats,
    wire::{DestinationAttribute, IPVS_DEST_ATTR_STATS, IPVS_DEST_ATTR_STATS64, attributes},
};

/// Reads the value of an `IPVS_CMD_ATTR_DEST` attribute. The parameter is the family of the
/// service, which applies if the kernel reports none (before Linux 3.18).
///
/// It reads attributes one at a time and builds no list of them, because a table may hold a hundred
/// thousand destinations.
impl ParseableParametrized<[u8], Family> for Destination {
    fn parse_with_param(nlas: &[u8], service: Family) -> Result<Self, DecodeError> {
        let mut fields = DestinationFields::default();
        let mut stats = None;
        let mut stats64 = None;
        for nla in attributes(nlas) {
            let (kind, value) = nla?;
            match kind {
                IPVS_DEST_ATTR_STATS => stats = Some(value),
                IPVS_DEST_ATTR_STATS64 => stats64 = Some(value),
                _ => {
                    if let Some(attribute) = DestinationAttribute::known(kind, value)? {
                        fields.take(&attribute);
                    }
                }
            }
        }
        Ok(Self {
            key: fields.key(service)?,
            config: fields.config()?,
            stats: Stats::choose(stats, stats64)?,
            connections: fields.connections,
        })
    }
}

#[derive(Default)]
struct DestinationFields {
    family: Option<u16>,
    address: Option<[u8; 16]>,
    port: Option<u16>,
    method: Option<u32>,
    weight: Option<u32>,
    upper_threshold: Option<u32>,
    lower_threshold: Option<u32>,
    tunnel_type: u8,
    tunnel_port: u16,
    tunnel_flags: u16,
    connections: Connections,
}

impl DestinationFields {
    fn take(&mut self, attribute: &DestinationAttribute) {
        match attribute {
            DestinationAttribute::Address(value) => self.address = Some(*value),
            DestinationAttribute::Port(value) => self.port = Some(*value),
            DestinationAttribute::ForwardingMethod(value) => self.method = Some(*value),
            DestinationAttribute::Weight(value) => self.weight = Some(*value),
            DestinationAttribute::UpperThreshold(value) => self.upper_threshold = Some(*value),
            DestinationAttribute::LowerThreshold(value) => self.lower_threshold = Some(*value),
            DestinationAttribute::ActiveConnections(value) => self.connections.active = *value,
            DestinationAttribute::InactiveConnections(value) => self.connections.inactive = *value,
            DestinationAttribute::PersistentConnections(value) => {
                self.connections.persistent = *value;
            }
            DestinationAttribute::AddressFamily(value) => self.family = Some(*value),
            DestinationAttribute::TunnelType(value) => self.tunnel_type = *value,
            DestinationAttribute::TunnelPort(value) => self.tunnel_port = *value,
            DestinationAttribute::TunnelFlags(value) => self.tunnel_flags = *value,
            DestinationAttribute::Stats(_)
            | DestinationAttribute::Stats64(_)
            | DestinationAttribute::Other(_) => {}
        }
    }

    fn key(&self, service: Family) -> Result<DestinationKey, DecodeError> {
        let family = self.family.map_or(Ok(service), Family::from_number)?;
        let address = self.address.ok_or_else(|| missing("IPVS_DEST_ATTR_ADDR"))?;
        Ok(DestinationKey {
            address: family.address(address),
            port: self.port.ok_or_else(|| missing("IPVS_DEST_ATTR_PORT"))?,
        })
    }

    fn config(&self) -> Result<DestinationConfig, DecodeError> {
        let tunnel = Tunnel::from_wire(self.tunnel_type, self.tunnel_port, self.tunnel_flags);
        let method = self
            .method
            .ok_or_else(|| missing("IPVS_DEST_ATTR_FWD_METHOD"))?;
        Ok(DestinationConfig {
            forwarding: Forwarding::from_wire(method, tunnel),
            weight: self
                .weight
                .ok_or_else(|| missing("IPVS_DEST_ATTR_WEIGHT"))?,
            upper_threshold: self
                .upper_threshold
                .ok_or_else(|| missing("IPVS_DEST_ATTR_U_THRESH"))?,
            lower_threshold: self
                .lower_threshold
                .ok_or_else(|| missing("IPVS_DEST_ATTR_L_THRESH"))?,
        })
    }
}

fn missing(attribute: &str) -> DecodeError {
    format!("destination without {attribute}").into()
}
