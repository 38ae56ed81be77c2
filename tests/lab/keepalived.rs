//! Runs keepalived on a host of the lab.

use std::fs::{self, File};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::host::{Host, Process};
use crate::wait::wait_until;

/// How long to wait for keepalived.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The options for the files with the ids of its processes, and the files: first the process that starts the others again.
const PROCESSES: [(&str, &str); 3] = [
    ("--pid", "parent"),
    ("--vrrp_pid", "vrrp"),
    ("--checkers_pid", "checkers"),
];

/// A running keepalived. Dropping it kills its first process, which ends the others.
#[derive(Debug)]
pub struct Keepalived {
    _process: Process,
    directory: TempDir,
}

impl Keepalived {
    /// Starts it with this configuration.
    pub fn start(host: &Host, configuration: &str) -> Result<Self> {
        let directory = tempfile::tempdir().context("could not create a directory")?;
        let path = |name: &str| directory.path().join(name);
        fs::write(path("conf"), configuration).context("could not write a configuration")?;
        let log = File::create(path("log")).context("could not create a log")?;
        let errors = log.try_clone().context("could not open a log twice")?;
        let mut command = host.command("keepalived");
        command
            .args(["--dont-fork", "--log-console", "--use-file"])
            .arg(path("conf"));
        for (option, file) in PROCESSES {
            command.arg(option).arg(path(file));
        }
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        Ok(Self {
            _process: host.spawn(&mut command)?,
            directory,
        })
    }

    /// The log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Waits until a condition holds; an error includes the log.
    pub fn await_that(&self, what: &str, condition: impl Fn() -> Result<bool>) -> Result<()> {
        wait_until(what, TIMEOUT, || Ok(condition()?.then_some(())))
            .with_context(|| format!("keepalived wrote:\n{}", self.log()))
    }

    /// Kills all its processes.
    pub fn kill(&self) -> Result<()> {
        for (_, file) in PROCESSES {
            let path = self.directory.path().join(file);
            let id = fs::read_to_string(&path)
                .with_context(|| format!("could not read {}", path.display()))?;
            kill(Pid::from_raw(id.trim().parse()?), Signal::SIGKILL)
                .with_context(|| format!("could not kill the process of {file}"))?;
        }
        Ok(())
    }
}
