//! The request to a guest and its verdict, as files in the directory of the run.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::kernel::Kernel;

/// The command that a guest runs, and its environment.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) kernel: Kernel,
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
    /// All environment variables of the command.
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) directory: PathBuf,
    /// The modules that the command needs.
    pub(crate) needs: Vec<String>,
    /// Whether the command uses the caller's terminal instead of having its output recorded.
    pub(crate) interactive: bool,
}

/// How the command in a guest ended.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Exit {
    /// It returned this exit status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// Converts the status of a child process; `None` if it neither exited nor was killed.
    pub(super) fn of(status: ExitStatus) -> Option<Self> {
        let by_signal = || status.signal().map(Self::Signal);
        status.code().map(Self::Code).or_else(by_signal)
    }

    /// The status that a shell would report: the exit status, or 128 plus the signal's number.
    pub fn code(&self) -> i32 {
        match self {
            Self::Code(code) => *code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// Returns whether the command returned 0.
    pub fn success(&self) -> bool {
        *self == Self::Code(0)
    }
}

/// The result that a guest's first process writes at its end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Verdict {
    /// The command was run.
    Ran(Exit),
    /// The command was not run, for this reason.
    Refused(String),
}

/// The directory through which the host and the guest of one run communicate.
#[derive(Clone, Debug)]
pub(crate) struct RunDirectory(PathBuf);

impl RunDirectory {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn stdout(&self) -> PathBuf {
        self.0.join("stdout")
    }

    pub(crate) fn stderr(&self) -> PathBuf {
        self.0.join("stderr")
    }

    /// The console of the guest's kernel.
    pub(crate) fn console(&self) -> PathBuf {
        self.0.join("console")
    }

    /// The directory for scripts.
    pub(crate) fn scripts(&self) -> PathBuf {
        self.0.join("scripts")
    }

    pub(crate) fn write_request(&self, request: &Request) -> Result<()> {
        let text =
            serde_json::to_vec(request).context("could not serialize the request to the guest")?;
        fs::write(self.request(), text)
            .with_context(|| format!("could not write {}", self.request().display()))
    }

    pub(crate) fn read_request(&self) -> Result<Request> {
        let path = self.request();
        let text = fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("could not parse {}", path.display()))
    }

    pub(crate) fn write_verdict(&self, verdict: &Verdict) -> Result<()> {
        let text =
            serde_json::to_vec(verdict).context("could not serialize the verdict of the guest")?;
        fs::write(self.verdict(), text)
            .with_context(|| format!("could not write {}", self.verdict().display()))
    }

    /// The guest's verdict; `None` if it ended without one.
    pub(crate) fn read_verdict(&self) -> Option<Verdict> {
        let text = fs::read(self.verdict()).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn request(&self) -> PathBuf {
        self.0.join("request.json")
    }

    fn verdict(&self) -> PathBuf {
        self.0.join("verdict.json")
    }
}
