//! The plan of a guest, and how it becomes processes of the host.

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

/// What to run in a guest, and the guest to run it in.
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
    /// Plans a guest that runs `program`: 512 MiB, 15 minutes, the environment and the working directory of the caller.
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

    /// Plans a guest that runs the lines of a shell script, stopping at the first that fails.
    pub fn script(script: impl Into<String>) -> Self {
        Self::new("sh").args(["-e".to_owned(), "-c".to_owned(), script.into()])
    }

    /// Adds arguments of the command.
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

    /// Names a kernel module without which the command must not be started.
    #[must_use]
    pub fn need(mut self, module: impl Into<String>) -> Self {
        self.needs.push(module.into());
        self
    }

    /// Sets the time after which the guest is ended and the run is an error.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the lab binary that is the guest's first process.
    ///
    /// Without it the lab binary beside the running program is taken: cargo puts it there for the tests of this package.
    #[must_use]
    pub fn init(mut self, lab: impl Into<PathBuf>) -> Self {
        self.init = Some(lab.into());
        self
    }

    /// Sets the kind of kernel instead of choosing it by what the host has.
    #[must_use]
    pub fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = Some(kernel);
        self
    }

    /// Plugs a tap device of this machine into the guest, which has it as `vec0`. Only User Mode Linux has such a wire, and is
    /// taken even where the host has IPVS.
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

    /// Gives the guest a disk: a file of this machine, which the guest has as `/dev/ubda`. Only User Mode Linux has such a disk.
    #[must_use]
    pub fn disk(mut self, disk: impl Into<PathBuf>) -> Self {
        self.disk = Some(disk.into());
        self.kernel = Some(Kernel::UserMode);
        self
    }

    /// Gives the command the terminal of the caller instead of recording its output.
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

    /// Boots the guest and passes on what the command writes, while it writes it.
    pub fn start_into(
        self,
        stdout: impl Write + Send + 'static,
        stderr: impl Write + Send + 'static,
    ) -> Result<Guest> {
        self.start_with([Box::new(stdout), Box::new(stderr)], Default::default())
    }

    /// Boots the guest, waits for its end, and returns what it wrote; a command that fails is an error that shows its output.
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
            .context("could not make a directory for the run")?;
        remove_at_the_end(holder.path())?;
        let run = RunDirectory::new(holder.path());
        fs::create_dir(run.errands()).context("could not make a directory for errands")?;
        let files = [run.stdout(), run.stderr()];
        for path in files.iter().chain([&run.console()]) {
            File::create(path).with_context(|| format!("could not make {}", path.display()))?;
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
            None => std::env::current_dir().context("could not find out the working directory")?,
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

    /// The command that is the guest, seen from the host.
    ///
    /// `setpriv` ends `unshare` with the thread that started it, `unshare` ends the first process of the new process id namespace, and
    /// the kernel then ends the rest.
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
                // The shell stays as the namespace's first process, which the host's kernel shields from signals: User Mode Linux ends
                // a panic with SIGABRT to itself, and would otherwise spin for ever.
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
            // A group of its own keeps the terminal's Ctrl-C from the guest: the lab ends it in order instead.
            command
                .stdin(Stdio::null())
                .stdout(console)
                .stderr(copy)
                .process_group(0);
        }
        Ok(command)
    }

    fn kernel_arguments(&self, init: &Path, run: &RunDirectory) -> Result<Vec<OsString>> {
        // The kernel splits its command line at blanks, so the binary is reached through a link without any.
        let link = run.path().join("init");
        std::os::unix::fs::symlink(init, &link)
            .with_context(|| format!("could not make {}", link.display()))?;
        let directory = run
            .path()
            .to_str()
            .filter(|path| !path.contains(char::is_whitespace));
        let directory = directory
            .with_context(|| format!("the path {} must have no blanks", run.path().display()))?;
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
            // An oops ends the guest instead of leaving it half alive.
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

/// One of the processors that this process may use: guests take turns.
///
/// User Mode Linux has one processor and takes turns with its processes by ptrace. On one of the host's processors that is seven times as
/// fast as across two (2026, 6.1 on a virtual machine: a page fault 20 us instead of 149 us, a system call 5.5 us instead of 39 us).
fn one_processor() -> Result<usize> {
    let allowed =
        sched_getaffinity(Pid::from_raw(0)).context("could not find out the processors")?;
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

/// Finds the lab binary: the running program, or the one that cargo put beside or above the running test.
pub(crate) fn find_lab_binary() -> Result<PathBuf> {
    let current = std::env::current_exe().context("could not find out which program this is")?;
    current
        .ancestors()
        .take(3)
        .flat_map(|path| [path.to_owned(), path.join("lab")])
        .find(|path| path.is_file() && path.file_name().is_some_and(|name| name == "lab"))
        .with_context(|| {
            format!(
                "there is no lab binary beside {}; build it with `cargo build -p lvs-tests`",
                current.display()
            )
        })
}
