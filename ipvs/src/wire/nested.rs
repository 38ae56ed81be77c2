//! Lists of attributes: read from a nested attribute's value, as a list or one by one, or written
//! one by one at the end of a send buffer.

use netlink_packet_core::{
    DecodeError, NLA_ALIGNTO, NLA_HEADER_SIZE, NLA_TYPE_MASK, Nla, NlaBuffer, NlasIterator,
    Parseable,
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

/// Yields the kind, without its flags, and the value of each attribute of a list.
///
/// [`NlasIterator`] does the same; this one takes a fraction of its time, which matters for a
/// hundred thousand destinations with forty attributes each.
pub(crate) fn attributes(list: &[u8]) -> Attributes<'_> {
    Attributes { rest: list }
}

/// See [`attributes`].
pub(crate) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let list = std::mem::take(&mut self.rest);
        if list.is_empty() {
            return None;
        }
        let Some(([a, b, c, d], _)) = list.split_first_chunk() else {
            return Some(Err(DecodeError::nla_buffer_too_small(
                list.len(),
                NLA_HEADER_SIZE,
            )));
        };
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        let kind = u16::from_ne_bytes([*c, *d]) & NLA_TYPE_MASK;
        let Some(value) = list.get(NLA_HEADER_SIZE..length) else {
            return Some(Err(DecodeError::nla_length_mismatch(list.len(), length)));
        };
        self.rest = list
            .get(length.next_multiple_of(NLA_ALIGNTO)..)
            .unwrap_or_default();
        Some(Ok((kind, value)))
    }
}

/// Writes attributes directly into a send buffer, without building a list of them.
pub(crate) struct AttributeWriter<'a> {
    buffer: &'a mut Vec<u8>,
}

impl<'a> AttributeWriter<'a> {
    pub(crate) fn new(buffer: &'a mut Vec<u8>) -> Self {
        Self { buffer }
    }

    /// Appends one attribute, as [`Emitable`] does, but asks for its kind and length only once.
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
/// family comes near the limit of the field.
fn wire_length(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes()
}
