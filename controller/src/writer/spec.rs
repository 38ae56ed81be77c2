//! Writes and deletes bindings and LvsNodes.

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::NamespaceResourceScope,
};
use lvs_crd::{
    DirectorBinding, DirectorBindingSpec, LvsNode, NODE_LABEL, RealServerBinding,
    RealServerBindingSpec, VirtualService, node_label,
};
use lvs_model::{NodeName, ObjectName};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::error::WriteError;
use crate::write::{FIELD_MANAGER, Revision};

/// The spec of a kind that binds a virtual service to a machine.
pub(super) trait BindingSpec: Serialize {
    /// The kind.
    type Kind: BindingKind;

    /// The machine.
    fn node(&self) -> &str;

    /// The name of the virtual service.
    fn virtual_service(&self) -> &str;
}

/// The bounds on such a kind.
pub(super) trait BindingKind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Serialize
    + DeserializeOwned
    + Clone
    + std::fmt::Debug
{
}

impl BindingKind for DirectorBinding {}

impl BindingKind for RealServerBinding {}

impl BindingSpec for DirectorBindingSpec {
    type Kind = DirectorBinding;

    fn node(&self) -> &str {
        &self.node
    }

    fn virtual_service(&self) -> &str {
        &self.virtual_service
    }
}

impl BindingSpec for RealServerBindingSpec {
    type Kind = RealServerBinding;

    fn node(&self) -> &str {
        &self.node
    }

    fn virtual_service(&self) -> &str {
        &self.virtual_service
    }
}

/// Creates or updates a binding.
pub(super) async fn apply<S: BindingSpec>(
    client: &Client,
    name: &ObjectName,
    owner_uid: &str,
    spec: &S,
) -> Result<(), WriteError> {
    let object = json!({
        "apiVersion": S::Kind::api_version(&()),
        "kind": S::Kind::kind(&()),
        "metadata": {
            "namespace": name.namespace(),
            "name": name.name(),
            "labels": {NODE_LABEL: node_label(spec.node())},
            "ownerReferences": [owner::<VirtualService>(spec.virtual_service(), owner_uid)],
        },
        "spec": spec,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let api: Api<S::Kind> = Api::namespaced(client.clone(), name.namespace());
    api.patch(name.name(), &parameters, &Patch::Apply(object))
        .await?;
    Ok(())
}

/// Deletes a binding.
pub(super) async fn delete<K: BindingKind>(
    client: &Client,
    name: &ObjectName,
    revision: &Revision,
) -> Result<(), WriteError> {
    let api: Api<K> = Api::namespaced(client.clone(), name.namespace());
    delete_revision(&api, name.name(), revision).await
}

/// Creates an LvsNode, or updates the one with the given uid.
pub(super) async fn put_node(
    client: &Client,
    name: &NodeName,
    uid: Option<&str>,
    owner_uid: Option<&str>,
    spec: Value,
) -> Result<(), WriteError> {
    let name = name.as_str();
    let mut metadata = json!({"name": name});
    if let Some(fields) = metadata.as_object_mut() {
        fields.extend(uid.map(|uid| ("uid".to_owned(), json!(uid))));
        let node = owner_uid.map(|uid| owner::<Node>(name, uid));
        fields.extend(node.map(|node| ("ownerReferences".to_owned(), json!([node]))));
    }
    let object = json!({
        "apiVersion": LvsNode::api_version(&()),
        "kind": LvsNode::kind(&()),
        "metadata": metadata,
        "spec": spec,
    });
    let api: Api<LvsNode> = Api::all(client.clone());
    match put(&api, name, uid.is_some(), object).await {
        // It was deleted, or another one has its name. The watch will show that.
        Err(WriteError::Api(kube::Error::Api(status)))
            if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
        {
            Ok(())
        }
        result => result,
    }
}

/// Deletes an LvsNode.
pub(super) async fn delete_node(
    client: &Client,
    name: &NodeName,
    revision: &Revision,
) -> Result<(), WriteError> {
    let api: Api<LvsNode> = Api::all(client.clone());
    delete_revision(&api, name.as_str(), revision).await
}

/// Deletes an object in the given revision. Succeeds if the object does not exist, has changed, or is another one of that name:
/// the watch shows that, and then it is decided again.
async fn delete_revision<K>(api: &Api<K>, name: &str, revision: &Revision) -> Result<(), WriteError>
where
    K: DeserializeOwned + Clone + std::fmt::Debug,
{
    let parameters = DeleteParams::default().preconditions(Preconditions {
        uid: revision.uid.clone(),
        resource_version: revision.resource_version.clone(),
    });
    match api.delete(name, &parameters).await {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        result => result.map(drop).map_err(WriteError::from),
    }
}

/// Creates an object, or replaces the given fields of one that exists.
///
/// Server-side apply does not work for a spec that may hold nothing but empty lists: it removes what is empty, and the whole
/// spec with it if no other manager has written a field of it. The API server then refuses the object.
async fn put<K>(api: &Api<K>, name: &str, exists: bool, object: Value) -> Result<(), WriteError>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + std::fmt::Debug,
{
    let manager = Some(FIELD_MANAGER.to_owned());
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
