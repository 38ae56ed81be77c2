//! Sends requests over netlink and receives the answers.

use std::{io, mem, time::Duration};

use futures::{Stream, StreamExt};
use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{AsyncSocket, Socket, SocketAddr};
use rtnetlink::proto::{ConnectionHandle, new_connection};
use thiserror::Error;
use tokio::task::JoinHandle;
use tracing::debug;

use super::{frame::Frame, refusal::Refusal};

/// How many requests are sent at once. Their acknowledgements must fit the receive buffer, which holds about 250 by
/// default.
const BATCH: usize = 64;

/// How often a dump is tried before it counts as failed.
const DUMP_ATTEMPTS: u32 = 5;

/// How long to wait for each message of an answer. The kernel answers at once, unless it loads a module or waits for a
/// lock that a large removal holds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

const KERNEL: (u32, u32) = (0, 0);

/// Why an exchange with route netlink failed.
#[derive(Debug, Error)]
pub enum RouteError {
    /// The kernel refuses to open a socket.
    #[error("opening a netlink socket")]
    Open(#[source] io::Error),
    /// The socket is closed.
    #[error("the netlink socket was closed")]
    Closed,
    /// The kernel did not answer in time.
    #[error("the kernel did not answer within {} seconds", ANSWER_TIMEOUT.as_secs())]
    NoAnswer,
    /// The kernel refuses a dump.
    #[error("reading the {table}")]
    Refused {
        table: &'static str,
        #[source]
        refusal: Refusal,
    },
    /// Every attempt to read a table was interrupted by a change.
    #[error("reading the {table}: they changed during each of {DUMP_ATTEMPTS} attempts")]
    Interrupted { table: &'static str },
    /// The kernel's answer cannot be parsed.
    #[error("parsing the {table}")]
    Malformed {
        table: &'static str,
        #[source]
        error: DecodeError,
    },
}

/// A request: a change, or a query for one object.
pub(super) struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
}

impl Request {
    /// Creates a request. `flags` are set in its header in addition to `NLM_F_REQUEST | NLM_F_ACK`.
    pub(super) fn new(message: RouteNetlinkMessage, flags: u16) -> Self {
        Self { message, flags }
    }
}

/// The answer to a request: the objects of a query, nothing for a change.
pub(super) type Answer = Result<Vec<Frame>, Refusal>;

/// A netlink socket. The task that reads it ends when this is dropped.
pub(crate) struct Exchange {
    handle: ConnectionHandle<Frame>,
    /// The task that reads the socket. It ends when the socket fails.
    reader: JoinHandle<()>,
}

impl Exchange {
    /// Opens a socket of a netlink protocol.
    pub(crate) fn connect(protocol: isize) -> Result<Self, RouteError> {
        // The receiver of unsolicited messages is dropped: the socket is not in any multicast group.
        let (mut connection, handle, _) = new_connection(protocol).map_err(RouteError::Open)?;
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        configure(connection.socket_mut().socket_mut());
        let reader = tokio::spawn(connection);
        Ok(Self { handle, reader })
    }

    /// Returns whether the socket has failed, so that no request is answered any more.
    pub(super) fn is_closed(&self) -> bool {
        self.reader.is_finished()
    }

    /// Ends the task that reads the socket, as a failure of the socket does.
    #[cfg(test)]
    pub(super) async fn fail(&mut self) {
        self.reader.abort();
        let _ = (&mut self.reader).await;
    }

    /// Sends requests in batches, and returns their answers in the same order.
    pub(super) async fn submit(&self, requests: &[Request]) -> Result<Vec<Answer>, RouteError> {
        let mut answers = Vec::with_capacity(requests.len());
        for batch in requests.chunks(BATCH) {
            self.submit_batch(batch, &mut answers).await?;
        }
        Ok(answers)
    }

    /// Sends a batch and appends its answers. The kernel processes requests in order, and ends the answer to each with
    /// an `NLMSG_ERROR`.
    async fn submit_batch(
        &self,
        batch: &[Request],
        answers: &mut Vec<Answer>,
    ) -> Result<(), RouteError> {
        let expected = answers.len() + batch.len();
        let messages: Vec<_> = batch
            .iter()
            .map(|request| message(Frame::from(&request.message), NLM_F_ACK | request.flags))
            .collect();
        let mut replies = self.send(messages)?;
        let mut objects = Vec::new();
        while let Some(reply) = next(&mut replies).await? {
            if let NetlinkPayload::Error(end) = &reply.payload {
                let objects = mem::take(&mut objects);
                answers.push(Refusal::of(reply.header.flags, end).map_or(Ok(objects), Err));
            } else if let NetlinkPayload::InnerMessage(object) = reply.payload {
                objects.push(object);
            }
        }
        if answers.len() == expected {
            Ok(())
        } else {
            Err(RouteError::Closed)
        }
    }

    /// Reads a whole table. A dump that the kernel marks as interrupted is repeated a few times; a part is never
    /// returned.
    pub(crate) async fn dump(
        &self,
        table: &'static str,
        request: impl Into<Frame>,
    ) -> Result<Vec<Frame>, RouteError> {
        let request = request.into();
        for attempt in 1..=DUMP_ATTEMPTS {
            match self.dump_once(table, &request).await? {
                Some(objects) => return Ok(objects),
                None => debug!(table, attempt, "dump interrupted"),
            }
        }
        Err(RouteError::Interrupted { table })
    }

    async fn dump_once(
        &self,
        table: &'static str,
        request: &Frame,
    ) -> Result<Option<Vec<Frame>>, RouteError> {
        let mut replies = self.send(vec![message(request.clone(), NLM_F_DUMP)])?;
        let (mut objects, mut interrupted) = (Vec::new(), false);
        while let Some(reply) = next(&mut replies).await? {
            interrupted |= reply.header.flags & NLM_F_DUMP_INTR != 0;
            let refusal = if let NetlinkPayload::InnerMessage(object) = reply.payload {
                objects.push(object);
                continue;
            } else if let NetlinkPayload::Done(end) = &reply.payload {
                Refusal::of_dump(end)
            } else if let NetlinkPayload::Error(end) = &reply.payload {
                Refusal::of(reply.header.flags, end)
            } else {
                continue;
            };
            return match refusal {
                Some(refusal) => Err(RouteError::Refused { table, refusal }),
                None => Ok((!interrupted).then_some(objects)),
            };
        }
        Err(RouteError::Closed)
    }

    fn send(
        &self,
        messages: Vec<NetlinkMessage<Frame>>,
    ) -> Result<impl Stream<Item = NetlinkMessage<Frame>> + Unpin + use<>, RouteError> {
        let kernel = SocketAddr::new(KERNEL.0, KERNEL.1);
        self.handle
            .request_batch(messages, kernel)
            .map_err(|_| RouteError::Closed)
    }
}

/// Requests error messages from the kernel (4.12), errors without a copy of the request (4.3), and filters in dumps
/// (4.20).
///
/// An older kernel works without them: refusals have no message, and dumps are filtered here in any case.
fn configure(socket: &Socket) {
    for (option, set) in [
        ("NETLINK_EXT_ACK", socket.set_ext_ack(true)),
        ("NETLINK_CAP_ACK", socket.set_cap_ack(true)),
        (
            "NETLINK_GET_STRICT_CHK",
            socket.set_netlink_get_strict_chk(true),
        ),
    ] {
        if let Err(error) = set {
            debug!(option, %error, "the kernel does not support a socket option");
        }
    }
}

fn message(frame: Frame, flags: u16) -> NetlinkMessage<Frame> {
    let mut message = NetlinkMessage::from(frame);
    message.header.flags = NLM_F_REQUEST | flags;
    message
}

async fn next<S>(replies: &mut S) -> Result<Option<NetlinkMessage<Frame>>, RouteError>
where
    S: Stream<Item = NetlinkMessage<Frame>> + Unpin,
{
    tokio::time::timeout(ANSWER_TIMEOUT, replies.next())
        .await
        .map_err(|_| RouteError::NoAnswer)
}
