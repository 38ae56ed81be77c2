//! The names that the kernel keeps in 16 bytes: of schedulers, persistence engines and interfaces.

use std::{fmt, str::FromStr};

use netlink_packet_core::DecodeError;
use thiserror::Error;

const MAX_LENGTH: usize = 15;

/// The name of a scheduler, persistence engine or interface: 1 to 15 bytes without NUL.
///
/// The kernel keeps each of them in 16 bytes with a NUL at the end (`IP_VS_SCHEDNAME_MAXLEN`,
/// `IP_VS_PENAME_MAXLEN`, `IP_VS_IFNAME_MAXLEN`). The bytes are stored inline, so that every
/// setting is `Copy`. A name read from an attribute may be empty: ipvsadm sends an empty scheduler
/// in requests that only identify a service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    // The bytes past `length` are zero, so that derived comparisons compare only the name.
    bytes: [u8; MAX_LENGTH],
    length: u8,
}

/// Why a text cannot be a [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// The text is empty.
    #[error("name is empty")]
    Empty,
    /// The text has more than 15 bytes.
    #[error("name has {length} bytes, the kernel takes at most 15")]
    TooLong {
        /// The number of bytes of the text.
        length: usize,
    },
    /// The text contains a NUL byte, at which the kernel would cut it.
    #[error("name contains a NUL byte")]
    ContainsNul,
}

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    /// Fails when the text is empty, longer than 15 bytes or contains a NUL.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.as_bytes().contains(&0) {
            return Err(NameError::ContainsNul);
        }
        Self::of_any_length(text)
    }

    fn of_any_length(text: &str) -> Result<Self, NameError> {
        let mut bytes = [0; MAX_LENGTH];
        let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
        let room = bytes
            .get_mut(..text.len())
            .ok_or(NameError::TooLong { length: text.len() })?;
        room.copy_from_slice(text.as_bytes());
        Ok(Self { bytes, length })
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }

    /// Reads a string attribute: the bytes before the first NUL.
    pub(crate) fn parse(value: &[u8]) -> Result<Self, DecodeError> {
        let bytes = value.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = str::from_utf8(bytes).map_err(|error| DecodeError::from(error.to_string()))?;
        Self::of_any_length(text).map_err(|error| DecodeError::from(error.to_string()))
    }

    /// Returns the length of the attribute's value, NUL included.
    pub(crate) fn wire_len(&self) -> usize {
        usize::from(self.length) + 1
    }

    /// Writes name and NUL into a buffer of [`wire_len`](Self::wire_len) bytes.
    pub(crate) fn emit(&self, buffer: &mut [u8]) {
        let zeros = std::iter::repeat(&0);
        for (to, from) in buffer.iter_mut().zip(self.as_bytes().iter().chain(zeros)) {
            *to = *from;
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl TryFrom<&str> for Name {
    type Error = NameError;

    fn try_from(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_to_fifteen_bytes() {
        assert_eq!(Name::new("").unwrap_err(), NameError::Empty);
        assert_eq!(
            Name::new("fifteen-letters").unwrap().as_str(),
            "fifteen-letters"
        );
        assert_eq!(
            Name::new("sixteen-letters!").unwrap_err(),
            NameError::TooLong { length: 16 }
        );
    }

    #[test]
    fn a_name_with_nul_is_refused() {
        assert_eq!(Name::new("r\0r").unwrap_err(), NameError::ContainsNul);
    }

    #[test]
    fn a_string_attribute_ends_at_its_nul() {
        assert_eq!(Name::parse(b"wlc\0\0").unwrap(), Name::new("wlc").unwrap());
        assert_eq!(Name::parse(b"\0").unwrap().as_str(), "");
    }
}
