//! Caches the objects in force on disk, for a reboot without an API server.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use lvs_crd::{DirectorBinding, LvsNode, RealServerBinding, slice_name};
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
    /// Its DirectorBindings, with their slices.
    pub bindings: Vec<Arc<DirectorBinding>>,
    /// Its RealServerBindings.
    #[serde(default)]
    pub served: Vec<Arc<RealServerBinding>>,
    /// Its LvsNode.
    pub lvs_node: Option<Arc<LvsNode>>,
}

impl CachedObjects {
    /// The DirectorBinding with a name.
    pub(super) fn binding(&self, name: NameOf<'_>) -> Option<&Arc<DirectorBinding>> {
        find(&self.bindings, name)
    }

    /// The RealServerBinding with a name.
    pub(super) fn served(&self, name: NameOf<'_>) -> Option<&Arc<RealServerBinding>> {
        find(&self.served, name)
    }

    /// A DirectorBinding after its slices.
    pub(super) fn with_slices<'a>(
        &'a self,
        binding: &'a Arc<DirectorBinding>,
    ) -> impl Iterator<Item = &'a Arc<DirectorBinding>> {
        let (namespace, name) = key(binding.as_ref());
        let numbers = 1..=binding.spec.slices.len();
        let names = numbers.map(move |number| slice_name(name.unwrap_or_default(), number));
        let slices = names.filter_map(move |name| self.binding((namespace, Some(&name))));
        slices.chain([binding])
    }

    /// Returns whether a DirectorBinding is here in the same generation.
    pub(super) fn has_version(&self, object: &DirectorBinding) -> bool {
        let found = self.binding(key(object));
        found.is_some_and(|found| is_same_generation(&found.metadata, &object.metadata))
    }

    /// Replaces a binding with another version of it.
    pub(super) fn replace(&mut self, object: Arc<DirectorBinding>) {
        let name = key(object.as_ref());
        if let Ok(index) = self
            .bindings
            .binary_search_by(|known| key(known.as_ref()).cmp(&name))
            && let Some(known) = self.bindings.get_mut(index)
        {
            *known = object;
        }
    }

    /// Orders the objects by their names.
    pub(super) fn sort(&mut self) {
        self.bindings
            .sort_by(|one, other| key(one.as_ref()).cmp(&key(other.as_ref())));
        self.served
            .sort_by(|one, other| key(one.as_ref()).cmp(&key(other.as_ref())));
    }

    /// Returns whether both hold the same objects in the same generations.
    fn has_same_generations(&self, other: &Self) -> bool {
        fn same<K: Resource>(ours: &[Arc<K>], others: &[Arc<K>]) -> bool {
            let mut pairs = ours.iter().zip(others);
            ours.len() == others.len()
                && pairs.all(|(one, other)| is_same_generation(one.meta(), other.meta()))
        }
        let (nodes, other_nodes) = (self.lvs_node.as_slice(), other.lvs_node.as_slice());
        same(&self.bindings, &other.bindings)
            && same(&self.served, &other.served)
            && same(nodes, other_nodes)
    }
}

/// Returns whether two versions of an object have the same generation, so that only status or metadata may differ.
pub(super) fn is_same_generation(one: &ObjectMeta, other: &ObjectMeta) -> bool {
    let identity = |metadata: &ObjectMeta| (metadata.uid.clone(), metadata.generation);
    one.generation.is_some() && identity(one) == identity(other)
}

/// The namespace and the name of an object, by which objects are ordered.
pub(super) type NameOf<'a> = (Option<&'a str>, Option<&'a str>);

/// The namespace and the name of an object.
pub(super) fn key<K: Resource>(object: &K) -> NameOf<'_> {
    let ObjectMeta {
        namespace, name, ..
    } = object.meta();
    (namespace.as_deref(), name.as_deref())
}

/// The object with a name among ordered ones.
pub(super) fn find<'a, K: Resource>(objects: &'a [Arc<K>], name: NameOf<'_>) -> Option<&'a Arc<K>> {
    let index = objects.binary_search_by(|object| key(object.as_ref()).cmp(&name));
    objects.get(index.ok()?)
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

/// Parses the cache file. The first line is a complete snapshot; each later line holds newer versions of some of its
/// bindings, which belong together. A last line without a newline was being written when the machine went down, and is
/// ignored.
fn parse(text: &[u8]) -> serde_json::Result<CachedObjects> {
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let mut objects: CachedObjects = serde_json::from_slice(lines.next().unwrap_or_default())?;
    objects.sort();
    for line in lines.filter(|line| line.ends_with(b"\n")) {
        let versions: Vec<Arc<DirectorBinding>> = serde_json::from_slice(line)?;
        versions
            .into_iter()
            .for_each(|object| objects.replace(object));
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
    let served = objects.served.iter().map(|object| {
        Arc::new(RealServerBinding {
            metadata: without_versions(&object.metadata),
            spec: object.spec.clone(),
            status: None,
        })
    });
    line(&CachedObjects {
        bindings: bindings
            .map(|object| Arc::new(without_status(object)))
            .collect(),
        served: served.collect(),
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
        let versions = versions.iter().map(|object| without_status(object));
        let text = line(&versions.collect::<Vec<_>>())?;
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
