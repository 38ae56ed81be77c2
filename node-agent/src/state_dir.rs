//! The state directory: the ledger, and what was last wanted.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use lvs_model::{Ledger, Stamp};
use tempfile::NamedTempFile;
use tracing::warn;

/// Why the state directory could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateDirError {
    /// It cannot be made.
    #[error("making the state directory {}", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another agent has it.
    #[error("another lvs-agent is running with the state directory {}", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A file in it cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file in it cannot be written.
    #[error("writing {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The state directory. Writing to it needs the lock, which one process holds at a time.
pub(crate) struct StateDir {
    path: PathBuf,
    stamp: Stamp,
    lock: Option<File>,
}

impl StateDir {
    /// Makes the directory where it is missing, and locks it until dropped.
    pub(crate) fn lock(path: &Path) -> Result<Self, StateDirError> {
        let failed = |source| StateDirError::Make {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(path.join("last-good")).map_err(failed)?;
        let lock = File::create(path.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                stamp: stamp()?,
                lock: Some(lock),
            }),
            Err(TryLockError::WouldBlock) => Err(StateDirError::InUse {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Opens the directory for reading; it need not exist.
    pub(crate) fn read_only(path: &Path) -> Result<Self, StateDirError> {
        Ok(Self {
            path: path.to_owned(),
            stamp: stamp()?,
            lock: None,
        })
    }

    /// Loads the ledger. One of another boot or network namespace owns nothing, and one that cannot be parsed is void.
    pub(crate) fn load_ledger(&self) -> Result<Ledger, StateDirError> {
        let path = self.path.join("ledger.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Ledger::new(self.stamp.clone()));
            }
            Err(source) => return Err(StateDirError::Read { path, source }),
        };
        match serde_json::from_slice::<Ledger>(&text) {
            Ok(ledger) if ledger.stamp == self.stamp => Ok(ledger),
            Ok(ledger) => Ok(ledger.restamped(self.stamp.clone())),
            Err(error) => {
                warn!(path = %path.display(), %error, "the ledger cannot be read; only what carries our mark is known as ours");
                Ok(Ledger::new(self.stamp.clone()))
            }
        }
    }

    /// Stores the ledger: after this returns, the new one survives a crash; before, the old one does.
    pub(crate) fn store_ledger(&self, ledger: &Ledger) -> Result<(), StateDirError> {
        let text = serde_json::to_vec(ledger).map_err(io::Error::from);
        self.replace(&self.path.join("ledger.json"), text)
    }

    /// Stores the last version of a configuration file that had no fault. Without the lock it stores nothing.
    pub(crate) fn store_last_good(&self, file: &Path, text: &[u8]) -> Result<(), StateDirError> {
        if self.lock.is_none() {
            return Ok(());
        }
        self.replace(&self.last_good_path(file), Ok(text))
    }

    /// Loads the last version of a configuration file that had no fault; `None` when there never was one.
    pub(crate) fn load_last_good(&self, file: &Path) -> Option<Vec<u8>> {
        fs::read(self.last_good_path(file)).ok()
    }

    /// Forgets the last good version of a configuration file that was removed.
    pub(crate) fn forget_last_good(&self, file: &Path) {
        if self.lock.is_none() {
            return;
        }
        // A file that stays behind is read only when one of the same name comes back with a fault.
        let _ = fs::remove_file(self.last_good_path(file));
    }

    fn last_good_path(&self, file: &Path) -> PathBuf {
        let escape = |c: char| match c {
            '%' => "%25".to_owned(),
            '/' => "%2F".to_owned(),
            c => c.to_string(),
        };
        let name: String = file.to_string_lossy().chars().map(escape).collect();
        self.path.join("last-good").join(name)
    }

    /// Where the objects are kept that an API server listed last.
    #[cfg(feature = "kube")]
    pub(crate) fn last_objects(&self) -> LastObjects {
        LastObjects {
            directory: self.path.clone(),
            is_locked: self.lock.is_some(),
        }
    }

    fn replace(
        &self,
        path: &Path,
        content: Result<impl AsRef<[u8]>, io::Error>,
    ) -> Result<(), StateDirError> {
        replace(&self.path, path, content)
    }
}

/// The objects that an API server listed last, on disk: they are served after a reboot as long as none answers.
#[cfg(feature = "kube")]
#[derive(Clone)]
pub(crate) struct LastObjects {
    directory: PathBuf,
    is_locked: bool,
}

#[cfg(feature = "kube")]
impl LastObjects {
    /// Loads them; `None` when there never were any.
    pub(crate) fn load(&self) -> Result<Option<Vec<u8>>, StateDirError> {
        let path = self.path();
        match fs::read(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateDirError::Read { path, source }),
        }
    }

    /// Stores them. Without the lock it stores nothing.
    pub(crate) fn store(&self, text: &[u8]) -> Result<(), StateDirError> {
        if !self.is_locked {
            return Ok(());
        }
        replace(&self.directory, &self.path(), Ok(text))
    }

    /// Appends to them; after this returns, the addition survives a crash. Without the lock it appends nothing.
    pub(crate) fn append(&self, text: &[u8]) -> Result<(), StateDirError> {
        if !self.is_locked {
            return Ok(());
        }
        let path = self.path();
        let append = || {
            let mut file = fs::OpenOptions::new().append(true).open(&path)?;
            file.write_all(text)?;
            file.sync_data()
        };
        append().map_err(|source| StateDirError::Write {
            path: path.clone(),
            source,
        })
    }

    fn path(&self) -> PathBuf {
        self.directory.join("objects.json")
    }
}

/// Replaces a file: after this returns, the new content survives a crash; before, the old one does.
fn replace(
    directory: &Path,
    path: &Path,
    content: Result<impl AsRef<[u8]>, io::Error>,
) -> Result<(), StateDirError> {
    let write = || {
        let mut file = NamedTempFile::new_in(directory)?;
        file.write_all(content?.as_ref())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(path.parent().unwrap_or(directory))?.sync_all()
    };
    write().map_err(|source| StateDirError::Write {
        path: path.to_owned(),
        source,
    })
}

/// The boot and the network namespace that this process lives in.
fn stamp() -> Result<Stamp, StateDirError> {
    let boot_path = Path::new("/proc/sys/kernel/random/boot_id");
    let failed = |path: &Path, source| StateDirError::Read {
        path: path.to_owned(),
        source,
    };
    let boot = fs::read_to_string(boot_path).map_err(|source| failed(boot_path, source))?;
    let namespace_path = Path::new("/proc/self/ns/net");
    let namespace = fs::metadata(namespace_path)
        .map_err(|source| failed(namespace_path, source))?
        .ino();
    Ok(Stamp {
        boot: boot.trim().to_owned(),
        namespace,
    })
}

#[cfg(test)]
mod tests {
    use lvs_model::Sysctl;

    use super::*;

    #[test]
    fn of_a_ledger_of_another_boot_only_what_the_machine_has_been_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::lock(directory.path()).unwrap();
        let mut ledger = state.load_ledger().unwrap();
        ledger.sysctls.insert(
            Sysctl::Ipv4Forward,
            lvs_model::SysctlRecord {
                before: 0,
                set: Some(1),
            },
        );
        ledger.has_served = true;
        state.store_ledger(&ledger).unwrap();
        assert_eq!(state.load_ledger().unwrap(), ledger);

        ledger.stamp.boot = "another".to_owned();
        state.store_ledger(&ledger).unwrap();
        let loaded = state.load_ledger().unwrap();
        assert!(loaded.is_empty());
        assert!(loaded.has_served);
        assert_eq!(loaded.stamp, state.stamp);
    }

    #[test]
    fn one_process_holds_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let first = StateDir::lock(directory.path()).unwrap();
        assert!(matches!(
            StateDir::lock(directory.path()),
            Err(StateDirError::InUse { .. })
        ));
        drop(first);
        assert!(StateDir::lock(directory.path()).is_ok());
    }

    #[test]
    fn files_of_equal_names_in_two_directories_are_kept_apart() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::lock(directory.path()).unwrap();
        state
            .store_last_good(Path::new("/a/web.yaml"), b"a")
            .unwrap();
        state
            .store_last_good(Path::new("/b/web.yaml"), b"b")
            .unwrap();
        assert_eq!(
            state.load_last_good(Path::new("/a/web.yaml")).as_deref(),
            Some(b"a".as_slice())
        );
        state.forget_last_good(Path::new("/a/web.yaml"));
        assert_eq!(state.load_last_good(Path::new("/a/web.yaml")), None);
        assert!(state.load_last_good(Path::new("/b/web.yaml")).is_some());
    }
}
