//! The connection: a generic netlink socket to which requests are sent in batches.

use std::fmt;

use netlink_packet_core::{DecodeError, Emitable, NlasIterator, ParseableParametrized, parse_u16};
use netlink_packet_generic::{
    GenlFamily, GenlHeader,
    constants::{CTRL_ATTR_FAMILY_ID, GENL_HDRLEN, GENL_ID_CTRL},
    ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs},
};

use super::{
    error::ConnectionError,
    exchange::{Collect, Exchange, Lost},
    frame::Encode,
    socket::KernelSocket,
};

/// A generic netlink socket, to which any family's messages can be sent.
///
/// It belongs to the network namespace of the thread that opened it.
///
/// # Cancel safety
/// Dropping the future of a method loses the answers, but does not undo the request: what was sent
/// has been applied. The next call discards late answers, so the connection stays usable.
///
/// # Example
/// ```no_run
/// # use ipvs_netlink::{pipeline::{Connection, ConnectionError}, wire::{IpvsCommand, IpvsMessage}};
/// # async fn example() -> Result<(), ConnectionError> {
/// let mut connection = Connection::open()?;
/// let family = connection.resolve_family("IPVS").await?;
/// let question = IpvsMessage { command: IpvsCommand::GetInfo, attributes: Vec::new() };
/// let answers = connection.request(family, &question).await?;
/// # Ok(())
/// # }
/// ```
pub struct Connection {
    exchange: Exchange<KernelSocket>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    /// Opens a socket.
    ///
    /// # Errors
    /// Fails with [`ConnectionError::Open`] when the kernel refuses to open one.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime with I/O enabled, like every tokio socket.
    pub fn open() -> Result<Self, ConnectionError> {
        let (socket, receive_buffer) = KernelSocket::open().map_err(ConnectionError::Open)?;
        Ok(Self {
            exchange: Exchange::new(socket, receive_buffer),
        })
    }

    /// Returns the number of a family. The kernel loads the family's module if necessary.
    ///
    /// # Errors
    /// Fails with [`ConnectionError::FamilyNotFound`] when there is no such family and no such module.
    pub async fn resolve_family(&mut self, name: &str) -> Result<u16, ConnectionError> {
        let question = GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName(name.to_owned())],
        };
        let answers = self
            .exchange
            .request(GENL_ID_CTRL, &Payload(&question), family_id)
            .await;
        match answers {
            Ok(ids) => ids
                .into_iter()
                .flatten()
                .next()
                .ok_or_else(|| not_found(name)),
            Err(ConnectionError::Refused(refusal)) if refusal.is_not_found() => {
                Err(not_found(name))
            }
            Err(error) => Err(error),
        }
    }

    /// Sends one message and waits for its acknowledgement. Returns the answers that came before
    /// it: none for a change, the object for a query.
    ///
    /// # Errors
    /// Fails with [`ConnectionError::Refused`] when the kernel refuses, and with [`ConnectionError::Overrun`] when
    /// the answer was lost; the message may then have been applied.
    pub async fn request<F>(&mut self, family: u16, message: &F) -> Result<Vec<F>, ConnectionError>
    where
        F: GenlFamily + Emitable + ParseableParametrized<[u8], GenlHeader>,
    {
        self.exchange
            .request(family, &Payload(message), decode)
            .await
    }

    /// Sends one message as a dump (`NLM_F_DUMP`) and returns all objects. If the kernel reports
    /// the dump as interrupted, or a part of it is lost, it is tried again.
    ///
    /// # Errors
    /// Fails with [`ConnectionError::Refused`] when the kernel refuses, and with
    /// [`ConnectionError::DumpInterrupted`] when no attempt gave a complete dump.
    pub async fn dump<F>(&mut self, family: u16, message: &F) -> Result<Vec<F>, ConnectionError>
    where
        F: GenlFamily + Emitable + ParseableParametrized<[u8], GenlHeader>,
    {
        self.exchange.dump(family, &Payload(message), decode).await
    }

    pub(crate) async fn submit<M: Encode>(
        &mut self,
        family: u16,
        messages: &[M],
    ) -> Result<Vec<Lost>, ConnectionError> {
        self.exchange.submit(family, messages).await
    }

    pub(crate) async fn request_as<T>(
        &mut self,
        family: u16,
        message: &impl Encode,
        decode: impl FnMut(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, ConnectionError> {
        self.exchange.request(family, message, decode).await
    }

    pub(crate) async fn dump_as<T>(
        &mut self,
        family: u16,
        message: &impl Encode,
        decode: impl FnMut(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, ConnectionError> {
        self.exchange.dump(family, message, decode).await
    }

    pub(crate) async fn dump_into<M: Encode>(
        &mut self,
        family: u16,
        questions: &[M],
        dump: &M,
        objects: &mut impl Collect,
    ) -> Result<(), ConnectionError> {
        self.exchange
            .dump_into(family, questions, dump, objects)
            .await
    }
}

/// A message of the family's own type.
struct Payload<'a, F>(&'a F);

impl<F: GenlFamily + Emitable> Encode for Payload<'_, F> {
    fn encode(&self, buffer: &mut Vec<u8>) {
        let header = GenlHeader {
            cmd: self.0.command(),
            version: self.0.version(),
        };
        let start = buffer.len();
        buffer.resize(start + GENL_HDRLEN + self.0.buffer_len(), 0);
        let room = buffer
            .get_mut(start..)
            .and_then(|room| room.split_at_mut_checked(GENL_HDRLEN));
        if let Some((head, attributes)) = room {
            header.emit(head);
            self.0.emit(attributes);
        }
    }
}

fn decode<F>(payload: &[u8]) -> Result<F, DecodeError>
where
    F: ParseableParametrized<[u8], GenlHeader>,
{
    let header = GenlHeader::parse(payload)?;
    F::parse_with_param(payload.get(GENL_HDRLEN..).unwrap_or_default(), header)
}

/// Finds the number in a description of a family. The rest is not read, since later kernels may add
/// attributes that this program cannot read.
fn family_id(payload: &[u8]) -> Result<Option<u16>, DecodeError> {
    let attributes = payload.get(GENL_HDRLEN..).unwrap_or_default();
    for nla in NlasIterator::new(attributes) {
        let nla = nla?;
        if nla.kind() == CTRL_ATTR_FAMILY_ID {
            return parse_u16(nla.value()).map(Some);
        }
    }
    Ok(None)
}

fn not_found(name: &str) -> ConnectionError {
    ConnectionError::FamilyNotFound {
        name: name.to_owned(),
    }
}
