//! Objects of one kind as an API server lists them, and notices of their changes.

use std::{
    fmt::Debug,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
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
use tokio::{sync::watch, task::JoinHandle};
use tracing::{debug, warn};

use super::ClusterError;

/// When a watch is ended and begun again, in seconds; one that is dead is noticed 5 s later.
const WATCH_TIMEOUT: u32 = 45;

/// How lists are asked for and followed.
pub(super) fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_TIMEOUT)
}

/// Tells of events: some want to know of all of them, passes only of those that change what is wanted.
#[derive(Clone)]
pub(super) struct Notices {
    changes: Arc<watch::Sender<()>>,
    events: Arc<watch::Sender<()>>,
}

impl Notices {
    /// Notices, and where changes of what is wanted arrive.
    pub(super) fn new() -> (Self, watch::Receiver<()>) {
        let (changes, changed) = watch::channel(());
        let notices = Self {
            changes: Arc::new(changes),
            events: Arc::new(watch::Sender::new(())),
        };
        (notices, changed)
    }

    /// Where all events arrive.
    pub(super) fn every_event(&self) -> watch::Receiver<()> {
        self.events.subscribe()
    }

    fn tell(&self, wanted_changed: bool) {
        self.events.send_replace(());
        if wanted_changed {
            self.changes.send_replace(());
        }
    }
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
    progress: Arc<Mutex<Progress>>,
    task: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Progress {
    is_complete: bool,
    failure: Option<String>,
}

impl<K: Kind> Listed<K> {
    /// Nothing yet.
    pub(super) fn new(what: &'static str) -> Self {
        let (store, writer) = store();
        Self {
            what,
            store,
            writer: Some(writer),
            progress: Arc::default(),
            task: None,
        }
    }

    /// The objects; the store is empty before the first complete list.
    pub(super) fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// The objects of the last complete list and what has changed since, in the order of their names; `None` before.
    pub(super) fn objects(&self) -> Option<Vec<Arc<K>>> {
        if !lock(&self.progress).is_complete {
            return None;
        }
        let mut objects = self.store.state();
        objects.sort_by(|one, other| key(one.as_ref()).cmp(&key(other.as_ref())));
        Some(objects)
    }

    /// What kept the first list from being complete.
    pub(super) fn failure(&self) -> Option<String> {
        lock(&self.progress).failure.clone()
    }

    /// Follows the list from here on.
    pub(super) fn follow(&mut self, api: Api<K>, config: &watcher::Config, notices: Notices) {
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
                        let wanted_changed = changes_what_is_wanted(&store, &event);
                        writer.apply_watcher_event(&event);
                        if matches!(event, Event::InitDone) {
                            lock(&progress).is_complete = true;
                        }
                        notices.tell(wanted_changed);
                    }
                    Err(error) => {
                        lock(&progress).failure = Some(crate::report::chain(&error));
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

fn lock(progress: &Mutex<Progress>) -> std::sync::MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key<K: Resource>(object: &K) -> (Option<&str>, Option<&str>) {
    let metadata = object.meta();
    (metadata.namespace.as_deref(), metadata.name.as_deref())
}

fn prune<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// Says whether an event changes what is wanted, and not a status only: ours come back as events too.
fn changes_what_is_wanted<K: Kind>(store: &Store<K>, event: &Event<K>) -> bool {
    let wanted = |object: &K| {
        let metadata = object.meta();
        (
            metadata.uid.clone(),
            metadata.generation,
            metadata.deletion_timestamp.is_some(),
        )
    };
    match event {
        Event::Apply(object) => store
            .get(&ObjectRef::from_obj(object))
            .is_none_or(|before| wanted(&before) != wanted(object)),
        Event::Delete(_) | Event::InitDone => true,
        Event::Init | Event::InitApply(_) => false,
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
                debug!(what, error = crate::report::chain(error), "no answer yet");
            }
            Err(error) => {
                self.is_broken = true;
                let error = crate::report::chain(error);
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
