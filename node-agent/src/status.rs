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
    source::api::{ApiError, ApiSource, NodeObjects},
};

mod facts;
mod publish;
mod queue;
mod results;
mod version;

use publish::{Publisher, Stores};
use queue::StatusQueue;

/// Publishes the statuses of this machine's objects. Dropping it ends the task.
pub(crate) struct Statuses {
    queue: Arc<StatusQueue>,
    task: JoinHandle<()>,
}

impl Statuses {
    /// Starts publishing the statuses of the objects, once they are watched.
    ///
    /// # Errors
    /// When the thread that renews the agent's Lease cannot be started.
    pub(crate) fn start(
        api: &ApiSource,
        holder: watch::Receiver<Arc<HolderReport>>,
    ) -> Result<Self, ApiError> {
        let queue = Arc::new(StatusQueue::default());
        let publisher = Publisher::new(
            api.client().clone(),
            Stores {
                bindings: api.bindings().store(),
                served: api.served().store(),
                lvs_nodes: api.lvs_nodes().store(),
            },
            Arc::clone(api.progress()),
            holder,
            api.start_lease()?,
        );
        let task = tokio::spawn(publisher.run(Arc::clone(&queue)));
        Ok(Self { queue, task })
    }

    /// Starts the watches of the objects.
    pub(crate) fn watch(&self, api: &mut ApiSource) {
        api.watch(&self.queue);
    }

    /// Queues the statuses of the objects that a pass covered.
    pub(crate) fn report(&self, objects: &NodeObjects, result: Result<&Applied, &PassError>) {
        match result {
            Ok(applied) if applied.prepared.scope.is_of_some_services() => {
                self.queue.put(results::of_updated(objects, applied));
            }
            Ok(applied) => {
                let seen = &applied.prepared.seen.facts;
                let facts = facts::facts(seen, About::read());
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
