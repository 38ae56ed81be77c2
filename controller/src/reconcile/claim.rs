//! The second step: what the spec comes to, and the claim of its VIPs, ports or mark.

use std::net::IpAddr;

use lvs_crd::VirtualService;
use lvs_model::{Claim, ObjectName, Stage};

use super::resolve::Resolved;
use crate::cluster::{Cluster, ReconcileRequest};

impl Cluster {
    /// Resolves the spec of a virtual service and claims what it asks for. A spec that is refused, or in whose place directors
    /// keep another version, claims nothing that could be granted.
    ///
    /// The virtual services whose claims are decided differently by that are queued. So is this one, if another one holds an
    /// allocated address: the address that it gets next is claimed by no other, so this happens once.
    pub(super) fn claim(
        &mut self,
        name: &ObjectName,
        object: &VirtualService,
        addresses: &[IpAddr],
    ) -> Resolved {
        let mut resolved = self.resolve(name, object, addresses);
        self.admit(name, object, &mut resolved);
        let is_kept = resolved.needs_last_version() && !self.index.bindings_of(name).is_empty();
        let claim = resolved.service.as_ref().map(|service| Claim {
            stage: if resolved.directors.is_empty() {
                Stage::Idle
            } else {
                Stage::Asked
            },
            is_refused: resolved.refusal.is_some() || is_kept,
            ..Claim::of(service)
        });
        self.set_claim(name, claim);
        let mut addresses = addresses.iter();
        if addresses.any(|address| self.has_lost(name, *address)) {
            self.enqueue(ReconcileRequest::Service(name.clone()));
        }
        resolved
    }

    /// Withdraws the claim of a deleted virtual service.
    pub(super) fn unclaim(&mut self, name: &ObjectName) {
        self.set_claim(name, None);
    }

    fn set_claim(&mut self, name: &ObjectName, claim: Option<Claim>) {
        let changed = self.claims.replace(name, claim);
        self.enqueue_services(changed);
    }
}
