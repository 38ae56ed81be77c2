//! Writes go to the API server.

mod condition_cache;
mod events;
mod spec;
mod status;

use std::{sync::Arc, time::Duration};

use condition_cache::Written;
use kube::{
    Api, Client, Resource,
    core::NamespaceResourceScope,
    runtime::events::{Recorder, Reporter},
};
use lvs_crd::{DirectorGroup, VirtualService};
use lvs_model::ObjectName;
use serde_json::json;
use tracing::debug;

use crate::cluster::{Objects, Subject, Write};

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
            } => self.apply_binding(name, owner_uid, spec).await,
            Write::DeleteBinding(name) => self.delete_binding(name).await,
            Write::ApplyNode {
                name,
                uid,
                owner_uid,
                groups,
                serves,
            } => {
                let spec = json!({"groups": groups, "serves": serves});
                self.put_node(name, uid.as_deref(), owner_uid.as_deref(), spec)
                    .await
            }
            Write::DeleteNode { name, uid } => self.delete_node(name, uid.as_ref()).await,
            Write::ServiceStatus {
                status, verdicts, ..
            } => {
                let Some(Seen::Service(object)) = seen else {
                    return Ok(());
                };
                self.write_service_status(write, &object, status, verdicts)
                    .await
            }
            Write::GroupStatus {
                status, verdicts, ..
            } => {
                let Some(Seen::Group(object)) = seen else {
                    return Ok(());
                };
                self.write_group_status(write, &object, status, verdicts)
                    .await
            }
        }
    }

    fn namespaced<K>(&self, name: &ObjectName) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), name.namespace())
    }
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
