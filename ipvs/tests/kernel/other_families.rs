//! Commands of another family over the same kind of connection: a port for GUE tunnels.

use ipvs_netlink::pipeline::{Connection, ConnectionError};
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NlasIterator, Parseable, ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader};

use super::namespace::in_namespace;

const FOU_CMD_ADD: u8 = 1;
const FOU_CMD_DEL: u8 = 2;
const FOU_CMD_GET: u8 = 3;

const FOU_ATTR_PORT: u16 = 1;
const FOU_ATTR_AF: u16 = 2;
const FOU_ATTR_TYPE: u16 = 4;

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn a_port_for_tunnels_is_opened_found_and_closed() {
    in_namespace(async |_| {
        let mut connection = Connection::open().unwrap();
        let family = connection.resolve_family("fou").await.unwrap();

        let opened = connection
            .request(family, &Fou::port(FOU_CMD_ADD, 6080))
            .await
            .unwrap();
        assert_eq!(opened, []);
        let error = connection
            .request(family, &Fou::port(FOU_CMD_ADD, 6080))
            .await
            .unwrap_err();
        assert!(matches!(error, ConnectionError::Refused(refusal) if refusal.is_already_exists()));

        let ports = connection.dump(family, &Fou::all()).await.unwrap();
        let [port] = ports.as_slice() else {
            panic!("{ports:?}")
        };
        assert!(port.attributes.contains(&DefaultNla::new(
            FOU_ATTR_PORT,
            6080_u16.to_be_bytes().into()
        )));

        connection
            .request(family, &Fou::port(FOU_CMD_DEL, 6080))
            .await
            .unwrap();
        let error = connection
            .request(family, &Fou::port(FOU_CMD_DEL, 6080))
            .await
            .unwrap_err();
        assert!(matches!(error, ConnectionError::Refused(refusal) if refusal.is_invalid()));
    });
}

#[derive(Debug, PartialEq)]
struct Fou {
    command: u8,
    attributes: Vec<DefaultNla>,
}

impl Fou {
    fn port(command: u8, port: u16) -> Self {
        let attributes = vec![
            DefaultNla::new(FOU_ATTR_PORT, port.to_be_bytes().into()),
            DefaultNla::new(FOU_ATTR_AF, vec![2]),
            DefaultNla::new(FOU_ATTR_TYPE, vec![2]),
        ];
        Self {
            command,
            attributes,
        }
    }

    fn all() -> Self {
        Self {
            command: FOU_CMD_GET,
            attributes: Vec::new(),
        }
    }
}

impl GenlFamily for Fou {
    fn family_name() -> &'static str {
        "fou"
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Fou {
    fn buffer_len(&self) -> usize {
        self.attributes.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attributes.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Fou {
    fn parse_with_param(payload: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        let attributes = NlasIterator::new(payload)
            .map(|nla| DefaultNla::parse(&nla?))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            command: header.cmd,
            attributes,
        })
    }
}
