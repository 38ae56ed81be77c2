//! The status of a virtual service.

use lvs_crd::{
    VirtualService, VirtualServiceStatus,
    condition::{self, ConditionType, Reason, Status, Verdict},
};
use lvs_model::{Frontend, ObjectName};

use super::programming::Programming;
use crate::{
    cluster::{Bindings, Cluster, Fault, Reconciled, ServiceState},
    write::{Revision, Write},
};

/// How many real servers there are, and how many of them take new connections.
#[derive(Clone, Copy)]
struct RealServers {
    taking: usize,
    total: usize,
}

impl RealServers {
    fn of(service: Option<&lvs_model::VirtualService>) -> Self {
        let servers = service.map_or(&[][..], |service| service.real_servers.as_slice());
        let taking = servers.iter().filter(|server| server.weight > 0);
        Self {
            taking: taking.count(),
            total: servers.len(),
        }
    }
}

impl Cluster {
    /// The status of a virtual service, if it differs from the one that it has. `service` is its version with the weights
    /// of the moment.
    pub(super) fn write_status(
        &self,
        name: &ObjectName,
        object: &VirtualService,
        desired: &Bindings,
        service: Option<&lvs_model::VirtualService>,
    ) -> Option<Write> {
        let reconciled = self.services.get(name)?;
        let programming = self.programming(name, object, reconciled, desired);
        let granted = service.filter(|_| reconciled.state.programmed().is_some());
        let granted = granted.map(|service| &service.frontend);
        let real_servers = RealServers::of(service);
        let generation = object.metadata.generation.unwrap_or(0);
        let kept = reconciled.state.kept_generation(generation);
        let active = self.active_of_service(reconciled, granted);
        let unheld = active.verdict;
        let warning = reconciled.warning.clone();
        let warning = warning.or_else(|| self.changed_again(name));
        let found = (real_servers, unheld, warning);
        let verdicts = verdicts(reconciled, &programming, kept, found);
        let directors = &reconciled.directors;
        let active_director = match directors.as_slice() {
            [director] if programming.done > 0 => Some(director.to_string()),
            _ => Some(active.names).filter(|names| !names.is_empty()),
        };
        let done = if kept.is_some() { 0 } else { programming.done };
        let allocated = || {
            let allocated = self.allocations.get(name);
            allocated.iter().map(ToString::to_string).collect()
        };
        let status = VirtualServiceStatus {
            observed_generation: object.metadata.generation,
            // What is granted. The status is the only place that has an allocated address; an invalid spec must not lose it.
            addresses: granted.map_or_else(allocated, addresses),
            vip: granted.map(vip).unwrap_or_default(),
            ports: granted.map(ports).unwrap_or_default(),
            active_director,
            active_since: active.since,
            holders: active.holders,
            directors: number(directors.len()),
            ready_directors: number(done),
            directors_column: format!("{done}/{}", directors.len()),
            real_servers: number(real_servers.total),
            ready_real_servers: number(real_servers.taking),
            real_servers_column: format!("{}/{}", real_servers.taking, real_servers.total),
            failures: programming.failures,
            conditions: Vec::new(),
        };
        differs(object.status.as_ref(), &status, &verdicts).then(|| Write::ServiceStatus {
            name: name.clone(),
            revision: Revision::of(object),
            status: Box::new(status),
            verdicts,
        })
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The conditions: Accepted, ResolvedRefs, Programmed, BackendsHealthy and Ready, and one of Stalled and Reconciling unless
/// the virtual service is ready. `kept` is the generation that directors keep in place of the object's own.
fn verdicts(
    reconciled: &Reconciled,
    programming: &Programming,
    kept: Option<i64>,
    (real_servers, unheld, warning): (RealServers, Option<Verdict>, Option<Fault>),
) -> Vec<Verdict> {
    let state = &reconciled.state;
    let mut accepted = verdict(ConditionType::Accepted, Reason::Accepted, state.refusal());
    if let (Status::True, Some(warning)) = (accepted.status, warning) {
        accepted.reason = warning.reason;
        accepted.message = warning.message;
    }
    let mut resolved = verdict(
        ConditionType::ResolvedRefs,
        Reason::ResolvedRefs,
        state.missing(),
    );
    if resolved.status == Status::True {
        resolved.message.clone_from(&reconciled.left_out);
    }
    let programmed = programmed(state, programming, kept, reconciled.directors.len());
    let healthy = backends_healthy(real_servers);
    let first = [&accepted, &resolved, &programmed]
        .into_iter()
        .chain(&unheld)
        .find(|verdict| verdict.status != Status::True);
    let ready = match first {
        None => ready(&accepted, &programmed),
        Some(found) => {
            let message = found.message.clone();
            Verdict::new(ConditionType::Ready, found.status, found.reason, message)
        }
    };
    let abnormal = first.map(|found| {
        // One that needs an address waits for its group, and for the report of a director.
        let is_awaited = matches!(
            found.reason,
            Reason::NotReported | Reason::DirectorGroupNotFound
        );
        let is_refused = state.refusal().is_some() && !is_awaited;
        let is_stalled = is_refused || found.reason == Reason::WriteRefused;
        let kind = if is_stalled {
            ConditionType::Stalled
        } else {
            ConditionType::Reconciling
        };
        Verdict::new(kind, Status::True, found.reason, found.message.clone())
    });
    [accepted, resolved, programmed, healthy, ready]
        .into_iter()
        .chain(abnormal)
        .collect()
}

/// Ready, while nothing is missing: with the first warning.
fn ready(accepted: &Verdict, programmed: &Verdict) -> Verdict {
    let (reason, message) = if programmed.reason == Reason::DirectorsDiffer {
        (programmed.reason, &programmed.message)
    } else if accepted.message.is_empty() {
        (Reason::Ready, &programmed.message)
    } else {
        (Reason::Ready, &accepted.message)
    };
    Verdict::new(ConditionType::Ready, Status::True, reason, &**message)
}

/// A condition that is true unless there is a fault.
fn verdict(kind: ConditionType, reason: Reason, fault: Option<&Fault>) -> Verdict {
    match fault {
        None => Verdict::new(kind, Status::True, reason, ""),
        Some(fault) => Verdict::new(kind, Status::False, fault.reason, &*fault.message),
    }
}

fn programmed(
    state: &ServiceState,
    programming: &Programming,
    kept: Option<i64>,
    directors: usize,
) -> Verdict {
    let kind = ConditionType::Programmed;
    let known = directors - programming.silent.min(directors);
    if let Some(unknown) = &programming.unknown
        && (known == 0 || kept.is_some() || programming.done < known)
    {
        return Verdict::new(kind, Status::Unknown, unknown.reason, &*unknown.message);
    }
    if let Some(kept) = kept {
        let reason = state
            .refusal()
            .map_or(Reason::Pending, |fault| fault.reason);
        let message = format!("the directors keep generation {kept}");
        return Verdict::new(kind, Status::False, reason, message);
    }
    if state.refusal().is_some() && state.programmed().is_none() {
        return verdict(kind, Reason::Programmed, state.refusal());
    }
    if programming.refused.is_some() {
        return verdict(kind, Reason::Programmed, programming.refused.as_ref());
    }
    if known > 0 && programming.done == known {
        if let Some(difference) = &programming.difference {
            return Verdict::new(kind, Status::True, Reason::DirectorsDiffer, &**difference);
        }
        // The VIPs of a silent one have expired: another has them.
        let silent = programming.unknown.as_ref().map(|fault| &*fault.message);
        let message = silent
            .or(programming.warning.as_deref())
            .unwrap_or_default();
        return Verdict::new(kind, Status::True, Reason::Programmed, message);
    }
    let (reason, message) = match programming.failures.first() {
        Some(failure) => (
            Reason::ProgrammingFailed,
            format!("{}: {}", failure.node, failure.message),
        ),
        None => (
            Reason::Pending,
            format!("{} of {directors} directors have it", programming.done),
        ),
    };
    Verdict::new(kind, Status::False, reason, message)
}

fn backends_healthy(RealServers { taking, total }: RealServers) -> Verdict {
    let kind = ConditionType::BackendsHealthy;
    if taking > 0 {
        return Verdict::new(kind, Status::True, Reason::BackendsHealthy, "");
    }
    let message = format!("none of {total} real servers takes new connections");
    Verdict::new(kind, Status::False, Reason::NoRealServer, message)
}

fn addresses(frontend: &Frontend) -> Vec<String> {
    frontend.vips().iter().map(ToString::to_string).collect()
}

fn vip(frontend: &Frontend) -> String {
    match frontend {
        Frontend::Fwmark(mark) => format!("fwmark:{mark}"),
        Frontend::Addresses { .. } => addresses(frontend).join(","),
    }
}

fn ports(frontend: &Frontend) -> String {
    let ports = frontend.ports().iter();
    let ports = ports.map(|port| {
        let protocol = lvs_crd::Protocol::from(port.protocol);
        format!("{}/{}", port.port, protocol.as_str())
    });
    ports.collect::<Vec<_>>().join(",")
}

/// Returns whether a status differs from the one that an object has, apart from the times of its conditions.
fn differs(
    found: Option<&VirtualServiceStatus>,
    status: &VirtualServiceStatus,
    verdicts: &[Verdict],
) -> bool {
    let Some(found) = found else { return true };
    let without_conditions = VirtualServiceStatus {
        conditions: Vec::new(),
        ..found.clone()
    };
    without_conditions != *status
        || !condition::agree(&found.conditions, verdicts, status.observed_generation)
}
