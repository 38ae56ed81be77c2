//! Bindings and LvsNodes are written and deleted.

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use lvs_crd::{
    DirectorBinding, DirectorBindingSpec, LvsNode, NODE_LABEL, VirtualService, node_label,
};
use lvs_model::ObjectName;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{MANAGER, WriteError, Writer};

impl Writer {
    pub(super) async fn apply_binding(
        &self,
        name: &ObjectName,
        owner_uid: &str,
        spec: &DirectorBindingSpec,
    ) -> Result<(), WriteError> {
        let object = json!({
            "apiVersion": DirectorBinding::api_version(&()),
            "kind": DirectorBinding::kind(&()),
            "metadata": {
                "namespace": name.namespace(),
                "name": name.name(),
                "labels": {NODE_LABEL: node_label(&spec.node)},
                "ownerReferences": [owner::<VirtualService>(&spec.virtual_service, owner_uid)],
            },
            "spec": spec,
        });
        let api: Api<DirectorBinding> = self.namespaced(name);
        let parameters = PatchParams::apply(MANAGER).force();
        api.patch(name.name(), &parameters, &Patch::Apply(object))
            .await?;
        Ok(())
    }

    /// Deletes a binding; one that is gone is fine.
    pub(super) async fn delete_binding(&self, name: &ObjectName) -> Result<(), WriteError> {
        let api: Api<DirectorBinding> = self.namespaced(name);
        match api.delete(name.name(), &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            result => result.map(drop).map_err(WriteError::from),
        }
    }

    /// Writes the controller's part of an LvsNode: of that one alone, where it is there already.
    pub(super) async fn put_node(
        &self,
        name: &str,
        uid: Option<&str>,
        owner_uid: Option<&str>,
        spec: Value,
    ) -> Result<(), WriteError> {
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
        let api: Api<LvsNode> = Api::all(self.client.clone());
        match put(&api, name, uid.is_some(), object).await {
            // It is gone, or another has its name; a watch will tell.
            Err(WriteError::Api(kube::Error::Api(status)))
                if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
            {
                Ok(())
            }
            result => result,
        }
    }

    /// Deletes an LvsNode; one that is gone, or another of its name, is fine.
    pub(super) async fn delete_node(
        &self,
        name: &str,
        uid: Option<&String>,
    ) -> Result<(), WriteError> {
        let api: Api<LvsNode> = Api::all(self.client.clone());
        let parameters = DeleteParams::default().preconditions(Preconditions {
            uid: uid.cloned(),
            resource_version: None,
        });
        match api.delete(name, &parameters).await {
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
                Ok(())
            }
            result => result.map(drop).map_err(WriteError::from),
        }
    }
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
