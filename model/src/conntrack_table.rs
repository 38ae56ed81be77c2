//! How full the table of connection tracking is.

use serde::{Deserialize, Serialize};

/// The table of connection tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackTable {
    /// How many connections it has.
    pub count: u64,
    /// How many it may have. The kernel drops packets of further ones.
    pub max: u64,
}

impl ConntrackTable {
    /// Returns whether more than 80 % of it are used.
    #[must_use]
    pub const fn is_nearly_full(self) -> bool {
        self.count as u128 * 5 > self.max as u128 * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_nearly_full_above_80_percent() {
        for (count, max, expected) in [
            (80, 100, false),
            (81, 100, true),
            (0, 0, false),
            (u64::MAX, u64::MAX, true),
        ] {
            let table = ConntrackTable { count, max };
            assert_eq!(table.is_nearly_full(), expected, "{table:?}");
        }
    }
}
