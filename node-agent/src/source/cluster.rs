//! What the API server says of this machine: its DirectorBindings and its LvsNode, and the statuses that go back.
//!
//! Tasks: two that follow the lists, one that writes statuses, one that keeps the objects on disk. All end with the source.
//! None of them is waited for by a pass.

use std::sync::Arc;

use kube::{Client, runtime::watcher::Event};
use lvs_crd::{DirectorBinding, LvsNode, NODE_LABEL, node_label};
use lvs_kernel::About;
use lvs_model::NodeName;
use lvs_runtime::error::chain;
use tokio::{sync::Notify, task::JoinSet};
use tracing::{info, warn};

use super::{Objects, Snapshot};
use crate::{
    pass::{Applied, PassError},
    state_dir::StateDir,
};

mod convert;
mod listed;
mod part;
mod saved;
mod status;
mod told;
mod writer;

use listed::Listed;
use saved::{Progress, SavedObjects, Saver};
use status::Machine;
use told::Told;
use writer::Writer;

/// Why nothing is known from an API server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// A list was refused or not answered.
    #[error("listing {what}")]
    List {
        /// The objects.
        what: &'static str,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// No complete list has come yet.
    #[error("waiting for the API server{}; what is in the kernel stays", because(.0.as_deref()))]
    NotListed(Option<String>),
}

fn because(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(" ({reason})"))
}

/// The objects of one machine at an API server, and what was last read of them.
pub(crate) struct Cluster {
    node: NodeName,
    client: Client,
    bindings: Listed<DirectorBinding>,
    lvs_nodes: Listed<LvsNode>,
    changed: Arc<Notify>,
    machine: Machine,
    objects: Objects,
    /// The objects of the last complete lists, or from disk as long as there were none.
    saved: Option<SavedObjects>,
    told: Arc<Told>,
    saver: Option<Saver>,
    /// How far the saver is, for the writer of statuses.
    saving: Arc<Progress>,
    /// The places of the bindings that the last `read_part` was about.
    part: Vec<usize>,
    tasks: JoinSet<()>,
    missing_node_is_said: bool,
}

impl Cluster {
    /// A source that has not asked yet: nothing here waits for an API server.
    pub(crate) fn new(node: NodeName, client: Client) -> Self {
        Self {
            machine: Machine::new(node.clone()),
            node,
            client,
            bindings: Listed::new("DirectorBindings"),
            lvs_nodes: Listed::new("LvsNodes"),
            changed: Arc::default(),
            objects: Objects::default(),
            saved: None,
            told: Arc::default(),
            saver: None,
            saving: Arc::default(),
            part: Vec::new(),
            tasks: JoinSet::new(),
            missing_node_is_said: false,
        }
    }

    /// Follows the lists from here on, and writes statuses.
    pub(super) fn watch(&mut self) {
        let bindings = kube::Api::all(self.client.clone());
        let nodes = kube::Api::all(self.client.clone());
        let of_bindings = {
            let told = Arc::clone(&self.told);
            move |event: &Event<DirectorBinding>| match event {
                Event::Apply(object) | Event::Delete(object) => told.doubt(listed::key_of(object)),
                Event::InitDone => told.doubt_bindings(),
                Event::Init | Event::InitApply(_) => (),
            }
        };
        let of_nodes = {
            let told = Arc::clone(&self.told);
            move |_: &Event<LvsNode>| told.doubt_node()
        };
        let (config, changed) = (self.of_bindings(), Arc::clone(&self.changed));
        self.bindings
            .follow(bindings, &config, changed, of_bindings);
        let (config, changed) = (self.of_lvs_nodes(), Arc::clone(&self.changed));
        self.lvs_nodes.follow(nodes, &config, changed, of_nodes);
        let writer = Writer::new(
            self.client.clone(),
            self.bindings.store(),
            self.lvs_nodes.store(),
            Arc::clone(&self.saving),
        );
        self.tasks.spawn(writer.run(Arc::clone(&self.told)));
    }

    /// Asks once for everything.
    pub(super) async fn list(&mut self) -> Result<(), ClusterError> {
        let bindings = kube::Api::all(self.client.clone());
        let nodes = kube::Api::all(self.client.clone());
        let (of_bindings, of_lvs_nodes) = (self.of_bindings(), self.of_lvs_nodes());
        self.bindings.list(bindings, &of_bindings).await?;
        self.lvs_nodes.list(nodes, &of_lvs_nodes).await
    }

    fn of_bindings(&self) -> kube::runtime::watcher::Config {
        listed::config().labels(&format!("{NODE_LABEL}={}", node_label(self.node.as_str())))
    }

    fn of_lvs_nodes(&self) -> kube::runtime::watcher::Config {
        listed::config().fields(&format!("metadata.name={}", self.node))
    }

    /// Waits for a change of what is wanted.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Returns what the last complete lists want; before the first ones, what the state directory remembers.
    pub(super) fn read(&mut self, state: &StateDir) -> Result<Snapshot, ClusterError> {
        let (Some(bindings), Some(nodes)) = (self.bindings.objects(), self.lvs_nodes.objects())
        else {
            return self.recall(state);
        };
        if self.saved.is_none()
            && let Some(before) = saved::load(&state.last_objects())
        {
            // What it says is bridged by, should an object be faulty.
            drop(self.convert(&before));
            self.saved = Some(before);
        }
        let before = self.saved.take().unwrap_or_default();
        let objects = SavedObjects {
            lvs_node: self.lvs_node(nodes, before.lvs_node.clone()),
            bindings,
        };
        let snapshot = self.convert(&objects);
        let in_force = self.in_force(objects, &before);
        self.saver
            .get_or_insert_with(|| {
                Saver::new(state.last_objects(), before, Arc::clone(&self.saving))
            })
            .save(in_force.clone());
        self.saved = Some(in_force);
        Ok(snapshot)
    }

    /// The objects with the last good version of each faulty binding: a restart does not take out of force what worked.
    fn in_force(&self, objects: SavedObjects, before: &SavedObjects) -> SavedObjects {
        let bindings = self.machine.bound.iter().map(|bound| {
            let good = bound
                .service
                .is_err()
                .then(|| before.binding(&bound.object));
            Arc::clone(good.flatten().unwrap_or(&bound.object))
        });
        SavedObjects {
            bindings: bindings.collect(),
            ..objects
        }
    }

    /// What there was before the start, as long as the API server has not answered.
    fn recall(&mut self, state: &StateDir) -> Result<Snapshot, ClusterError> {
        if self.saved.is_none() {
            self.saved = saved::load(&state.last_objects());
            if self.saved.is_some() {
                info!("serving what was wanted last, until the API server answers");
            }
        }
        let Some(objects) = self.saved.clone() else {
            let reason = self.bindings.failure().or_else(|| self.lvs_nodes.failure());
            return Err(ClusterError::NotListed(reason));
        };
        Ok(self.convert(&objects))
    }

    /// The machine's LvsNode. While there is none, what it said last stays in force: who deletes it has not said that
    /// nothing is wanted, `lvs-agent cleanup` does.
    fn lvs_node(
        &mut self,
        listed: Vec<Arc<LvsNode>>,
        before: Option<Arc<LvsNode>>,
    ) -> Option<Arc<LvsNode>> {
        let found = listed.into_iter().next();
        if found.is_none() && !self.missing_node_is_said {
            warn!(
                node = %self.node,
                "there is no LvsNode of this machine; what it said last stays in force"
            );
        }
        self.missing_node_is_said = found.is_none();
        found.or(before)
    }

    /// Has the statuses written of what was read last.
    pub(super) fn report(&self, result: Result<&Applied, &PassError>) {
        match result {
            Ok(applied) => {
                let facts = status::facts(&applied.prepared.facts, About::read());
                self.told
                    .say(status::statuses(&self.machine, applied, facts));
            }
            Err(error) => {
                let node = status::failed(&self.machine, &chain(error));
                self.told.say_of_node(node);
            }
        }
    }

    /// Has the statuses written of the part that was read last.
    pub(super) fn report_part(&self, applied: &Applied) {
        let indices = self.part.iter();
        let bound = indices.filter_map(|index| self.machine.bound.get(*index));
        self.told.say_of_some(status::statuses_of(bound, applied));
    }

    /// Waits for the objects to be on disk.
    pub(super) async fn finish(&mut self) {
        if let Some(saver) = self.saver.take() {
            saver.finish().await;
        }
    }
}

#[cfg(test)]
mod tests;
