//! Raw messages of route netlink, including those that the library cannot parse.

use std::convert::Infallible;

use netlink_packet_core::{
    NetlinkDeserializable, NetlinkHeader, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;

/// A raw route netlink message.
///
/// netlink-packet-route does not parse received messages: netlink-proto drops a message that its type cannot parse, so
/// that a foreign link with one unusual attribute would be missing from a dump without an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// `RTM_*`.
    pub(crate) kind: u16,
    /// The header of this kind of message, then attributes.
    pub(crate) payload: Vec<u8>,
}

impl From<&RouteNetlinkMessage> for Frame {
    fn from(message: &RouteNetlinkMessage) -> Self {
        let mut payload = vec![0; message.buffer_len()];
        message.serialize(&mut payload);
        Self {
            kind: message.message_type(),
            payload,
        }
    }
}

impl NetlinkSerializable for Frame {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.payload.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.payload);
    }
}

impl NetlinkDeserializable for Frame {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self {
            kind: header.message_type,
            payload: payload.to_vec(),
        })
    }
}

impl From<Frame> for NetlinkPayload<Frame> {
    fn from(frame: Frame) -> Self {
        Self::InnerMessage(frame)
    }
}
