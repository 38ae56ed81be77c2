//! The objects in force, cached on disk for a reboot without an API server.

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

/// How long to wait between two writes, at least and at most, and how many times as long as one takes.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const TIMES_ITS_COST: u32 = 20;
/// How long the last write may take at the end.
const LAST_WRITE: Duration = Duration::from_secs(5);

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
    /// The binding of that name.
    pub(super) fn binding(&self, named_as: &DirectorBinding) -> Option<&Arc<DirectorBinding>> {
        let index = self.index(named_as)?;
        self.bindings.get(index)
    }

    /// Puts another version in the place of a binding that is there.
    pub(super) fn replace(&mut self, object: Arc<DirectorBinding>) {
        if let Some(index) = self.index(&object)
            && let Some(place) = self.bindings.get_mut(index)
        {
            *place = object;
        }
    }

    fn index(&self, named_as: &DirectorBinding) -> Option<usize> {
        let order = |binding: &Arc<DirectorBinding>| key(binding).cmp(&key(named_as));
        self.bindings.binary_search_by(order).ok()
    }

    /// Whether the same is wanted, as the generations tell.
    fn wants_the_same(&self, other: &Self) -> bool {
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

/// Whether two versions of an object want the same; statuses are not told apart.
pub(super) fn is_same_generation(one: &ObjectMeta, other: &ObjectMeta) -> bool {
    let identity = |metadata: &ObjectMeta| (metadata.uid.clone(), metadata.generation);
    one.generation.is_some() && identity(one) == identity(other)
}

/// What bindings are ordered by.
pub(super) fn key(object: &DirectorBinding) -> (Option<&str>, Option<&str>) {
    let ObjectMeta {
        namespace, name, ..
    } = &object.metadata;
    (namespace.as_deref(), name.as_deref())
}

/// Loads what was saved. What cannot be read is as if there were nothing, and is said.
pub(super) fn load(file: &LastObjects) -> Option<CachedObjects> {
    let text = match file.load() {
        Ok(text) => text?,
        Err(error) => {
            warn!(error = chain(&error), "what was wanted last cannot be read");
            return None;
        }
    };
    match parse(&text) {
        Ok(objects) => Some(objects),
        Err(error) => {
            warn!(%error, "what was wanted last cannot be parsed");
            None
        }
    }
}

/// The first line is a whole snapshot, each later one a newer version of one of its bindings. A line without an end was
/// being written when the machine went down.
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

/// The line of a whole snapshot: what is wanted, without statuses and what else changes with them.
fn whole(objects: &CachedObjects) -> serde_json::Result<Vec<u8>> {
    let lvs_node = objects.lvs_node.as_ref().map(|object| {
        Arc::new(LvsNode {
            metadata: without_versions(&object.metadata),
            spec: object.spec.clone(),
            status: None,
        })
    });
    let bindings = objects.bindings.iter();
    line(&CachedObjects {
        bindings: bindings.map(|object| Arc::new(wanted(object))).collect(),
        lvs_node,
    })
}

fn wanted(object: &DirectorBinding) -> DirectorBinding {
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

/// What is to be saved.
enum Saving {
    /// A complete snapshot.
    Whole(CachedObjects),
    /// Newer versions of bindings that are in it.
    Versions(Vec<Arc<DirectorBinding>>),
}

/// Saves objects behind the passes' back: a pass does not wait for the disk, statuses do.
pub(super) struct Cache {
    changes: mpsc::UnboundedSender<Saving>,
    progress: Arc<Progress>,
    task: JoinHandle<()>,
}

impl Cache {
    /// A saver with its task; `known` is what the file holds.
    pub(super) fn new(file: LastObjects, known: CachedObjects, progress: Arc<Progress>) -> Self {
        let (changes, arriving) = mpsc::unbounded_channel();
        let disk = Disk::new(file, known);
        let task = tokio::spawn(save_changes(disk, arriving, Arc::clone(&progress)));
        Self {
            changes,
            progress,
            task,
        }
    }

    /// Has a complete snapshot saved, soon, unless others follow.
    pub(super) fn save(&self, objects: CachedObjects) {
        self.send(Saving::Whole(objects));
    }

    /// Has newer versions of bindings saved that are in the last snapshot, soon.
    pub(super) fn save_versions(&self, versions: Vec<Arc<DirectorBinding>>) {
        self.send(Saving::Versions(versions));
    }

    /// Saves what is not saved yet.
    pub(super) async fn finish(self) {
        drop(self.changes);
        if tokio::time::timeout(LAST_WRITE, self.task).await.is_err() {
            warn!("what is wanted was not saved in time");
        }
    }

    fn send(&self, change: Saving) {
        match self.changes.send(change) {
            Ok(()) => self.progress.sent(),
            Err(_) => warn!("what is wanted is not saved any more"),
        }
    }
}

async fn save_changes(
    mut disk: Disk,
    mut arriving: mpsc::UnboundedReceiver<Saving>,
    progress: Arc<Progress>,
) {
    while let Some(first) = arriving.recv().await {
        let started = Instant::now();
        disk.take(first);
        let mut changes = 1;
        while let Ok(next) = arriving.try_recv() {
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
        let pause = started.elapsed() * TIMES_ITS_COST;
        tokio::time::sleep(pause.clamp(PAUSE, LONGEST_PAUSE)).await;
    }
}

/// The file, and what it is to hold.
struct Disk {
    file: LastObjects,
    objects: CachedObjects,
    /// What the file lacks.
    lacks: Lacks,
    /// How long the file is; `None` when nothing may be appended: another process wrote it, or a write failed.
    size: Option<Size>,
}

enum Lacks {
    Versions(Vec<Arc<DirectorBinding>>),
    Everything,
}

#[derive(Clone, Copy)]
struct Size {
    whole: usize,
    appended: usize,
}

impl Disk {
    const fn new(file: LastObjects, objects: CachedObjects) -> Self {
        Self {
            file,
            objects,
            lacks: Lacks::Versions(Vec::new()),
            size: None,
        }
    }

    fn take(&mut self, change: Saving) {
        match change {
            Saving::Whole(objects) => {
                // A file that nothing can be appended to is replaced now, and not when a change is waited for.
                if self.size.is_none() || !objects.wants_the_same(&self.objects) {
                    self.lacks = Lacks::Everything;
                }
                self.objects = objects;
            }
            Saving::Versions(versions) => {
                for object in &versions {
                    self.objects.replace(Arc::clone(object));
                }
                if let Lacks::Versions(lacking) = &mut self.lacks {
                    lacking.extend(versions);
                }
            }
        }
    }

    /// Brings the file up to date; what cannot be saved is tried again with the next change.
    fn save(&mut self) {
        let lacks = std::mem::replace(&mut self.lacks, Lacks::Versions(Vec::new()));
        let saved = match (lacks, self.size) {
            (Lacks::Versions(versions), _) if versions.is_empty() => Ok(self.size),
            (Lacks::Versions(versions), Some(size)) if size.appended <= size.whole => {
                self.append(&versions, size)
            }
            _ => self.replace(),
        };
        match saved {
            Ok(size) => self.size = size,
            Err(error) => {
                warn!(
                    error = chain(&error),
                    "what is wanted cannot be saved; a reboot without an API server would not serve it"
                );
                self.size = None;
                self.lacks = Lacks::Everything;
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
            text.extend(line(&wanted(object))?);
        }
        self.file.append(&text)?;
        let appended = size.appended.saturating_add(text.len());
        Ok(Some(Size { appended, ..size }))
    }

    fn replace(&self) -> Result<Option<Size>, SaveError> {
        let text = whole(&self.objects)?;
        self.file.store(&text)?;
        let (whole, appended) = (text.len(), 0);
        Ok(Some(Size { whole, appended }))
    }
}

/// Why objects are not on disk.
#[derive(Debug, thiserror::Error)]
enum SaveError {
    #[error("writing them as JSON")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    File(#[from] StateDirError),
}

#[cfg(test)]
mod tests;
