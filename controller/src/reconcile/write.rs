//! The last step: the bindings and the status that differ from those that exist.

use lvs_crd::VirtualService;
use lvs_model::ObjectName;

use super::binding::is_granted;
use crate::{cluster::Cluster, write::Write};

impl Cluster {
    /// What is to be written for a virtual service.
    pub(super) fn write(&mut self, name: &ObjectName, object: &VirtualService) -> Vec<Write> {
        let reconciled = self.services.get(name);
        let weighted = reconciled.and_then(|reconciled| self.weighted(name, reconciled));
        let weighted = weighted.as_ref();
        self.remember(name, object, weighted);
        let Some(reconciled) = self.services.get(name) else {
            return Vec::new();
        };
        let served = self.desired_served(name, reconciled);
        let desired = self.desired_bindings(name, reconciled, weighted);
        let owner_uid = object.metadata.uid.as_deref().unwrap_or_default();
        let desired = self.begin(name, owner_uid, desired);
        let mut writes = self.write_served(name, object, &desired, &served);
        let is_due =
            is_granted(object, &desired) && !self.waits_for_real_servers(name, owner_uid, &served);
        if is_due {
            writes.extend(self.write_bindings(name, object, &desired));
        }
        writes.extend(self.write_silent_bindings(name));
        writes.extend(self.write_status(name, object, &desired, weighted));
        if let Some(reconciled) = self.services.get_mut(name) {
            reconciled.bindings_are_due = is_due;
        }
        writes
    }
}
