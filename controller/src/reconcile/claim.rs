//! The second step: what the spec comes to, and the claim of its VIPs, ports or mark.

use std::net::IpAddr;

use lvs_crd::{VirtualService, condition::Reason};
use lvs_model::{Claim, ObjectName, check_machines};

use super::resolve::{Resolved, resolve};
use crate::cluster::{Cluster, Fault, ReconcileRequest};

impl Cluster {
    /// Resolves the spec of a virtual service and claims what it asks for, or what its directors keep in its place. A spec
    /// that is refused claims nothing that could be granted to another.
    ///
    /// The virtual services whose claims are decided differently by that are queued. So is this one, if its allocated
    /// address goes to another: the address that it gets next is claimed by no other, so this happens once.
    pub(super) fn claim(
        &mut self,
        name: &ObjectName,
        object: &VirtualService,
        address: Option<IpAddr>,
    ) -> Resolved {
        let last = self.last_binding(name);
        let mut resolved = resolve(&self.objects, name, object, address, last);
        self.check_machines(name, &mut resolved);
        let claim = resolved.service.as_ref().map(|service| Claim {
            is_refused: resolved.refusal.is_some() && !resolved.is_kept,
            ..Claim::of(service)
        });
        self.set_claim(name, claim);
        if address.is_some_and(|address| self.has_lost(name, address)) {
            self.enqueue(ReconcileRequest::Service(name.clone()));
        }
        resolved
    }

    /// Withdraws the claim of a deleted virtual service.
    pub(super) fn unclaim(&mut self, name: &ObjectName) {
        self.set_claim(name, None);
    }

    fn set_claim(&mut self, name: &ObjectName, claim: Option<Claim>) {
        let before = self.claims.get(name);
        let before = before.map_or_else(Vec::new, |claim| claim.frontend.vips().to_vec());
        let changed = self.claims.replace(name, claim);
        self.enqueue_services(changed);
        if before.into_iter().any(|vip| !self.is_taken(vip)) {
            self.enqueue_waiting();
        }
    }

    fn check_machines(&self, name: &ObjectName, resolved: &mut Resolved) {
        let (Some(service), None) = (&resolved.service, &resolved.refusal) else {
            return;
        };
        let frontend = &service.frontend;
        let checked = check_machines(frontend.vips(), &resolved.directors, self.index.machines());
        if let Err(conflict) = checked {
            let rejection = conflict.rejection(name, frontend);
            resolved.refusal = Some(Fault::of_rejections(Reason::Conflict, &[rejection]));
        }
    }
}
