//! The netlink header of messages to send, and the messages of a datagram received.

use netlink_packet_core::{
    DecodeError, DoneBuffer, Emitable, ErrorBuffer, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED,
    NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NetlinkBuffer,
    NetlinkHeader, NlasIterator, parse_string,
};
use nix::errno::Errno;

use super::error::Refusal;

const NLMSG_HEADER_LENGTH: usize = 16;
const NLMSG_ALIGNMENT: usize = 4;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A payload that can be sent: a generic-netlink header and attributes.
pub(crate) trait Encode {
    /// Appends the payload of the netlink message, a multiple of four bytes.
    fn encode(&self, buffer: &mut Vec<u8>);
}

impl<T: Encode> Encode for &T {
    fn encode(&self, buffer: &mut Vec<u8>) {
        (*self).encode(buffer);
    }
}

/// Appends one message to a send buffer: type, flags and sequence number, then the payload.
pub(super) fn append(
    buffer: &mut Vec<u8>,
    (kind, flags, sequence): (u16, u16, u32),
    payload: &impl Encode,
) {
    let start = buffer.len();
    buffer.resize(start + NLMSG_HEADER_LENGTH, 0);
    payload.encode(buffer);
    let mut header = NetlinkHeader::default();
    header.length = u32::try_from(buffer.len() - start).unwrap_or(u32::MAX);
    header.message_type = kind;
    header.flags = flags;
    header.sequence_number = sequence;
    if let Some(room) = buffer.get_mut(start..) {
        header.emit(room);
    }
}

/// Appends a message that requests only an acknowledgement.
///
/// Netlink itself acknowledges it, for every family: messages of types below `NLMSG_MIN_TYPE` do
/// not reach the family (`netlink_rcv_skb`).
pub(super) fn append_barrier(buffer: &mut Vec<u8>, sequence: u32) {
    append(
        buffer,
        (NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, sequence),
        &Empty,
    );
}

struct Empty;

impl Encode for Empty {
    fn encode(&self, _: &mut Vec<u8>) {}
}

/// One message from the kernel.
#[derive(Debug)]
pub(super) struct Reply<'a> {
    /// The sequence number of the request that it answers.
    pub(super) sequence: u32,
    /// Whether the kernel marks its dump as inconsistent.
    pub(super) interrupted: bool,
    pub(super) body: Body<'a>,
}

#[derive(Debug)]
pub(super) enum Body<'a> {
    /// The request is done and this is the last answer to it.
    Finished,
    /// The request is refused and this is the last answer to it.
    Refused(Refusal),
    /// An object: generic-netlink header and attributes.
    Payload(&'a [u8]),
}

/// The messages of one datagram. After an error there are no more.
pub(super) struct Replies<'a> {
    rest: &'a [u8],
}

impl<'a> Replies<'a> {
    pub(super) fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Replies<'a> {
    type Item = Result<Reply<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let datagram = std::mem::take(&mut self.rest);
            let message = match NetlinkBuffer::new_checked(datagram) {
                Ok(message) => message,
                Err(error) => return Some(Err(error)),
            };
            let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
            let aligned = length.next_multiple_of(NLMSG_ALIGNMENT);
            self.rest = datagram.get(aligned..).unwrap_or_default();
            if message.message_type() != NLMSG_NOOP {
                return Some(read(&message));
            }
        }
        None
    }
}

fn read<'a>(message: &NetlinkBuffer<&'a [u8]>) -> Result<Reply<'a>, DecodeError> {
    let (payload, flags) = (message.payload(), message.flags());
    let body = match message.message_type() {
        NLMSG_ERROR => {
            let error = ErrorBuffer::new_checked(payload)?;
            let code = error.code().map_or(0, i32::from);
            verdict(code, || {
                extended_message(skip_request(error.payload(), flags), flags)
            })
        }
        // A kernel may end a dump without a result code.
        NLMSG_DONE if payload.is_empty() => Body::Finished,
        NLMSG_DONE => {
            let done = DoneBuffer::new_checked(payload)?;
            verdict(done.code(), || extended_message(done.extended_ack(), flags))
        }
        _ => Body::Payload(payload),
    };
    let interrupted = flags & NLM_F_DUMP_INTR != 0;
    Ok(Reply {
        sequence: message.sequence_number(),
        interrupted,
        body,
    })
}

fn verdict<'a>(code: i32, message: impl FnOnce() -> Option<Box<str>>) -> Body<'a> {
    if code < 0 {
        Body::Refused(Refusal::new(
            Errno::from_raw(code.saturating_neg()),
            message(),
        ))
    } else {
        Body::Finished
    }
}

/// Skips the copy of the refused request: its header if the copy is capped, all of it otherwise.
fn skip_request(payload: &[u8], flags: u16) -> &[u8] {
    let length = match NetlinkBuffer::new_checked(payload) {
        Ok(request) if flags & NLM_F_CAPPED == 0 => {
            usize::try_from(request.length()).unwrap_or(usize::MAX)
        }
        _ => NLMSG_HEADER_LENGTH,
    };
    payload
        .get(length.next_multiple_of(NLMSG_ALIGNMENT)..)
        .unwrap_or_default()
}

fn extended_message(nlas: &[u8], flags: u16) -> Option<Box<str>> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    NlasIterator::new(nlas)
        .flatten()
        .find(|nla| nla.kind() == NLMSGERR_ATTR_MSG)
        .and_then(|nla| parse_string(nla.value()).ok())
        .map(String::into_boxed_str)
}
