//! Objects of one kind as an API server lists them, and what changes of them.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::StreamExt;
use kube::{
    Api, Resource, ResourceExt,
    api::ListParams,
    runtime::{
        WatchStreamExt,
        reflector::{Lookup, ObjectRef, Store, store, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::Notify, task::JoinHandle};
use tracing::{debug, warn};

use super::ClusterError;

/// How lists are asked for and followed.
pub(super) fn config() -> watcher::Config {
    watcher::Config::default().timeout(lvs_runtime::client::WATCH_SECONDS)
}

/// Where an object is found: its namespace and its name.
pub(super) type Key = (Option<String>, String);

/// The key of an object.
pub(super) fn key_of<K: Resource>(object: &K) -> Key {
    let metadata = object.meta();
    let name = metadata.name.clone().unwrap_or_default();
    (metadata.namespace.clone(), name)
}

/// What has changed of what is wanted since the objects were last taken.
pub(super) enum Changes<K> {
    /// Newer versions of objects that were there, and nothing else.
    Versions(BTreeMap<Key, Arc<K>>),
    /// Anything.
    Unknown,
}

impl<K> Changes<K> {
    const NONE: Self = Self::Versions(BTreeMap::new());
}

/// What a kind must be to be listed here.
pub(super) trait Kind:
    Resource<DynamicType = ()>
    + Lookup<DynamicType = ()>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = ()>
        + Lookup<DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// The objects of one kind. A list that is under way changes nothing before it is complete.
pub(super) struct Listed<K: Kind> {
    what: &'static str,
    store: Store<K>,
    writer: Option<Writer<K>>,
    progress: Arc<Mutex<Progress<K>>>,
    task: Option<JoinHandle<()>>,
}

struct Progress<K> {
    is_complete: bool,
    failure: Option<String>,
    changes: Changes<K>,
}

impl<K: Kind> Listed<K> {
    /// Nothing yet.
    pub(super) fn new(what: &'static str) -> Self {
        let (store, writer) = store();
        Self {
            what,
            store,
            writer: Some(writer),
            progress: Arc::new(Mutex::new(Progress {
                is_complete: false,
                failure: None,
                changes: Changes::Unknown,
            })),
            task: None,
        }
    }

    /// The objects; the store is empty before the first complete list.
    pub(super) fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// Takes what has changed since the last call of this or of `objects`.
    pub(super) fn changes(&self) -> Changes<K> {
        std::mem::replace(&mut lock(&self.progress).changes, Changes::NONE)
    }

    /// The objects of the last complete list and what has changed since, in the order of their names; `None` before.
    pub(super) fn objects(&self) -> Option<Vec<Arc<K>>> {
        {
            let mut progress = lock(&self.progress);
            if !progress.is_complete {
                return None;
            }
            // Before the store is read: what changes in between is seen twice and not lost.
            progress.changes = Changes::NONE;
        }
        let mut objects = self.store.state();
        objects.sort_by_cached_key(|object| key_of(object.as_ref()));
        Some(objects)
    }

    /// What kept the first list from being complete.
    pub(super) fn failure(&self) -> Option<String> {
        lock(&self.progress).failure.clone()
    }

    /// Follows the list from here on. Every event is told; `changed` only of those that change what is wanted, so that a
    /// pass does not follow the status that it caused.
    pub(super) fn follow(
        &mut self,
        api: Api<K>,
        config: &watcher::Config,
        changed: Arc<Notify>,
        told: impl Fn(&Event<K>) + Send + 'static,
    ) {
        let Some(mut writer) = self.writer.take() else {
            return;
        };
        let (what, store) = (self.what, self.store.clone());
        let progress = Arc::clone(&self.progress);
        let events = watcher(api, config.clone()).modify(prune).default_backoff();
        self.task = Some(tokio::spawn(async move {
            let mut events = pin!(events);
            let mut log = WatchLog::new(what);
            while let Some(event) = events.next().await {
                log.hear(event.as_ref());
                match event {
                    Ok(event) => {
                        let change = change(&store, &event);
                        writer.apply_watcher_event(&event);
                        told(&event);
                        if lock(&progress).take(&store, change, &event) {
                            changed.notify_one();
                        }
                    }
                    Err(error) => {
                        lock(&progress).failure = Some(lvs_runtime::error::chain(&error));
                    }
                }
            }
        }));
    }

    /// Asks once for the complete list.
    pub(super) async fn list(
        &mut self,
        api: Api<K>,
        config: &watcher::Config,
    ) -> Result<(), ClusterError> {
        let params = ListParams {
            label_selector: config.label_selector.clone(),
            field_selector: config.field_selector.clone(),
            ..ListParams::default()
        };
        let failed = |source| ClusterError::List {
            what: self.what,
            source,
        };
        let objects = api.list(&params).await.map_err(failed)?.items;
        self.fill(objects);
        Ok(())
    }

    /// Takes a newer version, as `follow` does.
    #[cfg(test)]
    pub(super) fn hear(&mut self, object: K) {
        let event = Event::Apply(object);
        let change = change(&self.store, &event);
        if let Some(writer) = &mut self.writer {
            writer.apply_watcher_event(&event);
        }
        lock(&self.progress).take(&self.store, change, &event);
    }

    /// Takes a complete list.
    pub(super) fn fill(&mut self, objects: Vec<K>) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        writer.apply_watcher_event(&Event::Init);
        for mut object in objects {
            prune(&mut object);
            writer.apply_watcher_event(&Event::InitApply(object));
        }
        writer.apply_watcher_event(&Event::InitDone);
        lock(&self.progress).is_complete = true;
    }
}

impl<K: Kind> Drop for Listed<K> {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn lock<K>(progress: &Mutex<Progress<K>>) -> MutexGuard<'_, Progress<K>> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Kind> Progress<K> {
    /// Takes note of an event that the store has; returns whether what is wanted has changed.
    fn take(&mut self, store: &Store<K>, change: Change, event: &Event<K>) -> bool {
        self.is_complete |= matches!(event, Event::InitDone);
        match (change, event) {
            (Change::Nothing, _) => return false,
            (Change::Version, Event::Apply(object)) => {
                let object = store.get(&ObjectRef::from_obj(object));
                if let (Changes::Versions(versions), Some(object)) = (&mut self.changes, object) {
                    versions.insert(key_of(object.as_ref()), object);
                }
            }
            (Change::Version | Change::Unknown, _) => self.changes = Changes::Unknown,
        }
        true
    }
}

fn prune<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// What an event changes of what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Nothing: a status comes back as an event too.
    Nothing,
    /// An object that was there has a newer version.
    Version,
    /// Something else.
    Unknown,
}

/// Tells it before the store has the event.
fn change<K: Kind>(store: &Store<K>, event: &Event<K>) -> Change {
    match event {
        Event::Apply(object) => {
            let Some(before) = store.get(&ObjectRef::from_obj(object)) else {
                return Change::Unknown;
            };
            let (before, now) = (before.meta(), object.meta());
            let is_leaving = now.deletion_timestamp.is_some();
            if before.uid != now.uid || before.deletion_timestamp.is_some() != is_leaving {
                Change::Unknown
            } else if before.generation != now.generation {
                Change::Version
            } else {
                Change::Nothing
            }
        }
        Event::Delete(_) | Event::InitDone => Change::Unknown,
        Event::Init | Event::InitApply(_) => Change::Nothing,
    }
}

/// Logs when a watch breaks and when it works again, once each.
struct WatchLog {
    what: &'static str,
    is_broken: bool,
}

impl WatchLog {
    const fn new(what: &'static str) -> Self {
        Self {
            what,
            is_broken: false,
        }
    }

    fn hear<K: ResourceExt>(&mut self, event: Result<&Event<K>, &watcher::Error>) {
        let what = self.what;
        match event {
            Ok(Event::Init) => debug!(what, "listing"),
            Ok(_) if self.is_broken => {
                self.is_broken = false;
                tracing::info!(what, "the API server answers again");
            }
            Ok(event) => debug!(what, %event, "event"),
            Err(error) if self.is_broken => {
                debug!(
                    what,
                    error = lvs_runtime::error::chain(error),
                    "no answer yet"
                );
            }
            Err(error) => {
                self.is_broken = true;
                let error = lvs_runtime::error::chain(error);
                warn!(
                    what,
                    error, "the API server cannot be followed; what was wanted stays wanted"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
