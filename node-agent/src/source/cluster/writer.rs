//! Writes statuses, when they differ from what the API server shows, and never in the way of a pass.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp, serde::de::DeserializeOwned,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    runtime::reflector::{ObjectRef, Store},
};
use lvs_crd::{
    DirectorBinding, DirectorBindingStatus, LvsNode, LvsNodeStatus, ServedStatus,
    condition::{self, Verdict},
};
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{
    saved::Progress,
    status::{NodeStatus, Subject},
    told::Told,
};

/// The name under which the agent owns fields.
const FIELD_MANAGER: &str = "lvs-agent";
/// How long to wait for more before writing, at least, and at most that much longer.
const DEBOUNCE: Duration = Duration::from_millis(500);
/// How long a call may take.
const CALL: Duration = Duration::from_secs(10);
/// How many calls are on their way at once: an API server that is busy with statuses is slow for what they wait for.
const AT_ONCE: usize = 4;
/// How long to wait after a failure, at first and at most.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("the API server refuses it")]
    Refused(#[source] Box<kube::Error>),
    #[error("the API server did not answer within {} s", CALL.as_secs())]
    Timeout,
}

/// A status to write.
#[derive(Debug, PartialEq)]
enum Write {
    Binding(Subject, Value),
    Node(Subject, Value),
}

/// Writes statuses.
pub(super) struct Writer {
    client: Client,
    bindings: Store<DirectorBinding>,
    lvs_nodes: Store<LvsNode>,
    saving: Arc<Progress>,
    retry: Duration,
}

impl Writer {
    /// A writer that compares with what the stores hold.
    pub(super) const fn new(
        client: Client,
        bindings: Store<DirectorBinding>,
        lvs_nodes: Store<LvsNode>,
        saving: Arc<Progress>,
    ) -> Self {
        Self {
            client,
            bindings,
            lvs_nodes,
            saving,
            retry: FIRST_RETRY,
        }
    }

    /// Writes whatever differs from what is told.
    pub(super) async fn run(mut self, told: Arc<Told>) {
        let mut is_behind = false;
        loop {
            let retry = tokio::time::sleep(self.retry);
            tokio::select! {
                () = told.news() => (),
                () = retry, if is_behind => (),
            }
            tokio::time::sleep(DEBOUNCE + DEBOUNCE.mul_f64(fastrand::f64())).await;
            is_behind = !self.write(&told).await;
        }
    }

    /// Writes what differs, once it is on disk; returns whether all of it is written.
    async fn write(&mut self, told: &Told) -> bool {
        let now = Timestamp::now();
        let statuses = told.take();
        let bindings = statuses.bindings.iter().filter_map(|(subject, verdict)| {
            let object = find(&self.bindings, subject)?;
            let status = binding_status(object.status.as_ref(), subject, verdict, now)?;
            Some(Write::Binding(subject.clone(), status))
        });
        let node = statuses.node.iter().filter_map(|status| {
            let object = find(&self.lvs_nodes, &status.subject)?;
            let value = node_status(object.status.as_ref(), status, now)?;
            Some(Write::Node(status.subject.clone(), value))
        });
        let writes: Vec<Write> = node.chain(bindings).collect();
        if writes.is_empty() {
            self.retry = FIRST_RETRY;
            return true;
        }
        self.saving.caught_up().await;
        let count = writes.len();
        let failures: Vec<(Write, WriteError)> = futures::stream::iter(writes)
            .map(async |write| match self.patch(&write).await {
                Ok(()) => None,
                Err(error) => Some((write, error)),
            })
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
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
            error = lvs_runtime::error::chain(first),
            "statuses were not written; they will be tried again"
        );
        for (write, _) in &failures {
            match write {
                Write::Binding(subject, _) => told.put_back(subject),
                Write::Node(..) => told.put_back_node(),
            }
        }
        self.retry = (self.retry * 2).min(LAST_RETRY);
        false
    }

    async fn patch(&self, write: &Write) -> Result<(), WriteError> {
        match write {
            Write::Binding(subject, status) => {
                let namespace = subject.namespace.as_deref().unwrap_or("default");
                let api: Api<DirectorBinding> = Api::namespaced(self.client.clone(), namespace);
                patch(&api, subject, status).await
            }
            Write::Node(subject, status) => {
                let api: Api<LvsNode> = Api::all(self.client.clone());
                patch(&api, subject, status).await
            }
        }
    }
}

/// The object that something is said about; `None` when it is gone, or another has its name.
fn find<K>(store: &Store<K>, subject: &Subject) -> Option<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let mut key = ObjectRef::new(&subject.name);
    if let Some(namespace) = &subject.namespace {
        key = key.within(namespace);
    }
    let object = store.get(&key)?;
    (object.meta().uid == subject.uid).then_some(object)
}

/// Applies a status. An object that is gone, or another of its name (the uid tells), needs none.
async fn patch<K>(api: &Api<K>, subject: &Subject, status: &Value) -> Result<(), WriteError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut metadata = json!({"name": subject.name});
    if let (Some(uid), Some(map)) = (&subject.uid, metadata.as_object_mut()) {
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
    let call = api.patch_status(&subject.name, &params, &patch);
    match timeout(CALL, call).await {
        Err(_) => Err(WriteError::Timeout),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() || status.is_conflict() => {
            debug!(
                object = subject.name,
                reason = status.message,
                "the object is gone"
            );
            Ok(())
        }
        Ok(Err(error)) => Err(WriteError::Refused(Box::new(error))),
    }
}

/// The status to write; `None` when the object has it.
fn binding_status(
    shown: Option<&DirectorBindingStatus>,
    subject: &Subject,
    verdict: &Verdict,
    now: Timestamp,
) -> Option<Value> {
    let (before, observed) = shown.map_or((&[][..], None), |status| {
        (status.conditions.as_slice(), status.observed_generation)
    });
    let wanted = condition(verdict, before, subject, now)?;
    if observed == subject.generation && has(before, &wanted) {
        return None;
    }
    let status = DirectorBindingStatus {
        observed_generation: subject.generation,
        conditions: vec![wanted],
    };
    serde_json::to_value(status).ok()
}

fn node_status(
    shown: Option<&LvsNodeStatus>,
    status: &NodeStatus,
    now: Timestamp,
) -> Option<Value> {
    let shown = shown.cloned().unwrap_or_default();
    let wanted = condition(&status.verdict, &shown.conditions, &status.subject, now)?;
    let facts = status.facts.clone().or_else(|| shown.facts.clone());
    let serves = status.serves.clone();
    let serves = sorted(serves.unwrap_or_else(|| shown.serves.clone()));
    if shown.observed_generation == status.subject.generation
        && has(&shown.conditions, &wanted)
        && shown.facts == facts
        && sorted(shown.serves) == serves
    {
        return None;
    }
    let status = LvsNodeStatus {
        observed_generation: status.subject.generation,
        facts,
        serves,
        conditions: vec![wanted],
    };
    serde_json::to_value(status).ok()
}

/// A list that is a map to the API server comes back in another order.
fn sorted(mut serves: Vec<ServedStatus>) -> Vec<ServedStatus> {
    serves.sort();
    serves
}

fn condition(
    verdict: &Verdict,
    before: &[Condition],
    subject: &Subject,
    now: Timestamp,
) -> Option<Condition> {
    let verdicts = vec![verdict.clone()];
    let conditions = condition::conditions(verdicts, before, subject.generation, now);
    conditions.into_iter().next()
}

/// Says whether a condition stands there already. Others' conditions are theirs.
fn has(shown: &[Condition], wanted: &Condition) -> bool {
    condition::find(shown, &wanted.type_) == Some(wanted)
}

#[cfg(test)]
mod tests;
