//! Reads and writes the objects of an API server, as one user.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::{
    Api, Client, Config,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
        PostParams,
    },
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::wait::wait_until;

/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// The objects of an API server, as one user sees and writes them. Objects are JSON; an object is identified by its kind and
/// `namespace/name`, or just its name if the kind is not namespaced.
pub struct Objects {
    runtime: Runtime,
    client: Client,
}

impl Objects {
    /// Connects as the user of a kubeconfig.
    pub fn of(kubeconfig: &Path) -> Result<Self> {
        // With more than one provider in the dependency tree, rustls does not choose. An error means that one is set already.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let file = Kubeconfig::read_from(kubeconfig)?;
        let client = runtime.block_on(async {
            let options = KubeConfigOptions::default();
            let mut config = Config::from_custom_kubeconfig(file, &options).await?;
            config.read_timeout = Some(CALL_TIMEOUT);
            config.default_retry = false;
            Ok::<_, anyhow::Error>(Client::try_from(config)?)
        })?;
        Ok(Self { runtime, client })
    }

    /// Creates or changes an object by server-side apply, and takes over the fields of other managers.
    pub fn apply(&self, object: &Value) -> Result<Value> {
        let api = self.api_of(object)?;
        let parameters = PatchParams::apply("lab").force();
        let patch = Patch::Apply(object);
        self.value(async { api.patch(text(object, "name"), &parameters, &patch).await })
    }

    /// Creates an object.
    pub fn create(&self, object: &Value) -> Result<Value> {
        let api = self.api_of(object)?;
        let object = serde_json::from_value(object.clone())?;
        self.value(async { api.create(&PostParams::default(), &object).await })
    }

    /// Creates an object with a dry run.
    pub fn try_to_create(&self, object: &Value) -> Result<Value> {
        let api = self.api_of(object)?;
        let object = serde_json::from_value(object.clone())?;
        let parameters = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        self.value(async { api.create(&parameters, &object).await })
    }

    /// Changes an object's spec or metadata with a merge patch.
    pub fn merge(&self, kind: &str, name: &str, changes: &Value) -> Result<Value> {
        let (api, name) = self.api(kind, name)?;
        let patch = Patch::Merge(changes);
        self.value(async { api.patch(name, &PatchParams::default(), &patch).await })
    }

    /// Writes an object's status by server-side apply, as an agent does.
    pub fn apply_status(&self, manager: &str, object: &Value) -> Result<Value> {
        let api = self.api_of(object)?;
        let parameters = PatchParams::apply(manager).force();
        let patch = Patch::Apply(object);
        self.value(async {
            api.patch_status(text(object, "name"), &parameters, &patch)
                .await
        })
    }

    /// Replaces an object's whole status.
    pub fn replace_status(&self, kind: &str, name: &str, status: &Value) -> Result<Value> {
        let mut object = self.get(kind, name)?;
        if let Some(fields) = object.as_object_mut() {
            fields.insert("status".to_owned(), status.clone());
        }
        let (api, name) = self.api(kind, name)?;
        let object = serde_json::from_value(object)?;
        let parameters = PostParams::default();
        self.value(async { api.replace_status(name, &parameters, &object).await })
    }

    /// An object; `None` if it does not exist.
    pub fn find(&self, kind: &str, name: &str) -> Result<Option<Value>> {
        let (api, name) = self.api(kind, name)?;
        let found = self
            .runtime
            .block_on(async { api.get_opt(name).await })
            .with_context(|| format!("getting {kind} {name}"))?;
        found
            .map(serde_json::to_value)
            .transpose()
            .context("an object is not JSON")
    }

    /// An object that must exist.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        self.find(kind, name)?
            .with_context(|| format!("there is no {kind} {name}"))
    }

    /// The objects of a kind that match a label selector, or all if `label` is empty, in the order of their names.
    pub fn list(&self, kind: &str, label: &str) -> Result<Vec<Value>> {
        let resource = resource(kind)?;
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
        let mut parameters = ListParams::default();
        if !label.is_empty() {
            parameters = parameters.labels(label);
        }
        let list = self
            .runtime
            .block_on(async { api.list(&parameters).await })
            .with_context(|| format!("listing {kind}"))?;
        let objects = list.items.into_iter().map(serde_json::to_value);
        objects
            .collect::<Result<_, _>>()
            .context("an object is not JSON")
    }

    /// Deletes an object; succeeds if it does not exist.
    pub fn delete(&self, kind: &str, name: &str) -> Result<()> {
        let (api, name) = self.api(kind, name)?;
        let deleted = self
            .runtime
            .block_on(async { api.delete(name, &DeleteParams::default()).await });
        match deleted {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            result => result
                .map(drop)
                .with_context(|| format!("deleting {kind} {name}")),
        }
    }

    /// Waits until an object meets a condition, and returns it; an error includes the object as it was last.
    pub fn await_that(
        &self,
        kind: &str,
        name: &str,
        what: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Value::Null;
        let found = wait_until(&format!("{kind} {name}: {what}"), CALL_TIMEOUT * 2, || {
            last = self.find(kind, name)?.unwrap_or_default();
            Ok(condition(&last).then(|| last.clone()))
        });
        found.with_context(|| format!("{kind} {name} was {last:#}"))
    }

    fn value(&self, call: impl Future<Output = kube::Result<DynamicObject>>) -> Result<Value> {
        let object = self.runtime.block_on(call)?;
        serde_json::to_value(object).context("an object is not JSON")
    }

    fn api<'a>(&self, kind: &str, name: &'a str) -> Result<(Api<DynamicObject>, &'a str)> {
        let resource = resource(kind)?;
        Ok(match name.split_once('/') {
            Some((namespace, name)) => {
                let client = self.client.clone();
                (Api::namespaced_with(client, namespace, &resource), name)
            }
            None => (Api::all_with(self.client.clone(), &resource), name),
        })
    }

    fn api_of(&self, object: &Value) -> Result<Api<DynamicObject>> {
        let kind = object.get("kind").and_then(Value::as_str);
        let name = match text(object, "namespace") {
            "" => String::new(),
            namespace => format!("{namespace}/"),
        };
        Ok(self.api(kind.context("an object has no kind")?, &name)?.0)
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    let found = object.get("metadata").and_then(|found| found.get(field));
    found.and_then(Value::as_str).unwrap_or_default()
}

fn resource(kind: &str) -> Result<ApiResource> {
    let (group, version) = match kind {
        "VirtualService" | "AddressPool" | "DirectorGroup" | "DirectorBinding"
        | "RealServerBinding" | "LvsNode" => ("lvs-operator.io", "v1alpha1"),
        "Node" | "Service" | "Namespace" | "Secret" | "ServiceAccount" | "ResourceQuota" => {
            ("", "v1")
        }
        "EndpointSlice" => ("discovery.k8s.io", "v1"),
        "Event" => ("events.k8s.io", "v1"),
        "Lease" => ("coordination.k8s.io", "v1"),
        "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding" => {
            ("rbac.authorization.k8s.io", "v1")
        }
        other => bail!("the lab does not know the kind {other}"),
    };
    Ok(ApiResource::from_gvk(&GroupVersionKind::gvk(
        group, version, kind,
    )))
}
