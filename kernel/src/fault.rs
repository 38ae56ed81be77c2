//! Points at which the kernel tests kill the agent. Without the feature `fault-injection` they do nothing.

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

    /// The name in `LVS_AGENT_KILL_AT`, if it is none of the numbers.
    static NAMED: LazyLock<Option<String>> = LazyLock::new(|| {
        let name = std::env::var("LVS_AGENT_KILL_AT").ok();
        name.filter(|name| name.parse::<i64>().is_err())
    });

    /// How many more points are passed before the process is killed. Negative: it is never killed.
    static REMAINING: LazyLock<AtomicI64> = LazyLock::new(|| {
        let kill_at = std::env::var("LVS_AGENT_KILL_AT")
            .ok()
            .and_then(|text| text.parse().ok());
        AtomicI64::new(kill_at.unwrap_or(-1))
    });

    /// Kills the process if this is the point that `LVS_AGENT_KILL_AT` selects. Points are counted from 0.
    pub fn point() {
        if REMAINING.load(Ordering::Relaxed) >= 0 && REMAINING.fetch_sub(1, Ordering::Relaxed) == 0
        {
            die();
        }
    }

    /// Kills the process if `LVS_AGENT_KILL_AT` is the name of this point, which is not counted.
    pub fn named(name: &str) {
        if NAMED.as_deref() == Some(name) {
            die();
        }
    }

    fn die() {
        let _ = kill(Pid::this(), Signal::SIGKILL);
    }

    /// Returns how many steps can be sent to the kernel without a point between them.
    pub fn largest_batch() -> usize {
        if REMAINING.load(Ordering::Relaxed) >= 0 {
            1
        } else {
            usize::MAX
        }
    }
}

#[cfg(feature = "fault-injection")]
pub use injected::{largest_batch, named, point};

/// Does nothing. With the feature `fault-injection` it can kill the process.
#[cfg(not(feature = "fault-injection"))]
pub const fn point() {}

/// Does nothing. With the feature `fault-injection` it can kill the process.
#[cfg(not(feature = "fault-injection"))]
pub const fn named(_name: &str) {}

/// Returns how many steps can be sent to the kernel without a point between them: any number.
#[cfg(not(feature = "fault-injection"))]
pub const fn largest_batch() -> usize {
    usize::MAX
}
