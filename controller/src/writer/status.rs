//! Writes statuses, and publishes an event if a condition has changed.

use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use lvs_crd::{
    AddressPool, AddressPoolStatus, DirectorGroup, DirectorGroupStatus, VirtualService,
    VirtualServiceStatus,
    condition::{self, Verdict},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, json};
use tracing::debug;

use super::{
    condition_cache::ConditionCache,
    error::WriteError,
    events::{condition_to_publish, takeovers},
};
use crate::{cluster::ReconcileRequest, write::FIELD_MANAGER};

/// The conditions of an object before and after a write.
struct ConditionChange {
    request: ReconcileRequest,
    /// The version that the object must still have: a grant is decided for the object as it was seen.
    resource_version: Option<String>,
    before: Vec<Condition>,
    now: Vec<Condition>,
}

/// Writes statuses and publishes events.
#[derive(Clone)]
pub(super) struct StatusWriter {
    client: Client,
    recorder: Recorder,
    written: ConditionCache,
}

impl StatusWriter {
    pub(super) fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: Some(identity.to_owned()),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            written: ConditionCache::default(),
            client,
        }
    }

    /// Evicts deleted objects from the cache, if it has many more than the `count` objects that exist.
    pub(super) fn evict(&self, count: usize, exists: impl Fn(&ReconcileRequest) -> bool) {
        self.written.evict(count, exists);
    }

    pub(super) async fn write_service(
        &self,
        request: ReconcileRequest,
        object: &VirtualService,
        status: &VirtualServiceStatus,
        verdicts: &[Verdict],
    ) -> Result<(), WriteError> {
        let seen = object.status.as_ref().map(|status| &status.conditions);
        let mut change = self.change(request, &object.metadata, seen, verdicts);
        let status = VirtualServiceStatus {
            conditions: change.now.clone(),
            ..status.clone()
        };
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<VirtualService> = Api::namespaced(self.client.clone(), namespace);
        let grant =
            |status: &VirtualServiceStatus| (status.addresses.clone(), status.ports.clone());
        if object.status.as_ref().map(grant) != Some(grant(&status)) {
            change.resource_version = object.metadata.resource_version.clone();
        }
        self.apply(&api, object, &status, change).await.map(drop)
    }

    pub(super) async fn write_group(
        &self,
        request: ReconcileRequest,
        object: &DirectorGroup,
        status: &DirectorGroupStatus,
        verdicts: &[Verdict],
    ) -> Result<(), WriteError> {
        let seen = object.status.as_ref().map(|status| &status.conditions);
        let change = self.change(request, &object.metadata, seen, verdicts);
        let status = DirectorGroupStatus {
            conditions: change.now.clone(),
            ..status.clone()
        };
        let api: Api<DirectorGroup> = Api::all(self.client.clone());
        let is_written = self.apply(&api, object, &status, change).await?;
        if !is_written {
            return Ok(());
        }
        let before = object.status.as_ref();
        let before = before.map_or(&[][..], |status| &status.routers);
        if let Some(note) = takeovers(before, &status.routers) {
            self.publish(
                &object.object_ref(&()),
                EventType::Normal,
                "ActiveDirectorChanged",
                Some(note),
            )
            .await;
        }
        Ok(())
    }

    pub(super) async fn write_pool(
        &self,
        request: ReconcileRequest,
        object: &AddressPool,
        status: &AddressPoolStatus,
        verdicts: &[Verdict],
    ) -> Result<(), WriteError> {
        let seen = object.status.as_ref().map(|status| &status.conditions);
        let change = self.change(request, &object.metadata, seen, verdicts);
        let status = AddressPoolStatus {
            conditions: change.now.clone(),
            ..status.clone()
        };
        let api: Api<AddressPool> = Api::all(self.client.clone());
        self.apply(&api, object, &status, change).await.map(drop)
    }

    /// The conditions of an object before a write and after it. `seen` are those that the watch shows.
    fn change(
        &self,
        request: ReconcileRequest,
        metadata: &ObjectMeta,
        seen: Option<&Vec<Condition>>,
        verdicts: &[Verdict],
    ) -> ConditionChange {
        let seen = seen.map_or(&[][..], Vec::as_slice);
        let before = self.written.get_or(&request, metadata, seen);
        let (verdicts, now) = (verdicts.to_vec(), Timestamp::now());
        ConditionChange {
            now: condition::conditions(verdicts, &before, metadata.generation, now),
            request,
            resource_version: None,
            before,
        }
    }

    /// Applies a status, caches its conditions, and publishes an event if one of them has changed. Returns whether it was applied.
    async fn apply<K>(
        &self,
        api: &Api<K>,
        object: &K,
        status: &impl Serialize,
        change: ConditionChange,
    ) -> Result<bool, WriteError>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
    {
        let resource_version = change.resource_version.as_deref();
        if !apply_status(api, object, resource_version, status).await? {
            return Ok(false);
        }
        let ConditionChange {
            request,
            resource_version: _,
            before,
            now,
        } = change;
        self.written.insert(request, object.meta(), &now);
        self.publish_event(object.object_ref(&()), &before, &now)
            .await;
        Ok(true)
    }

    /// Publishes an event, if the change is worth one. A lost event is not an error.
    async fn publish_event(
        &self,
        object: ObjectReference,
        before: &[Condition],
        now: &[Condition],
    ) {
        let Some((type_, condition)) = condition_to_publish(before, now) else {
            return;
        };
        let note = Some(condition.message.clone()).filter(|message| !message.is_empty());
        self.publish(&object, type_, &condition.reason, note).await;
    }

    async fn publish(
        &self,
        object: &ObjectReference,
        type_: EventType,
        reason: &str,
        note: Option<String>,
    ) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note,
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, object).await {
            debug!(?object, error = %lvs_runtime::error::chain(&error), "publishing an event failed");
        }
    }
}

/// Applies the status of an object. Returns whether that was done: if the object is gone, is another one of its name, or does
/// not have the given version any more, the watch will show that.
async fn apply_status<K>(
    api: &Api<K>,
    object: &K,
    resource_version: Option<&str>,
    status: &impl Serialize,
) -> Result<bool, WriteError>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let name = object.meta().name.as_deref().unwrap_or_default();
    let mut metadata = Map::new();
    let uid = object.meta().uid.as_deref();
    metadata.extend(uid.map(|uid| ("uid".to_owned(), json!(uid))));
    let version = resource_version.map(|version| ("resourceVersion".to_owned(), json!(version)));
    metadata.extend(version);
    let object = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": metadata,
        "status": status,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(object);
    match api.patch_status(name, &parameters, &patch).await {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(false),
        result => result.map(|_| true).map_err(WriteError::from),
    }
}
