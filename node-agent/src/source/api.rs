//! The API server as a source: the DirectorBindings, the RealServerBindings and the LvsNode of this machine.
//!
//! Tasks: three watch objects, one saves them to disk. All end with the source, and no pass waits for them.

use std::{collections::BTreeSet, sync::Arc};

use kube::Client;
use lvs_crd::{DirectorBinding, LvsNode, NODE_LABEL, RealServerBinding, node_label};
use lvs_model::{NodeName, ObjectName, Rejection};
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
mod unreadable;
mod update;

pub(crate) use cache::Progress;
use cache::{Cache, CachedObjects};
pub(crate) use error::ApiError;
pub(crate) use node_objects::NodeObjects;
use reflector::Reflector;
pub(crate) use reflector::{Key, ObjectEvents, object_ref};
use unreadable::Unreadable;
use update::BindingUpdate;

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
    served: Reflector<RealServerBinding>,
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
            served: Reflector::new("RealServerBindings"),
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
        self.served.follow(
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
        let (bindings_config, nodes_config) = (self.bindings_config(), self.lvs_nodes_config());
        let bindings = kube::Api::all(self.client.clone());
        self.bindings.list(bindings, &bindings_config).await?;
        let served = kube::Api::all(self.client.clone());
        self.served.list(served, &bindings_config).await?;
        let nodes = kube::Api::all(self.client.clone());
        self.lvs_nodes.list(nodes, &nodes_config).await
    }

    /// The host in the URL of the API server.
    pub(crate) fn server(&self) -> Option<&str> {
        self.lease.config.cluster_url.host()
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

    /// The watched RealServerBindings of the machine.
    pub(crate) const fn served(&self) -> &Reflector<RealServerBinding> {
        &self.served
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
        let unfit = self.bindings.unfit().or_else(|| self.served.unfit());
        unfit.or_else(|| self.lvs_nodes.unfit())
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
        let (Some(bindings), Some(served), Some(nodes)) = (
            self.bindings.objects(),
            self.served.objects(),
            self.lvs_nodes.objects(),
        ) else {
            return self.read_cache(state);
        };
        if self.in_force.is_none()
            && let Some(before) = cache::load(&state.last_objects())
        {
            // If an object is faulty, its cached version stays in force.
            self.convert(&before, Vec::new());
            self.in_force = Some(before);
        }
        let before = self.in_force.take().unwrap_or_default();
        let unreadable = Unreadable::new(
            self.bindings.unreadable(),
            self.served.unreadable(),
            self.lvs_nodes.unreadable(),
        );
        let objects = CachedObjects {
            lvs_node: self.lvs_node(nodes, before.lvs_node.clone()),
            bindings: unreadable.bindings.fill(bindings, &before.bindings),
            served: unreadable.served.fill(served, &before.served),
        };
        self.convert(&objects, unreadable.rejections());
        if let Some(snapshot) = &mut self.snapshot {
            snapshot
                .view
                .unreadable_objects
                .extend(unreadable.unknown(&objects));
        }
        let in_force = self.last_good(&objects, &before);
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
            (
                self.bindings.changes(),
                self.served.changes(),
                self.lvs_nodes.changes(),
            ),
            &self.bindings,
        )?;
        let (in_force, cache) = (self.in_force.as_mut()?, self.cache.as_ref()?);
        let objects = updates.iter().flat_map(BindingUpdate::objects);
        let versions: Vec<_> = objects
            .filter(|object| !in_force.has_version(object))
            .cloned()
            .collect();
        cache.save_versions(versions.clone());
        versions
            .into_iter()
            .for_each(|object| in_force.replace(object));
        let mut names = BTreeSet::new();
        self.objects.forget_updated();
        for update in updates {
            let (name, service) = (update.name.clone(), Arc::clone(&update.service));
            snapshot.view.services.insert(name.clone(), service);
            update.apply(&mut self.objects, &mut self.converted);
            names.insert(name);
        }
        Some(names)
    }

    /// Converts the objects, and makes the snapshot from them.
    fn convert(&mut self, objects: &CachedObjects, unreadable: Vec<Rejection>) {
        let before = std::mem::take(&mut self.converted);
        let (converted, objects) = convert::convert(&self.objects, objects, unreadable, before);
        self.converted = converted;
        self.objects = objects;
        self.snapshot = Some(convert::snapshot(&self.converted));
    }

    /// The objects with the last good version of each faulty binding, so that it stays in force over a restart. That of a
    /// DirectorBinding includes its slices.
    fn last_good(&self, objects: &CachedObjects, before: &CachedObjects) -> CachedObjects {
        let mut bindings = Vec::with_capacity(objects.bindings.len());
        for bound in &self.objects.bound {
            let is_faulty = bound.service.is_err();
            let name = cache::key(bound.object.as_ref());
            match before.binding(name).filter(|_| is_faulty) {
                Some(good) => bindings.extend(before.with_slices(good).cloned()),
                None => bindings.extend(bound.slices.iter().chain([&bound.object]).cloned()),
            }
        }
        let served = self.objects.served.iter().map(|bound| {
            let is_faulty = bound.service.is_err();
            let good = before.served(cache::key(bound.object.as_ref()));
            Arc::clone(good.filter(|_| is_faulty).unwrap_or(&bound.object))
        });
        let mut in_force = CachedObjects {
            bindings,
            served: served.collect(),
            lvs_node: objects.lvs_node.clone(),
        };
        in_force.sort();
        in_force
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
            let reason = self.bindings.failure();
            let reason = reason.or_else(|| self.served.failure());
            let reason = reason.or_else(|| self.lvs_nodes.failure());
            return Err(ApiError::NotListed(reason));
        };
        self.convert(&objects, Vec::new());
        Ok(Changes::Anything)
    }

    /// The machine's LvsNode. If there is none, its last version stays in force: deleting it does not stop the machine from
    /// serving; `lvs-agent cleanup` does. One that was made anew keeps the groups of the last one until its spec is written.
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
        let is_unwritten = |object: &LvsNode| {
            object.spec.groups.is_empty() && object.metadata.generation == Some(1)
        };
        match (found, before) {
            (Some(mut found), Some(before)) if is_unwritten(&found) => {
                let spec = &mut Arc::make_mut(&mut found).spec;
                spec.groups.clone_from(&before.spec.groups);
                Some(found)
            }
            (found, before) => found.or(before),
        }
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
