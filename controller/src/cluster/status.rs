//! What is told of a virtual service and of a group.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use lvs_crd::{
    DirectorBinding, DirectorBindingSpec, DirectorGroupStatus, NodeFailure, VirtualService,
    VirtualServiceSpec, VirtualServiceStatus,
    condition::{self, ConditionType, Reason, Status, Verdict},
};
use lvs_model::ObjectName;

use super::{
    Cluster, Write,
    draft::{self, Draft, Fault},
    node,
};

/// How many machines are named that could not do their part.
const MOST_FAILURES: usize = 10;

/// What the directors say.
struct Programming {
    done: usize,
    /// Whether it is of an older generation, since this one cannot be programmed.
    is_kept: bool,
    failures: Vec<NodeFailure>,
}

/// The status of a virtual service, when it differs from what it was last seen to be.
pub(super) fn of_service(
    cluster: &Cluster,
    name: &ObjectName,
    object: &VirtualService,
    draft: &Draft,
    wanted: &BTreeMap<ObjectName, DirectorBindingSpec>,
) -> Option<Write> {
    let programming = programming(cluster, name, object, draft, wanted);
    let spec = draft.service.as_deref();
    let waiting = draft
        .endpoints()
        .iter()
        .filter(|endpoint| {
            endpoint.weight > 0 && cluster.waits_for(name, draft, &endpoint.address).is_some()
        })
        .count();
    let answering = draft
        .endpoints()
        .iter()
        .filter(|endpoint| endpoint.weight > 0)
        .count();
    let taking = if object.spec.forwarding == lvs_crd::Forwarding::Nat {
        answering
    } else {
        answering - waiting
    };
    let total = draft.endpoints().len();
    let directors = draft.directors.len();
    let verdicts = verdicts(draft, &programming, (taking, total));
    let status = VirtualServiceStatus {
        observed_generation: object.metadata.generation,
        // An allocated address is written down nowhere else, and must outlive a spec that is invalid for a while.
        addresses: spec.map_or_else(
            || draft.granted.iter().map(ToString::to_string).collect(),
            |spec| spec.addresses.clone(),
        ),
        vip: spec.map(vip).unwrap_or_default(),
        ports: ports(spec.unwrap_or(&object.spec)),
        active_director: draft
            .directors
            .first()
            .filter(|_| programming.done > 0)
            .cloned(),
        directors: match programming.is_kept {
            true => format!("0/{directors}"),
            false => format!("{}/{directors}", programming.done),
        },
        real_servers: format!("{taking}/{total}"),
        failures: programming.failures,
        conditions: Vec::new(),
    };
    differs(object.status.as_ref(), &status, &verdicts).then(|| Write::ServiceStatus {
        name: name.clone(),
        status: Box::new(status),
        verdicts,
    })
}

/// What a director's agent says of its binding.
pub(super) fn said_of(binding: &DirectorBinding) -> Option<&Condition> {
    let status = binding.status.as_ref()?;
    condition::find(&status.conditions, ConditionType::Programmed)
}

/// Says whether that is about the binding as it is, and the binding says what is wanted.
pub(super) fn is_current(
    binding: &DirectorBinding,
    wanted: &DirectorBindingSpec,
    said: &Condition,
) -> bool {
    binding.spec == *wanted && said.observed_generation == binding.metadata.generation
}

/// What the directors say of this generation of the virtual service.
///
/// - A director counts when what it says is about the binding that is wanted of it.
/// - Real servers come and go without a new generation. Until the director has said something of that, what it has said
///   of this generation stands, or every virtual service would be unready with every pod that starts.
fn programming(
    cluster: &Cluster,
    name: &ObjectName,
    object: &VirtualService,
    draft: &Draft,
    wanted: &BTreeMap<ObjectName, DirectorBindingSpec>,
) -> Programming {
    let (mut done, mut failures) = (0, Vec::new());
    for (binding, wanted) in wanted {
        let Some(binding) = cluster.objects.bindings.get(binding) else {
            continue;
        };
        let Some(said) = said_of(binding) else {
            continue;
        };
        let is_current = is_current(binding, wanted, said);
        let stands = binding.spec.generation == wanted.generation
            && known_programming(object) == Some(&said.status);
        if !is_current && !stands {
            continue;
        }
        if condition::is_true(said) {
            done += 1;
        } else {
            failures.push(NodeFailure {
                node: binding.spec.node.clone(),
                message: said.message.clone(),
            });
        }
    }
    for machine in draft.serving.keys() {
        let lvs_node = cluster.objects.lvs_nodes.get(machine);
        if let Some(message) = lvs_node.and_then(|lvs_node| node::complaint(lvs_node, name)) {
            failures.push(NodeFailure {
                node: machine.clone(),
                message: message.to_owned(),
            });
        }
    }
    failures.sort();
    failures.dedup_by(|one, other| one.node == other.node);
    failures.truncate(MOST_FAILURES);
    let generation = object.metadata.generation.unwrap_or(0);
    Programming {
        done,
        is_kept: draft.is_restored && draft.generation != generation,
        failures,
    }
}

/// Whether this generation is known to be programmed, or to have failed; `None` as long as it is waited for.
fn known_programming(object: &VirtualService) -> Option<&String> {
    let known = condition::find(
        &object.status.as_ref()?.conditions,
        ConditionType::Programmed,
    )?;
    let is_known = known.observed_generation == object.metadata.generation
        && !condition::has_reason(known, Reason::Pending);
    is_known.then_some(&known.status)
}

fn verdicts(
    draft: &Draft,
    programming: &Programming,
    (taking, total): (usize, usize),
) -> Vec<Verdict> {
    let verdict = |kind, reason, fault: &Option<Fault>| match fault {
        None => Verdict::new(kind, Status::True, reason, ""),
        Some(fault) => Verdict::new(kind, Status::False, fault.reason, &*fault.message),
    };
    let accepted = verdict(ConditionType::Accepted, Reason::Accepted, &draft.refusal);
    let resolved = verdict(
        ConditionType::ResolvedRefs,
        Reason::ResolvedRefs,
        &draft.unresolved,
    );
    let directors = draft.directors.len();
    let is_programmed = directors > 0 && programming.done == directors;
    let kind = ConditionType::Programmed;
    let programmed = match programming.failures.first() {
        _ if programming.is_kept => {
            let message = format!("the directors keep generation {}", draft.generation);
            let refusal = draft.refusal.as_ref();
            let reason = refusal.map_or(Reason::Pending, |fault| fault.reason);
            Verdict::new(kind, Status::False, reason, message)
        }
        _ if draft.refusal.is_some() => verdict(kind, Reason::Programmed, &draft.refusal),
        _ if is_programmed => Verdict::new(kind, Status::True, Reason::Programmed, ""),
        Some(failure) => {
            let message = format!("{}: {}", failure.node, failure.message);
            Verdict::new(kind, Status::False, Reason::ProgrammingFailed, message)
        }
        None => {
            let message = format!("{} of {directors} directors have it", programming.done);
            Verdict::new(kind, Status::False, Reason::Pending, message)
        }
    };
    let kind = ConditionType::BackendsHealthy;
    let healthy = if taking > 0 {
        Verdict::new(kind, Status::True, Reason::BackendsHealthy, "")
    } else {
        let message = format!("none of {total} real servers takes new connections");
        Verdict::new(kind, Status::False, Reason::NoRealServer, message)
    };
    let first = [&accepted, &resolved, &programmed]
        .into_iter()
        .find(|verdict| verdict.status != Status::True);
    let kind = ConditionType::Ready;
    let ready = match first {
        None => Verdict::new(kind, Status::True, Reason::Ready, ""),
        Some(found) => Verdict::new(kind, Status::False, found.reason, &*found.message),
    };
    let abnormal = match (&draft.refusal, first) {
        (Some(fault), _) => Some((ConditionType::Stalled, fault.reason, &*fault.message)),
        (None, Some(found)) => Some((ConditionType::Reconciling, found.reason, &*found.message)),
        (None, None) => None,
    };
    let abnormal =
        abnormal.map(|(kind, reason, message)| Verdict::new(kind, Status::True, reason, message));
    [accepted, resolved, programmed, healthy, ready]
        .into_iter()
        .chain(abnormal)
        .collect()
}

fn vip(spec: &VirtualServiceSpec) -> String {
    match spec.fwmark {
        Some(mark) => format!("fwmark:{mark}"),
        None => spec.addresses.join(","),
    }
}

fn ports(spec: &VirtualServiceSpec) -> String {
    let ports: Vec<String> = spec
        .ports
        .iter()
        .map(|port| format!("{}/{}", port.port, port.protocol.as_str()))
        .collect();
    ports.join(",")
}

/// Says whether a status is news, whatever the times of its conditions.
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

impl Cluster {
    /// The status of a group, when it differs from what it was last seen to be.
    pub(super) fn settle_group(&self, name: &str) -> Option<Write> {
        let group = self.objects.groups.get(name)?;
        let members = draft::members(&self.objects, group);
        let verdicts = match draft::group_fault(&members) {
            None => vec![
                Verdict::new(ConditionType::Accepted, Status::True, Reason::Accepted, ""),
                Verdict::new(ConditionType::Ready, Status::True, Reason::Ready, ""),
            ],
            Some(Fault { reason, message }) => {
                let waits = reason == Reason::NoDirector;
                let abnormal = match waits {
                    true => ConditionType::Reconciling,
                    false => ConditionType::Stalled,
                };
                vec![
                    Verdict::new(
                        ConditionType::Accepted,
                        Status::of(waits),
                        reason,
                        &*message,
                    ),
                    Verdict::new(ConditionType::Ready, Status::False, reason, &*message),
                    Verdict::new(abnormal, Status::True, reason, message),
                ]
            }
        };
        let directors: Vec<&str> = members.iter().map(String::as_str).collect();
        let status = DirectorGroupStatus {
            observed_generation: group.metadata.generation,
            directors: directors.join(","),
            conditions: Vec::new(),
        };
        let is_written = group.status.as_ref().is_some_and(|found| {
            found.observed_generation == status.observed_generation
                && found.directors == status.directors
                && condition::agree(&found.conditions, &verdicts, status.observed_generation)
        });
        (!is_written).then(|| Write::GroupStatus {
            name: name.to_owned(),
            status,
            verdicts,
        })
    }
}
