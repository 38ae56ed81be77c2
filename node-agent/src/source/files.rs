//! The source that reads configuration files.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::StreamExt;
use lvs_crd::{
    convert,
    manifest::{self, Entry, Object},
};
use lvs_model::{ObjectRef, Rejection};
use tracing::{debug, warn};

use super::{
    Changes,
    error::SourceError,
    objects::{Converted, ObjectSet, Snapshot},
};
use crate::{file_watch, state_dir::StateDir};

/// Configuration files and directories, and the objects last read from them.
///
/// An unchanged file is not parsed again. An object that turns faulty keeps its last good version, and no object counts as
/// deleted while a part of its file cannot be read.
pub(crate) struct Files {
    paths: Vec<PathBuf>,
    files: BTreeMap<PathBuf, LoadedFile>,
    snapshot: Option<Snapshot>,
    /// The notices of changed files; `None` before `watch`.
    notices: Option<file_watch::Notices>,
}

#[derive(Default)]
struct LoadedFile {
    digest: u64,
    objects: ObjectSet,
    /// The object of each document, by the document's digest.
    documents: HashMap<u64, ObjectRef>,
    is_unreadable: bool,
}

impl Files {
    /// A source of files, and of the files in directories.
    pub(super) const fn new(paths: Vec<PathBuf>) -> Self {
        Self {
            paths,
            files: BTreeMap::new(),
            snapshot: None,
            notices: None,
        }
    }

    /// Starts watching the files.
    ///
    /// # Errors
    /// If inotify is not available, or a directory cannot be watched.
    pub(crate) fn watch(&mut self) -> Result<(), SourceError> {
        self.notices = Some(file_watch::watch(&self.paths).map_err(SourceError::Watch)?);
        Ok(())
    }

    /// Waits for a change; forever if `watch` was not called.
    pub(super) async fn changed(&mut self) {
        let notice = match &mut self.notices {
            Some(notices) => notices.next().await,
            None => std::future::pending().await,
        };
        match notice {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                warn!(
                    error = lvs_runtime::error::chain(&error),
                    "cannot read a notice of changed files"
                );
            }
            None => self.notices = None,
        }
    }

    /// The configuration as it was last read.
    pub(super) const fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// Reads the files that have changed.
    ///
    /// # Errors
    /// If a path cannot be read or there is no file. The snapshot then stays as it was.
    pub(super) fn read(&mut self, state: &StateDir) -> Result<Changes, SourceError> {
        let present = self.list()?;
        if present.is_empty() {
            return Err(SourceError::Empty(self.paths.clone()));
        }
        let mut has_changed = self.snapshot.is_none();
        for path in &present {
            let text = fs::read(path).map_err(|source| SourceError::Read {
                path: path.clone(),
                source,
            })?;
            has_changed |= self.load(path, &text, state)?;
        }
        self.files.retain(|path, _| {
            let stays = present.contains(path);
            if !stays {
                has_changed = true;
                state.forget_last_good(path);
            }
            stays
        });
        if has_changed {
            self.snapshot = Some(self.join());
            return Ok(Changes::Anything);
        }
        Ok(Changes::Services(BTreeSet::new()))
    }

    fn list(&self) -> Result<BTreeSet<PathBuf>, SourceError> {
        let mut files = BTreeSet::new();
        for path in &self.paths {
            let failed = |source| SourceError::Read {
                path: path.clone(),
                source,
            };
            if !fs::metadata(path).map_err(failed)?.is_dir() {
                files.insert(path.clone());
                continue;
            }
            for entry in fs::read_dir(path).map_err(failed)? {
                let entry = entry.map_err(failed)?.path();
                if is_configuration(&entry) {
                    files.insert(entry);
                }
            }
        }
        Ok(files)
    }

    /// Loads a file, and returns whether it has changed.
    fn load(&mut self, path: &Path, text: &[u8], state: &StateDir) -> Result<bool, SourceError> {
        let digest = digest(text);
        if self
            .files
            .get(path)
            .is_some_and(|loaded| loaded.digest == digest)
        {
            return Ok(false);
        }
        let mut loaded = parse(path, text, digest, self.files.get(path));
        if loaded.objects.rejections.is_empty() {
            if let Err(error) = state.store_last_good(path, text) {
                warn!(
                    error = lvs_runtime::error::chain(&error),
                    "cannot save the good version of this file; a fault in it after a restart would take objects out of force"
                );
            }
        } else {
            let before = match self.files.remove(path) {
                Some(before) => Some(before),
                None => state
                    .load_last_good(path)?
                    .map(|text| parse(path, &text, 0, None)),
            };
            let hides_more = loaded.is_unreadable;
            loaded
                .objects
                .keep(before.unwrap_or_default().objects, hides_more);
        }
        debug!(
            path = %path.display(),
            objects = loaded.objects.converted.len(),
            faults = loaded.objects.rejections.len(),
            "read"
        );
        self.files.insert(path.to_owned(), loaded);
        Ok(true)
    }

    /// Combines the objects of all files.
    fn join(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let mut origins: BTreeMap<&ObjectRef, &Path> = BTreeMap::new();
        for (path, file) in &self.files {
            snapshot
                .rejections
                .extend(file.objects.rejections.iter().cloned());
            for (identity, converted) in &file.objects.converted {
                if let Some(first) = origins.insert(identity, path) {
                    let reason = format!("must not be given twice: {} has it too", first.display());
                    let rejection = Rejection::new(identity.clone(), "", reason);
                    let path = path.display().to_string();
                    snapshot.rejections.push(rejection.in_file(&path));
                    origins.insert(identity, first);
                    continue;
                }
                snapshot.add(converted.clone());
            }
        }
        snapshot
    }
}

/// Parses a file, except the documents that it had before.
fn parse(path: &Path, text: &[u8], digest: u64, before: Option<&LoadedFile>) -> LoadedFile {
    let origin = path
        .file_name()
        .map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy());
    let recall = |digest| {
        let before = before?;
        let identity = before.documents.get(&digest)?;
        Some((
            identity.clone(),
            Ok(before.objects.converted.get(identity)?.clone()),
        ))
    };
    let manifest = manifest::parse_each(&origin, text, recall, |object| convert(&object));
    let mut loaded = LoadedFile {
        digest,
        is_unreadable: manifest.unreadable,
        ..LoadedFile::default()
    };
    for rejected in manifest.rejections {
        loaded.objects.reject(rejected.identity, rejected.rejection);
    }
    for Entry {
        identity,
        digest,
        object,
    } in manifest.objects
    {
        match object {
            Ok(converted) => {
                loaded.documents.insert(digest, identity.clone());
                loaded.objects.converted.insert(identity, converted);
            }
            Err(rejections) => {
                for rejection in rejections {
                    let rejection = rejection.in_file(&origin);
                    loaded.objects.reject(Some(identity.clone()), rejection);
                }
            }
        }
    }
    loaded
}

fn convert(object: &Object) -> Result<Converted, Vec<Rejection>> {
    match object {
        Object::VirtualService(object) => convert::virtual_service(object)
            .map(|(name, service)| Converted::Service(name, Arc::new(service))),
        Object::DirectorGroup(object) => {
            convert::director_group(object).map(|(name, group)| Converted::Group(name, group))
        }
        Object::AddressPool(object) => {
            convert::address_pool(object).map(|(name, pool)| Converted::Pool(name, pool))
        }
    }
}

/// Returns whether a file is read as configuration. Names that start with a dot belong to temporary files of editors, and
/// to the versions of a mounted ConfigMap.
fn is_configuration(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_none_or(|name| name.to_string_lossy().starts_with('.'));
    let extension = path.extension().is_some_and(|extension| {
        ["yaml", "yml", "json"]
            .iter()
            .any(|known| extension == *known)
    });
    !hidden && extension && path.is_file()
}

fn digest(text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
