//! A reflector: the objects of one kind at an API server, kept up to date by a watch. An object that cannot be decoded
//! affects no other: its last version stays.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::ListParams,
    runtime::{
        WatchStreamExt,
        reflector::{Lookup, ObjectRef, Store, store, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use lvs_runtime::{
    client::WATCH_SECONDS,
    definitions::{self, DefinitionError},
    error::chain,
    guarded::{Guarded, Undecodable},
    watch::with_pauses,
};
use serde::de::DeserializeOwned;
use tokio::{sync::Notify, task::JoinHandle};
use tracing::{debug, warn};

use super::error::ApiError;

/// The configuration of all lists and watches.
pub(super) fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// The namespace and the name of an object.
pub(crate) type Key = (Option<String>, String);

/// The key of an object.
pub(crate) fn key_of<K: Resource>(object: &K) -> Key {
    key_of_metadata(object.meta())
}

fn key_of_metadata(metadata: &ObjectMeta) -> Key {
    let name = metadata.name.clone().unwrap_or_default();
    (metadata.namespace.clone(), name)
}

/// The changes since the objects were last taken, other than of statuses.
pub(super) enum ObjectChanges<K> {
    /// Newer versions of known objects, and nothing else.
    Versions(BTreeMap<Key, Arc<K>>),
    /// Anything may have changed.
    Unknown,
}

impl<K> ObjectChanges<K> {
    const NONE: Self = Self::Versions(BTreeMap::new());
}

/// Receives the events of watches.
pub(crate) trait ObjectEvents: Send + 'static {
    /// One object was created, changed or deleted.
    fn changed(&self, kind: &str, key: Key);

    /// All objects of a kind were listed again.
    fn listed(&self, kind: &str);
}

/// What the receiver of events learns of an event.
enum Notice {
    Changed(Key),
    Listed,
    Nothing,
}

impl Notice {
    fn of<K: Kind>(event: &Event<Guarded<K>>) -> Self {
        match event {
            Event::Apply(object) | Event::Delete(object) => Self::Changed(key_of(object)),
            Event::InitDone => Self::Listed,
            Event::Init | Event::InitApply(_) => Self::Nothing,
        }
    }

    fn send<K: Kind>(self, events: &impl ObjectEvents) {
        let kind = <K as Resource>::kind(&());
        match self {
            Self::Changed(key) => events.changed(&kind, key),
            Self::Listed => events.listed(&kind),
            Self::Nothing => {}
        }
    }
}

/// The bounds on a kind that can be watched here.
pub(crate) trait Kind:
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

/// The objects of one kind. A list takes effect once it is complete.
pub(crate) struct Reflector<K: Kind> {
    what: &'static str,
    store: Store<K>,
    writer: Option<Writer<K>>,
    state: Arc<Mutex<ListState<K>>>,
    task: Option<JoinHandle<()>>,
}

struct ListState<K> {
    is_complete: bool,
    /// The last failure of a list or watch.
    failure: Option<String>,
    /// Why the definition of the kind does not fit; `None` if it does.
    unfit: Option<String>,
    changes: ObjectChanges<K>,
    unreadable: Undecoded,
}

/// The objects whose current version cannot be decoded, and why.
type Errors = BTreeMap<Key, String>;

/// The objects that cannot be decoded, of the last complete list and of the one that is being received.
#[derive(Default)]
struct Undecoded {
    errors: Errors,
    listing: Option<Errors>,
}

impl Undecoded {
    /// Takes an event apart: what it means for the store, and for the objects that cannot be decoded. In a list, the last
    /// version of such an object takes its place.
    fn decode<K: Kind>(
        &mut self,
        store: &Store<K>,
        event: Event<Guarded<K>>,
    ) -> (Option<Event<K>>, bool) {
        match event {
            Event::Init => {
                self.listing = Some(Errors::new());
                (Some(Event::Init), false)
            }
            Event::InitApply(Guarded(Ok(object))) => (Some(Event::InitApply(object)), false),
            Event::InitApply(Guarded(Err(invalid))) => {
                let key = key_of_metadata(&invalid.metadata);
                let last = store.get(&object_ref(&key));
                let listing = self.listing.get_or_insert_default();
                listing.insert(key, invalid.error);
                let last = last.map(|object| Event::InitApply(object.as_ref().clone()));
                (last, false)
            }
            Event::InitDone => {
                self.errors = self.listing.take().unwrap_or_default();
                (Some(Event::InitDone), true)
            }
            Event::Apply(Guarded(Ok(object))) => {
                let was_unreadable = self.errors.remove(&key_of(&object)).is_some();
                (Some(Event::Apply(object)), was_unreadable)
            }
            Event::Apply(Guarded(Err(Undecodable { error, metadata }))) => {
                let known = self
                    .errors
                    .insert(key_of_metadata(&metadata), error.clone());
                (None, known != Some(error))
            }
            Event::Delete(guard) => {
                let key = key_of_metadata(guard.meta());
                let was_unreadable = self.errors.remove(&key).is_some();
                let last = match guard.0 {
                    Ok(object) => Some(object),
                    Err(_) => store
                        .get(&object_ref(&key))
                        .map(|object| object.as_ref().clone()),
                };
                (last.map(Event::Delete), was_unreadable)
            }
        }
    }
}

/// Returns the key of an object in a store.
pub(crate) fn object_ref<K: Lookup<DynamicType = ()>>((namespace, name): &Key) -> ObjectRef<K> {
    let reference = ObjectRef::new(name);
    match namespace {
        Some(namespace) => reference.within(namespace),
        None => reference,
    }
}

impl<K: Kind> Reflector<K> {
    /// An empty reflector.
    pub(super) fn new(what: &'static str) -> Self {
        let (store, writer) = store();
        Self {
            what,
            store,
            writer: Some(writer),
            state: Arc::new(Mutex::new(ListState {
                is_complete: false,
                failure: None,
                unfit: None,
                changes: ObjectChanges::Unknown,
                unreadable: Undecoded::default(),
            })),
            task: None,
        }
    }

    /// The objects; the store is empty before the first complete list.
    pub(crate) fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// Takes the changes since the last call of this method or of `objects`.
    pub(super) fn changes(&self) -> ObjectChanges<K> {
        std::mem::replace(&mut lock(&self.state).changes, ObjectChanges::NONE)
    }

    /// The current objects in the order of their names; `None` before the first complete list.
    pub(super) fn objects(&self) -> Option<Vec<Arc<K>>> {
        {
            let mut state = lock(&self.state);
            if !state.is_complete {
                return None;
            }
            // Reset before the store is read, so that a change in between is seen twice instead of lost.
            state.changes = ObjectChanges::NONE;
        }
        let mut objects = self.store.state();
        objects.sort_by_cached_key(|object| key_of(object.as_ref()));
        Some(objects)
    }

    /// The objects whose current version cannot be decoded, and why. The store has the last good version, if it saw one.
    pub(super) fn unreadable(&self) -> Errors {
        lock(&self.state).unreadable.errors.clone()
    }

    /// An object by its namespace and name.
    pub(super) fn find(&self, namespace: Option<&str>, name: &str) -> Option<Arc<K>> {
        let key = (namespace.map(str::to_owned), name.to_owned());
        self.store.get(&object_ref(&key))
    }

    /// The last failure of a list or watch.
    pub(super) fn failure(&self) -> Option<String> {
        lock(&self.state).failure.clone()
    }

    /// Returns why the definition of the kind does not fit this program. Nothing is listed or watched until it does.
    pub(super) fn unfit(&self) -> Option<String> {
        lock(&self.state).unfit.clone()
    }

    /// Starts the watch, once the definition of the kind fits. Every event is passed to `events`; `changed` is notified only of
    /// changes other than of statuses, so that a status written after a pass does not cause another pass.
    pub(super) fn follow(
        &mut self,
        api: Api<Guarded<K>>,
        config: &watcher::Config,
        changed: Arc<Notify>,
        events: impl ObjectEvents,
    ) {
        let Some(mut writer) = self.writer.take() else {
            return;
        };
        let (what, store) = (self.what, self.store.clone());
        let state = Arc::clone(&self.state);
        let client = api.clone().into_client();
        let watch = with_pauses(watcher(api, config.clone()).modify(prune));
        self.task = Some(tokio::spawn(async move {
            await_definition::<K>(&client, &state, &changed).await;
            let mut watch = pin!(watch);
            let mut log = WatchLog::new(what);
            while let Some(event) = watch.next().await {
                log.note(event.as_ref());
                match event {
                    Ok(event) => {
                        let notice = Notice::of(&event);
                        let is_changed = receive(&store, &mut writer, &state, event);
                        notice.send::<K>(&events);
                        if is_changed {
                            changed.notify_one();
                        }
                    }
                    Err(error) => {
                        lock(&state).failure = Some(chain(&error));
                    }
                }
            }
        }));
    }

    /// Lists all objects once.
    pub(super) async fn list(
        &mut self,
        api: Api<Guarded<K>>,
        config: &watcher::Config,
    ) -> Result<(), ApiError> {
        let params = ListParams {
            label_selector: config.label_selector.clone(),
            field_selector: config.field_selector.clone(),
            ..ListParams::default()
        };
        let failed = |source| ApiError::List {
            what: self.what,
            source,
        };
        definitions::check(&api.clone().into_client(), &definitions::name_of::<K>()).await?;
        let objects = api.list(&params).await.map_err(failed)?.items;
        self.fill_guarded(objects);
        Ok(())
    }

    /// Applies a newer version, as `follow` does.
    #[cfg(test)]
    pub(super) fn receive(&mut self, object: K) {
        self.receive_guarded(Event::Apply(Guarded(Ok(object))));
    }

    /// Applies an event, as `follow` does.
    #[cfg(test)]
    pub(super) fn receive_guarded(&mut self, event: Event<Guarded<K>>) {
        if let Some(writer) = &mut self.writer {
            receive(&self.store, writer, &self.state, event);
        }
    }

    /// Applies a complete list.
    #[cfg(test)]
    pub(super) fn fill(&mut self, objects: Vec<K>) {
        self.fill_guarded(
            objects
                .into_iter()
                .map(|object| Guarded(Ok(object)))
                .collect(),
        );
    }

    /// Applies a complete list.
    pub(super) fn fill_guarded(&mut self, objects: Vec<Guarded<K>>) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        let applied = objects.into_iter().map(|mut object| {
            prune(&mut object);
            Event::InitApply(object)
        });
        let events = std::iter::once(Event::Init).chain(applied);
        for event in events.chain([Event::InitDone]) {
            receive(&self.store, writer, &self.state, event);
        }
    }
}

/// Applies an event to the store and the state; returns whether it has an effect.
fn receive<K: Kind>(
    store: &Store<K>,
    writer: &mut Writer<K>,
    state: &Mutex<ListState<K>>,
    event: Event<Guarded<K>>,
) -> bool {
    let (event, is_readability_changed) = lock(state).unreadable.decode(store, event);
    let is_changed = event.is_some_and(|event| {
        let effect = effect(store, &event);
        writer.apply_watcher_event(&event);
        lock(state).take(store, effect, &event)
    });
    if is_readability_changed {
        lock(state).changes = ObjectChanges::Unknown;
    }
    is_changed || is_readability_changed
}

impl<K: Kind> Drop for Reflector<K> {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Waits until the definition of a kind fits. A reason to wait is a change, so that the agent reports it.
async fn await_definition<K: Kind>(client: &Client, state: &Mutex<ListState<K>>, changed: &Notify) {
    let report = |error: Option<&DefinitionError>| {
        let reason = error.map(|error| chain(error));
        let is_unfit = error.is_some_and(DefinitionError::is_unfit);
        let mut state = lock(state);
        state.unfit = reason.clone().filter(|_| is_unfit);
        state.failure = reason;
        changed.notify_one();
    };
    definitions::await_fit(client, &definitions::name_of::<K>(), report).await;
}

fn lock<K>(state: &Mutex<ListState<K>>) -> MutexGuard<'_, ListState<K>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Kind> ListState<K> {
    /// Records the effect of an event that the store already has; returns whether there was one.
    fn take(&mut self, store: &Store<K>, effect: EventEffect, event: &Event<K>) -> bool {
        self.is_complete |= matches!(event, Event::InitDone);
        match (effect, event) {
            (EventEffect::Nothing, _) => return false,
            (EventEffect::Version, Event::Apply(object)) => {
                let object = store.get(&ObjectRef::from_obj(object));
                if let (ObjectChanges::Versions(versions), Some(object)) =
                    (&mut self.changes, object)
                {
                    versions.insert(key_of(object.as_ref()), object);
                }
            }
            (EventEffect::Version | EventEffect::Unknown, _) => {
                self.changes = ObjectChanges::Unknown;
            }
        }
        true
    }
}

fn prune<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// The effect of an event on the objects, apart from their statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventEffect {
    /// None, or only a status has changed.
    Nothing,
    /// A known object has a newer version.
    Version,
    /// Any other change.
    Unknown,
}

/// Returns the effect of an event that the store does not have yet.
fn effect<K: Kind>(store: &Store<K>, event: &Event<K>) -> EventEffect {
    match event {
        Event::Apply(object) => {
            let Some(before) = store.get(&ObjectRef::from_obj(object)) else {
                return EventEffect::Unknown;
            };
            let (before, now) = (before.meta(), object.meta());
            let is_deleting = now.deletion_timestamp.is_some();
            if before.uid != now.uid || before.deletion_timestamp.is_some() != is_deleting {
                EventEffect::Unknown
            } else if before.generation != now.generation {
                EventEffect::Version
            } else {
                EventEffect::Nothing
            }
        }
        Event::Delete(_) | Event::InitDone => EventEffect::Unknown,
        Event::Init | Event::InitApply(_) => EventEffect::Nothing,
    }
}

/// Logs once when a watch fails, and once when it works again.
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

    fn note<K: ResourceExt>(&mut self, event: Result<&Event<K>, &watcher::Error>) {
        let what = self.what;
        match event {
            Ok(Event::Init) => debug!(what, "listing"),
            Ok(_) if self.is_broken => {
                self.is_broken = false;
                tracing::info!(what, "the watch works again");
            }
            Ok(event) => debug!(what, %event, "event"),
            Err(error) if self.is_broken => {
                debug!(what, error = chain(error), "the watch still fails");
            }
            Err(error) => {
                self.is_broken = true;
                let error = chain(error);
                warn!(
                    what,
                    error, "the watch failed; the last objects stay in force"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
