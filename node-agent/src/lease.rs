//! The agent's Lease at the API server, by which the controller notices that an agent is silent.
//!
//! A thread of its own renews it with a client of its own, so that no pass, however long, costs a renewal.

use std::{
    io,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Config, Resource,
    api::{Patch, PatchParams, PostParams},
};
use lvs_crd::{
    AGENT_LEASE_DURATION, AGENT_LEASE_PERIOD, LvsNode, NODE_LABEL, agent_lease_name, node_label,
};
use lvs_model::NodeName;
use lvs_runtime::{error::chain, thread};
use serde_json::json;
use tokio::{sync::watch, time::sleep};
use tracing::{debug, info, warn};

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// How long after a renewal statuses may be published. The margin to the duration of the Lease is the time that a write takes.
const FRESH: Duration = AGENT_LEASE_DURATION.saturating_sub(Duration::from_secs(10));

/// The state of the agent's Lease.
#[derive(Clone, Debug)]
pub(crate) struct LeaseState(watch::Receiver<Option<Instant>>);

impl LeaseState {
    /// Waits until the Lease was renewed a short time ago. Cancel-safe.
    ///
    /// A status is published only then. The controller writes the condition of a silent agent's objects, so the two of them
    /// never write at the same time: it is silent, or its Lease is fresh.
    pub(crate) async fn fresh(&mut self) {
        if self.0.wait_for(|renewed| is_fresh(*renewed)).await.is_err() {
            // The thread has ended: nothing renews the Lease any more.
            std::future::pending::<()>().await;
        }
    }

    /// Returns whether the Lease was renewed a short time ago.
    pub(crate) fn is_fresh(&self) -> bool {
        is_fresh(*self.0.borrow())
    }

    /// The state of a Lease that was just renewed.
    #[cfg(test)]
    pub(crate) fn renewed() -> (watch::Sender<Option<Instant>>, Self) {
        let (sender, receiver) = watch::channel(Some(Instant::now()));
        (sender, Self(receiver))
    }
}

fn is_fresh(renewed: Option<Instant>) -> bool {
    renewed.is_some_and(|at| at.elapsed() < FRESH)
}

/// Starts renewing the Lease of a machine's agent, until the program ends.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn start(config: Config, namespace: &str, node: &NodeName) -> io::Result<LeaseState> {
    let (renewed, state) = watch::channel(None);
    let (namespace, node) = (namespace.to_owned(), node.clone());
    let config = lvs_runtime::client::with_timeout(config, CALL_TIMEOUT);
    thread::spawn("lease", async move {
        // The client belongs to the runtime that it was made in.
        match Client::try_from(config) {
            Ok(client) => AgentLease::new(client, namespace, &node).run(renewed).await,
            Err(error) => warn!(error = chain(&error), "the Lease cannot be renewed"),
        }
    })?;
    Ok(LeaseState(state))
}

/// The Lease of a machine's agent.
struct AgentLease {
    client: Client,
    namespace: String,
    name: String,
    node: String,
}

impl AgentLease {
    fn new(client: Client, namespace: String, node: &NodeName) -> Self {
        Self {
            client,
            namespace,
            name: agent_lease_name(node.as_str()),
            node: node.to_string(),
        }
    }

    /// Renews the Lease again and again. A failure is logged once, and so is its end.
    async fn run(self, renewed: watch::Sender<Option<Instant>>) {
        let mut is_failing = false;
        loop {
            let started = Instant::now();
            let result = tokio::time::timeout(CALL_TIMEOUT, self.renew()).await;
            let failure = match result {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(chain(&error)),
                Err(_elapsed) => Some(format!("no answer within {} s", CALL_TIMEOUT.as_secs())),
            };
            let Some(error) = failure else {
                if std::mem::take(&mut is_failing) {
                    info!(lease = self.name, "the Lease is renewed again");
                }
                renewed.send_replace(Some(started));
                sleep(AGENT_LEASE_PERIOD.saturating_sub(started.elapsed())).await;
                continue;
            };
            if is_failing {
                debug!(lease = self.name, error, "renewing the Lease still fails");
            } else {
                let (namespace, lease) = (&self.namespace, &self.name);
                warn!(
                    namespace,
                    lease,
                    error,
                    "renewing the Lease failed; until it succeeds, no status is published, and this machine's state is shown as unknown"
                );
            }
            is_failing = true;
            sleep(RETRY).await;
        }
    }

    /// Renews the Lease, or creates it if there is none.
    async fn renew(&self) -> kube::Result<()> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let patch = json!({"spec": self.spec()});
        let parameters = PatchParams::default();
        match api
            .patch(&self.name, &parameters, &Patch::Merge(patch))
            .await
        {
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                let lease = self.lease(self.owner().await?);
                api.create(&PostParams::default(), &lease).await.map(drop)
            }
            result => result.map(drop),
        }
    }

    fn spec(&self) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.node.clone()),
            lease_duration_seconds: i32::try_from(AGENT_LEASE_DURATION.as_secs()).ok(),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        }
    }

    fn lease(&self, owner: Option<OwnerReference>) -> Lease {
        let label = (NODE_LABEL.to_owned(), node_label(&self.node));
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some([label].into()),
                owner_references: owner.map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            spec: Some(self.spec()),
        }
    }

    /// The machine's LvsNode, with which the Lease is deleted; `None` if there is none yet.
    async fn owner(&self) -> kube::Result<Option<OwnerReference>> {
        let api: Api<LvsNode> = Api::all(self.client.clone());
        let found = api.get_opt(&self.node).await?;
        Ok(found.and_then(|found| {
            Some(OwnerReference {
                block_owner_deletion: Some(false),
                ..found.owner_ref(&())?
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_status_waits_for_a_fresh_lease() {
        let (renewed, mut state) = LeaseState::renewed();
        state.fresh().await;
        renewed.send_replace(Instant::now().checked_sub(FRESH));
        let waited = tokio::time::timeout(Duration::from_millis(20), state.fresh()).await;
        assert!(waited.is_err());
        renewed.send_replace(Some(Instant::now()));
        state.fresh().await;
    }
}
