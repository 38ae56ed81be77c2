//! The API server as a source: the DirectorBindings and the LvsNode of this machine.
//!
//! Tasks: two watch objects, one saves them to disk. All end with the source, and no pass waits for them.

use std::{collections::BTreeSet, sync::Arc};

use kube::Client;
use lvs_crd::{DirectorBinding, LvsNode, NODE_LABEL, node_label};
use lvs_model::{NodeName, ObjectName};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::{
    Changes,
    objects::{ObjectSet, Snapshot},
};
use crate::{
    lease::{self, LeaseState},
    state_dir::StateDir,
};

mod cache;
mod convert;
mod error;
mod node_objects;
mod reflector;
mod update;

pub(crate) use cache::Progress;
use cache::{Cache, CachedObjects};
pub(crate) use error::ApiError;
pub(crate) use node_objects::NodeObjects;
use reflector::Reflector;
pub(crate) use reflector::{Key, ObjectEvents};

/// Where the agent's Lease is, and how to reach it with a client of its own.
#[derive(Clone)]
pub(crate) struct LeaseArgs {
    /// The API server.
    pub config: kube::Config,
    /// The namespace of the Lease.
    pub namespace: String,
}

/// The objects of one machine at an API server, and the snapshot last read from them.
pub(crate) struct ApiSource {
    node: NodeName,
    client: Client,
    lease: LeaseArgs,
    bindings: Reflector<DirectorBinding>,
    lvs_nodes: Reflector<LvsNode>,
    changed: Arc<Notify>,
    /// The objects that the snapshot was made from.
    objects: NodeObjects,
    converted: ObjectSet,
    snapshot: Option<Snapshot>,
    /// The objects in force, as cached on disk; `None` before there were any.
    in_force: Option<CachedObjects>,
    cache: Option<Cache>,
    /// How much of the changes the cache on disk has saved.
    progress: Arc<Progress>,
    is_missing_node_logged: bool,
}

impl ApiSource {
    /// A source that has sent no request yet, so that the start does not wait for the API server.
    pub(crate) fn new(node: NodeName, client: Client, lease: LeaseArgs) -> Self {
        Self {
            objects: NodeObjects::new(node.clone()),
            node,
            client,
            lease,
            bindings: Reflector::new("DirectorBindings"),
            lvs_nodes: Reflector::new("LvsNodes"),
            changed: Arc::default(),
            converted: ObjectSet::default(),
            snapshot: None,
            in_force: None,
            cache: None,
            progress: Arc::default(),
            is_missing_node_logged: false,
        }
    }

    /// Starts the watches. Every event is passed to `events`.
    pub(crate) fn watch(&mut self, events: &(impl ObjectEvents + Clone)) {
        let config = self.bindings_config();
        self.bindings.follow(
            kube::Api::all(self.client.clone()),
            &config,
            Arc::clone(&self.changed),
            events.clone(),
        );
        let config = self.lvs_nodes_config();
        self.lvs_nodes.follow(
            kube::Api::all(self.client.clone()),
            &config,
            Arc::clone(&self.changed),
            events.clone(),
        );
    }

    /// Lists all objects once.
    pub(super) async fn list(&mut self) -> Result<(), ApiError> {
        let bindings = kube::Api::all(self.client.clone());
        let nodes = kube::Api::all(self.client.clone());
        let (bindings_config, nodes_config) = (self.bindings_config(), self.lvs_nodes_config());
        self.bindings.list(bindings, &bindings_config).await?;
        self.lvs_nodes.list(nodes, &nodes_config).await
    }

    fn bindings_config(&self) -> kube::runtime::watcher::Config {
        reflector::config().labels(&format!("{NODE_LABEL}={}", node_label(self.node.as_str())))
    }

    fn lvs_nodes_config(&self) -> kube::runtime::watcher::Config {
        reflector::config().fields(&format!("metadata.name={}", self.node))
    }

    /// Starts renewing the agent's Lease, on a thread of its own.
    pub(crate) fn start_lease(&self) -> Result<LeaseState, ApiError> {
        let LeaseArgs { config, namespace } = self.lease.clone();
        lease::start(config, &namespace, &self.node).map_err(ApiError::Lease)
    }

    /// The client.
    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    /// The watched DirectorBindings of the machine.
    pub(crate) const fn bindings(&self) -> &Reflector<DirectorBinding> {
        &self.bindings
    }

    /// The watched LvsNode of the machine.
    pub(crate) const fn lvs_nodes(&self) -> &Reflector<LvsNode> {
        &self.lvs_nodes
    }

    /// How much of the changes the cache on disk has saved.
    pub(crate) const fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// The objects that the snapshot was made from.
    pub(crate) const fn objects(&self) -> &NodeObjects {
        &self.objects
    }

    /// The configuration as it was last read.
    pub(super) const fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// Returns why the definitions of its kinds do not fit this program; the cached objects stay in force until they do.
    pub(super) fn unfit(&self) -> Option<String> {
        self.bindings.unfit().or_else(|| self.lvs_nodes.unfit())
    }

    /// Waits for a change other than of statuses.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Reads the last complete lists; before the first ones, the objects cached in the state directory.
    pub(super) fn read(&mut self, state: &StateDir) -> Result<Changes, ApiError> {
        if let Some(updated) = self.read_updates() {
            return Ok(Changes::Services(updated));
        }
        let (Some(bindings), Some(nodes)) = (self.bindings.objects(), self.lvs_nodes.objects())
        else {
            return self.read_cache(state);
        };
        if self.in_force.is_none()
            && let Some(before) = cache::load(&state.last_objects())
        {
            // If an object is faulty, its cached version stays in force.
            self.convert(&before);
            self.in_force = Some(before);
        }
        let before = self.in_force.take().unwrap_or_default();
        let objects = CachedObjects {
            lvs_node: self.lvs_node(nodes, before.lvs_node.clone()),
            bindings,
        };
        self.convert(&objects);
        let in_force = self.last_good(objects, &before);
        self.cache
            .get_or_insert_with(|| {
                let progress = Arc::clone(&self.progress);
                Cache::new(state.last_objects(), before, progress)
            })
            .save(in_force.clone());
        self.in_force = Some(in_force);
        Ok(Changes::Anything)
    }

    /// Takes over newer versions of virtual services in force, if nothing else has changed since the last read.
    fn read_updates(&mut self) -> Option<BTreeSet<ObjectName>> {
        let snapshot = self.snapshot.as_mut()?;
        let updates = update::updates(
            &self.objects,
            &self.converted,
            (self.bindings.changes(), self.lvs_nodes.changes()),
        )?;
        let (in_force, cache) = (self.in_force.as_mut()?, self.cache.as_ref()?);
        let objects = updates
            .iter()
            .map(|update| Arc::clone(&update.bound.object));
        cache.save_versions(objects.collect());
        let mut names = BTreeSet::new();
        self.objects.forget_updated();
        for update in updates {
            in_force.replace(Arc::clone(&update.bound.object));
            let (name, service) = (update.name.clone(), Arc::clone(&update.service));
            snapshot.view.services.insert(name.clone(), service);
            update.apply(&mut self.objects, &mut self.converted);
            names.insert(name);
        }
        Some(names)
    }

    /// Converts the objects, and makes the snapshot from them.
    fn convert(&mut self, objects: &CachedObjects) {
        let before = std::mem::take(&mut self.converted);
        let (converted, objects) = convert::convert(&self.objects, objects, before);
        self.converted = converted;
        self.objects = objects;
        self.snapshot = Some(convert::snapshot(&self.converted));
    }

    /// The objects with the last good version of each faulty binding, so that it stays in force over a restart.
    fn last_good(&self, objects: CachedObjects, before: &CachedObjects) -> CachedObjects {
        let bindings = self.objects.bound.iter().map(|bound| {
            let is_faulty = bound.service.is_err();
            let good = is_faulty.then(|| before.binding(&bound.object)).flatten();
            Arc::clone(good.unwrap_or(&bound.object))
        });
        CachedObjects {
            bindings: bindings.collect(),
            ..objects
        }
    }

    /// Reads the objects cached before the start, while the API server has not answered.
    fn read_cache(&mut self, state: &StateDir) -> Result<Changes, ApiError> {
        if self.in_force.is_none() {
            self.in_force = cache::load(&state.last_objects());
            if self.in_force.is_some() {
                info!("serving the cached objects until the API server answers");
            }
        }
        let Some(objects) = self.in_force.clone() else {
            let reason = self.bindings.failure().or_else(|| self.lvs_nodes.failure());
            return Err(ApiError::NotListed(reason));
        };
        self.convert(&objects);
        Ok(Changes::Anything)
    }

    /// The machine's LvsNode. If there is none, its last version stays in force: deleting it does not stop the machine from
    /// serving; `lvs-agent cleanup` does.
    fn lvs_node(
        &mut self,
        listed: Vec<Arc<LvsNode>>,
        before: Option<Arc<LvsNode>>,
    ) -> Option<Arc<LvsNode>> {
        let found = listed.into_iter().next();
        if found.is_none() && !self.is_missing_node_logged {
            warn!(
                node = %self.node,
                "this machine has no LvsNode; its last version stays in force"
            );
        }
        self.is_missing_node_logged = found.is_none();
        found.or(before)
    }

    /// Waits until the objects are on disk.
    pub(super) async fn finish(&mut self) {
        if let Some(cache) = self.cache.take() {
            cache.finish().await;
        }
    }
}

#[cfg(test)]
mod tests;
