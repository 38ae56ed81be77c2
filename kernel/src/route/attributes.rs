//! Reads the attributes of a netlink message.

use std::net::IpAddr;

use netlink_packet_core::{
    DecodeError, NLA_HEADER_SIZE, NlasIterator, parse_ip, parse_u8, parse_u32,
};

/// The raw attributes of a message or a nested attribute.
pub(crate) struct Attributes<'a>(Vec<(u16, &'a [u8])>);

impl<'a> Attributes<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        NlasIterator::new(bytes)
            .map(|nla| {
                let nla = nla?;
                let (kind, end) = (nla.kind(), NLA_HEADER_SIZE + nla.value_length());
                let value = nla.into_inner().get(NLA_HEADER_SIZE..end);
                Ok((kind, value.unwrap_or_default()))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Reads the attributes after a header of a fixed length.
    pub(crate) fn after(header: usize, payload: &'a [u8]) -> Result<Self, DecodeError> {
        Self::read(payload.get(header..).unwrap_or_default())
    }

    pub(crate) fn get(&self, kind: u16) -> Option<&'a [u8]> {
        let found = self.0.iter().find(|(found, _)| *found == kind);
        found.map(|(_, value)| *value)
    }

    /// Returns whether there are none besides these.
    pub(crate) fn are_among(&self, kinds: &[u16]) -> bool {
        self.0.iter().all(|(kind, _)| kinds.contains(kind))
    }

    pub(crate) fn nest(&self, kind: u16) -> Result<Self, DecodeError> {
        Self::read(self.get(kind).unwrap_or_default())
    }

    pub(crate) fn u8(&self, kind: u16) -> Result<Option<u8>, DecodeError> {
        self.get(kind).map(parse_u8).transpose()
    }

    pub(crate) fn u32(&self, kind: u16) -> Result<Option<u32>, DecodeError> {
        self.get(kind).map(parse_u32).transpose()
    }

    pub(crate) fn address(&self, kind: u16) -> Result<Option<IpAddr>, DecodeError> {
        self.get(kind).map(parse_ip).transpose()
    }

    /// Returns a string up to its terminating zero. `None` also if it is not UTF-8.
    pub(crate) fn text(&self, kind: u16) -> Option<&'a str> {
        let value = self.get(kind)?;
        let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
        std::str::from_utf8(text).ok()
    }
}
