//! Executes writes against the API server.

mod condition_cache;
mod error;
mod events;
mod silence;
mod spec;
mod status;

pub(crate) use error::WriteError;

use std::sync::Arc;

use kube::Client;
use lvs_crd::{
    AddressPool, DirectorBinding, DirectorGroup, LvsNode, RealServerBinding, VirtualService,
};
use serde_json::json;
use tracing::debug;

use crate::{
    cluster::{Objects, ReconcileRequest},
    write::{Reported, Write},
};
use error::CALL_TIMEOUT;
use status::StatusWriter;

/// An object whose status is to be written.
pub(crate) enum StatusObject {
    /// A virtual service.
    Service(Arc<VirtualService>),
    /// A group.
    Group(Arc<DirectorGroup>),
    /// A binding.
    Binding(Arc<DirectorBinding>),
    /// A RealServerBinding.
    Served(Arc<RealServerBinding>),
    /// An LvsNode.
    Node(Arc<LvsNode>),
    /// A pool.
    Pool(Arc<AddressPool>),
}

/// Executes writes against the API server.
#[derive(Clone)]
pub(crate) struct Writer {
    client: Client,
    statuses: StatusWriter,
}

impl Writer {
    /// A writer. `identity` names this controller in the events that it publishes.
    pub(crate) fn new(client: Client, identity: &str) -> Self {
        Self {
            statuses: StatusWriter::new(client.clone(), identity),
            client,
        }
    }

    /// Evicts deleted objects from the cache of written conditions.
    pub(crate) fn evict_deleted(&self, objects: &Objects) {
        let count = objects.services.len() + objects.groups.len() + objects.pools.len();
        self.statuses.evict(count, |request| match request {
            ReconcileRequest::Service(name) => objects.services.contains_key(name),
            ReconcileRequest::Group(name) => objects.groups.contains_key(name),
            ReconcileRequest::Pool(name) => objects.pools.contains_key(name),
            ReconcileRequest::Node(_)
            | ReconcileRequest::Binding(_)
            | ReconcileRequest::Served(_) => false,
        });
    }

    /// The object whose status a write is about, as the watch last showed it.
    pub(crate) fn status_object(&self, write: &Write, objects: &Objects) -> Option<StatusObject> {
        match write {
            Write::ServiceStatus { name, .. } => {
                let object = objects.services.get(name)?;
                Some(StatusObject::Service(Arc::clone(object)))
            }
            Write::GroupStatus { name, .. } => {
                let object = objects.groups.get(name)?;
                Some(StatusObject::Group(Arc::clone(object)))
            }
            Write::Silence {
                object: Reported::Binding(name),
                ..
            } => {
                let object = objects.bindings.get(name)?;
                Some(StatusObject::Binding(Arc::clone(object)))
            }
            Write::Silence {
                object: Reported::Served(name),
                ..
            } => {
                let object = objects.served.get(name)?;
                Some(StatusObject::Served(Arc::clone(object)))
            }
            Write::Silence {
                object: Reported::Node(name),
                ..
            } => {
                let object = objects.lvs_nodes.get(name)?;
                Some(StatusObject::Node(Arc::clone(object)))
            }
            Write::PoolStatus { name, .. } => {
                let object = objects.pools.get(name)?;
                Some(StatusObject::Pool(Arc::clone(object)))
            }
            Write::ApplyBinding { .. }
            | Write::DeleteBinding { .. }
            | Write::ApplyServed { .. }
            | Write::DeleteServed { .. }
            | Write::ApplyNode { .. }
            | Write::DeleteNode { .. } => None,
        }
    }

    /// Executes a write.
    ///
    /// # Errors
    /// If the API server refuses it, cannot be reached or does not answer in time.
    pub(crate) async fn execute(
        &self,
        write: &Write,
        object: Option<StatusObject>,
    ) -> Result<(), WriteError> {
        debug!(?write, "writing");
        let call = self.call(write, object);
        let result = tokio::time::timeout(CALL_TIMEOUT, call).await;
        result.unwrap_or(Err(WriteError::Timeout))
    }

    async fn call(&self, write: &Write, object: Option<StatusObject>) -> Result<(), WriteError> {
        match write {
            Write::ApplyBinding {
                name,
                owner_uid,
                spec,
            } => spec::apply(&self.client, name, owner_uid, spec.as_ref()).await,
            Write::DeleteBinding { name, revision } => {
                spec::delete::<DirectorBinding>(&self.client, name, revision).await
            }
            Write::ApplyServed {
                name,
                owner_uid,
                spec,
            } => spec::apply(&self.client, name, owner_uid, spec.as_ref()).await,
            Write::DeleteServed { name, revision, .. } => {
                spec::delete::<RealServerBinding>(&self.client, name, revision).await
            }
            Write::ApplyNode {
                name,
                uid,
                owner_uid,
                groups,
            } => {
                let spec = json!({"groups": groups});
                let (uid, owner_uid) = (uid.as_deref(), owner_uid.as_deref());
                spec::put_node(&self.client, name, uid, owner_uid, spec).await
            }
            Write::DeleteNode { name, revision } => {
                spec::delete_node(&self.client, name, revision).await
            }
            Write::Silence { .. }
            | Write::ServiceStatus { .. }
            | Write::GroupStatus { .. }
            | Write::PoolStatus { .. } => self.write_status(write, object).await,
        }
    }

    /// Writes a status. An object that the watch does not show any more needs none.
    async fn write_status(
        &self,
        write: &Write,
        object: Option<StatusObject>,
    ) -> Result<(), WriteError> {
        let request = write.request();
        match (write, object) {
            (
                Write::ServiceStatus {
                    status, verdicts, ..
                },
                Some(StatusObject::Service(object)),
            ) => {
                let statuses = &self.statuses;
                statuses
                    .write_service(request, &object, status, verdicts)
                    .await
            }
            (
                Write::GroupStatus {
                    status, verdicts, ..
                },
                Some(StatusObject::Group(object)),
            ) => {
                let statuses = &self.statuses;
                statuses
                    .write_group(request, &object, status, verdicts)
                    .await
            }
            (
                Write::PoolStatus {
                    status, verdicts, ..
                },
                Some(StatusObject::Pool(object)),
            ) => {
                let statuses = &self.statuses;
                statuses
                    .write_pool(request, &object, status, verdicts)
                    .await
            }
            (Write::Silence { verdict, .. }, Some(StatusObject::Binding(object))) => {
                silence::write_binding(&self.client, &object, verdict).await
            }
            (Write::Silence { verdict, .. }, Some(StatusObject::Served(object))) => {
                silence::write_served(&self.client, &object, verdict).await
            }
            (Write::Silence { verdict, .. }, Some(StatusObject::Node(object))) => {
                silence::write_node(&self.client, &object, verdict).await
            }
            (_, _) => Ok(()),
        }
    }
}
