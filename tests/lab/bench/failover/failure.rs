//! The failures that are measured.

use std::{fmt, time::Duration};

/// What happens to the director that holds the VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Failure {
    /// All processes of the program are killed, and it is started again 4 s after the takeover.
    Kill,
    /// The kernel is gone; the machine boots again.
    PowerOff,
    /// The interface is down, until 1 s after the takeover.
    LinkDown,
    /// The kernel does not run, until 1 s after the takeover.
    Freeze,
    /// The director is put on standby, until 1 s after the takeover.
    HandOver,
}

impl Failure {
    /// How long the failure goes on after the takeover.
    pub(super) fn lasts(self) -> Duration {
        match self {
            Self::Kill => Duration::from_secs(4),
            Self::PowerOff => Duration::ZERO,
            Self::LinkDown | Self::Freeze | Self::HandOver => Duration::from_secs(1),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kill => "program killed",
            Self::PowerOff => "power off",
            Self::LinkDown => "link down",
            Self::Freeze => "machine frozen",
            Self::HandOver => "planned hand-over",
        })
    }
}
