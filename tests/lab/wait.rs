//! Waiting for a condition: the only place of the lab that lets time pass.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long to rest between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks at `condition` until it yields a value, and returns that value.
///
/// `what` completes the sentence "waited in vain for …" of the error that a passed `timeout` gives. An error of the condition
/// itself ends the wait at once; a condition that may fail for a while returns `Ok(None)` instead.
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
            bail!("waited in vain for {what}: gave up after {timeout:?}");
        }
        std::thread::sleep(PAUSE);
    }
}
