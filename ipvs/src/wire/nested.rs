//! Lists of attributes: parsed from a nested attribute's value, or written one by one at the end
//! of a send buffer.

use netlink_packet_core::{
    DecodeError, Emitable, NLA_HEADER_SIZE, Nla, NlaBuffer, NlasIterator, Parseable,
};

/// Parses the value of a nested attribute into the list of its attributes.
pub(super) fn parse_nested<A>(value: &[u8]) -> Result<Vec<A>, DecodeError>
where
    A: for<'a> Parseable<NlaBuffer<&'a [u8]>>,
{
    NlasIterator::new(value)
        .map(|nla| A::parse(&nla?))
        .collect()
}

/// Writes attributes straight into a send buffer, without a list of them in between.
pub(crate) struct AttributeWriter<'a> {
    buffer: &'a mut Vec<u8>,
}

impl<'a> AttributeWriter<'a> {
    pub(crate) fn new(buffer: &'a mut Vec<u8>) -> Self {
        Self { buffer }
    }

    /// Appends one attribute.
    pub(crate) fn attribute(&mut self, nla: &impl Nla) {
        let start = self.buffer.len();
        self.buffer.resize(start + nla.buffer_len(), 0);
        if let Some(room) = self.buffer.get_mut(start..) {
            nla.emit(room);
        }
    }

    /// Appends an attribute of the given kind whose value is a list of attributes.
    pub(crate) fn nested<A: Nla>(&mut self, kind: u16, attributes: impl Iterator<Item = A>) {
        let start = self.buffer.len();
        self.buffer.resize(start + NLA_HEADER_SIZE, 0);
        attributes.for_each(|nla| self.attribute(&nla));
        let length = u16::try_from(self.buffer.len() - start).unwrap_or(u16::MAX);
        if let Some(header) = self.buffer.get_mut(start..) {
            let mut header = NlaBuffer::new(header);
            header.set_kind(kind);
            header.set_length(length);
        }
    }
}
