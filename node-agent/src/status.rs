//! The statuses of this machine's objects, computed from the result of a pass and the VIP holder's report, and published
//! by a separate task.
//!
//! ```text
//! Applied --results--> PassResults --StatusQueue--> with the holder's report: Statuses --publish--> API server
//! ```

use std::sync::Arc;

use lvs_kernel::About;
use lvs_runtime::error::chain;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    holder::HolderReport,
    pass::{Applied, PassError},
    source::api::{ApiSource, NodeObjects},
};

mod facts;
mod publish;
mod queue;
mod results;
mod version;

use publish::Publisher;
use queue::StatusQueue;

/// Publishes the statuses of this machine's objects. Dropping it ends the task.
pub(crate) struct Statuses {
    queue: Arc<StatusQueue>,
    task: JoinHandle<()>,
}

impl Statuses {
    /// Starts watching the objects and publishing their statuses.
    pub(crate) fn start(api: &mut ApiSource, holder: watch::Receiver<Arc<HolderReport>>) -> Self {
        let queue = Arc::new(StatusQueue::default());
        api.watch(&Arc::clone(&queue));
        let publisher = Publisher::new(
            api.client().clone(),
            api.bindings().store(),
            api.lvs_nodes().store(),
            Arc::clone(api.progress()),
            holder,
        );
        let task = tokio::spawn(publisher.run(Arc::clone(&queue)));
        Self { queue, task }
    }

    /// Queues the statuses of the objects that a pass covered.
    pub(crate) fn report(&self, objects: &NodeObjects, result: Result<&Applied, &PassError>) {
        match result {
            Ok(applied) if applied.prepared.scope.is_of_some_services() => {
                self.queue.put(results::of_updated(objects, applied));
            }
            Ok(applied) => {
                let facts = facts::facts(&applied.prepared.seen.facts, About::read());
                self.queue.put_all(results::of_all(objects, applied, facts));
            }
            Err(error) => {
                self.queue
                    .put_node(results::of_failed(objects, &chain(error)));
            }
        }
    }
}

impl Drop for Statuses {
    fn drop(&mut self) {
        self.task.abort();
    }
}
