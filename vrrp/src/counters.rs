//! How many packets were discarded, and why.

use std::{collections::BTreeMap, fmt};

use crate::ParseError;

/// The kind of a [`ParseError`], without its values. The text is a label for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParseErrorKind {
    /// [`ParseError::Family`].
    Family,
    /// [`ParseError::HopLimit`].
    HopLimit,
    /// [`ParseError::Length`].
    Length,
    /// [`ParseError::Version2`].
    Version2,
    /// [`ParseError::Version`].
    Version,
    /// [`ParseError::Type`].
    Type,
    /// [`ParseError::Checksum`].
    Checksum,
    /// [`ParseError::Vrid`].
    Vrid,
    /// [`ParseError::NoAddress`].
    NoAddress,
    /// [`ParseError::Interval`].
    Interval,
}

/// The number of discarded packets of each kind. Starts at zero, and only grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<ParseErrorKind, u64>);

impl ParseErrorKind {
    /// Every kind, in order.
    pub const ALL: [Self; 10] = [
        Self::Family,
        Self::HopLimit,
        Self::Length,
        Self::Version2,
        Self::Version,
        Self::Type,
        Self::Checksum,
        Self::Vrid,
        Self::NoAddress,
        Self::Interval,
    ];
}

impl ParseError {
    /// Returns the kind.
    #[must_use]
    pub const fn kind(&self) -> ParseErrorKind {
        match self {
            Self::Family => ParseErrorKind::Family,
            Self::HopLimit { .. } => ParseErrorKind::HopLimit,
            Self::Length { .. } => ParseErrorKind::Length,
            Self::Version2 { .. } => ParseErrorKind::Version2,
            Self::Version(_) => ParseErrorKind::Version,
            Self::Type(_) => ParseErrorKind::Type,
            Self::Checksum(_) => ParseErrorKind::Checksum,
            Self::Vrid => ParseErrorKind::Vrid,
            Self::NoAddress => ParseErrorKind::NoAddress,
            Self::Interval => ParseErrorKind::Interval,
        }
    }
}

impl Counters {
    /// Counts one discarded packet.
    pub fn count(&mut self, error: &ParseError) {
        let count = self.0.entry(error.kind()).or_default();
        *count = count.saturating_add(1);
    }

    /// Returns how many packets were discarded for one reason.
    #[must_use]
    pub fn get(&self, kind: ParseErrorKind) -> u64 {
        self.0.get(&kind).copied().unwrap_or(0)
    }

    /// Yields every kind with its number, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (ParseErrorKind, u64)> + '_ {
        ParseErrorKind::ALL
            .into_iter()
            .map(|kind| (kind, self.get(kind)))
    }
}

impl fmt::Display for ParseErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Family => "family",
            Self::HopLimit => "hop_limit",
            Self::Length => "length",
            Self::Version2 => "version_2",
            Self::Version => "version",
            Self::Type => "type",
            Self::Checksum => "checksum",
            Self::Vrid => "vrid",
            Self::NoAddress => "no_address",
            Self::Interval => "interval",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted_by_itself() {
        let mut counters = Counters::default();
        counters.count(&ParseError::Checksum(1));
        counters.count(&ParseError::Checksum(2));
        counters.count(&ParseError::Interval);
        assert_eq!(counters.get(ParseErrorKind::Checksum), 2);
        assert_eq!(counters.get(ParseErrorKind::Interval), 1);
        assert_eq!(counters.iter().map(|(_, count)| count).sum::<u64>(), 3);
        assert_eq!(counters.iter().count(), ParseErrorKind::ALL.len());
    }

    #[test]
    fn every_kind_has_a_label_of_its_own() {
        let labels = ParseErrorKind::ALL.map(|kind| kind.to_string());
        let distinct: std::collections::BTreeSet<_> = labels.iter().collect();
        assert_eq!(distinct.len(), labels.len());
    }
}
