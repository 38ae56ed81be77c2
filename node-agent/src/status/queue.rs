//! The queue of results to compare with the statuses at the API server.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::Resource;
use lvs_crd::{DirectorBinding, LvsNode};
use tokio::sync::Notify;

use super::{
    results::{BindingResult, NodeStatus, PassResults},
    version::ObjectVersion,
};
use crate::source::api::{Key, ObjectEvents};

/// The last result of each object, and the objects whose status may differ from it. Passes and watches add objects, the
/// publisher takes them.
#[derive(Default)]
pub(super) struct StatusQueue {
    state: Mutex<State>,
    added: Notify,
}

#[derive(Default)]
struct State {
    bindings: BTreeMap<Key, BindingResult>,
    node: Option<NodeStatus>,
    queued: Queued,
}

/// The objects to compare.
#[derive(Default)]
struct Queued {
    bindings: BTreeSet<Key>,
    all_bindings: bool,
    node: bool,
}

impl StatusQueue {
    /// Stores the results of a pass over all objects, and queues all of them.
    pub(super) fn put_all(&self, results: PassResults) {
        self.change(|state| {
            let bindings = results.bindings.into_iter();
            state.bindings = bindings
                .map(|result| (result.version.key(), result))
                .collect();
            state.node = results.node;
            state.queued.all_bindings = true;
            state.queued.node = true;
        });
    }

    /// Stores and queues the results of a pass over some bindings.
    pub(super) fn put(&self, bindings: Vec<BindingResult>) {
        self.change(|state| {
            for result in bindings {
                let key = result.version.key();
                state.queued.bindings.insert(key.clone());
                state.bindings.insert(key, result);
            }
        });
    }

    /// Stores and queues the machine's status only.
    pub(super) fn put_node(&self, node: Option<NodeStatus>) {
        self.change(|state| {
            state.node = node;
            state.queued.node = true;
        });
    }

    /// Queues all bindings again.
    pub(super) fn requeue_bindings(&self) {
        self.change(|state| state.queued.all_bindings = true);
    }

    /// Queues a binding again without waking the publisher.
    pub(super) fn requeue(&self, version: &ObjectVersion) {
        self.lock().queued.bindings.insert(version.key());
    }

    /// Queues the machine again without waking the publisher.
    pub(super) fn requeue_node(&self) {
        self.lock().queued.node = true;
    }

    /// Waits until something is queued.
    pub(super) async fn added(&self) {
        self.added.notified().await;
    }

    /// Takes the results of the queued objects, and empties the queue.
    pub(super) fn take(&self) -> PassResults {
        let mut state = self.lock();
        let Queued {
            bindings,
            all_bindings,
            node,
        } = std::mem::take(&mut state.queued);
        let bindings = if all_bindings {
            state.bindings.values().cloned().collect()
        } else {
            let queued = bindings.iter();
            queued
                .filter_map(|key| state.bindings.get(key).cloned())
                .collect()
        };
        let node = state.node.clone().filter(|_| node);
        PassResults { bindings, node }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.added.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An object that a watch reports is compared again, since another writer may have changed its status.
impl ObjectEvents for Arc<StatusQueue> {
    fn changed(&self, kind: &str, key: Key) {
        if kind == DirectorBinding::kind(&()) {
            self.change(|state| state.queued.bindings.extend([key]));
        } else if kind == LvsNode::kind(&()) {
            self.change(|state| state.queued.node = true);
        }
    }

    fn listed(&self, kind: &str) {
        if kind == DirectorBinding::kind(&()) {
            self.requeue_bindings();
        } else if kind == LvsNode::kind(&()) {
            self.change(|state| state.queued.node = true);
        }
    }
}

#[cfg(test)]
mod tests;
