//! What is to be said of this machine's objects, and of which of them it is not known whether they show it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use lvs_crd::condition::Verdict;
use tokio::sync::Notify;

use super::{
    listed::Key,
    status::{NodeStatus, Statuses, Subject},
};

/// What passes and watches tell the writer of statuses.
#[derive(Default)]
pub(super) struct Told {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    bindings: BTreeMap<Key, (Subject, Verdict)>,
    node: Option<NodeStatus>,
    doubts: Doubts,
}

/// The objects to look at.
#[derive(Default)]
struct Doubts {
    bindings: BTreeSet<Key>,
    all_bindings: bool,
    node: bool,
}

impl Told {
    /// Takes what a pass over everything says.
    pub(super) fn say(&self, statuses: Statuses) {
        self.change(|state| {
            state.bindings = keyed(statuses.bindings).collect();
            state.node = statuses.node;
            state.doubts.all_bindings = true;
            state.doubts.node = true;
        });
    }

    /// Takes what a pass over some bindings says.
    pub(super) fn say_of_some(&self, bindings: Vec<(Subject, Verdict)>) {
        self.change(|state| {
            for (key, said) in keyed(bindings) {
                state.doubts.bindings.insert(key.clone());
                state.bindings.insert(key, said);
            }
        });
    }

    /// Takes what is said of the machine alone.
    pub(super) fn say_of_node(&self, node: Option<NodeStatus>) {
        self.change(|state| {
            state.node = node;
            state.doubts.node = true;
        });
    }

    /// A binding has changed.
    pub(super) fn doubt(&self, key: Key) {
        self.change(|state| state.doubts.bindings.extend([key]));
    }

    /// Any binding may have changed.
    pub(super) fn doubt_bindings(&self) {
        self.change(|state| state.doubts.all_bindings = true);
    }

    /// The machine's object has changed.
    pub(super) fn doubt_node(&self) {
        self.change(|state| state.doubts.node = true);
    }

    /// Waits until there is something to look at.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// Takes what is to be said of the objects to look at; none is left to look at.
    pub(super) fn take(&self) -> Statuses {
        let mut state = self.lock();
        let Doubts {
            bindings,
            all_bindings,
            node,
        } = std::mem::take(&mut state.doubts);
        let bindings = if all_bindings {
            state.bindings.values().cloned().collect()
        } else {
            let doubtful = bindings.iter();
            doubtful
                .filter_map(|key| state.bindings.get(key).cloned())
                .collect()
        };
        let node = state.node.clone().filter(|_| node);
        Statuses { bindings, node }
    }

    /// A binding is to be looked at again, with whatever is next.
    pub(super) fn put_back(&self, subject: &Subject) {
        self.lock().doubts.bindings.insert(subject.key());
    }

    /// The machine's object is to be looked at again, with whatever is next.
    pub(super) fn put_back_node(&self) {
        self.lock().doubts.node = true;
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keyed(bindings: Vec<(Subject, Verdict)>) -> impl Iterator<Item = (Key, (Subject, Verdict))> {
    let with_key = |(subject, verdict): (Subject, Verdict)| (subject.key(), (subject, verdict));
    bindings.into_iter().map(with_key)
}

#[cfg(test)]
mod tests;
