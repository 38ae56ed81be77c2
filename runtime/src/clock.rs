//! The time of day.

use std::time::SystemTime;

/// Returns the time of day in seconds since 1970; 0 if the clock is set to a time before.
#[must_use]
pub fn seconds_since_1970() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}
