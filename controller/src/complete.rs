//! Results of writes: what the API server refuses becomes a condition of the object that it is for.

use std::collections::BTreeMap;

use crate::{cluster::Cluster, write::Write};

impl Cluster {
    /// Records that a write succeeded, or why the API server refuses it. What depends on that is queued.
    pub(crate) fn complete(&mut self, write: &Write, refusal: Option<&String>) {
        let is_changed = match write {
            Write::ApplyBinding { name, .. } | Write::DeleteBinding { name, .. } => {
                set(&mut self.refusals.bindings, name, refusal)
            }
            Write::ApplyServed { name, .. } | Write::DeleteServed { name, .. } => {
                set(&mut self.refusals.served, name, refusal)
            }
            Write::ApplyNode { name, .. } | Write::DeleteNode { name, .. } => {
                let is_changed = set(&mut self.refusals.nodes, name, refusal);
                if is_changed {
                    self.enqueue_directed_by(name);
                }
                is_changed
            }
            // A status that is refused cannot be reported in the same status. It is logged and counted.
            Write::Silence { .. }
            | Write::ServiceStatus { .. }
            | Write::GroupStatus { .. }
            | Write::PoolStatus { .. } => false,
        };
        if is_changed {
            self.enqueue(write.request());
        }
    }
}

/// Sets or removes the refusal of an object. Returns whether it has changed.
fn set<K: Ord + Clone>(
    refusals: &mut BTreeMap<K, String>,
    key: &K,
    refusal: Option<&String>,
) -> bool {
    let before = match refusal {
        Some(message) => refusals.insert(key.clone(), message.clone()),
        None => refusals.remove(key),
    };
    before.as_ref() != refusal
}
