//! Statuses are written, and what is news of them is published.

use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
    runtime::events::Event,
};
use lvs_crd::{
    DirectorGroup, DirectorGroupStatus, VirtualService, VirtualServiceStatus,
    condition::{self, Verdict},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tracing::debug;

use super::{MANAGER, WriteError, Writer, events::news, subject};
use crate::cluster::Write;

/// The conditions of an object before and after a write.
struct Renewed {
    before: Vec<Condition>,
    now: Vec<Condition>,
}

impl Writer {
    pub(super) async fn write_service_status(
        &self,
        write: &Write,
        object: &VirtualService,
        status: &VirtualServiceStatus,
        verdicts: &[Verdict],
    ) -> Result<(), WriteError> {
        let seen = object.status.as_ref().map(|status| &status.conditions);
        let renewed = self.renew(write, &object.metadata, seen, verdicts);
        let status = VirtualServiceStatus {
            conditions: renewed.now.clone(),
            ..status.clone()
        };
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<VirtualService> = Api::namespaced(self.client.clone(), namespace);
        apply_status(&api, object, &status).await?;
        self.publish(write, object, renewed).await;
        Ok(())
    }

    pub(super) async fn write_group_status(
        &self,
        write: &Write,
        object: &DirectorGroup,
        status: &DirectorGroupStatus,
        verdicts: &[Verdict],
    ) -> Result<(), WriteError> {
        let seen = object.status.as_ref().map(|status| &status.conditions);
        let renewed = self.renew(write, &object.metadata, seen, verdicts);
        let status = DirectorGroupStatus {
            conditions: renewed.now.clone(),
            ..status.clone()
        };
        let api: Api<DirectorGroup> = Api::all(self.client.clone());
        apply_status(&api, object, &status).await?;
        self.publish(write, object, renewed).await;
        Ok(())
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
            debug!(?object, error = %lvs_runtime::error::chain(&error), "an event was not published");
        }
    }
}

/// Applies an object's status; succeeds when the object is gone.
async fn apply_status<K>(
    api: &Api<K>,
    object: &K,
    status: &impl Serialize,
) -> Result<(), WriteError>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let name = object.meta().name.as_deref().unwrap_or_default();
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

fn conditions(
    verdicts: &[Verdict],
    before: &[Condition],
    generation: Option<i64>,
) -> Vec<Condition> {
    condition::conditions(verdicts.to_vec(), before, generation, Timestamp::now())
}
