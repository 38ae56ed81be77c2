//! The third step: the state of a virtual service.

use std::{collections::BTreeMap, net::IpAddr};

use lvs_crd::{VirtualService, condition::Reason};
use lvs_model::{NodeName, ObjectName};

use super::{lvs_node::served_service, resolve::Resolved};
use crate::cluster::{Cluster, Fault, Reconciled, ServiceState};

impl Cluster {
    /// Decides the state of a virtual service, and which machines are real servers of it. Queues the machines for which that
    /// changes something.
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
        if self.allocations.is_waiting(name) {
            resolved.exhaust(name.namespace());
        }
        if resolved.needs_last_version() {
            self.keep_last(name, object, &mut resolved);
        }
        let state = state(&resolved);
        let Resolved {
            group,
            kube_service,
            directors,
            service,
            warning,
            ..
        } = resolved;
        let servers = service.filter(|_| state.programmed().is_some());
        let servers = servers.map_or_else(Vec::new, |service| service.real_servers);
        let servers = servers.iter().map(|server| server.address);
        let reconciled = Reconciled {
            machines: self.machines_of(servers, &directors),
            group,
            kube_service,
            directors,
            state,
            warning,
        };
        self.set_reconciled(name, Some(reconciled));
    }

    /// Forgets a deleted virtual service.
    pub(super) fn forget(&mut self, name: &ObjectName) {
        self.set_reconciled(name, None);
    }

    /// Why the claim of a virtual service is not granted.
    fn conflict(&self, name: &ObjectName, resolved: &Resolved) -> Option<Fault> {
        let conflict = self.claims.check(name).err()?;
        let frontend = &resolved.service.as_ref()?.frontend;
        let rejection = conflict.rejection(name, frontend);
        Some(Fault::of_rejections(Reason::Conflict, &[rejection]))
    }

    /// The machines with the addresses, without the directors, which deliver to themselves.
    fn machines_of(
        &self,
        servers: impl Iterator<Item = IpAddr>,
        directors: &[NodeName],
    ) -> BTreeMap<NodeName, Vec<IpAddr>> {
        let mut machines: BTreeMap<NodeName, Vec<IpAddr>> = BTreeMap::new();
        for address in servers {
            if let Some(machine) = self.index.machine_with(address)
                && !directors.contains(machine)
            {
                let addresses = machines.entry(machine.clone()).or_default();
                addresses.push(address);
            }
        }
        machines
    }

    fn set_reconciled(&mut self, name: &ObjectName, now: Option<Reconciled>) {
        let before = self.services.remove(name);
        let (old, new) = (before.as_ref(), now.as_ref());
        self.index.set_kube_service(
            name,
            old.and_then(|old| old.kube_service.as_ref()),
            new.and_then(|new| new.kube_service.as_ref()),
        );
        self.index
            .set_group(name, old.map(|old| &old.group), new.map(|new| &new.group));
        let machines = |found: Option<&Reconciled>| {
            let machines = found.into_iter().flat_map(|found| found.machines.keys());
            machines.cloned().collect()
        };
        let (old_machines, new_machines) = (machines(old), machines(new));
        self.index
            .set_real_servers(name, &old_machines, &new_machines);
        for machine in old_machines.union(&new_machines) {
            let part = |found: Option<&Reconciled>| served_service(name, found?, machine);
            if part(old) != part(new) {
                self.enqueue_node(machine);
            }
        }
        // Machines that have to go on serving until every director has removed them.
        for machine in self.index.lvs_nodes_of(name).difference(&new_machines) {
            self.enqueue_node(machine);
        }
        if let Some(now) = now {
            self.services.insert(name.clone(), now);
        }
    }
}

/// The state of a virtual service, whatever it was before:
///
/// 1. If directors have a version, and the spec is refused or something that it names is not there, they keep that version.
/// 2. Otherwise, if the spec is refused or its claim is not granted, nothing is served.
/// 3. Otherwise, if the spec needs an address and none is free, it waits for one.
/// 4. Otherwise, if the spec names something that is not there, the rest is served.
/// 5. Otherwise, the spec is served.
fn state(resolved: &Resolved) -> ServiceState {
    let version = resolved.version.clone();
    let refusal = resolved.refusal.clone();
    let exhausted = resolved.exhausted.clone();
    let missing = resolved.missing.clone();
    match (version, refusal, exhausted, missing) {
        (Some(version), refusal, exhausted, missing) if resolved.is_kept => ServiceState::Kept {
            version,
            refusal: refusal.or(exhausted),
            missing,
        },
        (version, Some(refusal), _, missing) => ServiceState::Refused {
            version,
            refusal,
            missing,
        },
        (_, None, Some(exhausted), missing) => ServiceState::Waiting { exhausted, missing },
        (Some(version), None, None, None) => ServiceState::Served(version),
        (version, None, None, Some(missing)) => ServiceState::Unresolved { version, missing },
        // A spec that is not refused has a version unless it lacks an address.
        (None, None, None, None) => ServiceState::Waiting {
            exhausted: Fault::new(Reason::NoFreeAddress, "no address is free"),
            missing: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lvs_crd::VirtualServiceSpec;
    use lvs_model::Forwarding;

    use super::*;
    use crate::cluster::Version;

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
                spec: Arc::new(VirtualServiceSpec::default()),
                forwarding: Forwarding::Dr,
            };
            let resolved = Resolved {
                version: Some(version).filter(|_| has_version),
                is_kept,
                refusal: fault(is_refused, Reason::Invalid),
                exhausted: fault(is_waiting, Reason::NoFreeAddress),
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
