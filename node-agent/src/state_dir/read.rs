//! Reads the files of the state directory.

use std::{fs, io, path::PathBuf};

use super::error::StateDirError;

/// Reads a file; `None` if there is none.
pub(super) fn read(path: PathBuf) -> Result<Option<Vec<u8>>, StateDirError> {
    match fs::read(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateDirError::Read { path, source }),
    }
}
