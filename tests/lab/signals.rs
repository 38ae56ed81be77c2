//! The signals that end a program of the lab in order.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Longer than any guest is allowed to live.
pub(crate) const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Blocks the termination signals, so that this process can end its guest in order.
pub(crate) fn hold_signals() -> Result<SignalFd> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals
        .thread_block()
        .context("could not hold back the signals")?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .context("could not listen to the signals")
}
