//! The objects of the last complete lists, kept on disk for a reboot without an API server.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lvs_crd::{DirectorBinding, LvsNode};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::JoinHandle};
use tracing::warn;

use crate::{report, state_dir::LastObjects};

/// How long to wait between two writes, at least and at most, and how many times as long as one takes.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const TIMES_ITS_COST: u32 = 20;
/// How long the last write may take at the end.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// The objects of one machine, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SavedObjects {
    /// Its bindings.
    pub bindings: Vec<Arc<DirectorBinding>>,
    /// Its LvsNode.
    pub lvs_node: Option<Arc<LvsNode>>,
}

impl SavedObjects {
    /// The binding of that name.
    pub(super) fn binding(&self, named_as: &DirectorBinding) -> Option<&Arc<DirectorBinding>> {
        let index = self
            .bindings
            .binary_search_by(|binding| key(binding).cmp(&key(named_as)))
            .ok()?;
        self.bindings.get(index)
    }
}

/// What bindings are ordered by.
pub(super) fn key(object: &DirectorBinding) -> (Option<&str>, Option<&str>) {
    let ObjectMeta {
        namespace, name, ..
    } = &object.metadata;
    (namespace.as_deref(), name.as_deref())
}

/// Loads what was saved. What cannot be read is as if there were nothing, and is said.
pub(super) fn load(file: &LastObjects) -> Option<SavedObjects> {
    let text = match file.load() {
        Ok(text) => text?,
        Err(error) => {
            warn!(
                error = report::chain(&error),
                "what was wanted last cannot be read"
            );
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

fn parse(text: &[u8]) -> serde_json::Result<SavedObjects> {
    let mut objects: SavedObjects = serde_json::from_slice(text)?;
    objects
        .bindings
        .sort_by(|one, other| key(one).cmp(&key(other)));
    Ok(objects)
}

/// The text of what is wanted: without statuses and what else changes with them.
fn text(objects: &SavedObjects) -> serde_json::Result<Vec<u8>> {
    let without = |metadata: &ObjectMeta| ObjectMeta {
        managed_fields: None,
        resource_version: None,
        ..metadata.clone()
    };
    let bindings = objects.bindings.iter().map(|object| {
        Arc::new(DirectorBinding {
            metadata: without(&object.metadata),
            spec: object.spec.clone(),
            status: None,
        })
    });
    let lvs_node = objects.lvs_node.as_ref().map(|object| {
        Arc::new(LvsNode {
            metadata: without(&object.metadata),
            spec: object.spec.clone(),
            status: None,
        })
    });
    serde_json::to_vec(&SavedObjects {
        bindings: bindings.collect(),
        lvs_node,
    })
}

/// Saves objects behind the passes' back: a pass does not wait for the disk.
pub(super) struct Saver {
    objects: watch::Sender<SavedObjects>,
    task: JoinHandle<()>,
}

impl Saver {
    /// A saver with its task.
    pub(super) fn new(file: LastObjects) -> Self {
        let (objects, changes) = watch::channel(SavedObjects::default());
        let task = tokio::spawn(save_changes(file, changes));
        Self { objects, task }
    }

    /// Has objects saved, soon, unless others follow.
    pub(super) fn save(&self, objects: SavedObjects) {
        self.objects.send_replace(objects);
    }

    /// Saves what is not saved yet.
    pub(super) async fn finish(self) {
        drop(self.objects);
        if tokio::time::timeout(LAST_WRITE, self.task).await.is_err() {
            warn!("what is wanted was not saved in time");
        }
    }
}

async fn save_changes(file: LastObjects, mut changes: watch::Receiver<SavedObjects>) {
    let mut last = digest(&file.load().ok().flatten().unwrap_or_default());
    while changes.changed().await.is_ok() {
        let started = Instant::now();
        let objects = changes.borrow_and_update().clone();
        let file = file.clone();
        let saved = tokio::task::spawn_blocking(move || save(&file, &objects, last)).await;
        if let Ok(saved) = saved {
            last = saved;
        }
        let pause = started.elapsed() * TIMES_ITS_COST;
        tokio::time::sleep(pause.clamp(PAUSE, LONGEST_PAUSE)).await;
    }
}

/// Saves objects that differ from the last ones; returns the digest of what is on disk.
fn save(file: &LastObjects, objects: &SavedObjects, last: u64) -> u64 {
    let saved = text(objects).map(|text| (digest(&text), text));
    match saved {
        Ok((digest, _)) if digest == last => last,
        Ok((digest, text)) => match file.store(&text) {
            Ok(()) => digest,
            Err(error) => {
                warn!(
                    error = report::chain(&error),
                    "what is wanted cannot be saved; a reboot without an API server would not serve it"
                );
                last
            }
        },
        Err(error) => {
            warn!(%error, "what is wanted cannot be written as JSON");
            last
        }
    }
}

fn digest(text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
