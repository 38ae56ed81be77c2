//! The places where the kernel tests kill the agent. Without the feature `fault-injection` there are none.

#[cfg(feature = "fault-injection")]
mod injected {
    use std::sync::{
        LazyLock,
        atomic::{AtomicI64, Ordering},
    };

    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };

    /// How many points are passed before the agent dies; negative: it never does.
    static LEFT: LazyLock<AtomicI64> = LazyLock::new(|| {
        let wanted = std::env::var("LVS_AGENT_KILL_AT")
            .ok()
            .and_then(|text| text.parse().ok());
        AtomicI64::new(wanted.unwrap_or(-1))
    });

    /// Kills the process here when its turn has come.
    pub fn point() {
        if LEFT.load(Ordering::Relaxed) >= 0 && LEFT.fetch_sub(1, Ordering::Relaxed) == 0 {
            let _ = kill(Pid::this(), Signal::SIGKILL);
        }
    }

    /// The largest number of steps that goes to the kernel without a point between them.
    pub fn largest_batch() -> usize {
        if LEFT.load(Ordering::Relaxed) >= 0 {
            1
        } else {
            usize::MAX
        }
    }
}

#[cfg(feature = "fault-injection")]
pub use injected::{largest_batch, point};

/// Kills the process here when the tests want it.
#[cfg(not(feature = "fault-injection"))]
pub const fn point() {}

/// The largest number of steps that goes to the kernel without a point between them.
#[cfg(not(feature = "fault-injection"))]
pub const fn largest_batch() -> usize {
    usize::MAX
}
