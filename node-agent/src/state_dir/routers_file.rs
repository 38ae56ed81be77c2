//! The file with the virtual routers that this machine takes part in. A restarted agent goes on with them before it has read its
//! configuration, which can take longer than the VIPs live without it.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use lvs_model::{SavedRouter, Stamp};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::{error::StateDirError, read::read};

/// The virtual routers of a boot and a network namespace.
#[derive(Serialize, Deserialize)]
struct RoutersOfBoot {
    stamp: Stamp,
    routers: Vec<SavedRouter>,
}

/// The file of the virtual routers.
pub(super) struct RoutersFile {
    path: PathBuf,
    /// What the file contains, as far as this process knows.
    stored: Option<Vec<SavedRouter>>,
}

impl RoutersFile {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            path: directory.join("routers.json"),
            stored: None,
        }
    }

    /// Loads the virtual routers that an agent had in this boot and network namespace. Fails if the file cannot be parsed: another version
    /// of the agent may have written it.
    pub(super) fn load(&self, stamp: &Stamp) -> Result<Vec<SavedRouter>, StateDirError> {
        let Some(text) = read(self.path.clone())? else {
            return Ok(Vec::new());
        };
        let stored: RoutersOfBoot =
            serde_json::from_slice(&text).map_err(|source| StateDirError::Parse {
                path: self.path.clone(),
                source,
            })?;
        let is_of_this_boot = stored.stamp == *stamp;
        let routers = is_of_this_boot.then_some(stored.routers);
        Ok(routers.unwrap_or_default())
    }

    /// Stores the virtual routers, unless the file has them.
    pub(super) fn store(
        &mut self,
        stamp: &Stamp,
        routers: Vec<SavedRouter>,
    ) -> Result<(), StateDirError> {
        if self.stored.as_ref() == Some(&routers) {
            return Ok(());
        }
        let stored = RoutersOfBoot {
            stamp: stamp.clone(),
            routers,
        };
        let failed = |source| StateDirError::Write {
            path: self.path.clone(),
            source,
        };
        if let Err(error) = self.replace(&stored) {
            // An old file is worse than none.
            let _ = fs::remove_file(&self.path);
            self.stored = None;
            return Err(failed(error));
        }
        self.stored = Some(stored.routers);
        Ok(())
    }

    /// Nothing waits for the disk, since the file is void after a reboot.
    fn replace(&self, stored: &RoutersOfBoot) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let mut file = NamedTempFile::new_in(directory)?;
        file.write_all(&serde_json::to_vec(stored)?)?;
        file.persist(&self.path)?;
        Ok(())
    }
}
