//! Reads which interfaces merge received packets, by the generic netlink family `ethtool` (kernel 5.7).

use std::collections::BTreeSet;

use ipvs_netlink::pipeline::{Connection, ConnectionError};
use lvs_model::InterfaceName;
use lvs_runtime::error::chain;
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLA_F_NESTED, NlasIterator, ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader};
use tracing::debug;

use crate::route::Attributes;

const FAMILY_NAME: &str = "ethtool";
const ETHTOOL_GENL_VERSION: u8 = 1;
const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_HEADER_DEV_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
/// The name of `NETIF_F_LRO` (net/ethtool/common.c).
const LRO: &str = "rx-lro";

/// Returns the interfaces with LRO. Empty if it cannot be read: it is only the reason for a warning.
pub(crate) async fn lro() -> BTreeSet<InterfaceName> {
    let features = match read().await {
        Ok(features) => features,
        Err(error) => {
            debug!(
                error = chain(&error),
                "cannot read the offloads of interfaces"
            );
            return BTreeSet::new();
        }
    };
    let found = features.iter().map(with_lro);
    found
        .filter_map(|found| {
            found
                .inspect_err(|error| debug!(%error, "cannot parse the offloads of an interface"))
                .ok()?
        })
        .collect()
}

async fn read() -> Result<Vec<FeaturesMessage>, ConnectionError> {
    let mut connection = Connection::open()?;
    let family = connection.resolve_family(FAMILY_NAME).await?;
    connection.dump(family, &FeaturesMessage::get()).await
}

/// Returns the interface of a message if it has LRO.
fn with_lro(message: &FeaturesMessage) -> Result<Option<InterfaceName>, DecodeError> {
    let attributes = Attributes::read(&message.attributes)?;
    let header = attributes.nest(ETHTOOL_A_FEATURES_HEADER)?;
    let active = attributes.nest(ETHTOOL_A_FEATURES_ACTIVE)?;
    let bits = active.get(ETHTOOL_A_BITSET_BITS).unwrap_or_default();
    let mut has_lro = false;
    for bit in NlasIterator::new(bits) {
        let bit = bit?;
        has_lro |= Attributes::read(bit.value())?.text(ETHTOOL_A_BITSET_BIT_NAME) == Some(LRO);
    }
    let name = header.text(ETHTOOL_A_HEADER_DEV_NAME);
    Ok(name.filter(|_| has_lro).and_then(|name| name.parse().ok()))
}

/// A message of the family: raw attributes.
#[derive(Clone, Debug)]
struct FeaturesMessage {
    attributes: Vec<u8>,
}

impl FeaturesMessage {
    /// Creates the request for the features of all interfaces. The kernel refuses it without a header, which may be empty.
    fn get() -> Self {
        let header = DefaultNla::new(ETHTOOL_A_FEATURES_HEADER | NLA_F_NESTED, Vec::new());
        Self::of(&[header])
    }

    fn of(nlas: &[DefaultNla]) -> Self {
        let mut attributes = vec![0; nlas.buffer_len()];
        nlas.emit(&mut attributes);
        Self { attributes }
    }
}

impl GenlFamily for FeaturesMessage {
    fn family_name() -> &'static str {
        FAMILY_NAME
    }

    fn command(&self) -> u8 {
        ETHTOOL_MSG_FEATURES_GET
    }

    fn version(&self) -> u8 {
        ETHTOOL_GENL_VERSION
    }
}

impl Emitable for FeaturesMessage {
    fn buffer_len(&self) -> usize {
        self.attributes.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.attributes);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for FeaturesMessage {
    fn parse_with_param(attributes: &[u8], _header: GenlHeader) -> Result<Self, DecodeError> {
        let attributes = attributes.to_vec();
        Ok(Self { attributes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETHTOOL_A_BITSET_BIT: u16 = 1;

    fn nest(kind: u16, nlas: &[DefaultNla]) -> DefaultNla {
        DefaultNla::new(kind | NLA_F_NESTED, FeaturesMessage::of(nlas).attributes)
    }

    fn text(kind: u16, text: &str) -> DefaultNla {
        DefaultNla::new(kind, [text.as_bytes(), b"\0"].concat())
    }

    /// The kernel's answer for an interface with some features.
    fn features(interface: &str, active: &[&str]) -> FeaturesMessage {
        let bits: Vec<_> = active
            .iter()
            .map(|name| {
                let name = text(ETHTOOL_A_BITSET_BIT_NAME, name);
                nest(ETHTOOL_A_BITSET_BIT, &[name])
            })
            .collect();
        let name = text(ETHTOOL_A_HEADER_DEV_NAME, interface);
        FeaturesMessage::of(&[
            nest(ETHTOOL_A_FEATURES_HEADER, &[name]),
            nest(
                ETHTOOL_A_FEATURES_ACTIVE,
                &[nest(ETHTOOL_A_BITSET_BITS, &bits)],
            ),
        ])
    }

    #[test]
    fn an_interface_with_lro_is_found_among_its_features() {
        let merging = features("eth0", &["rx-gro", LRO, "rx-checksum"]);
        let found = with_lro(&merging).unwrap();
        assert_eq!(found, Some("eth0".parse().unwrap()));
        let plain = features("eth1", &["rx-gro", "rx-gro-hw"]);
        assert_eq!(with_lro(&plain).unwrap(), None);
        assert_eq!(with_lro(&FeaturesMessage::of(&[])).unwrap(), None);
    }
}
