//! The file of the ledger.
//!
//! It has a format version, and fields of a newer agent survive an older one. A file that cannot be parsed is never replaced by
//! an empty ledger: it is set aside.

use std::{
    cell::RefCell,
    fs, io,
    path::{Path, PathBuf},
};

use lvs_model::Ledger;
use lvs_runtime::error::chain;
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::error;

use super::{error::StateDirError, read::read};

const NAME: &str = "ledger.json";

/// The format that this agent writes.
const FORMAT: u64 = 1;

/// The most ledgers that are set aside.
const MOST_SET_ASIDE: usize = 100;

/// Why the content of the file is not a ledger.
#[derive(Debug, thiserror::Error)]
enum LedgerError {
    #[error("it is not a JSON object")]
    NotAnObject,
    #[error("it has format {0}, which a newer lvs-agent writes")]
    Newer(u64),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// The ledger as it is stored.
#[derive(Serialize)]
struct Stored<'a> {
    format: u64,
    #[serde(flatten)]
    ledger: &'a Ledger,
    #[serde(flatten)]
    unknown: &'a Map<String, Value>,
}

/// The file of the ledger.
pub(super) struct LedgerFile {
    path: PathBuf,
    /// The fields that this agent does not know.
    unknown: RefCell<Map<String, Value>>,
}

impl LedgerFile {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            path: directory.join(NAME),
            unknown: RefCell::default(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Loads the ledger; `None` if there is none that can be parsed. One that cannot is set aside if `may_write`.
    pub(super) fn load(&self, may_write: bool) -> Result<Option<Ledger>, StateDirError> {
        let Some(text) = read(self.path.clone())? else {
            return Ok(None);
        };
        match decode(&text) {
            Ok((ledger, unknown)) => {
                self.unknown.replace(unknown);
                Ok(Some(ledger))
            }
            Err(reason) => {
                if may_write {
                    self.set_aside()?;
                }
                let path = self.path.display();
                error!(
                    error = chain(&reason),
                    "cannot parse the ledger {path}; only objects with the agent's mark count as owned"
                );
                Ok(None)
            }
        }
    }

    /// Returns the text of a ledger, with the fields that this agent does not know.
    pub(super) fn encode(&self, ledger: &Ledger) -> Result<Vec<u8>, io::Error> {
        let stored = Stored {
            format: FORMAT,
            ledger,
            unknown: &self.unknown.borrow(),
        };
        Ok(serde_json::to_vec(&stored)?)
    }

    /// The last ledger that was set aside, if there is one.
    pub(super) fn unreadable(&self) -> Option<PathBuf> {
        let mut aside = (0..MOST_SET_ASIDE).rev().map(|number| self.aside(number));
        aside.find(|path| path.exists())
    }

    /// Renames the file, never over another.
    fn set_aside(&self) -> Result<(), StateDirError> {
        let mut aside = (0..MOST_SET_ASIDE).map(|number| self.aside(number));
        let free = aside.find(|path| !path.exists());
        let free = free.ok_or_else(|| io::Error::from(io::ErrorKind::AlreadyExists));
        free.and_then(|free| fs::rename(&self.path, free))
            .map_err(|source| StateDirError::SetAside {
                path: self.path.clone(),
                source,
            })
    }

    fn aside(&self, number: usize) -> PathBuf {
        self.path.with_file_name(match number {
            0 => format!("{NAME}.unreadable"),
            number => format!("{NAME}.unreadable.{number}"),
        })
    }
}

/// Parses a ledger. Returns the fields that are unknown too.
fn decode(text: &[u8]) -> Result<(Ledger, Map<String, Value>), LedgerError> {
    let Value::Object(mut fields) = serde_json::from_slice(text)? else {
        return Err(LedgerError::NotAnObject);
    };
    let format = fields.remove("format");
    let format = format.as_ref().and_then(Value::as_u64).unwrap_or(FORMAT);
    if format > FORMAT {
        return Err(LedgerError::Newer(format));
    }
    let known = serde_json::to_value(Ledger::default())?;
    let is_known = |name: &String| known.get(name).is_some();
    let (known, unknown) = fields.into_iter().partition(|(name, _)| is_known(name));
    Ok((serde_json::from_value(Value::Object(known))?, unknown))
}

#[cfg(test)]
mod tests {
    use lvs_model::Target;

    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, LedgerFile) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(NAME), text).unwrap();
        let file = LedgerFile::new(directory.path());
        (directory, file)
    }

    fn ledger() -> Ledger {
        Ledger {
            made: [Target::Masquerade].into(),
            ..Ledger::default()
        }
    }

    #[test]
    fn what_is_not_a_ledger_is_set_aside_and_kept() {
        let newer = r#"{"format": 2}"#;
        let cut = &serde_json::to_string(&ledger()).unwrap()[..40];
        for text in ["", "[]", "{}", "null", "\0\0\0\0", cut, newer] {
            let (_directory, file) = file(text);

            assert_eq!(file.load(true).unwrap(), None, "{text}");

            let aside = file.unreadable().unwrap();
            assert_eq!(fs::read_to_string(&aside).unwrap(), text);
            assert!(!file.path().exists());
            // The next one does not replace it.
            fs::write(file.path(), "another").unwrap();
            assert_eq!(file.load(true).unwrap(), None);
            assert_eq!(fs::read_to_string(&aside).unwrap(), text);
            assert_ne!(file.unreadable(), Some(aside));
        }
    }

    #[test]
    fn without_the_lock_nothing_is_set_aside() {
        let (_directory, file) = file("[]");

        assert_eq!(file.load(false).unwrap(), None);

        assert_eq!(file.unreadable(), None);
        assert!(file.path().exists());
    }

    #[test]
    fn the_fields_of_a_newer_agent_survive() {
        let (_directory, first) = file("");
        let text = String::from_utf8(first.encode(&ledger()).unwrap()).unwrap();
        let text = text.replacen('{', r#"{"later": {"more": 7}, "#, 1);
        let (_directory, file) = file(&text);

        let loaded = file.load(true).unwrap().unwrap();

        assert_eq!(loaded, ledger());
        let stored: Value = serde_json::from_slice(&file.encode(&loaded).unwrap()).unwrap();
        assert_eq!(stored["later"]["more"], 7);
        assert_eq!(stored["format"], 1);
    }
}
