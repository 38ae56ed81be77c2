//! Points in time, which the caller reads from its clock.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// A point in time: the time since an epoch that the caller chooses, the same for all events of a machine.
///
/// `std::time::Instant` cannot be made from numbers, so no test could hand over one that lies in the past or far in the future.
/// The clock must go on while the machine is suspended, `CLOCK_BOOTTIME` on Linux: `CLOCK_MONOTONIC`, which `Instant` reads, stops
/// then, and a router would not notice that others may have taken over.
///
/// Sums that do not fit end at the latest time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Duration);

impl Time {
    /// Creates a point in time from the time since the epoch.
    #[must_use]
    pub const fn since_epoch(duration: Duration) -> Self {
        Self(duration)
    }

    /// Returns the time since the epoch.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// Returns the time that has passed since an earlier point, zero if that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }
}
