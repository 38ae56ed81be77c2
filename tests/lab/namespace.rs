//! Named network namespaces, as `ip netns` creates and lists them.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::linux::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_until;

/// The directory in which `ip netns` keeps namespaces.
const DIRECTORY: &str = "/run/netns";

/// How long the kernel may take to end the processes of a namespace.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Guards the preparation of [`DIRECTORY`], which must happen once.
static PREPARATION: Mutex<()> = Mutex::new(());

/// A network namespace that `ip netns exec NAME` can enter.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
    /// Keeps the namespace reachable for threads of this process after its name is removed.
    handle: File,
}

impl Namespace {
    /// Creates a network namespace and its name.
    pub(crate) fn create(name: String) -> Result<Self> {
        prepare_directory()?;
        let path = path_of(&name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("could not create {}", path.display()))?;
        let created = on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("could not create a network namespace")?;
            mount(
                Some("/proc/thread-self/ns/net"),
                &path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .with_context(|| format!("could not bind the network namespace to {}", path.display()))
        });
        let opened = created.and_then(|bound| bound).and_then(|()| {
            File::open(&path).with_context(|| format!("could not open {}", path.display()))
        });
        match opened {
            Ok(handle) => Ok(Self { name, handle }),
            Err(error) => {
                umount2(&path, MntFlags::MNT_DETACH).ok();
                fs::remove_file(&path).ok();
                Err(error)
            }
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn handle(&self) -> RawFd {
        self.handle.as_raw_fd()
    }

    /// Runs `work` on a thread in this namespace. Sockets that it opens and processes that it starts stay in the namespace.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_a_thread(|| {
            setns(&self.handle, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("could not enter the network namespace {}", self.name))?;
            Ok(work())
        })?
    }

    /// Removes the name; the kernel frees the namespace with its last user.
    fn remove(&self) -> Result<()> {
        let path = path_of(&self.name);
        match umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => {
                return Err(errno).with_context(|| format!("could not unmount {}", path.display()));
            }
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("could not remove {}", path.display()))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Kills the processes that are still in `namespaces`, then removes the names.
pub(crate) fn tear_down<'a>(namespaces: impl Iterator<Item = &'a Namespace> + Clone) -> Result<()> {
    let inodes: BTreeSet<u64> = namespaces
        .clone()
        .filter_map(|namespace| Some(namespace.handle.metadata().ok()?.st_ino()))
        .collect();
    let ended = wait_until("the processes of the lab to end", KILL_TIMEOUT, || {
        let processes = processes_in(&inodes)?;
        for process in &processes {
            kill(*process, Signal::SIGKILL).ok();
        }
        Ok(processes.is_empty().then_some(()))
    });
    let mut removed = Ok(());
    for namespace in namespaces {
        removed = removed.and(namespace.remove());
    }
    ended.and(removed)
}

/// The processes that are in one of these network namespaces.
fn processes_in(namespaces: &BTreeSet<u64>) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("could not read /proc")? {
        let entry = entry.context("could not read /proc")?;
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A process that has ended in the meantime, or is a zombie, has no namespace.
        let Ok(namespace) = fs::metadata(entry.path().join("ns/net")) else {
            continue;
        };
        if namespaces.contains(&namespace.st_ino()) {
            found.push(Pid::from_raw(id));
        }
    }
    Ok(found)
}

/// Makes [`DIRECTORY`] a shared mount, as `ip netns` does, so that a removed name disappears from every mount namespace.
fn prepare_directory() -> Result<()> {
    let _guard = PREPARATION.lock().unwrap_or_else(PoisonError::into_inner);
    fs::create_dir_all(DIRECTORY)
        .with_context(|| format!("could not create {DIRECTORY}; the lab must run as root"))?;
    let share = || {
        mount(
            None::<&str>,
            DIRECTORY,
            None::<&str>,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            None::<&str>,
        )
    };
    let shared = match share() {
        Err(Errno::EINVAL) => mount(
            Some(DIRECTORY),
            DIRECTORY,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )
        .and_then(|()| share()),
        other => other,
    };
    shared
        .with_context(|| format!("could not share the mount {DIRECTORY}; the lab must run as root"))
}

/// Runs `work` on a separate thread and returns its result, or resumes its panic.
fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("namespace".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|error| anyhow!(error).context("could not start a thread"))?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn path_of(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}
