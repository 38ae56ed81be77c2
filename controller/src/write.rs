//! Writes go to the API server.

use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::{
    api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
    core::NamespaceResourceScope,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use lvs_crd::{
    DirectorBinding, DirectorGroup, LvsNode, NODE_LABEL, VirtualService,
    condition::{self, Verdict},
};
use lvs_model::ObjectName;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tracing::{debug, warn};

use crate::cluster::{Objects, Subject, Write};

/// The field manager of everything that the controller writes.
const MANAGER: &str = "lvs-controller";
/// How long a write may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many writes are on their way at once.
const AT_ONCE: usize = 32;

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    /// The API server refused it, or cannot be reached.
    #[error("the API server refused it")]
    Api(#[from] kube::Error),
    /// It took too long.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Slow,
}

/// Carries writes to the API server.
#[derive(Clone)]
pub(crate) struct Writer {
    client: Client,
    recorder: Recorder,
}

impl Writer {
    pub(crate) fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter {
            controller: MANAGER.to_owned(),
            instance: Some(identity.to_owned()),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
        }
    }

    /// Executes writes; returns what has to be looked at again, since its write failed.
    pub(crate) async fn execute(&self, writes: Vec<Write>, objects: &Objects) -> Vec<Subject> {
        let results = stream::iter(writes).map(async |write| {
            let result = tokio::time::timeout(PATIENCE, self.execute_one(&write, objects)).await;
            match result.unwrap_or(Err(WriteError::Slow)) {
                Ok(()) => None,
                Err(error) => {
                    let subject = subject(&write);
                    warn!(?subject, error = %crate::chain(&error), "not written; another try follows");
                    Some(subject)
                }
            }
        });
        results
            .buffer_unordered(AT_ONCE)
            .filter_map(async |failed| failed)
            .collect()
            .await
    }

    async fn execute_one(&self, write: &Write, objects: &Objects) -> Result<(), WriteError> {
        debug!(?write, "writing");
        match write {
            Write::ApplyBinding {
                name,
                owner_uid,
                spec,
            } => {
                let metadata = json!({
                    "namespace": name.namespace(),
                    "name": name.name(),
                    "labels": {NODE_LABEL: spec.node},
                    "ownerReferences": [owner::<VirtualService>(&spec.virtual_service, owner_uid)],
                });
                let api: Api<DirectorBinding> = self.namespaced(name);
                apply(&api, name.name(), metadata, spec).await
            }
            Write::DeleteBinding(name) => {
                let api: Api<DirectorBinding> = self.namespaced(name);
                match api.delete(name.name(), &DeleteParams::default()).await {
                    Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                    result => result.map(drop).map_err(WriteError::from),
                }
            }
            Write::ApplyNode {
                name,
                owner_uid,
                groups,
                serves,
            } => {
                let mut metadata = json!({"name": name});
                if let Some(uid) = owner_uid {
                    let owner = owner::<k8s_openapi::api::core::v1::Node>(name, uid);
                    metadata = json!({"name": name, "ownerReferences": [owner]});
                }
                let api: Api<LvsNode> = Api::all(self.client.clone());
                apply(
                    &api,
                    name,
                    metadata,
                    &json!({"groups": groups, "serves": serves}),
                )
                .await
            }
            Write::ServiceStatus {
                name,
                status,
                verdicts,
            } => {
                let Some(object) = objects.services.get(name) else {
                    return Ok(());
                };
                let before = object
                    .status
                    .as_ref()
                    .map_or(&[][..], |status| &status.conditions);
                let mut status = status.as_ref().clone();
                status.conditions = conditions(verdicts, before, object.metadata.generation);
                let api: Api<VirtualService> = self.namespaced(name);
                apply_status(&api, name.name(), &status).await?;
                self.tell(object, before, &status.conditions).await;
                Ok(())
            }
            Write::GroupStatus {
                name,
                status,
                verdicts,
            } => {
                let Some(object) = objects.groups.get(name) else {
                    return Ok(());
                };
                let before = object
                    .status
                    .as_ref()
                    .map_or(&[][..], |status| &status.conditions);
                let mut status = status.clone();
                status.conditions = conditions(verdicts, before, object.metadata.generation);
                let api: Api<DirectorGroup> = Api::all(self.client.clone());
                apply_status(&api, name, &status).await
            }
        }
    }

    fn namespaced<K>(&self, name: &ObjectName) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), name.namespace())
    }

    /// Publishes an event for each of Ready and Stalled that has changed. An event that is lost is no failure.
    async fn tell(&self, object: &VirtualService, before: &[Condition], now: &[Condition]) {
        let reference: ObjectReference = object.object_ref(&());
        for kind in ["Ready", "Stalled"] {
            let (old, new) = (condition::find(before, kind), condition::find(now, kind));
            let is_same =
                old.map(|c| (&c.status, &c.reason)) == new.map(|c| (&c.status, &c.reason));
            let Some(new) = new.filter(|_| !is_same) else {
                continue;
            };
            let is_good = (kind == "Ready") == (new.status == "True");
            if kind == "Ready" && !is_good && old.is_none() {
                continue;
            }
            let event = Event {
                type_: if is_good {
                    EventType::Normal
                } else {
                    EventType::Warning
                },
                reason: new.reason.clone(),
                note: Some(new.message.clone()).filter(|message| !message.is_empty()),
                action: "Reconcile".to_owned(),
                secondary: None,
            };
            if let Err(error) = self.recorder.publish(&event, &reference).await {
                debug!(object = object.name_any(), error = %crate::chain(&error), "an event was not published");
            }
        }
    }
}

/// What a write was for.
fn subject(write: &Write) -> Subject {
    match write {
        Write::ApplyBinding { name, spec, .. } => {
            let service = ObjectName::new(name.namespace(), &spec.virtual_service);
            Subject::Service(service.unwrap_or_else(|_| name.clone()))
        }
        Write::DeleteBinding(name) => Subject::Binding(name.clone()),
        Write::ApplyNode { name, .. } => Subject::Node(name.clone()),
        Write::ServiceStatus { name, .. } => Subject::Service(name.clone()),
        Write::GroupStatus { name, .. } => Subject::Group(name.clone()),
    }
}

fn conditions(
    verdicts: &[Verdict],
    before: &[Condition],
    generation: Option<i64>,
) -> Vec<Condition> {
    condition::conditions(verdicts.to_vec(), before, generation, Timestamp::now())
}

fn owner<K: Resource<DynamicType = ()>>(name: &str, uid: &str) -> Value {
    json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "name": name,
        "uid": uid,
        "controller": true,
        "blockOwnerDeletion": false,
    })
}

/// Applies an object's spec.
async fn apply<K>(
    api: &Api<K>,
    name: &str,
    metadata: Value,
    spec: &impl Serialize,
) -> Result<(), WriteError>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let object = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": metadata,
        "spec": spec,
    });
    let parameters = PatchParams::apply(MANAGER).force();
    api.patch(name, &parameters, &Patch::Apply(object)).await?;
    Ok(())
}

/// Applies an object's status; succeeds when the object is gone.
async fn apply_status<K>(
    api: &Api<K>,
    name: &str,
    status: &impl Serialize,
) -> Result<(), WriteError>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let object = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "status": status,
    });
    let parameters = PatchParams::apply(MANAGER).force();
    match api
        .patch_status(name, &parameters, &Patch::Apply(object))
        .await
    {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        result => result.map(drop).map_err(WriteError::from),
    }
}
