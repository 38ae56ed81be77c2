//! Publishes the statuses that differ from those at the API server; no pass waits for it.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
    serde::de::DeserializeOwned,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    runtime::reflector::Store,
};
use lvs_crd::{
    DirectorBinding, DirectorBindingStatus, LvsNode, LvsNodeStatus, RealServerBinding,
    RealServerBindingStatus, StandingState,
    condition::{self, Verdict},
};
use lvs_model::{GroupName, abridged};
use lvs_runtime::error::chain;
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};
use tracing::{debug, warn};

use super::{
    queue::StatusQueue,
    results::{BindingReport, NodeStatus, PassResults},
    version::ObjectVersion,
};
use crate::{
    holder::{self, HolderReport},
    lease::LeaseState,
    source::api::{Progress, object_ref},
};

/// The name under which the agent owns fields.
const FIELD_MANAGER: &str = "lvs-agent";
/// How long to wait for further results before writing. A random time of at most the same length is added.
const DEBOUNCE: Duration = Duration::from_millis(500);
/// How long statuses wait for VIPs that are still being probed for. Written earlier, they would soon be written again, and
/// thousands of writes slow the API server down for everyone.
const LONGEST_PENDING: Duration = Duration::from_secs(5);
/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How many calls are made at once. More would slow the API server down for the watches that the statuses depend on.
const AT_ONCE: usize = 4;
/// The most standings in an LvsNode; the schema allows no more.
const MAX_STANDINGS: usize = 256;
/// The longest text of a problem, in bytes; the schema of LvsNode allows no more.
const LONGEST_PROBLEM: usize = 1024;
/// How long to wait after a failure, at first and at most.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("the API server refuses it")]
    Refused(#[source] Box<kube::Error>),
    #[error("the API server did not answer within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
    #[error("the agent's Lease could not be renewed")]
    Expired,
}

/// A status to write.
#[derive(Debug, PartialEq)]
enum StatusWrite {
    Binding(ObjectVersion, Value),
    Served(ObjectVersion, Value),
    Node(ObjectVersion, Value),
}

/// The objects as the watches last showed them.
pub(super) struct Stores {
    /// The DirectorBindings.
    pub bindings: Store<DirectorBinding>,
    /// The RealServerBindings.
    pub served: Store<RealServerBinding>,
    /// The LvsNode.
    pub lvs_nodes: Store<LvsNode>,
}

/// Publishes statuses.
pub(super) struct Publisher {
    client: Client,
    stores: Stores,
    progress: Arc<Progress>,
    holder: watch::Receiver<Arc<HolderReport>>,
    lease: LeaseState,
    retry: Duration,
}

impl Publisher {
    /// Creates a publisher that compares with the objects in the stores.
    pub(super) const fn new(
        client: Client,
        stores: Stores,
        progress: Arc<Progress>,
        holder: watch::Receiver<Arc<HolderReport>>,
        lease: LeaseState,
    ) -> Self {
        Self {
            client,
            stores,
            progress,
            holder,
            lease,
            retry: FIRST_RETRY,
        }
    }

    /// Writes every status that differs from the results in the queue.
    pub(super) async fn run(mut self, queue: Arc<StatusQueue>) {
        let mut is_behind = false;
        loop {
            let retry = tokio::time::sleep(self.retry);
            tokio::select! {
                () = queue.added() => {}
                Ok(()) = self.holder.changed() => queue.requeue_held(),
                () = retry, if is_behind => {}
            }
            tokio::time::sleep(DEBOUNCE + DEBOUNCE.mul_f64(fastrand::f64())).await;
            self.vips_settled().await;
            self.lease.fresh().await;
            is_behind = !self.write(&queue).await;
        }
    }

    /// Waits until every VIP was tried, for a limited time. What it sees is still new to the loop, which then compares all
    /// bindings.
    async fn vips_settled(&self) {
        let mut vips = self.holder.clone();
        let _ = timeout(LONGEST_PENDING, vips.wait_for(|vips| vips.is_settled())).await;
    }

    /// Writes the statuses that differ, after the objects are on disk. Returns whether all were written.
    async fn write(&mut self, queue: &StatusQueue) -> bool {
        // The report is not marked as seen: a change since the bindings were queued must queue all of them.
        let holder = Arc::clone(&self.holder.borrow());
        let writes = self.differing(&queue.take(), &holder);
        if writes.is_empty() {
            self.retry = FIRST_RETRY;
            return true;
        }
        self.progress.caught_up().await;
        let count = writes.len();
        let failures = self.patch_all(writes).await;
        debug!(
            statuses = count,
            failed = failures.len(),
            "statuses written"
        );
        let Some((_, first)) = failures.first() else {
            self.retry = FIRST_RETRY;
            return true;
        };
        warn!(
            failed = failures.len(),
            of = count,
            error = chain(first),
            "statuses were not written; they will be tried again"
        );
        for (write, _) in &failures {
            match write {
                StatusWrite::Binding(version, _) => queue.requeue(version),
                StatusWrite::Served(version, _) => queue.requeue_served(version),
                StatusWrite::Node(..) => queue.requeue_node(),
            }
        }
        self.retry = (self.retry * 2).min(LAST_RETRY);
        false
    }

    /// The statuses that differ from those at the API server.
    fn differing(&self, statuses: &PassResults, holder: &HolderReport) -> Vec<StatusWrite> {
        let now = Timestamp::now();
        let vips = holder.by_address();
        let bindings = statuses.bindings.iter().filter_map(|result| {
            let version = &result.version;
            let object = find(&self.stores.bindings, version)?;
            let report = result.report(&vips, holder.vip_problems());
            let status = binding_status(object.status.as_ref(), version, report, now)?;
            Some(StatusWrite::Binding(version.clone(), status))
        });
        let node = statuses.node.iter().filter_map(|status| {
            let object = find(&self.stores.lvs_nodes, &status.version)?;
            let value = node_status(object.status.as_ref(), status, holder, now)?;
            Some(StatusWrite::Node(status.version.clone(), value))
        });
        let served = statuses.served.iter().filter_map(|result| {
            let version = &result.version;
            let object = find(&self.stores.served, version)?;
            let status = served_status(object.status.as_ref(), version, &result.verdict, now)?;
            Some(StatusWrite::Served(version.clone(), status))
        });
        node.chain(served).chain(bindings).collect()
    }

    /// Writes statuses; returns those that could not be written.
    async fn patch_all(&self, writes: Vec<StatusWrite>) -> Vec<(StatusWrite, WriteError)> {
        futures::stream::iter(writes)
            .map(async |write| match self.patch_if_fresh(&write).await {
                Ok(()) => None,
                Err(error) => Some((write, error)),
            })
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await
    }

    /// Writes a status, unless the Lease has expired meanwhile: then the controller may write it.
    async fn patch_if_fresh(&self, write: &StatusWrite) -> Result<(), WriteError> {
        if self.lease.is_fresh() {
            self.patch(write).await
        } else {
            Err(WriteError::Expired)
        }
    }

    async fn patch(&self, write: &StatusWrite) -> Result<(), WriteError> {
        match write {
            StatusWrite::Binding(version, status) => {
                let namespace = version.namespace.as_deref().unwrap_or("default");
                let api: Api<DirectorBinding> = Api::namespaced(self.client.clone(), namespace);
                patch(&api, version, status).await
            }
            StatusWrite::Served(version, status) => {
                let namespace = version.namespace.as_deref().unwrap_or("default");
                let api: Api<RealServerBinding> = Api::namespaced(self.client.clone(), namespace);
                patch(&api, version, status).await
            }
            StatusWrite::Node(version, status) => {
                let api: Api<LvsNode> = Api::all(self.client.clone());
                patch(&api, version, status).await
            }
        }
    }
}

/// Returns the object with this name and uid; `None` if it is gone or has been replaced.
fn find<K>(store: &Store<K>, version: &ObjectVersion) -> Option<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let object = store.get(&object_ref(&version.key()))?;
    (object.meta().uid == version.uid).then_some(object)
}

/// Applies a status. An object that is gone or replaced (has another uid) needs none.
async fn patch<K>(api: &Api<K>, version: &ObjectVersion, status: &Value) -> Result<(), WriteError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut metadata = json!({"name": version.name});
    if let (Some(uid), Some(map)) = (&version.uid, metadata.as_object_mut()) {
        map.insert("uid".to_owned(), json!(uid));
    }
    let object = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": metadata,
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(&object);
    let call = api.patch_status(&version.name, &params, &patch);
    match timeout(CALL_TIMEOUT, call).await {
        Err(_) => Err(WriteError::Timeout),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() || status.is_conflict() => {
            debug!(
                object = version.name,
                reason = status.message,
                "the object is gone"
            );
            Ok(())
        }
        Ok(Err(error)) => Err(WriteError::Refused(Box::new(error))),
    }
}

/// Returns the status to write; `None` if the object has it already.
fn binding_status(
    shown: Option<&DirectorBindingStatus>,
    version: &ObjectVersion,
    report: BindingReport,
    now: Timestamp,
) -> Option<Value> {
    let BindingReport {
        verdict,
        vips_in_use,
        table_digest,
    } = report;
    let before = shown.map_or(&[][..], |status| &status.conditions);
    let wanted = condition(&verdict, before, version, now)?;
    let has_all = shown.is_some_and(|status| {
        let DirectorBindingStatus {
            observed_generation,
            conditions,
            vips_in_use: in_use,
            table_digest: digest,
        } = status;
        *observed_generation == version.generation
            && has(conditions, &wanted)
            && *in_use == vips_in_use
            && *digest == table_digest
    });
    if has_all {
        return None;
    }
    serde_json::to_value(DirectorBindingStatus {
        observed_generation: version.generation,
        conditions: vec![wanted],
        vips_in_use,
        table_digest,
    })
    .ok()
}

/// Returns the status to write; `None` if the object has it already.
fn served_status(
    shown: Option<&RealServerBindingStatus>,
    version: &ObjectVersion,
    verdict: &Verdict,
    now: Timestamp,
) -> Option<Value> {
    let (observed, before) = shown.map_or((None, &[][..]), |status| {
        (status.observed_generation, &status.conditions)
    });
    let wanted = condition(verdict, before, version, now)?;
    if observed == version.generation && has(before, &wanted) {
        return None;
    }
    serde_json::to_value(RealServerBindingStatus {
        observed_generation: version.generation,
        conditions: vec![wanted],
    })
    .ok()
}

fn node_status(
    shown: Option<&LvsNodeStatus>,
    status: &NodeStatus,
    holder: &HolderReport,
    now: Timestamp,
) -> Option<Value> {
    let shown = shown.cloned().unwrap_or_default();
    let wanted = condition(&status.verdict, &shown.conditions, &status.version, now)?;
    let sync_problems = status.sync_problems.as_ref();
    let standings = standings(holder, sync_problems, &shown.standings, now);
    let facts = status.facts.clone().or_else(|| shown.facts.clone());
    if shown.observed_generation == status.version.generation
        && has(&shown.conditions, &wanted)
        && shown.facts == facts
        && shown.standings == standings
    {
        return None;
    }
    let status = LvsNodeStatus {
        observed_generation: status.version.generation,
        facts,
        standings,
        conditions: vec![wanted],
    };
    serde_json::to_value(status).ok()
}

/// What the machine is in its groups, and what is wrong between it and other directors. A standing that is shown already keeps its time,
/// and its problem if nothing is known of the connection-sync daemons.
fn standings(
    holder: &HolderReport,
    sync_problems: Option<&BTreeMap<GroupName, String>>,
    shown: &[lvs_crd::Standing],
    now: Timestamp,
) -> Vec<lvs_crd::Standing> {
    let all = holder
        .standings()
        .iter()
        .map(|((group, router), standing)| {
            let of_sync = sync_problems.and_then(|problems| problems.get(group));
            let problems = standing.problem.iter().chain(of_sync);
            let problems: Vec<&String> = problems.collect();
            let now = lvs_crd::Standing {
                group: group.to_string(),
                interface: router.interface.to_string(),
                router_id: router.router_id.into(),
                family: router.family.into(),
                state: match standing.state {
                    holder::StandingState::Active => StandingState::Active,
                    holder::StandingState::Standby => StandingState::Standby,
                    holder::StandingState::Failed => StandingState::Failed,
                },
                problem: (!problems.is_empty()).then(|| abridged(&problems, "; ", LONGEST_PROBLEM)),
                since: Time(now),
            };
            let place = |standing: &lvs_crd::Standing| {
                let lvs_crd::Standing {
                    group,
                    interface,
                    router_id,
                    family,
                    state,
                    ..
                } = standing;
                (
                    group.clone(),
                    interface.clone(),
                    *router_id,
                    *family,
                    *state,
                )
            };
            let mut shown = shown.iter();
            let same = shown.find(|shown| place(shown) == place(&now));
            let since = same.map_or_else(|| now.since.clone(), |shown| shown.since.clone());
            let kept = same.filter(|_| sync_problems.is_none());
            let kept = kept.and_then(|shown| shown.problem.clone());
            lvs_crd::Standing {
                since,
                problem: now.problem.or(kept),
                ..now
            }
        });
    all.take(MAX_STANDINGS).collect()
}

fn condition(
    verdict: &Verdict,
    before: &[Condition],
    version: &ObjectVersion,
    now: Timestamp,
) -> Option<Condition> {
    let verdicts = vec![verdict.clone()];
    let conditions = condition::conditions(verdicts, before, version.generation, now);
    conditions.into_iter().next()
}

/// Returns whether the object has the condition already. Conditions of other managers do not matter.
fn has(shown: &[Condition], wanted: &Condition) -> bool {
    shown.contains(wanted)
}

#[cfg(test)]
mod tests;
