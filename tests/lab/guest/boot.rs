//! Describes and boots a guest.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::request::{Request, RunDirectory};
use super::tap::Tap;
use super::xstate;
use super::{Finished, Guest, Outlet, Recording};
use crate::kernel::Kernel;
use crate::leftovers::remove_at_the_end;

/// Counts the guests of this process.
static TURN: AtomicUsize = AtomicUsize::new(0);

/// A guest to boot, and the command to run in it.
#[derive(Clone, Debug)]
pub struct Boot {
    program: String,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    directory: Option<PathBuf>,
    memory: String,
    needs: Vec<String>,
    timeout: Duration,
    init: Option<PathBuf>,
    kernel: Option<Kernel>,
    interactive: bool,
    wire: Option<String>,
    disk: Option<PathBuf>,
}

impl Boot {
    /// A guest that runs `program` with 512 MiB, a timeout of 15 minutes, and the caller's environment and working directory.
    pub fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: std::env::vars_os()
                .filter_map(|(key, value)| {
                    Some((key.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            directory: None,
            memory: "512M".to_owned(),
            needs: Vec::new(),
            timeout: Duration::from_secs(900),
            init: None,
            kernel: None,
            interactive: false,
            wire: None,
            disk: None,
        }
    }

    /// A guest that runs a shell script, up to the first command that fails.
    pub fn script(script: impl Into<String>) -> Self {
        Self::new("sh").args(["-e".to_owned(), "-c".to_owned(), script.into()])
    }

    /// Adds arguments to the command.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets one environment variable of the command.
    #[must_use]
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.insert(key.into(), value.into());
        self
    }

    /// Sets the working directory of the command.
    #[must_use]
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Sets the memory of a User Mode Linux guest, in the kernel's notation: `512M`, `2G`.
    #[must_use]
    pub fn memory(mut self, memory: impl Into<String>) -> Self {
        self.memory = memory.into();
        self
    }

    /// Adds a kernel module that the command needs; without it the run fails.
    #[must_use]
    pub fn need(mut self, module: impl Into<String>) -> Self {
        self.needs.push(module.into());
        self
    }

    /// Sets the time after which the guest is ended and the run fails.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the lab binary that is the guest's first process.
    ///
    /// By default this is the lab binary next to the running program, where cargo puts it for the tests of this package.
    #[must_use]
    pub fn init(mut self, lab: impl Into<PathBuf>) -> Self {
        self.init = Some(lab.into());
        self
    }

    /// Sets the kernel instead of choosing it.
    #[must_use]
    pub fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = Some(kernel);
        self
    }

    /// Connects a tap device of this machine to the guest, where it is `vec0`. This needs User Mode Linux, which is used even if
    /// the host has IPVS.
    #[must_use]
    pub fn tap(mut self, tap: &Tap) -> Self {
        self.wire = Some(format!(
            "vec0:transport=tap,ifname={},mac={},depth=64,gro=1",
            tap.name(),
            tap.link_address()
        ));
        self.kernel = Some(Kernel::UserMode);
        self
    }

    /// Makes a file of this machine the guest's disk `/dev/ubda`. This needs User Mode Linux.
    #[must_use]
    pub fn disk(mut self, disk: impl Into<PathBuf>) -> Self {
        self.disk = Some(disk.into());
        self.kernel = Some(Kernel::UserMode);
        self
    }

    /// Connects the command to the caller's terminal instead of recording its output.
    #[must_use]
    pub fn interactive(mut self) -> Self {
        self.interactive = true;
        self
    }

    /// Boots the guest and records what the command writes.
    pub fn start(self) -> Result<Guest> {
        let recordings = [Recording::default(), Recording::default()];
        let writers = recordings
            .clone()
            .map(|recording| Box::new(recording) as Box<dyn Write + Send>);
        self.start_with(writers, recordings)
    }

    /// Boots the guest and forwards the command's output as it is written.
    pub fn start_into(
        self,
        stdout: impl Write + Send + 'static,
        stderr: impl Write + Send + 'static,
    ) -> Result<Guest> {
        self.start_with([Box::new(stdout), Box::new(stderr)], Default::default())
    }

    /// Boots the guest, waits for its end, and returns the output. If the command fails, the error includes the output.
    pub fn run(self) -> Result<Finished> {
        let program = self.program.clone();
        let finished = self.start()?.wait()?;
        ensure!(
            finished.exit.success(),
            "`{program}` ended in the guest with status {}\n{}{}",
            finished.exit.code(),
            finished.stdout,
            finished.stderr
        );
        Ok(finished)
    }

    fn start_with(
        self,
        writers: [Box<dyn Write + Send>; 2],
        recordings: [Recording; 2],
    ) -> Result<Guest> {
        let kernel = self.kernel.map_or_else(Kernel::choose, Ok)?;
        kernel.check()?;
        let holder = tempfile::Builder::new()
            .prefix("lab-")
            .tempdir()
            .context("could not create a directory for the run")?;
        remove_at_the_end(holder.path())?;
        let run = RunDirectory::new(holder.path());
        fs::create_dir(run.scripts()).context("could not create a directory for scripts")?;
        let files = [run.stdout(), run.stderr()];
        for path in files.iter().chain([&run.console()]) {
            File::create(path).with_context(|| format!("could not create {}", path.display()))?;
        }
        let mut outlets = Vec::new();
        for (path, writer) in files.iter().zip(writers) {
            outlets.push(Outlet::new(path, writer)?);
        }
        let command = self.command(kernel, &run)?;
        let timeout = self.timeout;
        run.write_request(&self.into_request(kernel)?)?;
        Guest::start(command, (holder, run), outlets, recordings, timeout)
    }

    fn into_request(self, kernel: Kernel) -> Result<Request> {
        let directory = match self.directory {
            Some(directory) => directory,
            None => std::env::current_dir().context("could not read the working directory")?,
        };
        Ok(Request {
            kernel,
            program: self.program,
            arguments: self.arguments,
            environment: self.environment,
            directory,
            needs: self.needs,
            interactive: self.interactive,
        })
    }

    /// The host's command that starts the guest.
    ///
    /// `setpriv` ends `unshare` with the thread that started it, `unshare` ends the first process of the new PID namespace, and the
    /// kernel then ends the rest.
    fn command(&self, kernel: Kernel, run: &RunDirectory) -> Result<Command> {
        let init = self.init.clone().map_or_else(find_lab_binary, Ok)?;
        let mut command = Command::new("setpriv");
        command.args([
            "--pdeathsig",
            "KILL",
            "--",
            "unshare",
            "--pid",
            "--fork",
            "--kill-child=KILL",
            "--mount-proc",
        ]);
        match kernel {
            Kernel::Host => {
                command
                    .args(["--net", "--mount", "--"])
                    .arg(init)
                    .arg("guest-init")
                    .arg(run.path());
            }
            Kernel::UserMode => {
                // A shell is the first process of the namespace, not User Mode Linux. The host's kernel shields the first process
                // from signals; after a panic User Mode Linux sends itself SIGABRT, and would otherwise loop forever.
                command
                    .args(["--", "taskset", "--cpu-list", &one_processor()?.to_string()])
                    .args(["sh", "-c", "LD_PRELOAD=$0 linux.uml \"$@\"; exit $?"])
                    .arg(xstate::build(run.path())?)
                    .args(self.kernel_arguments(&init, run)?);
            }
        }
        if !self.interactive {
            let console = File::options()
                .append(true)
                .open(run.console())
                .context("could not open the console of the guest")?;
            let copy = console
                .try_clone()
                .context("could not open the console of the guest twice")?;
            // Its own process group, so that the terminal's Ctrl-C does not reach the guest: the lab ends it in order.
            command
                .stdin(Stdio::null())
                .stdout(console)
                .stderr(copy)
                .process_group(0);
        }
        Ok(command)
    }

    fn kernel_arguments(&self, init: &Path, run: &RunDirectory) -> Result<Vec<OsString>> {
        // The kernel splits its command line at spaces, so it gets a symbolic link whose path has none.
        let link = run.path().join("init");
        std::os::unix::fs::symlink(init, &link)
            .with_context(|| format!("could not create {}", link.display()))?;
        let directory = run
            .path()
            .to_str()
            .filter(|path| !path.contains(char::is_whitespace));
        let directory = directory.with_context(|| {
            format!("the path {} must not contain spaces", run.path().display())
        })?;
        let console = if self.interactive {
            "con0=fd:0,fd:1"
        } else {
            "con0=null,fd:1"
        };
        let disk = self
            .disk
            .iter()
            .map(|disk| format!("ubd0={}", disk.display()));
        Ok([
            format!("mem={}", self.memory),
            "rootfstype=hostfs".to_owned(),
            "rootflags=/".to_owned(),
            "rw".to_owned(),
            "quiet".to_owned(),
            // An oops ends the guest instead of leaving it half working.
            "oops=panic".to_owned(),
            format!("uml_dir={directory}"),
            "umid=uml".to_owned(),
            "con=null".to_owned(),
            console.to_owned(),
        ]
        .into_iter()
        .chain(self.wire.clone())
        .chain(disk)
        .chain([
            format!("init={}", link.display()),
            "--".to_owned(),
            "guest-init".to_owned(),
            directory.to_owned(),
        ])
        .map(OsString::from)
        .collect())
    }
}

/// Chooses one of the processors that this process may use; guests take turns.
///
/// User Mode Linux has one processor and switches to its processes by ptrace. Switching is seven times as fast on one
/// processor of the host as across two (2026, 6.1 on a virtual machine: a page fault 20 us instead of 149 us, a system call
/// 5.5 us instead of 39 us).
fn one_processor() -> Result<usize> {
    let allowed =
        sched_getaffinity(Pid::from_raw(0)).context("could not read the usable processors")?;
    let usable: Vec<usize> = (0..CpuSet::count())
        .filter(|processor| allowed.is_set(*processor).unwrap_or_default())
        .collect();
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    let first = usize::try_from(std::process::id())?;
    let chosen = first.wrapping_add(turn) % usable.len().max(1);
    usable
        .get(chosen)
        .copied()
        .context("this process may use no processor")
}

/// Finds the lab binary: the running program, or the one in the directory of the running test or its parent.
pub(crate) fn find_lab_binary() -> Result<PathBuf> {
    let current = std::env::current_exe().context("could not find the path of this program")?;
    current
        .ancestors()
        .take(3)
        .flat_map(|path| [path.to_owned(), path.join("lab")])
        .find(|path| path.is_file() && path.file_name().is_some_and(|name| name == "lab"))
        .with_context(|| {
            format!(
                "there is no lab binary next to {}; build it with `cargo build -p lvs-tests`",
                current.display()
            )
        })
}
