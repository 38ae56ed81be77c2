//! The messages of the `IPVS` generic-netlink family, attribute by attribute.
//!
//! This layer contains the encoding of messages and not their meaning. Every command and every
//! attribute of `linux/ip_vs.h` has a variant, in the width and byte order of the kernel. An
//! attribute that this crate does not know is kept as a [`DefaultNla`], at its level. Nested
//! attributes are written as the kernel writes them, without `NLA_F_NESTED`, and read in both
//! forms.
//!
//! [`DefaultNla`]: netlink_packet_core::DefaultNla

mod attribute;
mod command;
mod daemon;
mod destination;
mod nested;
mod service;
mod stats;
#[cfg(test)]
pub(crate) mod tests;

use netlink_packet_core::{DecodeError, Emitable, NlasIterator, ParseableParametrized};
use netlink_packet_generic::{GenlFamily, GenlHeader};

pub use self::{
    attribute::IpvsAttribute,
    command::IpvsCommand,
    daemon::DaemonAttribute,
    destination::DestinationAttribute,
    service::{FlagsAndMask, ServiceAttribute},
    stats::{StatsAttribute, StatsWidth},
};
pub(crate) use self::{
    attribute::{IPVS_CMD_ATTR_DAEMON, IPVS_CMD_ATTR_DEST, IPVS_CMD_ATTR_SERVICE},
    destination::{IPVS_DEST_ATTR_STATS, IPVS_DEST_ATTR_STATS64},
    nested::{AttributeWriter, attributes},
    service::{IPVS_SVC_ATTR_STATS, IPVS_SVC_ATTR_STATS64},
};

/// The name of the family, `IPVS_GENL_NAME`.
pub const FAMILY_NAME: &str = "IPVS";

const IPVS_GENL_VERSION: u8 = 1;

/// One message of the family: a command and the attributes of its first level.
///
/// The generic-netlink header contains the command, and the attributes follow; there is no family
/// header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpvsMessage {
    /// The command, or in an answer the kind of object that it describes.
    pub command: IpvsCommand,
    /// The attributes, in the order of the message.
    pub attributes: Vec<IpvsAttribute>,
}

impl GenlFamily for IpvsMessage {
    fn family_name() -> &'static str {
        FAMILY_NAME
    }

    fn command(&self) -> u8 {
        self.command.into()
    }

    fn version(&self) -> u8 {
        IPVS_GENL_VERSION
    }
}

impl Emitable for IpvsMessage {
    fn buffer_len(&self) -> usize {
        self.attributes.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attributes.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for IpvsMessage {
    fn parse_with_param(payload: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        let command = IpvsCommand::try_from(header.cmd)?;
        let attributes = NlasIterator::new(payload)
            .map(|nla| IpvsAttribute::parse_with_param(&nla?, command))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            command,
            attributes,
        })
    }
}
