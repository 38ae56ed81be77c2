//! Runs keepalived on a host of the lab.

use std::fs::{self, File};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
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

    /// Gives it another configuration while it runs.
    pub fn reload(&self, configuration: &str) -> Result<()> {
        let conf = self.directory.path().join("conf");
        fs::write(conf, configuration).context("could not write a configuration")?;
        let [(_, parent), ..] = PROCESSES;
        let id = self.process_id(parent)?;
        kill(id, Signal::SIGHUP).with_context(|| format!("could not signal process {id}"))
    }

    /// Kills all its processes, which end each other as soon as the first is dead.
    pub fn kill(&self) -> Result<()> {
        let ids = PROCESSES
            .iter()
            .map(|(_, file)| self.process_id(file))
            .collect::<Result<Vec<_>>>()?;
        for id in ids {
            match kill(id, Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).context(format!("could not kill process {id}")),
            }
        }
        Ok(())
    }

    /// The id in this file, once keepalived has written it.
    fn process_id(&self, file: &str) -> Result<Pid> {
        let path = self.directory.path().join(file);
        let what = format!("keepalived to write {}", path.display());
        wait_until(&what, TIMEOUT, || {
            let id = fs::read_to_string(&path).unwrap_or_default();
            Ok(id.trim().parse().ok().map(Pid::from_raw))
        })
    }
}
