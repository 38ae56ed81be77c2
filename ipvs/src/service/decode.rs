//! Reads a virtual service from the attributes that the kernel sends.

use std::num::NonZeroU32;

use netlink_packet_core::{DecodeError, Parseable};

use super::{Granularity, Persistence, Protocol, Service, ServiceConfig, ServiceKey};
use crate::{
    Family, Name, Stats,
    wire::{IPVS_SVC_ATTR_STATS, IPVS_SVC_ATTR_STATS64, ServiceAttribute, attributes},
};

/// Reads the value of an `IPVS_CMD_ATTR_SERVICE` attribute.
///
/// It reads attributes one at a time and builds no list of them, because a table may hold thousands
/// of services.
impl Parseable<[u8]> for Service {
    fn parse(nlas: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = ServiceFields::default();
        let mut stats = None;
        let mut stats64 = None;
        for nla in attributes(nlas) {
            let (kind, value) = nla?;
            match kind {
                IPVS_SVC_ATTR_STATS => stats = Some(value),
                IPVS_SVC_ATTR_STATS64 => stats64 = Some(value),
                _ => {
                    if let Some(attribute) = ServiceAttribute::known(kind, value)? {
                        fields.take(&attribute);
                    }
                }
            }
        }
        let stats = Stats::choose(stats, stats64)?;
        let key = fields.key()?;
        Ok(Self {
            key,
            config: fields.config(key.family())?,
            stats,
        })
    }
}

#[derive(Default)]
struct ServiceFields {
    family: Option<u16>,
    protocol: Option<u16>,
    address: Option<[u8; 16]>,
    port: Option<u16>,
    fwmark: Option<u32>,
    scheduler: Option<Name>,
    flags: Option<u32>,
    timeout: Option<u32>,
    netmask: Option<[u8; 4]>,
    engine: Option<Name>,
}

impl ServiceFields {
    fn take(&mut self, attribute: &ServiceAttribute) {
        match attribute {
            ServiceAttribute::AddressFamily(value) => self.family = Some(*value),
            ServiceAttribute::Protocol(value) => self.protocol = Some(*value),
            ServiceAttribute::Address(value) => self.address = Some(*value),
            ServiceAttribute::Port(value) => self.port = Some(*value),
            ServiceAttribute::Fwmark(value) => self.fwmark = Some(*value),
            ServiceAttribute::Scheduler(value) => self.scheduler = Some(*value),
            ServiceAttribute::Flags(value) => self.flags = Some(value.flags),
            ServiceAttribute::Timeout(value) => self.timeout = Some(*value),
            ServiceAttribute::Netmask(value) => self.netmask = Some(*value),
            ServiceAttribute::PersistenceEngine(value) => self.engine = Some(*value),
            ServiceAttribute::Stats(_)
            | ServiceAttribute::Stats64(_)
            | ServiceAttribute::Other(_) => {}
        }
    }

    fn key(&self) -> Result<ServiceKey, DecodeError> {
        let family = self.family.ok_or_else(|| missing("IPVS_SVC_ATTR_AF"))?;
        let family = Family::from_number(family)?;
        if let Some(mark) = self.fwmark.and_then(NonZeroU32::new) {
            return Ok(ServiceKey::Fwmark { mark, family });
        }
        let protocol = self
            .protocol
            .ok_or_else(|| missing("IPVS_SVC_ATTR_PROTOCOL"))?;
        let address = self.address.ok_or_else(|| missing("IPVS_SVC_ATTR_ADDR"))?;
        Ok(ServiceKey::Address {
            protocol: Protocol::from(protocol),
            address: family.address(address),
            port: self.port.ok_or_else(|| missing("IPVS_SVC_ATTR_PORT"))?,
        })
    }

    fn config(&self, family: Family) -> Result<ServiceConfig, DecodeError> {
        let scheduler = self
            .scheduler
            .ok_or_else(|| missing("IPVS_SVC_ATTR_SCHED_NAME"))?;
        let flags = self.flags.ok_or_else(|| missing("IPVS_SVC_ATTR_FLAGS"))?;
        let netmask = self
            .netmask
            .ok_or_else(|| missing("IPVS_SVC_ATTR_NETMASK"))?;
        let persistence = Persistence {
            timeout_seconds: self
                .timeout
                .ok_or_else(|| missing("IPVS_SVC_ATTR_TIMEOUT"))?,
            granularity: Granularity::from_wire(netmask, family),
            engine: self.engine,
        };
        Ok(ServiceConfig::from_wire(scheduler, flags, persistence))
    }
}

fn missing(attribute: &str) -> DecodeError {
    format!("service without {attribute}").into()
}
