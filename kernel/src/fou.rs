//! Reads, adds and removes UDP ports on which the kernel decapsulates GUE, by the generic netlink family `fou`.

use std::collections::BTreeSet;

use ipvs_netlink::pipeline::{Connection, ConnectionError, Refusal};
use lvs_model::{Family, FouPort};
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, ParseableParametrized, parse_u16, parse_u16_be,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, constants::GENL_ID_CTRL};
use thiserror::Error;

use crate::route::Attributes;

const FAMILY_NAME: &str = "fou";
const FOU_GENL_VERSION: u8 = 1;
const FOU_CMD_ADD: u8 = 1;
const FOU_CMD_DEL: u8 = 2;
const FOU_CMD_GET: u8 = 3;
const FOU_ATTR_PORT: u16 = 1;
const FOU_ATTR_AF: u16 = 2;
const FOU_ATTR_TYPE: u16 = 4;
const FOU_ENCAP_GUE: u8 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// Why GUE ports could not be read, added or removed.
#[derive(Debug, Error)]
pub enum FouError {
    /// The kernel refuses to open a socket.
    #[error("opening a generic netlink socket")]
    Open(#[source] ConnectionError),
    /// The ports cannot be read.
    #[error("reading the GUE ports")]
    Read(#[source] ConnectionError),
    /// The kernel's answer cannot be parsed.
    #[error("parsing the GUE ports")]
    Malformed(#[source] DecodeError),
    /// The kernel does not have the family.
    #[error(
        "the kernel cannot decapsulate GUE without the module fou, which it does not load by itself: run `modprobe fou`, and list it in \
         /etc/modules-load.d, or in agent.loadModules.extraModules of the chart"
    )]
    NoModule(#[source] ConnectionError),
    /// Another socket is bound to the port.
    #[error("adding GUE port {port}: another program has this UDP port open")]
    Occupied { port: u16 },
    /// The kernel refuses to add the port.
    #[error("adding GUE port {port}")]
    Add {
        port: u16,
        #[source]
        error: ConnectionError,
    },
    /// The kernel refuses to remove the port.
    #[error("removing GUE port {port}")]
    Remove {
        port: u16,
        #[source]
        error: ConnectionError,
    },
}

/// Reads the ports. Does not load the module `fou`: without it there are no ports.
pub(crate) async fn observe() -> Result<BTreeSet<FouPort>, FouError> {
    observe_on(&mut open()?).await
}

/// Adds a port. Succeeds if it exists.
pub(crate) async fn add(port: FouPort) -> Result<(), FouError> {
    let mut connection = open()?;
    let family = connection
        .resolve_family(FAMILY_NAME)
        .await
        .map_err(FouError::NoModule)?;
    match connection
        .request(family, &Message::for_port(FOU_CMD_ADD, port))
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if is_refused(&error, Refusal::is_already_exists) => {
            let FouPort {
                family: _,
                port: number,
            } = port;
            let is_there = observe_on(&mut connection).await?.contains(&port);
            if is_there {
                Ok(())
            } else {
                Err(FouError::Occupied { port: number })
            }
        }
        Err(error) => Err(FouError::Add {
            port: port.port,
            error,
        }),
    }
}

/// Removes a port. Succeeds if it is gone.
pub(crate) async fn remove(port: FouPort) -> Result<(), FouError> {
    let mut connection = open()?;
    let Some(family) = find_family(&mut connection).await? else {
        return Ok(());
    };
    match connection
        .request(family, &Message::for_port(FOU_CMD_DEL, port))
        .await
    {
        Ok(_) => Ok(()),
        // The error for a port that does not exist is EINVAL, as for other causes (`fou_destroy`, net/ipv4/fou.c).
        Err(error) if !observe_on(&mut connection).await?.contains(&port) => {
            tracing::debug!(?error, port = port.port, "the GUE port was already gone");
            Ok(())
        }
        Err(error) => Err(FouError::Remove {
            port: port.port,
            error,
        }),
    }
}

fn open() -> Result<Connection, FouError> {
    Connection::open().map_err(FouError::Open)
}

fn is_refused(error: &ConnectionError, how: fn(&Refusal) -> bool) -> bool {
    matches!(error, ConnectionError::Refused(refusal) if how(refusal))
}

async fn observe_on(connection: &mut Connection) -> Result<BTreeSet<FouPort>, FouError> {
    let Some(family) = find_family(connection).await? else {
        return Ok(BTreeSet::new());
    };
    let ports = connection.dump(family, &Message::new(FOU_CMD_GET)).await;
    let ports = ports.map_err(FouError::Read)?;
    let ports = ports
        .iter()
        .filter_map(|message| gue_port(message).transpose());
    ports.collect::<Result<_, _>>().map_err(FouError::Malformed)
}

/// Finds the family's number in the list of families. A request by name would make the kernel load its module.
async fn find_family(connection: &mut Connection) -> Result<Option<u16>, FouError> {
    let request = Message::new(CTRL_CMD_GETFAMILY);
    let families = connection
        .dump(GENL_ID_CTRL, &request)
        .await
        .map_err(FouError::Read)?;
    for family in families {
        let attributes = Attributes::read(&family.attributes).map_err(FouError::Malformed)?;
        if attributes.text(CTRL_ATTR_FAMILY_NAME) == Some(FAMILY_NAME) {
            let id = attributes.get(CTRL_ATTR_FAMILY_ID).map(parse_u16);
            return id.transpose().map_err(FouError::Malformed);
        }
    }
    Ok(None)
}

/// Returns the port in a message. `None` if it is not a GUE port.
fn gue_port(message: &Message) -> Result<Option<FouPort>, DecodeError> {
    let attributes = Attributes::read(&message.attributes)?;
    let is_gue = attributes.u8(FOU_ATTR_TYPE)? == Some(FOU_ENCAP_GUE);
    let family = match attributes.u8(FOU_ATTR_AF)? {
        Some(AF_INET) => Family::V4,
        Some(AF_INET6) => Family::V6,
        _ => return Ok(None),
    };
    let port = attributes
        .get(FOU_ATTR_PORT)
        .map(parse_u16_be)
        .transpose()?;
    Ok(port.filter(|_| is_gue).map(|port| FouPort { family, port }))
}

/// A message of the family `fou` or of the controller: a command and raw attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    command: u8,
    attributes: Vec<u8>,
}

impl Message {
    const fn new(command: u8) -> Self {
        Self {
            command,
            attributes: Vec::new(),
        }
    }

    /// Creates the message that `ip fou add port PORT gue` sends, with `-6` for IPv6: then the socket accepts only
    /// IPv6.
    fn for_port(command: u8, port: FouPort) -> Self {
        let family = match port.family {
            Family::V4 => AF_INET,
            Family::V6 => AF_INET6,
        };
        let nlas = [
            DefaultNla::new(FOU_ATTR_PORT, port.port.to_be_bytes().to_vec()),
            DefaultNla::new(FOU_ATTR_TYPE, vec![FOU_ENCAP_GUE]),
            DefaultNla::new(FOU_ATTR_AF, vec![family]),
        ];
        let mut attributes = vec![0; nlas.as_slice().buffer_len()];
        nlas.as_slice().emit(&mut attributes);
        Self {
            command,
            attributes,
        }
    }
}

impl GenlFamily for Message {
    fn family_name() -> &'static str {
        FAMILY_NAME
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        FOU_GENL_VERSION
    }
}

impl Emitable for Message {
    fn buffer_len(&self) -> usize {
        self.attributes.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.attributes);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Message {
    fn parse_with_param(attributes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        Ok(Self {
            command: header.cmd,
            attributes: attributes.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_port_decodes_to_itself() {
        for family in [Family::V4, Family::V6] {
            let port = FouPort { family, port: 6080 };
            assert_eq!(
                gue_port(&Message::for_port(FOU_CMD_ADD, port)).unwrap(),
                Some(port)
            );
        }
    }

    #[test]
    fn a_port_of_plain_fou_is_ignored() {
        let nlas = [
            DefaultNla::new(FOU_ATTR_PORT, vec![0x17, 0xc0]),
            DefaultNla::new(FOU_ATTR_AF, vec![AF_INET]),
            DefaultNla::new(FOU_ATTR_TYPE, vec![1]),
        ];
        let mut attributes = vec![0; nlas.as_slice().buffer_len()];
        nlas.as_slice().emit(&mut attributes);
        assert_eq!(
            gue_port(&Message {
                command: FOU_CMD_GET,
                attributes
            })
            .unwrap(),
            None
        );
    }
}
