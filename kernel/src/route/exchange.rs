//! Sends requests to route netlink and collects the answers.

use std::{io, mem, time::Duration};

use futures::{Stream, StreamExt};
use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{AsyncSocket, Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rtnetlink::proto::{ConnectionHandle, new_connection};
use thiserror::Error;
use tracing::debug;

use super::{frame::Frame, refusal::Refusal};

/// The requests of one send: their acknowledgements must fit the receive buffer, which holds about 250 by default.
const BATCH: usize = 64;

/// How often a dump is asked for before it counts as failed.
const DUMP_ATTEMPTS: u32 = 5;

/// The kernel answers at once, but for loading a module and for a lock that a large removal holds.
const PATIENCE: Duration = Duration::from_secs(30);

const KERNEL: (u32, u32) = (0, 0);

/// An exchange with route netlink that failed.
#[derive(Debug, Error)]
pub enum RouteError {
    /// The kernel gives no socket.
    #[error("open a route netlink socket")]
    Open(#[source] io::Error),
    /// The socket is closed.
    #[error("the route netlink socket was closed")]
    Closed,
    /// Nothing came back.
    #[error("the kernel did not answer within {} seconds", PATIENCE.as_secs())]
    NoAnswer,
    /// The kernel refuses to be read.
    #[error("read the {table}")]
    Refused {
        table: &'static str,
        #[source]
        refusal: Refusal,
    },
    /// Something changed during every attempt to read a table.
    #[error("the {table} changed while they were read, {DUMP_ATTEMPTS} times")]
    Interrupted { table: &'static str },
    /// An answer that this program cannot read.
    #[error("understand the {table}")]
    Unreadable {
        table: &'static str,
        #[source]
        error: DecodeError,
    },
}

/// One change or question.
pub(super) struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
}

impl Request {
    /// Takes a message and what else than `NLM_F_REQUEST | NLM_F_ACK` stands in its header.
    pub(super) fn new(message: RouteNetlinkMessage, flags: u16) -> Self {
        Self { message, flags }
    }
}

/// What a request brought: the objects asked for, nothing for a change.
pub(super) type Answer = Result<Vec<Frame>, Refusal>;

/// A route netlink socket, read by a task that ends with the last handle to it.
pub(super) struct Exchange {
    handle: ConnectionHandle<Frame>,
}

impl Exchange {
    pub(super) fn connect() -> Result<Self, RouteError> {
        // What nobody asked for is dropped: this socket is in no multicast group.
        let (mut connection, handle, _) =
            new_connection(NETLINK_ROUTE).map_err(RouteError::Open)?;
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        configure(connection.socket_mut().socket_mut());
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Sends requests, as many at a time as can be answered, and returns an answer for each in their order.
    pub(super) async fn submit(&self, requests: &[Request]) -> Result<Vec<Answer>, RouteError> {
        let mut answers = Vec::with_capacity(requests.len());
        for batch in requests.chunks(BATCH) {
            self.submit_batch(batch, &mut answers).await?;
        }
        Ok(answers)
    }

    /// The kernel works through a batch in order, and ends the answers to each request with an `NLMSG_ERROR`.
    async fn submit_batch(
        &self,
        batch: &[Request],
        answers: &mut Vec<Answer>,
    ) -> Result<(), RouteError> {
        let expected = answers.len() + batch.len();
        let messages: Vec<_> = batch
            .iter()
            .map(|request| message(&request.message, NLM_F_ACK | request.flags))
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

    /// Reads a whole table. One that the kernel calls interrupted is read again a few times; a part is never returned.
    pub(super) async fn dump(
        &self,
        table: &'static str,
        question: &RouteNetlinkMessage,
    ) -> Result<Vec<Frame>, RouteError> {
        for attempt in 1..=DUMP_ATTEMPTS {
            match self.dump_once(table, question).await? {
                Some(objects) => return Ok(objects),
                None => debug!(table, attempt, "dump interrupted"),
            }
        }
        Err(RouteError::Interrupted { table })
    }

    async fn dump_once(
        &self,
        table: &'static str,
        question: &RouteNetlinkMessage,
    ) -> Result<Option<Vec<Frame>>, RouteError> {
        let mut replies = self.send(vec![message(question, NLM_F_DUMP)])?;
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
                // A table that was never written to.
                Some(refusal) if refusal.is_not_found() => Ok(Some(Vec::new())),
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

/// Asks for the kernel's words in refusals, without the request, and for filters in dumps. A kernel that knows none of
/// these (before 4.12, 4.3, 4.20) is read without them: what a dump brings is filtered here all the same.
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
            debug!(option, %error, "socket option not taken");
        }
    }
}

fn message(message: &RouteNetlinkMessage, flags: u16) -> NetlinkMessage<Frame> {
    let mut message = NetlinkMessage::from(Frame::from(message));
    message.header.flags = NLM_F_REQUEST | flags;
    message
}

async fn next<S>(replies: &mut S) -> Result<Option<NetlinkMessage<Frame>>, RouteError>
where
    S: Stream<Item = NetlinkMessage<Frame>> + Unpin,
{
    tokio::time::timeout(PATIENCE, replies.next())
        .await
        .map_err(|_| RouteError::NoAnswer)
}
