//! The second step: what the spec comes to, and the claim of its VIPs, ports or mark.

use std::net::IpAddr;

use lvs_crd::{VirtualService, condition::Reason};
use lvs_model::{Claim, ObjectName, check_machines};

use super::resolve::Resolved;
use crate::cluster::{Cluster, Fault, ReconcileRequest};

impl Cluster {
    /// Resolves the spec of a virtual service and claims what it asks for. A spec that is refused, or in
    /// whose place directors keep another version, claims nothing that could be granted.
    ///
    /// The virtual services whose claims are decided differently by that are queued. So is this one, if another one holds its
    /// allocated address: the address that it gets next is claimed by no other, so this happens once.
    pub(super) fn claim(
        &mut self,
        name: &ObjectName,
        object: &VirtualService,
        address: Option<IpAddr>,
    ) -> Resolved {
        let mut resolved = self.resolve(name, object, address);
        self.check_machines(name, &mut resolved);
        let is_kept = resolved.needs_last_version() && !self.index.bindings_of(name).is_empty();
        let claim = resolved.service.as_ref().map(|service| Claim {
            is_refused: resolved.refusal.is_some() || is_kept,
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
        let changed = self.claims.replace(name, claim);
        self.enqueue_services(changed);
    }

    /// Refuses a VIP that is the address of a machine. A VIP that the virtual service holds already stays: then the machine is
    /// the newcomer.
    fn check_machines(&self, name: &ObjectName, resolved: &mut Resolved) {
        let (Some(service), None) = (&resolved.service, &resolved.refusal) else {
            return;
        };
        let frontend = &service.frontend;
        let (held, new): (Vec<IpAddr>, Vec<IpAddr>) = frontend
            .vips()
            .iter()
            .partition(|vip| self.claims.holds_vip(name, **vip));
        let check = |vips: &[IpAddr]| {
            let machines = self.index.machines();
            let conflict = check_machines(vips, &resolved.directors, machines).err()?;
            let rejection = conflict.rejection(name, frontend);
            Some(Fault::of_rejections(Reason::Conflict, &[rejection]))
        };
        let (refusal, warning) = (check(&new), check(&held));
        resolved.refusal = refusal;
        if let Some(warning) = warning {
            resolved.warn(warning);
        }
    }
}
