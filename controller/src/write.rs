//! Writes go to the API server.

mod written;

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::NamespaceResourceScope,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use lvs_crd::{
    DirectorBinding, DirectorGroup, LvsNode, NODE_LABEL, VirtualService,
    condition::{self, Verdict},
    node_label,
};
use lvs_model::ObjectName;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tracing::debug;
use written::Written;

use crate::cluster::{FAILED, Objects, Subject, Write};

/// The field manager of everything that the controller writes.
const MANAGER: &str = "lvs-controller";
/// How long a write may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The API server refused it, or cannot be reached.
    #[error("the API server refused it")]
    Api(#[from] kube::Error),
    /// It took too long.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Slow,
}

/// An object whose status is written.
pub(crate) enum Seen {
    /// A virtual service.
    Service(Arc<VirtualService>),
    /// A group.
    Group(Arc<DirectorGroup>),
}

/// The conditions of an object before and after a write.
struct Renewed {
    before: Vec<Condition>,
    now: Vec<Condition>,
}

/// Carries writes to the API server.
#[derive(Clone)]
pub(crate) struct Writer {
    client: Client,
    recorder: Recorder,
    written: Written,
}

impl Writer {
    pub(crate) fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter {
            controller: MANAGER.to_owned(),
            instance: Some(identity.to_owned()),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            written: Written::default(),
            client,
        }
    }

    /// Forgets what was written to objects that are gone.
    pub(crate) fn forget_gone(&self, objects: &Objects) {
        let count = objects.services.len() + objects.groups.len();
        self.written.forget(count, |subject| match subject {
            Subject::Service(name) => objects.services.contains_key(name),
            Subject::Group(name) => objects.groups.contains_key(name),
            Subject::Node(_) | Subject::Binding(_) => false,
        });
    }

    /// The object whose status a write is about, as it was last seen.
    pub(crate) fn see(&self, write: &Write, objects: &Objects) -> Option<Seen> {
        match write {
            Write::ServiceStatus { name, .. } => {
                let object = objects.services.get(name)?;
                Some(Seen::Service(Arc::clone(object)))
            }
            Write::GroupStatus { name, .. } => {
                let object = objects.groups.get(name)?;
                Some(Seen::Group(Arc::clone(object)))
            }
            Write::ApplyBinding { .. }
            | Write::DeleteBinding(_)
            | Write::ApplyNode { .. }
            | Write::DeleteNode { .. } => None,
        }
    }

    /// Executes a write.
    ///
    /// # Errors
    /// When the API server refuses it or does not answer.
    pub(crate) async fn execute(
        &self,
        write: &Write,
        seen: Option<Seen>,
    ) -> Result<(), WriteError> {
        debug!(?write, "writing");
        let call = self.call(write, seen);
        let result = tokio::time::timeout(PATIENCE, call).await;
        result.unwrap_or(Err(WriteError::Slow))
    }

    async fn call(&self, write: &Write, seen: Option<Seen>) -> Result<(), WriteError> {
        match write {
            Write::ApplyBinding {
                name,
                owner_uid,
                spec,
            } => {
                let metadata = json!({
                    "namespace": name.namespace(),
                    "name": name.name(),
                    "labels": {NODE_LABEL: node_label(&spec.node)},
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
                uid,
                owner_uid,
                groups,
                serves,
            } => {
                let node = owner_uid.as_ref();
                let node = node.map(|uid| owner::<k8s_openapi::api::core::v1::Node>(name, uid));
                let mut metadata = json!({"name": name});
                if let Some(fields) = metadata.as_object_mut() {
                    fields.extend(uid.iter().map(|uid| ("uid".to_owned(), json!(uid))));
                    let owners = node.map(|node| ("ownerReferences".to_owned(), json!([node])));
                    fields.extend(owners);
                }
                let object = json!({
                    "apiVersion": LvsNode::api_version(&()),
                    "kind": LvsNode::kind(&()),
                    "metadata": metadata,
                    "spec": {"groups": groups, "serves": serves},
                });
                let api: Api<LvsNode> = Api::all(self.client.clone());
                match put(&api, name, uid.is_some(), object).await {
                    // It is gone, or another has its name; a watch will tell.
                    Err(WriteError::Api(kube::Error::Api(status)))
                        if status.is_conflict()
                            || status.is_already_exists()
                            || status.is_not_found() =>
                    {
                        Ok(())
                    }
                    result => result,
                }
            }
            Write::DeleteNode { name, uid } => {
                let api: Api<LvsNode> = Api::all(self.client.clone());
                let parameters = DeleteParams::default().preconditions(Preconditions {
                    uid: uid.clone(),
                    resource_version: None,
                });
                match api.delete(name, &parameters).await {
                    Err(kube::Error::Api(status))
                        if status.is_not_found() || status.is_conflict() =>
                    {
                        Ok(())
                    }
                    result => result.map(drop).map_err(WriteError::from),
                }
            }
            Write::ServiceStatus {
                name,
                status,
                verdicts,
            } => {
                let Some(Seen::Service(object)) = seen else {
                    return Ok(());
                };
                let seen = object.status.as_ref().map(|status| &status.conditions);
                let renewed = self.renew(write, &object.metadata, seen, verdicts);
                let mut status = status.as_ref().clone();
                status.conditions.clone_from(&renewed.now);
                let api: Api<VirtualService> = self.namespaced(name);
                apply_status(&api, name.name(), &status).await?;
                self.publish(write, object.as_ref(), renewed).await;
                Ok(())
            }
            Write::GroupStatus {
                name,
                status,
                verdicts,
            } => {
                let Some(Seen::Group(object)) = seen else {
                    return Ok(());
                };
                let seen = object.status.as_ref().map(|status| &status.conditions);
                let renewed = self.renew(write, &object.metadata, seen, verdicts);
                let mut status = status.clone();
                status.conditions.clone_from(&renewed.now);
                let api: Api<DirectorGroup> = Api::all(self.client.clone());
                apply_status(&api, name, &status).await?;
                self.publish(write, object.as_ref(), renewed).await;
                Ok(())
            }
        }
    }

    /// The conditions of an object whose status is written; `seen` are those that a watch has told.
    fn renew(
        &self,
        write: &Write,
        metadata: &ObjectMeta,
        seen: Option<&Vec<Condition>>,
        verdicts: &[Verdict],
    ) -> Renewed {
        let seen = seen.map_or(&[][..], Vec::as_slice);
        let before = self.written.before(&subject(write), metadata, seen);
        let now = conditions(verdicts, &before, metadata.generation);
        Renewed { before, now }
    }

    /// Notes what was written, and publishes what is news of it.
    async fn publish<K>(&self, write: &Write, object: &K, Renewed { before, now }: Renewed)
    where
        K: Resource<DynamicType = ()>,
    {
        self.written.note(subject(write), object.meta(), &now);
        self.tell(object.object_ref(&()), &before, &now).await;
    }

    fn namespaced<K>(&self, name: &ObjectName) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), name.namespace())
    }

    /// Publishes what is news of an object. An event that is lost is no failure.
    async fn tell(&self, object: ObjectReference, before: &[Condition], now: &[Condition]) {
        let Some((type_, told)) = news(before, now) else {
            return;
        };
        let event = Event {
            type_,
            reason: told.reason.clone(),
            note: Some(told.message.clone()).filter(|message| !message.is_empty()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &object).await {
            debug!(?object, error = %crate::chain(&error), "an event was not published");
        }
    }
}

/// What is worth an event when conditions change, and how loud it is.
///
/// - An object that is stalled, or for another reason than before, is worth a warning: somebody has to do something.
/// - Otherwise Ready counts, when its status or its reason has changed: machines that failed are worth a warning, and
///   whatever the operator waits for is not. At first sight it is no news that an object is not ready yet.
fn news<'a>(before: &[Condition], now: &'a [Condition]) -> Option<(EventType, &'a Condition)> {
    let is_same = |kind: &str, new: &Condition| {
        condition::find(before, kind)
            .is_some_and(|old| (&old.status, &old.reason) == (&new.status, &new.reason))
    };
    if let Some(stalled) = condition::find(now, "Stalled") {
        return (!is_same("Stalled", stalled)).then_some((EventType::Warning, stalled));
    }
    let ready = condition::find(now, "Ready")?;
    let has_failed = ready.reason == FAILED;
    let is_first = condition::find(before, "Ready").is_none();
    if is_same("Ready", ready) || (is_first && ready.status != "True" && !has_failed) {
        return None;
    }
    let type_ = if has_failed {
        EventType::Warning
    } else {
        EventType::Normal
    };
    Some((type_, ready))
}

/// What a write was for.
pub(crate) fn subject(write: &Write) -> Subject {
    match write {
        Write::ApplyBinding { name, spec, .. } => {
            let service = ObjectName::new(name.namespace(), &spec.virtual_service);
            Subject::Service(service.unwrap_or_else(|_| name.clone()))
        }
        Write::DeleteBinding(name) => Subject::Binding(name.clone()),
        Write::ApplyNode { name, .. } | Write::DeleteNode { name, .. } => {
            Subject::Node(name.clone())
        }
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

/// Creates an object, or replaces the fields that are given of one that exists.
///
/// Server-side apply will not do where a spec may be nothing but empty lists: it takes away what is empty, and the whole
/// spec with it when nobody else has written any of it, which the API server refuses.
async fn put<K>(api: &Api<K>, name: &str, exists: bool, object: Value) -> Result<(), WriteError>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + std::fmt::Debug,
{
    let manager = Some(MANAGER.to_owned());
    if exists {
        let parameters = PatchParams {
            field_manager: manager,
            ..PatchParams::default()
        };
        api.patch(name, &parameters, &Patch::Merge(object)).await?;
    } else {
        let parameters = PostParams {
            field_manager: manager,
            ..PostParams::default()
        };
        let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        api.create(&parameters, &object).await?;
    }
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

#[cfg(test)]
mod tests {
    use lvs_crd::condition::Status;

    use super::*;

    #[test]
    fn a_warning_is_for_what_is_stalled_or_has_failed() {
        let conditions = |kinds: &[(&'static str, Status, &str)]| {
            let verdicts = kinds.iter();
            let verdicts =
                verdicts.map(|(kind, status, reason)| Verdict::new(kind, *status, reason, ""));
            condition::conditions(verdicts.collect(), &[], None, Timestamp::UNIX_EPOCH)
        };
        let ready = conditions(&[("Ready", Status::True, "Ready")]);
        let pending = conditions(&[("Ready", Status::False, "Pending")]);
        let failed = conditions(&[("Ready", Status::False, FAILED)]);
        let stalled = |reason| {
            conditions(&[
                ("Ready", Status::False, reason),
                ("Stalled", Status::True, reason),
            ])
        };
        let told = |before: &[Condition], now: &[Condition]| {
            news(before, now)
                .map(|(type_, told)| (type_ == EventType::Warning, told.reason.clone()))
        };
        let loud = |reason: &str| Some((true, reason.to_owned()));
        let quiet = |reason: &str| Some((false, reason.to_owned()));

        assert_eq!(told(&[], &pending), None);
        assert_eq!(told(&[], &failed), loud(FAILED));
        assert_eq!(told(&[], &stalled("Conflict")), loud("Conflict"));
        assert_eq!(told(&pending, &ready), quiet("Ready"));
        assert_eq!(told(&ready, &pending), quiet("Pending"));
        assert_eq!(told(&ready, &failed), loud(FAILED));
        assert_eq!(told(&ready, &stalled("Conflict")), loud("Conflict"));
        assert_eq!(told(&stalled("Conflict"), &stalled("Conflict")), None);
        assert_eq!(
            told(&stalled("Conflict"), &stalled("Invalid")),
            loud("Invalid")
        );
        assert_eq!(told(&stalled("Conflict"), &pending), quiet("Pending"));
        assert_eq!(told(&ready, &ready), None);
    }
}
