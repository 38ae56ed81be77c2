//! Lists of attributes: parsed from a nested attribute's value, or written one by one at the end
//! of a send buffer.

use netlink_packet_core::{
    DecodeError, NLA_ALIGNTO, NLA_HEADER_SIZE, Nla, NlaBuffer, NlasIterator, Parseable,
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

    /// Appends one attribute, as [`Emitable`] would but without asking it again and again for its
    /// kind and length.
    ///
    /// [`Emitable`]: netlink_packet_core::Emitable
    pub(crate) fn attribute(&mut self, nla: &impl Nla) {
        let length = nla.value_len();
        self.header(nla.kind(), length);
        let start = self.buffer.len();
        self.buffer
            .resize(start + length.next_multiple_of(NLA_ALIGNTO), 0);
        if let Some(value) = self.buffer.get_mut(start..start + length) {
            nla.emit_value(value);
        }
    }

    /// Appends an attribute of the given kind whose value is a list of attributes.
    pub(crate) fn nested<A: Nla>(&mut self, kind: u16, attributes: impl Iterator<Item = A>) {
        let start = self.buffer.len();
        self.header(kind, 0);
        attributes.for_each(|nla| self.attribute(&nla));
        let length = wire_length(self.buffer.len() - start);
        if let Some(field) = self.buffer.get_mut(start..start + length.len()) {
            field.copy_from_slice(&length);
        }
    }

    fn header(&mut self, kind: u16, value_length: usize) {
        let [a, b] = wire_length(NLA_HEADER_SIZE + value_length);
        let [c, d] = kind.to_ne_bytes();
        self.buffer.extend_from_slice(&[a, b, c, d]);
    }
}

/// Returns the field that holds the length of an attribute, header included. No attribute of this
/// family comes near its end.
fn wire_length(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes()
}
