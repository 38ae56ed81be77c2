//! Writes the conditions of objects whose agents are silent.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    core::NamespaceResourceScope,
};
use lvs_crd::{
    DirectorBinding, LvsNode, RealServerBinding,
    condition::{self, Verdict},
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::error::WriteError;
use crate::write::FIELD_MANAGER;

/// Writes the condition of a binding.
pub(super) async fn write_binding(
    client: &Client,
    object: &DirectorBinding,
    verdict: &Verdict,
) -> Result<(), WriteError> {
    let before = object.status.as_ref().map(|status| &*status.conditions);
    apply(&namespaced(client, object), object, before, verdict).await
}

/// Writes the condition of a RealServerBinding.
pub(super) async fn write_served(
    client: &Client,
    object: &RealServerBinding,
    verdict: &Verdict,
) -> Result<(), WriteError> {
    let before = object.status.as_ref().map(|status| &*status.conditions);
    apply(&namespaced(client, object), object, before, verdict).await
}

/// Writes the condition of an LvsNode.
pub(super) async fn write_node(
    client: &Client,
    object: &LvsNode,
    verdict: &Verdict,
) -> Result<(), WriteError> {
    let before = object.status.as_ref().map(|status| &*status.conditions);
    apply(&Api::all(client.clone()), object, before, verdict).await
}

fn namespaced<K>(client: &Client, object: &K) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    Api::namespaced(client.clone(), namespace)
}

/// Applies one condition, and nothing else of the status, to the version of the object that was seen. If there is another one
/// meanwhile, the watch will show it.
async fn apply<K>(
    api: &Api<K>,
    object: &K,
    before: Option<&[Condition]>,
    verdict: &Verdict,
) -> Result<(), WriteError>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let metadata = object.meta();
    let verdicts = vec![verdict.clone()];
    let conditions = condition::conditions(
        verdicts,
        before.unwrap_or_default(),
        metadata.generation,
        Timestamp::now(),
    );
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"resourceVersion": metadata.resource_version},
        "status": {"conditions": conditions},
    });
    let name = metadata.name.as_deref().unwrap_or_default();
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    match api
        .patch_status(name, &parameters, &Patch::Apply(patch))
        .await
    {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        result => result.map(drop).map_err(WriteError::from),
    }
}
