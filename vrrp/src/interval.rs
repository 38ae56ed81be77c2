//! The time between two advertisements, and the times that follow from it.

use std::{fmt, time::Duration};

use thiserror::Error;

use crate::Priority;

const MAX_CENTISECONDS: u16 = 0x0fff;

/// The time between two advertisements: 1 to 4095 centiseconds, 10 ms to 40.95 s (RFC 9568, section 5.2.7, and erratum 8301).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(u16);

/// A number of centiseconds that an advertisement cannot carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the advertisement interval must be 1 to 4095 centiseconds, not {0}")]
pub struct IntervalError(pub u16);

impl Interval {
    /// The default, 1 second (RFC 9568, section 6.1).
    pub const DEFAULT: Self = Self(100);

    /// Creates an interval.
    ///
    /// # Errors
    ///
    /// If the number of centiseconds is 0 or more than 4095.
    pub const fn from_centiseconds(centiseconds: u16) -> Result<Self, IntervalError> {
        match centiseconds {
            1..=MAX_CENTISECONDS => Ok(Self(centiseconds)),
            _ => Err(IntervalError(centiseconds)),
        }
    }

    /// Returns the number of centiseconds, 1 to 4095.
    #[must_use]
    pub const fn centiseconds(self) -> u16 {
        self.0
    }

    /// Returns the interval as a duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64 * 10)
    }

    /// Returns `Skew_Time` (RFC 9568, section 6.1): how long a router with this priority waits when the active one, with this
    /// interval, has resigned. The higher the priority, the shorter the wait; between 1/256 and 255/256 of the interval.
    #[must_use]
    pub fn skew(self, priority: Priority) -> Duration {
        self.duration() * (256 - u32::from(priority.get())) / 256
    }

    /// Returns `Active_Down_Interval` (RFC 9568, section 6.1): how long a router with this priority hears nothing of the active
    /// one, with this interval, until it takes over.
    #[must_use]
    pub fn down(self, priority: Priority) -> Duration {
        self.shortest_down() + self.skew(priority)
    }

    /// Returns a time that is shorter than every router's [`down`](Self::down). An active router that was silent for less than
    /// this is active still.
    #[must_use]
    pub fn shortest_down(self) -> Duration {
        self.duration() * 3
    }
}

impl Default for Interval {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.duration())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_those_of_the_rfc() {
        let second = Interval::default();
        let times = |priority| {
            let priority = Priority::new(priority).unwrap();
            (second.skew(priority), second.down(priority))
        };
        // Section 6.1: ((256 - priority) * interval) / 256.
        assert_eq!(
            times(100),
            (
                Duration::from_micros(609_375),
                Duration::from_micros(3_609_375)
            )
        );
        assert_eq!(times(1).0, Duration::from_nanos(996_093_750));
        assert_eq!(times(255).0, Duration::from_nanos(3_906_250));
    }

    #[test]
    fn an_interval_has_twelve_bits_and_is_not_zero() {
        assert_eq!(Interval::from_centiseconds(0), Err(IntervalError(0)));
        assert_eq!(Interval::from_centiseconds(4096), Err(IntervalError(4096)));
        let longest = Interval::from_centiseconds(4095).unwrap();
        assert_eq!(longest.duration(), Duration::from_millis(40_950));
        assert_eq!(longest.to_string(), "40.95s");
        let shortest = Interval::from_centiseconds(1).unwrap();
        assert_eq!(shortest.duration(), Duration::from_millis(10));
    }
}
