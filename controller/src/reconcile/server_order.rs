//! The order of the real servers in bindings (`lvs_model::keep_server_order`).

use std::sync::Arc;

use lvs_crd::{MAX_REAL_SERVERS, VirtualService};
use lvs_model::{ObjectName, keep_server_order};

use super::binding::is_owned;
use crate::cluster::{Cluster, ServiceState};

impl Cluster {
    /// Gives the real servers of a version the order in which directors were given them: that of the last version whose bindings were
    /// written, or after a restart that of the bindings. In slices, each has a place of its own instead.
    pub(super) fn keep_order(
        &self,
        name: &ObjectName,
        object: &VirtualService,
        state: &mut ServiceState,
    ) {
        let version = state.programmed_mut();
        let is_whole = |count: usize| count <= MAX_REAL_SERVERS;
        let Some(version) = version.filter(|version| is_whole(version.service.real_servers.len()))
        else {
            return;
        };
        let before = self.services.get(name);
        let before = before.filter(|before| before.bindings_are_due);
        let before = before.and_then(|before| before.state.programmed());
        let before = before.map(|before| Arc::clone(&before.service));
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        if let Some(known) = before.or_else(|| self.bound_version(name, uid)) {
            keep_server_order(&known, &mut version.service);
        }
    }

    /// The version that the first director by name has whose binding is complete.
    pub(super) fn bound_version(
        &self,
        name: &ObjectName,
        uid: &str,
    ) -> Option<Arc<lvs_model::VirtualService>> {
        let bindings = self.bindings_of(name).map(|(_, binding)| binding);
        let mut own = bindings.filter(|binding| is_owned(binding.as_ref(), uid));
        own.find_map(|binding| self.with_slices(binding)?.service.ok())
    }
}
