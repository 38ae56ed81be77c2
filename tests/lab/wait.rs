//! Waits for conditions. Elsewhere, the lab sleeps only to pace its traffic.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The time between two checks of a condition.
const PAUSE: Duration = Duration::from_millis(5);

/// Evaluates `condition` until it returns a value, and returns that value.
///
/// `what` completes "timed out waiting for …" in the error after `timeout`. An error of the condition ends the wait; a
/// condition that is not met yet returns `Ok(None)`.
pub fn wait_until<T>(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if start.elapsed() >= timeout {
            bail!("timed out waiting for {what}: gave up after {timeout:?}");
        }
        std::thread::sleep(PAUSE);
    }
}
