//! The third step: the state of a virtual service.

use std::collections::BTreeSet;

use lvs_crd::{VirtualService, condition::Reason};
use lvs_model::ObjectName;

use super::resolve::Resolved;
use crate::cluster::{Cluster, Fault, ReconcileRequest, Reconciled, ServiceState};

impl Cluster {
    /// Decides the state of a virtual service, and which machines are real servers of it.
    pub(super) fn decide(
        &mut self,
        name: &ObjectName,
        object: &VirtualService,
        mut resolved: Resolved,
    ) {
        let conflict = self.conflict(name, &resolved);
        if resolved.refusal.is_none() {
            resolved.refusal = conflict;
        }
        resolved.unallocated = self.allocations.waiting(name).cloned();
        if resolved.needs_last_version() {
            self.keep_last(name, object, &mut resolved);
        }
        self.limit_directors(name, &mut resolved);
        if let Some(warning) = self.too_many_to_remember(&resolved) {
            resolved.warn(warning);
        }
        let mut state = state(&resolved);
        self.keep_order(name, object, &mut state);
        let Resolved {
            group,
            kube_services,
            directors,
            service,
            warning,
            left_out,
            left_out_addresses,
            ..
        } = resolved;
        let service = service.filter(|_| state.programmed().is_some());
        let servers = service.iter().flat_map(|service| &service.real_servers);
        let servers = servers.map(|server| server.address).collect();
        let programmed = state.programmed();
        let shared = programmed.map(|version| self.shared_servers(&group, &version.service));
        let shared = shared.unwrap_or_default();
        let reconciled = Reconciled {
            machines: self.machines_of(name, &servers, &directors, &shared),
            group,
            kube_services,
            directors,
            state,
            bindings_are_due: false,
            warning,
            left_out,
            left_out_addresses,
        };
        self.set_reconciled(name, Some(reconciled));
    }

    /// Forgets a deleted virtual service.
    pub(super) fn forget(&mut self, name: &ObjectName) {
        self.set_reconciled(name, None);
        self.places.remove(name);
        self.begun.remove(name);
        self.forget_servers(name);
    }

    /// Why the claim of a virtual service is not granted.
    fn conflict(&self, name: &ObjectName, resolved: &Resolved) -> Option<Fault> {
        let conflict = self.claims.check(name).err()?;
        let frontend = &resolved.service.as_ref()?.frontend;
        let rejection = conflict.rejection(name, frontend);
        Some(Fault::of_rejections(Reason::Conflict, &[rejection]))
    }

    fn set_reconciled(&mut self, name: &ObjectName, now: Option<Reconciled>) {
        let before = self.services.remove(name);
        let (old, new) = (before.as_ref(), now.as_ref());
        let kube_services = |found: Option<&Reconciled>| {
            found.map_or_else(BTreeSet::new, |found| found.kube_services.clone())
        };
        self.index
            .set_kube_services(name, &kube_services(old), &kube_services(new));
        let left_out = |found: Option<&Reconciled>| {
            found.map_or_else(BTreeSet::new, |found| found.left_out_addresses.clone())
        };
        self.index
            .set_left_out(name, &left_out(old), &left_out(new));
        self.set_group(name, old.map(|old| &old.group), new.map(|new| &new.group));
        if let Some(now) = now {
            self.services.insert(name.clone(), now);
        }
    }

    /// Sets the group of a virtual service. A group without virtual services needs no active director, and its status says so.
    fn set_group(&mut self, name: &ObjectName, before: Option<&String>, now: Option<&String>) {
        if before == now {
            return;
        }
        let groups = || before.into_iter().chain(now);
        let had_users: Vec<bool> = groups().map(|group| self.index.has_users(group)).collect();
        self.index.set_group(name, before, now);
        for (group, had_users) in groups().zip(had_users) {
            if self.index.has_users(group) != had_users {
                self.enqueue(ReconcileRequest::Group(group.clone()));
            }
        }
    }
}

/// The state of a virtual service, whatever it was before:
///
/// 1. If directors have a version, and the spec is refused or something that it names is not there, they keep that version.
/// 2. Otherwise, if the spec is refused or its claim is not granted, nothing is served.
/// 3. Otherwise, if the spec needs an address and none can be allocated yet, it waits for one.
/// 4. Otherwise, if the spec names something that is not there, the rest is served.
/// 5. Otherwise, the spec is served.
fn state(resolved: &Resolved) -> ServiceState {
    let version = resolved.version.clone();
    let refusal = resolved.refusal.clone();
    let unallocated = resolved.unallocated.clone();
    let missing = resolved.missing.clone();
    match (version, refusal, unallocated, missing) {
        (Some(version), refusal, unallocated, missing) if resolved.is_kept => ServiceState::Kept {
            version,
            refusal: refusal.or(unallocated),
            missing,
        },
        (version, Some(refusal), _, missing) => ServiceState::Refused {
            version,
            refusal,
            missing,
        },
        (_, None, Some(unallocated), missing) => ServiceState::Waiting {
            unallocated,
            missing,
        },
        (Some(version), None, None, None) => ServiceState::Served(version),
        (version, None, None, Some(missing)) => ServiceState::Unresolved { version, missing },
        // A spec that is not refused has a version unless it lacks an address.
        (None, None, None, None) => ServiceState::Waiting {
            unallocated: Fault::new(Reason::NoFreeAddress, "no address is free"),
            missing: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lvs_crd::convert;
    use serde_json::json;

    use super::*;
    use crate::cluster::Version;

    fn mk_service() -> Arc<lvs_model::VirtualService> {
        let object = serde_json::from_value(json!({
            "apiVersion": "lvs-operator.io/v1alpha1", "kind": "VirtualService",
            "metadata": {"name": "web"}, "spec": {"fwmark": 7},
        }));
        Arc::new(convert::virtual_service(&object.unwrap()).unwrap().1)
    }

    #[test]
    fn a_version_is_served_unless_it_is_refused_or_kept() {
        // A version, whether it is kept, a refusal, something missing, and whether an address is waited for.
        let table = [
            ([true, false, false, false, false], "served"),
            ([true, false, false, true, false], "unresolved, programmed"),
            ([false, false, false, true, false], "unresolved"),
            ([true, false, true, true, false], "refused"),
            ([false, false, true, false, true], "refused"),
            ([true, true, true, false, false], "kept, programmed"),
            ([true, true, false, true, false], "kept, programmed"),
            ([true, true, false, false, true], "kept, programmed"),
            ([false, false, false, false, true], "waiting"),
            ([false, false, false, true, true], "waiting"),
        ];
        for (facts, expected) in table {
            let [has_version, is_kept, is_refused, is_missing, is_waiting] = facts;
            let fault = |is_there: bool, reason| is_there.then(|| Fault::new(reason, ""));
            let version = Version {
                generation: 1,
                service: mk_service(),
                accepted_spec: None,
            };
            let resolved = Resolved {
                version: Some(version).filter(|_| has_version),
                is_kept,
                refusal: fault(is_refused, Reason::Invalid),
                unallocated: fault(is_waiting, Reason::NoFreeAddress),
                missing: fault(is_missing, Reason::NoDirector),
                ..Resolved::new("edge".to_owned())
            };
            let state = state(&resolved);
            let found = match &state {
                ServiceState::Served(_) => "served",
                ServiceState::Unresolved { version: None, .. } => "unresolved",
                ServiceState::Unresolved { .. } => "unresolved, programmed",
                ServiceState::Kept { .. } => "kept, programmed",
                ServiceState::Waiting { .. } => "waiting",
                ServiceState::Refused { .. } => "refused",
            };
            assert_eq!(found, expected, "{facts:?}");
            let is_programmed = expected == "served" || expected.ends_with("programmed");
            assert_eq!(state.programmed().is_some(), is_programmed, "{facts:?}");
        }
    }
}
