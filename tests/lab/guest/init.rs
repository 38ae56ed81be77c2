//! The first process of a guest: prepares the system, runs the command, writes the verdict, and powers off.

use std::fs::{self, File, OpenOptions};
use std::io::{PipeReader, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::request::{Exit, Request, RunDirectory, Verdict};
use super::script;
use crate::kernel::{
    self, Kernel, OPTIONAL_MODULES, REQUIRED_MODULES, SYSTEM_DIRECTORIES, UML_MODULES,
};

/// The directory in memory that a command may use; `LAB_SCRATCH` names it.
pub(crate) const SCRATCH: &str = "/run/lab";

/// Runs as the guest's first process, and ends the guest.
///
/// Returns only on a host kernel, where the namespaces end with this process.
pub fn run_as_init(directory: &Path) -> Result<()> {
    let mut request = RunDirectory::new(directory).read_request()?;
    // Something may be mounted over a parent of the directory; the open file descriptor still refers to it.
    let handle =
        File::open(directory).with_context(|| format!("could not open {}", directory.display()))?;
    let run = RunDirectory::new(format!("/proc/self/fd/{}", handle.as_raw_fd()));
    let own = format!("/proc/{}/fd/{}", std::process::id(), handle.as_raw_fd());
    let scripts = RunDirectory::new(own).scripts();
    let variable = script::DIRECTORY.to_owned();
    let scripts = scripts.to_string_lossy().into_owned();
    request.environment.insert(variable, scripts);
    let verdict = match serve(&run, &request) {
        Ok(exit) => Verdict::Ran(exit),
        Err(error) => Verdict::Refused(format!("{error:#}")),
    };
    run.write_verdict(&verdict)?;
    match request.kernel {
        Kernel::Host => Ok(()),
        Kernel::UserMode => {
            nix::unistd::sync();
            reboot(RebootMode::RB_POWER_OFF).context("could not power off")?;
            Ok(())
        }
    }
}

fn serve(run: &RunDirectory, request: &Request) -> Result<Exit> {
    SigSet::all()
        .thread_unblock()
        .context("could not unblock the signals")?;
    match request.kernel {
        Kernel::Host => mount_namespace_views()?,
        Kernel::UserMode => mount_system()?,
    }
    mount_scratch()?;
    let missing = load_modules(request)?;
    if !missing.is_empty() && !request.interactive {
        let names = missing.join(", ");
        let mut stderr = OpenOptions::new()
            .append(true)
            .open(run.stderr())
            .context("could not open the guest's standard error")?;
        writeln!(
            stderr,
            "lab: this kernel lacks the modules {names}; tests that need them will fail"
        )
        .context("could not write to the guest's standard error")?;
    }
    bring_up_loopback()?;
    if request.interactive {
        run_on_terminal(request)
    } else {
        run_recorded(run, request)
    }
}

/// Mounts a new `/sys` and `/run` in new namespaces of a host kernel.
fn mount_namespace_views() -> Result<()> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .context("could not make the mounts private")?;
    mount_new("sysfs", "/sys")?;
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        mount_new("cgroup2", "/sys/fs/cgroup")?;
    }
    mount_new("tmpfs", "/run")
}

/// Mounts what a distribution's first process would mount.
///
/// The root is the host's own file system, so `/run` and `/dev/shm`, which must not be written to its disk, are in memory. The
/// kernel has mounted `/dev` already.
fn mount_system() -> Result<()> {
    mount_new("proc", "/proc")?;
    mount_new("sysfs", "/sys")?;
    mount_new("cgroup2", "/sys/fs/cgroup")?;
    mount_new("tmpfs", "/run")?;
    for (file_system, directory) in [("devpts", "/dev/pts"), ("tmpfs", "/dev/shm")] {
        make_directory(Path::new(directory))?;
        mount_new(file_system, directory)?;
    }
    for (link, target) in [
        ("fd", ""),
        ("stdin", "/0"),
        ("stdout", "/1"),
        ("stderr", "/2"),
    ] {
        let link = Path::new("/dev").join(link);
        if !link.exists() {
            std::os::unix::fs::symlink(format!("/proc/self/fd{target}"), &link)
                .with_context(|| format!("could not create {}", link.display()))?;
        }
    }
    make_directory(Path::new("/lib/modules"))?;
    mount(
        Some(UML_MODULES),
        "/lib/modules",
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .context("could not bind the kernel's modules to /lib/modules")?;
    nix::unistd::sethostname("lab").context("could not set the host name")
}

fn mount_scratch() -> Result<()> {
    make_directory(Path::new(SCRATCH))
}

fn mount_new(file_system: &str, directory: &str) -> Result<()> {
    mount(
        Some(file_system),
        directory,
        Some(file_system),
        MsFlags::empty(),
        None::<&str>,
    )
    .with_context(|| format!("could not mount {file_system} on {directory}"))
}

fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .with_context(|| format!("could not create the directory {}", path.display()))
}

/// Loads the lab's modules and returns the missing optional ones; a missing required one is an error.
fn load_modules(request: &Request) -> Result<Vec<String>> {
    let required: Vec<&str> = REQUIRED_MODULES
        .iter()
        .copied()
        .chain(request.needs.iter().map(String::as_str))
        .collect();
    let all: Vec<&str> = required.iter().chain(OPTIONAL_MODULES).copied().collect();
    let missing = kernel::modprobe(&all)?;
    let fatal: Vec<&str> = required
        .into_iter()
        .filter(|module| missing.iter().any(|name| name == module))
        .collect();
    ensure!(
        fatal.is_empty(),
        "this kernel has no module {}, which this run needs",
        fatal.join(", ")
    );
    ensure!(
        kernel::has_ipvs(),
        "this kernel has no IPVS, although the module ip_vs was loaded"
    );
    Ok(missing)
}

fn bring_up_loopback() -> Result<()> {
    let status = Command::new(kernel::find_program("ip")?)
        .args(["link", "set", "lo", "up"])
        .status()
        .context("could not run ip")?;
    ensure!(
        status.success(),
        "could not bring up the loopback interface: ip ended with {status}"
    );
    Ok(())
}

/// Runs the command on the caller's terminal.
fn run_on_terminal(request: &Request) -> Result<Exit> {
    let mut command = match request.kernel {
        Kernel::Host => Command::new(&request.program),
        Kernel::UserMode => {
            let terminal = || {
                OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open("/dev/tty0")
                    .context("could not open the terminal of the guest")
            };
            let mut command = Command::new(kernel::find_program("setsid")?);
            command
                .args(["--ctty", "--wait", "--"])
                .arg(&request.program);
            command
                .stdin(terminal()?)
                .stdout(terminal()?)
                .stderr(terminal()?);
            command
        }
    };
    run_to_end(prepare(&mut command, request), &request.program)
}

/// Runs the command with its output in the files that the host reads.
///
/// The output goes through pipes, since a program that reopens `/dev/stderr`, as shell scripts do, would truncate the files.
fn run_recorded(run: &RunDirectory, request: &Request) -> Result<Exit> {
    let (stdout, stdout_writer) = std::io::pipe().context("could not create a pipe")?;
    let (stderr, stderr_writer) = std::io::pipe().context("could not create a pipe")?;
    let relays = [relay(stdout, &run.stdout())?, relay(stderr, &run.stderr())?];
    let mut command = Command::new(&request.program);
    command
        .stdin(Stdio::null())
        .stdout(stdout_writer)
        .stderr(stderr_writer);
    let exit = run_to_end(prepare(&mut command, request), &request.program);
    // The relays end when all writers are closed: those of `command`, and those of processes that it left behind.
    drop(command);
    kill_other_processes();
    for relay in relays {
        relay.join().ok();
    }
    exit
}

fn prepare<'a>(command: &'a mut Command, request: &Request) -> &'a mut Command {
    command
        .args(&request.arguments)
        .env_clear()
        .envs(&request.environment)
        .env("PATH", search_path(request))
        .env("LAB_SCRATCH", SCRATCH)
        .env("TMPDIR", SCRATCH)
        .current_dir(&request.directory)
}

/// The caller's `PATH`, with the directories of system programs after it.
fn search_path(request: &Request) -> String {
    let given = request.environment.get("PATH").map(String::as_str);
    let parts = given.into_iter().chain(SYSTEM_DIRECTORIES.iter().copied());
    parts.collect::<Vec<_>>().join(":")
}

/// Appends what arrives on a pipe to a file, until all writers are closed.
fn relay(mut from: PipeReader, path: &Path) -> Result<JoinHandle<()>> {
    let mut to = OpenOptions::new()
        .append(true)
        .open(path)
        .with_context(|| format!("could not open {}", path.display()))?;
    std::thread::Builder::new()
        .name("relay".to_owned())
        .spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(length) = from.read(&mut buffer) {
                let Some(chunk) = buffer.get(..length).filter(|chunk| !chunk.is_empty()) else {
                    return;
                };
                if to.write_all(chunk).is_err() {
                    return;
                }
            }
        })
        .context("could not start a relay thread")
}

/// Runs the command and returns how it ended. Also reaps other processes that end, as a first process must.
fn run_to_end(command: &mut Command, program: &str) -> Result<Exit> {
    let child = command
        .spawn()
        .with_context(|| format!("could not start `{program}`"))?;
    let child = Pid::from_raw(i32::try_from(child.id()).context("the process id is out of range")?);
    loop {
        let status = waitpid(None, None).context("could not wait for the command")?;
        if status.pid() != Some(child) {
            continue;
        }
        if let WaitStatus::Exited(_, code) = status {
            return Ok(Exit::Code(code));
        }
        if let WaitStatus::Signaled(_, signal, _) = status {
            return Ok(Exit::Signal(signal as i32));
        }
    }
}

/// Kills every other process of this guest.
fn kill_other_processes() {
    if std::process::id() == 1 {
        kill(Pid::from_raw(-1), Signal::SIGKILL).ok();
    }
}
