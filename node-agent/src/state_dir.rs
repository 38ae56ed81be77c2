//! The state directory: the ledger, the virtual routers, the last good configuration files, and the cached objects of the API server.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use lvs_model::{Ledger, SavedRouter, Stamp};
use lvs_runtime::error::chain;
use tempfile::NamedTempFile;
use tracing::warn;

mod error;
mod ledger_file;
mod read;
mod routers_file;

pub(crate) use error::StateDirError;
use ledger_file::LedgerFile;
use read::read;
use routers_file::RoutersFile;

/// The part of the state directory with the request that this machine is on standby.
const STANDBY: &str = "standby";

/// The state directory. Writing needs the lock, which one process holds at a time.
pub(crate) struct StateDir {
    path: PathBuf,
    stamp: Stamp,
    lock: Option<File>,
    /// The ledger as it is stored.
    ledger: LedgerFile,
    routers: RoutersFile,
}

impl StateDir {
    /// Creates the directory if it is missing, and locks it until the value is dropped.
    pub(crate) fn lock(path: &Path) -> Result<Self, StateDirError> {
        let failed = |source| StateDirError::Make {
            path: path.to_owned(),
            source,
        };
        for part in ["last-good", STANDBY] {
            fs::create_dir_all(path.join(part)).map_err(failed)?;
        }
        let lock = File::create(path.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                stamp: stamp()?,
                lock: Some(lock),
                ledger: LedgerFile::new(path),
                routers: RoutersFile::new(path),
            }),
            Err(TryLockError::WouldBlock) => Err(StateDirError::InUse {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Returns whether a process has the lock.
    pub(crate) fn is_in_use(path: &Path) -> Result<bool, StateDirError> {
        match Self::lock(path) {
            Ok(_) => Ok(false),
            Err(StateDirError::InUse { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Returns whether it is requested that this machine is on standby.
    pub(crate) fn is_on_standby(&self) -> bool {
        self.standby_request().exists()
    }

    /// Requests that this machine is on standby. Needs no lock: the process that has it only reads the request.
    pub(crate) fn ask_for_standby(&self) -> Result<(), StateDirError> {
        replace(&self.path.join(STANDBY), &self.standby_request(), Ok(""))
    }

    /// Withdraws that request, if there is one.
    pub(crate) fn withdraw_standby(&self) -> Result<(), StateDirError> {
        let path = self.standby_request();
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|source| StateDirError::Write { path, source }),
        }
    }

    /// The file that exists while it is requested that this machine is on standby. Nothing else is in its directory, so it can be
    /// watched.
    pub(crate) fn standby_request(&self) -> PathBuf {
        self.path.join(STANDBY).join("requested")
    }

    /// Opens the directory for reading; it need not exist.
    pub(crate) fn read_only(path: &Path) -> Result<Self, StateDirError> {
        Ok(Self {
            path: path.to_owned(),
            stamp: stamp()?,
            lock: None,
            ledger: LedgerFile::new(path),
            routers: RoutersFile::new(path),
        })
    }

    /// Loads the ledger. A ledger of another boot or network namespace owns nothing. One that cannot be parsed is set aside,
    /// and a new one begins; without the lock it stays where it is.
    pub(crate) fn load_ledger(&self) -> Result<Ledger, StateDirError> {
        let loaded = self.ledger.load(self.lock.is_some())?;
        Ok(match loaded {
            Some(ledger) if ledger.stamp == self.stamp => ledger,
            Some(ledger) => ledger.restamped(self.stamp.clone()),
            None => Ledger::new(self.stamp.clone()),
        })
    }

    /// The ledger that could not be parsed, if there is one.
    pub(crate) fn unreadable_ledger(&self) -> Option<PathBuf> {
        self.ledger.unreadable()
    }

    /// Stores the ledger. The new one survives a crash after this returns, the old one a crash before.
    pub(crate) fn store_ledger(&self, ledger: &Ledger) -> Result<(), StateDirError> {
        self.replace(self.ledger.path(), self.ledger.encode(ledger))
    }

    /// Loads the virtual routers that an agent took part in until now; none after a reboot, or if the file cannot be read.
    pub(crate) fn load_routers(&self) -> Vec<SavedRouter> {
        self.routers.load(&self.stamp).unwrap_or_else(|error| {
            warn!(
                error = chain(&error),
                "VIPs are held only once the configuration is read"
            );
            Vec::new()
        })
    }

    /// Stores the virtual routers for the next start of the agent. It needs the lock.
    pub(crate) fn store_routers(&mut self, routers: Vec<SavedRouter>) -> Result<(), StateDirError> {
        self.routers.store(&self.stamp, routers)
    }

    /// Stores the last version of a configuration file that had no fault. Without the lock it stores nothing.
    pub(crate) fn store_last_good(&self, file: &Path, text: &[u8]) -> Result<(), StateDirError> {
        if self.lock.is_none() {
            return Ok(());
        }
        self.replace(&self.last_good_path(file), Ok(text))
    }

    /// Loads the last version of a configuration file that had no fault; `None` if there is none.
    pub(crate) fn load_last_good(&self, file: &Path) -> Result<Option<Vec<u8>>, StateDirError> {
        read(self.last_good_path(file))
    }

    /// Forgets the last good version of a configuration file that was removed.
    pub(crate) fn forget_last_good(&self, file: &Path) {
        if self.lock.is_none() {
            return;
        }
        // A failure is harmless: the file is read only if a configuration file with this path returns and has a fault.
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

    /// The file with the cached objects of the API server.
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

/// The file with the cached objects of the API server, which are served after a reboot until the API server answers.
#[cfg(feature = "kube")]
#[derive(Clone)]
pub(crate) struct LastObjects {
    directory: PathBuf,
    is_locked: bool,
}

#[cfg(feature = "kube")]
impl LastObjects {
    /// Loads the content; `None` if there is no file.
    pub(crate) fn load(&self) -> Result<Option<Vec<u8>>, StateDirError> {
        read(self.path())
    }

    /// Replaces the content. Without the lock it stores nothing.
    pub(crate) fn store(&self, text: &[u8]) -> Result<(), StateDirError> {
        if !self.is_locked {
            return Ok(());
        }
        replace(&self.directory, &self.path(), Ok(text))
    }

    /// Appends to the content; after this returns, the addition survives a crash. Without the lock it appends nothing.
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

/// Replaces a file. The new content survives a crash after this returns, the old content a crash before.
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

/// The boot and the network namespace that this process runs in.
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
    use serde_json::json;

    use super::*;

    fn mk_saved_router() -> SavedRouter {
        let vip = json!({"interface": "eth0", "address": "10.0.0.100", "prefix": 32});
        let candidacy = json!({
            "router_id": 51, "routers": 1, "interval": 100, "preempt_after": null,
            "priorities": [100], "standby": false, "unicast": null,
        });
        let saved = json!({
            "key": {"interface": "eth0", "family": "V4", "router_id": 51},
            "router": {"candidacy": candidacy, "groups": ["edge"], "vips": [vip]},
            "hold": [[vip, {"deprecated": false, "expires": true, "owner": "Ours"}]],
        });
        serde_json::from_value(saved).unwrap()
    }

    #[test]
    fn a_ledger_of_another_boot_keeps_only_whether_the_machine_has_served() {
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
    fn virtual_routers_are_void_after_a_reboot() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = StateDir::lock(directory.path()).unwrap();
        assert_eq!(state.load_routers(), []);
        let routers = vec![mk_saved_router()];
        state.store_routers(routers.clone()).unwrap();
        assert_eq!(state.load_routers(), routers);

        state.stamp.boot = "another".to_owned();
        assert_eq!(state.load_routers(), []);
        state.store_routers(Vec::new()).unwrap();
        assert_eq!(state.load_routers(), []);
    }

    #[test]
    fn virtual_routers_that_cannot_be_parsed_are_logged_and_count_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::lock(directory.path()).unwrap();
        let path = directory.path().join("routers.json");
        let log = directory.path().join("log");
        for text in ["[1]", "", "{}"] {
            fs::write(&path, text).unwrap();
            let log_path = log.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_writer(move || {
                    let log = File::options().create(true).append(true).open(&log_path);
                    log.unwrap()
                })
                .with_ansi(false)
                .finish();
            let loaded = tracing::subscriber::with_default(subscriber, || state.load_routers());
            assert_eq!(loaded, []);
            let logged = fs::read_to_string(&log).unwrap();
            assert_eq!(logged.lines().count(), 1, "{logged}");
            let expected = format!("parsing {}: ", path.display());
            assert!(logged.contains(&expected), "{logged}");
            fs::remove_file(&log).unwrap();
        }
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
    fn files_with_the_same_name_in_two_directories_are_stored_separately() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::lock(directory.path()).unwrap();
        state
            .store_last_good(Path::new("/a/web.yaml"), b"a")
            .unwrap();
        state
            .store_last_good(Path::new("/b/web.yaml"), b"b")
            .unwrap();
        assert_eq!(
            state.load_last_good(Path::new("/a/web.yaml")).unwrap(),
            Some(b"a".to_vec())
        );
        state.forget_last_good(Path::new("/a/web.yaml"));
        let load = |file| state.load_last_good(Path::new(file)).unwrap();
        assert_eq!(load("/a/web.yaml"), None);
        assert!(load("/b/web.yaml").is_some());
    }
}
