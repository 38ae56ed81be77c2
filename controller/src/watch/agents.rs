//! Watches the Leases of agents: which agents are alive, by the controller's own clock.
//!
//! 1. An agent is alive from the first sight of its Lease, and silent once the Lease was not renewed for its duration since the
//!    controller saw the last renewal. Remote clocks do not count.
//! 2. A watch may be dead without an error. Before an agent is judged silent, the Leases are listed once more.
//! 3. Silence counts only while the API server answers: after a failure of the watch or of that list, every agent has the whole
//!    duration again.
//! 4. A controller that starts judges no agent before the duration has passed.

mod renewals;

use std::{collections::VecDeque, time::Duration};

use futures::{
    FutureExt, Stream, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use lvs_crd::{AGENT_LEASE_DURATION, NODE_LABEL, agent_lease_name};
use lvs_model::NodeName;
use lvs_runtime::watch::with_pauses;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::{event::WatchEvent, slim};
use crate::cluster::Change;
use renewals::Renewals;

/// How long the list before a judgement may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// Watches the Leases of agents in a namespace.
pub(super) fn watch_agents(client: &Client, namespace: &str) -> BoxStream<'static, WatchEvent> {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let config = watcher::Config::default()
        .labels(NODE_LABEL)
        .timeout(lvs_runtime::client::WATCH_SECONDS);
    let leases = with_pauses(watcher(api.clone(), config).modify(slim::metadata)).boxed();
    let list = move || list(api.clone()).boxed();
    stream::unfold(AgentWatch::new(leases, Box::new(list)), AgentWatch::next).boxed()
}

/// Lists the Leases; `None` if the API server does not answer.
async fn list(api: Api<Lease>) -> Option<Vec<Lease>> {
    let parameters = ListParams::default().labels(NODE_LABEL);
    let listed = timeout(LIST_TIMEOUT, api.list(&parameters)).await;
    Some(listed.ok()?.ok()?.items)
}

/// Lists the Leases.
type List = Box<dyn Fn() -> BoxFuture<'static, Option<Vec<Lease>>> + Send>;

/// The watch of the Leases, and what follows from the time that passes between two renewals.
struct AgentWatch<S> {
    leases: S,
    list: List,
    renewals: Renewals,
    /// When agents without a Lease are judged; `None` before the first list, and once that is done.
    judging_from: Option<Instant>,
    /// Whether the watch has failed since its last event.
    is_interrupted: bool,
    /// The events that are not yet delivered.
    ready: VecDeque<WatchEvent>,
}

impl<S> AgentWatch<S>
where
    S: Stream<Item = Result<Event<Lease>, watcher::Error>> + Unpin,
{
    fn new(leases: S, list: List) -> Self {
        Self {
            leases,
            list,
            renewals: Renewals::default(),
            judging_from: None,
            is_interrupted: false,
            ready: VecDeque::new(),
        }
    }

    /// The next event. The stream never ends.
    async fn next(mut self) -> Option<(WatchEvent, Self)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((event, self));
            }
            let deadline = self
                .renewals
                .deadline()
                .into_iter()
                .chain(self.judging_from);
            let deadline = deadline.min();
            let due = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.leases.next() => self.observe(event?),
                () = due => self.judge().await,
            }
        }
    }

    fn observe(&mut self, event: Result<Event<Lease>, watcher::Error>) {
        let now = Instant::now();
        match event {
            Err(error) => {
                let error = lvs_runtime::error::chain(&error);
                warn!(kind = "Lease", %error, "watching failed; no agent is judged silent meanwhile");
                self.is_interrupted = true;
            }
            Ok(event) => {
                // The start of a list is no answer yet.
                let is_answer = !matches!(event, Event::Init);
                if is_answer && std::mem::take(&mut self.is_interrupted) {
                    self.start_again(now);
                }
                match event {
                    Event::Apply(lease) | Event::InitApply(lease) => self.renew(&lease, now),
                    Event::InitDone => {
                        self.ready.push_back(WatchEvent::Synced("Lease"));
                        if !self.renewals.is_started() {
                            self.renewals.start();
                            self.judging_from = Some(now + AGENT_LEASE_DURATION);
                        }
                    }
                    // An agent whose Lease was deleted makes another one, or is silent in the end.
                    Event::Delete(_) | Event::Init => {}
                }
            }
        }
    }

    /// Records a Lease as it is.
    fn renew(&mut self, lease: &Lease, now: Instant) {
        let Some(node) = holder(lease) else {
            return;
        };
        let time = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        if self.renewals.observe(&node, time, now) {
            self.ready
                .push_back(WatchEvent::Changed(Change::Agent(node, true)));
        }
    }

    /// Every agent has the whole duration of a Lease again.
    fn start_again(&mut self, now: Instant) {
        self.renewals.start_again(now);
        if self.judging_from.is_some() {
            self.judging_from = Some(now + AGENT_LEASE_DURATION);
        }
    }

    /// Judges the agents whose time is over, after another look at their Leases.
    async fn judge(&mut self) {
        let listed = (self.list)().await;
        let now = Instant::now();
        let Some(leases) = listed else {
            return self.start_again(now);
        };
        for lease in &leases {
            self.renew(lease, now);
        }
        for node in self.renewals.take_silent(now) {
            info!(%node, "the agent has not renewed its Lease; what it reported counts no longer");
            self.ready
                .push_back(WatchEvent::Changed(Change::Agent(node, false)));
        }
        if self.judging_from.is_some_and(|from| from <= now) {
            self.judging_from = None;
            self.ready
                .push_back(WatchEvent::Changed(Change::AgentsKnown));
        }
    }
}

/// The machine whose agent renews a Lease; `None` if the Lease is not one that this machine may renew.
fn holder(lease: &Lease) -> Option<NodeName> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (lease.name_any() == agent_lease_name(holder)).then(|| holder.parse().ok())?
}

#[cfg(test)]
mod tests;
