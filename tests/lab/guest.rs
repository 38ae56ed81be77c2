//! A guest: one command under a kernel with IPVS, supervised by the host.
//!
//! If the host's kernel has IPVS, the guest is a set of new namespaces; otherwise it is a User Mode Linux kernel whose root file
//! system is the host's own, so that a program that was just built runs unchanged. In both cases the lab binary is the guest's
//! first process (see `init`), and host and guest exchange the request, the output and the verdict in a directory of the run.
//!
//! Nothing of a guest outlives it: its processes are in a PID namespace whose first process is the kernel (or the lab). The host's
//! kernel kills that process when the process that booted the guest ends, for whatever reason.

mod boot;
pub(crate) mod init;
pub(crate) mod request;
mod script;
mod tap;
mod xstate;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::log::last_lines;

use self::request::{RunDirectory, Verdict};
use crate::wait::wait_until;

pub use self::boot::Boot;
pub(crate) use self::boot::find_lab_binary;
pub use self::init::run_as_init;
pub use self::request::Exit;
pub(crate) use self::script::READY;
pub use self::script::run_scripts;
pub(crate) use self::tap::Network;
pub use self::tap::{Bridge, Tap};

/// How many of the kernel's last lines an error includes.
const CONSOLE_LINES: usize = 60;

/// A booted guest. Dropping it ends the guest immediately.
#[derive(Debug)]
pub struct Guest {
    /// The thread that started the guest. The guest ends with it.
    supervisor: Option<JoinHandle<Result<Exit>>>,
    stop: Arc<AtomicBool>,
    /// The process that started the guest's kernel.
    process: Arc<OnceLock<u32>>,
    recordings: [Recording; 2],
    /// The directory for scripts.
    scripts: PathBuf,
}

/// How a guest's command ended and what it wrote.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How the command ended.
    pub exit: Exit,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error, and warnings of the lab.
    pub stderr: String,
}

impl Guest {
    fn start(
        mut command: Command,
        (holder, run): (TempDir, RunDirectory),
        mut outlets: Vec<Outlet>,
        recordings: [Recording; 2],
        timeout: Duration,
    ) -> Result<Self> {
        let scripts = run.scripts();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let process = Arc::new(OnceLock::new());
        let started = Arc::clone(&process);
        let supervisor = std::thread::Builder::new()
            .name("guest".to_owned())
            .spawn(move || {
                let child = command.spawn().context("could not start the guest")?;
                started.set(child.id()).ok();
                let end = supervise(child, &mut outlets, &stopped, timeout);
                let exit = end.and_then(|()| read_exit(&run));
                drop(holder);
                exit
            })
            .context("could not start the thread that supervises the guest")?;
        Ok(Self {
            supervisor: Some(supervisor),
            stop,
            process,
            recordings,
            scripts,
        })
    }

    /// Waits for the end of the guest. Fails if the command was not run or the guest ended before it.
    pub fn wait(mut self) -> Result<Finished> {
        let exit = self.join()?;
        let [stdout, stderr] = self.recordings.each_ref().map(Recording::text);
        Ok(Finished {
            exit,
            stdout,
            stderr,
        })
    }

    /// Waits until the command has written `text` to standard output or standard error.
    pub fn wait_for_output(&self, text: &str, timeout: Duration) -> Result<()> {
        wait_until(&format!("`{text}` from the guest"), timeout, || {
            if self
                .recordings
                .iter()
                .any(|recording| recording.text().contains(text))
            {
                return Ok(Some(()));
            }
            if self.is_finished() {
                bail!(
                    "the guest ended before it wrote `{text}`; it wrote:\n{}{}",
                    self.stdout(),
                    self.stderr()
                );
            }
            Ok(None)
        })
    }

    /// What the command has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.recordings[0].text()
    }

    /// What the command has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.recordings[1].text()
    }

    /// Returns whether the guest has ended.
    pub fn is_finished(&self) -> bool {
        self.supervisor.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the guest immediately and without any cleanup, as a power cut does.
    pub fn pull_the_plug(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The error that the guest ended without a verdict is expected.
        self.join().ok();
    }

    /// Stops the kernel of a User Mode Linux guest, as a hypervisor pauses a virtual machine.
    pub fn freeze(&self) -> Result<()> {
        self.signal_kernel(Signal::SIGSTOP)
    }

    /// Lets the kernel of a frozen guest go on.
    pub fn thaw(&self) -> Result<()> {
        self.signal_kernel(Signal::SIGCONT)
    }

    /// The kernel is the child of the first process of the guest's PID namespace (see [`Boot`]). Its own processes are traced by
    /// it and get no signal.
    fn signal_kernel(&self, signal: Signal) -> Result<()> {
        let outer = *self.process.get().context("the guest has not started")?;
        let kernel = only_child(only_child(outer)?)?;
        kill(Pid::from_raw(kernel.try_into()?), signal)
            .with_context(|| format!("could not send {signal} to the kernel of a guest"))
    }

    fn join(&mut self) -> Result<Exit> {
        let supervisor = self
            .supervisor
            .take()
            .context("the guest has already been waited for")?;
        supervisor
            .join()
            .unwrap_or_else(|_panic| Err(anyhow!("the thread that supervises the guest panicked")))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.join().ok();
    }
}

/// Forwards the guest's output until the guest ends, is stopped or times out. Afterwards no process of it is left.
fn supervise(
    mut child: Child,
    outlets: &mut [Outlet],
    stop: &AtomicBool,
    timeout: Duration,
) -> Result<()> {
    let end = wait_until("the end of the guest", timeout, || {
        for outlet in &mut *outlets {
            outlet.forward()?;
        }
        if stop.load(Ordering::Relaxed) {
            bail!("the guest was stopped");
        }
        child.try_wait().context("could not wait for the guest")
    });
    if let Ok(group) = i32::try_from(child.id()) {
        // Fails for a guest that has ended, and for an interactive one, which shares the caller's process group.
        killpg(Pid::from_raw(group), Signal::SIGKILL).ok();
    }
    child.kill().ok();
    child.wait().context("could not wait for the guest")?;
    for outlet in outlets {
        outlet.forward()?;
    }
    end.map(|_status| ())
}

fn only_child(process: u32) -> Result<u32> {
    let path = format!("/proc/{process}/task/{process}/children");
    let children = fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
    let child = children.trim().parse();
    child.with_context(|| format!("process {process} has the children `{children}`, not one"))
}

/// Reads how the command ended. If the guest wrote no verdict, the error includes the end of its kernel's log.
fn read_exit(run: &RunDirectory) -> Result<Exit> {
    match run.read_verdict() {
        Some(Verdict::Ran(exit)) => Ok(exit),
        Some(Verdict::Refused(reason)) => bail!("{reason}"),
        None => bail!(
            "the guest ended without a verdict; the end of its kernel's log:\n{}",
            last_lines(&run.console(), CONSOLE_LINES)
        ),
    }
}

/// One output stream of the guest: the file that the guest appends to, and the writer to forward to.
struct Outlet {
    file: File,
    writer: Box<dyn Write + Send>,
}

impl Outlet {
    fn new(path: &Path, writer: Box<dyn Write + Send>) -> Result<Self> {
        let file =
            File::open(path).with_context(|| format!("could not open {}", path.display()))?;
        Ok(Self { file, writer })
    }

    /// Forwards what was appended since the last call.
    fn forward(&mut self) -> Result<()> {
        let copied = io::copy(&mut self.file, &mut self.writer)
            .context("could not forward the guest's output")?;
        if copied > 0 {
            self.writer
                .flush()
                .context("could not forward the guest's output")?;
        }
        Ok(())
    }
}

/// Output kept in memory.
#[derive(Clone, Debug, Default)]
struct Recording(Arc<Mutex<Vec<u8>>>);

impl Recording {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Recording {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
