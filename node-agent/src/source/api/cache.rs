//! Caches the objects in force on disk, for a reboot without an API server.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lvs_crd::{DirectorBinding, LvsNode};
use lvs_runtime::error::chain;
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, task::JoinHandle};
use tracing::warn;

use crate::state_dir::{LastObjects, StateDirError};

mod progress;

pub(crate) use progress::Progress;

/// The pause after a write: a multiple of the time that it took, within limits.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const PAUSE_FACTOR: u32 = 20;
/// How long the last write may take when the agent stops.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// The objects of one machine, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CachedObjects {
    /// Its bindings.
    pub bindings: Vec<Arc<DirectorBinding>>,
    /// Its LvsNode.
    pub lvs_node: Option<Arc<LvsNode>>,
}

impl CachedObjects {
    /// The binding with the name of another one.
    pub(super) fn binding(&self, namesake: &DirectorBinding) -> Option<&Arc<DirectorBinding>> {
        let index = self.index(namesake)?;
        self.bindings.get(index)
    }

    /// Replaces a binding with another version of it.
    pub(super) fn replace(&mut self, object: Arc<DirectorBinding>) {
        if let Some(index) = self.index(&object)
            && let Some(known) = self.bindings.get_mut(index)
        {
            *known = object;
        }
    }

    fn index(&self, namesake: &DirectorBinding) -> Option<usize> {
        let order = |binding: &Arc<DirectorBinding>| key(binding).cmp(&key(namesake));
        self.bindings.binary_search_by(order).ok()
    }

    /// Returns whether both hold the same objects in the same generations.
    fn has_same_generations(&self, other: &Self) -> bool {
        let nodes = self.lvs_node.iter().map(|object| &object.metadata);
        let other_nodes = other.lvs_node.iter().map(|object| &object.metadata);
        let bindings = self.bindings.iter().map(|object| &object.metadata);
        let others = other.bindings.iter().map(|object| &object.metadata);
        self.lvs_node.is_some() == other.lvs_node.is_some()
            && self.bindings.len() == other.bindings.len()
            && nodes
                .chain(bindings)
                .zip(other_nodes.chain(others))
                .all(|(one, other)| is_same_generation(one, other))
    }
}

/// Returns whether two versions of an object have the same generation, so that only status or metadata may differ.
pub(super) fn is_same_generation(one: &ObjectMeta, other: &ObjectMeta) -> bool {
    let identity = |metadata: &ObjectMeta| (metadata.uid.clone(), metadata.generation);
    one.generation.is_some() && identity(one) == identity(other)
}

/// The key by which bindings are ordered.
pub(super) fn key(object: &DirectorBinding) -> (Option<&str>, Option<&str>) {
    let ObjectMeta {
        namespace, name, ..
    } = &object.metadata;
    (namespace.as_deref(), name.as_deref())
}

/// Loads the cached objects. A file that cannot be read or parsed is logged and treated as missing.
pub(super) fn load(file: &LastObjects) -> Option<CachedObjects> {
    let text = match file.load() {
        Ok(text) => text?,
        Err(error) => {
            warn!(error = chain(&error), "cannot read the cached objects");
            return None;
        }
    };
    match parse(&text) {
        Ok(objects) => Some(objects),
        Err(error) => {
            warn!(%error, "cannot parse the cached objects");
            None
        }
    }
}

/// Parses the cache file. The first line is a complete snapshot; each later line is a newer version of one of its bindings.
/// A last line without a newline was being written when the machine went down, and is ignored.
fn parse(text: &[u8]) -> serde_json::Result<CachedObjects> {
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let mut objects: CachedObjects = serde_json::from_slice(lines.next().unwrap_or_default())?;
    objects
        .bindings
        .sort_by(|one, other| key(one).cmp(&key(other)));
    for line in lines.filter(|line| line.ends_with(b"\n")) {
        objects.replace(serde_json::from_slice(line)?);
    }
    Ok(objects)
}

/// The line of a complete snapshot, without statuses and the metadata that changes with them.
fn snapshot_line(objects: &CachedObjects) -> serde_json::Result<Vec<u8>> {
    let lvs_node = objects.lvs_node.as_ref().map(|object| {
        Arc::new(LvsNode {
            metadata: without_versions(&object.metadata),
            spec: object.spec.clone(),
            status: None,
        })
    });
    let bindings = objects.bindings.iter();
    line(&CachedObjects {
        bindings: bindings
            .map(|object| Arc::new(without_status(object)))
            .collect(),
        lvs_node,
    })
}

fn without_status(object: &DirectorBinding) -> DirectorBinding {
    DirectorBinding {
        metadata: without_versions(&object.metadata),
        spec: object.spec.clone(),
        status: None,
    }
}

fn without_versions(metadata: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        managed_fields: None,
        resource_version: None,
        ..metadata.clone()
    }
}

fn line(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// A change to save.
enum CacheChange {
    /// A complete snapshot.
    Snapshot(CachedObjects),
    /// Newer versions of bindings in the last snapshot.
    Versions(Vec<Arc<DirectorBinding>>),
}

/// Saves objects in a separate task. Passes do not wait for the disk; statuses do.
pub(super) struct Cache {
    changes: mpsc::UnboundedSender<CacheChange>,
    progress: Arc<Progress>,
    task: JoinHandle<()>,
}

impl Cache {
    /// Starts the task; `known` is what the file holds.
    pub(super) fn new(file: LastObjects, known: CachedObjects, progress: Arc<Progress>) -> Self {
        let (changes, received) = mpsc::unbounded_channel();
        let disk = Disk::new(file, known);
        let task = tokio::spawn(save_changes(disk, received, Arc::clone(&progress)));
        Self {
            changes,
            progress,
            task,
        }
    }

    /// Queues a complete snapshot.
    pub(super) fn save(&self, objects: CachedObjects) {
        self.send(CacheChange::Snapshot(objects));
    }

    /// Queues newer versions of bindings in the last snapshot.
    pub(super) fn save_versions(&self, versions: Vec<Arc<DirectorBinding>>) {
        self.send(CacheChange::Versions(versions));
    }

    /// Waits until the queued changes are saved.
    pub(super) async fn finish(self) {
        drop(self.changes);
        if tokio::time::timeout(FINISH_TIMEOUT, self.task)
            .await
            .is_err()
        {
            warn!(
                "the cached objects were not saved within {} s",
                FINISH_TIMEOUT.as_secs()
            );
        }
    }

    fn send(&self, change: CacheChange) {
        match self.changes.send(change) {
            Ok(()) => self.progress.sent(),
            Err(_) => warn!("objects are no longer cached: the task that saves them has ended"),
        }
    }
}

async fn save_changes(
    mut disk: Disk,
    mut received: mpsc::UnboundedReceiver<CacheChange>,
    progress: Arc<Progress>,
) {
    while let Some(first) = received.recv().await {
        let started = Instant::now();
        disk.take(first);
        let mut changes = 1;
        while let Ok(next) = received.try_recv() {
            disk.take(next);
            changes += 1;
        }
        let saved = tokio::task::spawn_blocking(move || {
            disk.save();
            disk
        });
        let Ok(saved) = saved.await else { return };
        disk = saved;
        progress.tried(changes);
        let pause = started.elapsed() * PAUSE_FACTOR;
        tokio::time::sleep(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)).await;
    }
}

/// The cache file, and the objects that it should hold.
struct Disk {
    file: LastObjects,
    objects: CachedObjects,
    /// The changes that the file lacks.
    unsaved: Unsaved,
    /// The size of the file; `None` if nothing may be appended, because another process wrote it or a write failed.
    size: Option<Size>,
}

enum Unsaved {
    Versions(Vec<Arc<DirectorBinding>>),
    Everything,
}

#[derive(Clone, Copy)]
struct Size {
    snapshot: usize,
    appended: usize,
}

impl Disk {
    const fn new(file: LastObjects, objects: CachedObjects) -> Self {
        Self {
            file,
            objects,
            unsaved: Unsaved::Versions(Vec::new()),
            size: None,
        }
    }

    fn take(&mut self, change: CacheChange) {
        match change {
            CacheChange::Snapshot(objects) => {
                // A file that cannot be appended to is replaced here, before a status waits for a version to be saved.
                if self.size.is_none() || !objects.has_same_generations(&self.objects) {
                    self.unsaved = Unsaved::Everything;
                }
                self.objects = objects;
            }
            CacheChange::Versions(versions) => {
                for object in &versions {
                    self.objects.replace(Arc::clone(object));
                }
                if let Unsaved::Versions(unsaved) = &mut self.unsaved {
                    unsaved.extend(versions);
                }
            }
        }
    }

    /// Brings the file up to date. After a failure, everything is saved again with the next change.
    fn save(&mut self) {
        let unsaved = std::mem::replace(&mut self.unsaved, Unsaved::Versions(Vec::new()));
        let saved = match (unsaved, self.size) {
            (Unsaved::Versions(versions), _) if versions.is_empty() => Ok(self.size),
            (Unsaved::Versions(versions), Some(size)) if size.appended <= size.snapshot => {
                self.append(&versions, size)
            }
            _ => self.replace(),
        };
        match saved {
            Ok(size) => self.size = size,
            Err(error) => {
                warn!(
                    error = chain(&error),
                    "cannot cache the objects; a reboot without an API server would not serve them"
                );
                self.size = None;
                self.unsaved = Unsaved::Everything;
            }
        }
    }

    fn append(
        &self,
        versions: &[Arc<DirectorBinding>],
        size: Size,
    ) -> Result<Option<Size>, SaveError> {
        let mut text = Vec::new();
        for object in versions {
            text.extend(line(&without_status(object))?);
        }
        self.file.append(&text)?;
        let appended = size.appended.saturating_add(text.len());
        Ok(Some(Size { appended, ..size }))
    }

    fn replace(&self) -> Result<Option<Size>, SaveError> {
        let text = snapshot_line(&self.objects)?;
        self.file.store(&text)?;
        let (snapshot, appended) = (text.len(), 0);
        Ok(Some(Size { snapshot, appended }))
    }
}

/// The cached objects could not be saved.
#[derive(Debug, thiserror::Error)]
enum SaveError {
    #[error("serializing as JSON")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    File(#[from] StateDirError),
}

#[cfg(test)]
mod tests;
