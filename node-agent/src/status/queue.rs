//! The queue of results to compare with the statuses at the API server.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::Resource;
use lvs_crd::{DirectorBinding, LvsNode, RealServerBinding};
use tokio::sync::Notify;

use super::{
    results::{BindingResult, NodeStatus, PassResults, ServedResult},
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
    served: BTreeMap<Key, ServedResult>,
    node: Option<NodeStatus>,
    queued: Queued,
}

/// The objects to compare.
#[derive(Default)]
struct Queued {
    bindings: Keys,
    served: Keys,
    node: bool,
}

/// The objects of one kind to compare.
#[derive(Default)]
struct Keys {
    some: BTreeSet<Key>,
    all: bool,
}

impl Keys {
    fn take_from<T: Clone>(self, results: &BTreeMap<Key, T>) -> Vec<T> {
        if self.all {
            return results.values().cloned().collect();
        }
        let found = self.some.iter().filter_map(|key| results.get(key));
        found.cloned().collect()
    }
}

impl StatusQueue {
    /// Stores the results of a pass over all objects, and queues all of them.
    pub(super) fn put_all(&self, results: PassResults) {
        self.change(|state| {
            let bindings = results.bindings.into_iter();
            state.bindings = bindings
                .map(|result| (result.version.key(), result))
                .collect();
            let served = results.served.into_iter();
            state.served = served
                .map(|result| (result.version.key(), result))
                .collect();
            state.node = results.node;
            state.queued.bindings.all = true;
            state.queued.served.all = true;
            state.queued.node = true;
        });
    }

    /// Stores and queues the results of a pass over some bindings.
    pub(super) fn put(&self, bindings: Vec<BindingResult>) {
        self.change(|state| {
            for result in bindings {
                let key = result.version.key();
                state.queued.bindings.some.insert(key.clone());
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

    /// Queues again what the holder reports on: all bindings, and the machine.
    pub(super) fn requeue_held(&self) {
        self.change(|state| {
            state.queued.bindings.all = true;
            state.queued.node = true;
        });
    }

    /// Queues a binding again without waking the publisher.
    pub(super) fn requeue(&self, version: &ObjectVersion) {
        self.lock().queued.bindings.some.insert(version.key());
    }

    /// Queues a RealServerBinding again without waking the publisher.
    pub(super) fn requeue_served(&self, version: &ObjectVersion) {
        self.lock().queued.served.some.insert(version.key());
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
            served,
            node,
        } = std::mem::take(&mut state.queued);
        PassResults {
            bindings: bindings.take_from(&state.bindings),
            served: served.take_from(&state.served),
            node: state.node.clone().filter(|_| node),
        }
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
            self.change(|state| state.queued.bindings.some.extend([key]));
        } else if kind == RealServerBinding::kind(&()) {
            self.change(|state| state.queued.served.some.extend([key]));
        } else if kind == LvsNode::kind(&()) {
            self.change(|state| state.queued.node = true);
        }
    }

    fn listed(&self, kind: &str) {
        if kind == DirectorBinding::kind(&()) {
            self.requeue_held();
        } else if kind == RealServerBinding::kind(&()) {
            self.change(|state| state.queued.served.all = true);
        } else if kind == LvsNode::kind(&()) {
            self.change(|state| state.queued.node = true);
        }
    }
}

#[cfg(test)]
mod tests;
