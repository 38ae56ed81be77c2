//! The objects of an API server, as one user sees and writes them.

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

/// The longest that one call may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The objects of an API server, as one user sees and writes them. Objects are JSON; one is named by its kind and by
/// `namespace/name`, or by its name where its kind has no namespaces.
pub struct Objects {
    runtime: Runtime,
    client: Client,
}

impl Objects {
    /// The objects as the user of a kubeconfig sees them.
    pub fn of(kubeconfig: &Path) -> Result<Self> {
        // Another provider in the tree would make rustls refuse to choose; it does no harm when one is set already.
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
            config.read_timeout = Some(PATIENCE);
            config.default_retry = false;
            Ok::<_, anyhow::Error>(Client::try_from(config)?)
        })?;
        Ok(Self { runtime, client })
    }

    /// Makes or changes an object by server-side apply, and takes the fields from whoever had them.
    pub fn apply(&self, object: &Value) -> Result<Value> {
        let api = self.api_of(object)?;
        let parameters = PatchParams::apply("lab").force();
        let patch = Patch::Apply(object);
        self.value(async { api.patch(text(object, "name"), &parameters, &patch).await })
    }

    /// Makes an object.
    pub fn create(&self, object: &Value) -> Result<Value> {
        let api = self.api_of(object)?;
        let object = serde_json::from_value(object.clone())?;
        self.value(async { api.create(&PostParams::default(), &object).await })
    }

    /// Asks whether an object would be made, and makes none.
    pub fn try_to_create(&self, object: &Value) -> Result<Value> {
        let api = self.api_of(object)?;
        let object = serde_json::from_value(object.clone())?;
        let parameters = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        self.value(async { api.create(&parameters, &object).await })
    }

    /// Changes the spec or the metadata of an object by a merge patch.
    pub fn merge(&self, kind: &str, name: &str, changes: &Value) -> Result<Value> {
        let (api, name) = self.api(kind, name)?;
        let patch = Patch::Merge(changes);
        self.value(async { api.patch(name, &PatchParams::default(), &patch).await })
    }

    /// Writes the status of an object as an agent does: by server-side apply.
    pub fn apply_status(&self, manager: &str, object: &Value) -> Result<Value> {
        let api = self.api_of(object)?;
        let parameters = PatchParams::apply(manager).force();
        let patch = Patch::Apply(object);
        self.value(async {
            api.patch_status(text(object, "name"), &parameters, &patch)
                .await
        })
    }

    /// Puts a status in place of the one that an object has, whoever wrote it.
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

    /// An object; `None` when there is none.
    pub fn find(&self, kind: &str, name: &str) -> Result<Option<Value>> {
        let (api, name) = self.api(kind, name)?;
        let found = self
            .runtime
            .block_on(async { api.get_opt(name).await })
            .with_context(|| format!("getting {kind} {name}"))?;
        found
            .map(serde_json::to_value)
            .transpose()
            .context("an object is no JSON")
    }

    /// An object that must be there.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        self.find(kind, name)?
            .with_context(|| format!("there is no {kind} {name}"))
    }

    /// All objects of a kind that have a label, or all where `label` is empty, in the order of their names.
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
            .context("an object is no JSON")
    }

    /// Deletes an object; succeeds when there is none.
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

    /// Waits until an object is as a test wants it, and returns it. A failure shows what it was.
    pub fn await_that(
        &self,
        kind: &str,
        name: &str,
        what: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Value::Null;
        let found = wait_until(&format!("{kind} {name}: {what}"), PATIENCE * 2, || {
            last = self.find(kind, name)?.unwrap_or_default();
            Ok(is_so(&last).then(|| last.clone()))
        });
        found.with_context(|| format!("{kind} {name} was {last:#}"))
    }

    fn value(&self, call: impl Future<Output = kube::Result<DynamicObject>>) -> Result<Value> {
        let object = self.runtime.block_on(call)?;
        serde_json::to_value(object).context("an object is no JSON")
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
        "VirtualService" | "DirectorGroup" | "DirectorBinding" | "LvsNode" => {
            ("lvs-operator.io", "v1alpha1")
        }
        "Node" | "Service" | "Namespace" | "Secret" => ("", "v1"),
        "EndpointSlice" => ("discovery.k8s.io", "v1"),
        "Event" => ("events.k8s.io", "v1"),
        "Lease" => ("coordination.k8s.io", "v1"),
        "Role" | "RoleBinding" => ("rbac.authorization.k8s.io", "v1"),
        other => bail!("the lab knows no kind {other}"),
    };
    Ok(ApiResource::from_gvk(&GroupVersionKind::gvk(
        group, version, kind,
    )))
}
