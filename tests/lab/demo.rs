//! The demonstration: three ways of load balancing, shown with packets.

use anyhow::{Result, bail};

/// Shows every chapter.
pub(crate) fn run() -> Result<()> {
    bail!("the demonstration is not written yet")
}
