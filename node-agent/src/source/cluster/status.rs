//! What became of each object, told from what a pass has done and from nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lvs_crd::{
    DirectorBinding, Facts, LvsNode, PROGRAMMED, ServedService, ServedStatus,
    condition::{Status, Verdict},
    convert::Bound,
};
use lvs_model::{
    Director, NodeName, ObjectName, Outcome, RealServerRole, Rejection, ServiceKey, Severity, Step,
};

use super::{listed::Key, saved};
use crate::pass::{Applied, Prepared};

mod facts;

pub(super) use facts::facts;

/// The condition of a machine that does what is wanted of it.
const READY: &str = "Ready";
/// The longest message of a served virtual service, in bytes.
const LONGEST_MESSAGE: usize = 1024;

/// The objects of one machine that a pass was made for.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// Its name.
    pub node: NodeName,
    /// The bindings, also those that are not its own.
    pub bound: Vec<Bound>,
    /// Its LvsNode.
    pub lvs_node: Option<Arc<LvsNode>>,
    /// What was wrong with them before they were assigned.
    pub rejections: Vec<Rejection>,
}

impl Machine {
    /// A machine of which nothing is known.
    pub(super) const fn new(node: NodeName) -> Self {
        Self {
            node,
            bound: Vec::new(),
            lvs_node: None,
            rejections: Vec::new(),
        }
    }

    /// The place of a binding among those of the machine.
    pub(super) fn index(&self, object: &DirectorBinding) -> Option<usize> {
        let order = |bound: &Bound| saved::key(&bound.object).cmp(&saved::key(object));
        self.bound.binary_search_by(order).ok()
    }
}

/// The version of an object that something is said about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Which of all the objects that ever had that name.
    pub uid: Option<String>,
    /// The generation.
    pub generation: Option<i64>,
}

impl Subject {
    fn of(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone(),
            generation: metadata.generation,
        }
    }

    /// Where the object is found.
    pub(super) fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }
}

/// What is to be said of one machine's objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Statuses {
    /// Of its bindings: Programmed.
    pub bindings: Vec<(Subject, Verdict)>,
    /// Of its LvsNode.
    pub node: Option<NodeStatus>,
}

/// What is to be said of an LvsNode.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NodeStatus {
    /// The LvsNode.
    pub subject: Subject,
    /// What the machine is; `None`: as it was.
    pub facts: Option<Facts>,
    /// What it serves; `None`: as it was.
    pub serves: Option<Vec<ServedStatus>>,
    /// Ready.
    pub verdict: Verdict,
}

/// What became of each object in a pass.
pub(super) fn statuses(machine: &Machine, applied: &Applied, facts: Facts) -> Statuses {
    let results = Results::new(&machine.rejections, applied);
    let own = machine
        .bound
        .iter()
        .filter(|bound| bound.is_for(&machine.node));
    let bindings = own.map(|bound| results.of_bound(bound)).collect();
    let node = machine.lvs_node.as_ref().map(|object| NodeStatus {
        subject: Subject::of(&object.metadata),
        facts: Some(facts),
        serves: Some(
            object
                .spec
                .serves
                .iter()
                .map(|served| results.of_served(served))
                .collect(),
        ),
        verdict: results.of_machine(),
    });
    Statuses { bindings, node }
}

/// What became of some bindings in a pass over them alone, of which nothing was rejected.
pub(super) fn statuses_of<'a>(
    bound: impl Iterator<Item = &'a Bound>,
    applied: &Applied,
) -> Vec<(Subject, Verdict)> {
    let results = Results::new(&[], applied);
    bound.map(|bound| results.of_bound(bound)).collect()
}

/// What is to be said of the machine when no pass could be made; nobody knows of the bindings.
pub(super) fn failed(machine: &Machine, reason: &str) -> Option<NodeStatus> {
    machine.lvs_node.as_ref().map(|object| NodeStatus {
        subject: Subject::of(&object.metadata),
        facts: None,
        serves: None,
        verdict: Verdict::new(READY, Status::False, "KernelUnreadable", reason),
    })
}

/// Why something is not as it is wanted.
struct Fault {
    reason: &'static str,
    message: String,
}

impl Fault {
    fn failed(message: String) -> Self {
        Self {
            reason: "ProgrammingFailed",
            message,
        }
    }

    fn rejected(message: String) -> Self {
        Self {
            reason: "Rejected",
            message,
        }
    }
}

/// The results of a pass, by what they concern.
struct Results<'a> {
    prepared: &'a Prepared,
    rejections: BTreeMap<&'a str, Vec<&'a Rejection>>,
    /// The steps that were not taken or did not succeed, and what became of each.
    undone: Vec<(&'a Step, String)>,
    added: BTreeSet<ServiceKey>,
}

impl<'a> Results<'a> {
    fn new(rejected: &'a [Rejection], applied: &'a Applied) -> Self {
        let prepared = &applied.prepared;
        let mut rejections: BTreeMap<&str, Vec<&Rejection>> = BTreeMap::new();
        for rejection in rejected.iter().chain(&prepared.rejections) {
            rejections
                .entry(&rejection.object)
                .or_default()
                .push(rejection);
        }
        let failed = applied.outcomes.not_done().filter_map(|(index, outcome)| {
            let step = prepared.plan.steps.get(index)?;
            match outcome {
                Outcome::Done => None,
                Outcome::Failed(failure) => Some((step, format!("failed: {step}: {failure}"))),
                Outcome::Skipped { because } => {
                    Some((step, format!("skipped: {step}: it needs {because}")))
                }
            }
        });
        let held = prepared
            .held
            .iter()
            .map(|(step, reason)| (step, format!("not done: {step}: {reason}")));
        let added = prepared.plan.steps.iter().enumerate();
        let added = added.filter_map(|(index, step)| {
            let is_done = *applied.outcomes.of(index) == Outcome::Done;
            if let Step::AddService { key, .. } = step
                && is_done
            {
                Some(*key)
            } else {
                None
            }
        });
        Self {
            prepared,
            rejections,
            undone: failed.chain(held).collect(),
            added: added.collect(),
        }
    }

    fn of_bound(&self, bound: &Bound) -> (Subject, Verdict) {
        let subject = Subject::of(&bound.object.metadata);
        (subject, self.of_binding(bound))
    }

    fn of_binding(&self, bound: &Bound) -> Verdict {
        let Some(name) = bound.name() else {
            let rejections = bound.service.as_ref().err();
            let text = rejections.map_or_else(String::new, |all| joined(all.iter()));
            return verdict(PROGRAMMED, vec![Fault::rejected(text)], Vec::new());
        };
        let metadata = &bound.object.metadata;
        let binding = format!(
            "DirectorBinding {}/{}",
            name.namespace(),
            metadata.name.as_deref().unwrap_or_default()
        );
        let mut faults: Vec<Fault> = self.rejected(&binding).into_iter().collect();
        if faults.is_empty() {
            faults = self.faults_of_directing(&name);
        }
        verdict(PROGRAMMED, faults, self.warnings(&name))
    }

    /// What keeps a virtual service from being directed.
    fn faults_of_directing(&self, name: &ObjectName) -> Vec<Fault> {
        let mut faults: Vec<Fault> = self
            .rejected(&format!("VirtualService {name}"))
            .into_iter()
            .collect();
        let Some(director) = self.prepared.spec.directs.get(name) else {
            if faults.is_empty() {
                let reason = self.machine_errors().join("; ");
                faults.push(Fault::failed(if reason.is_empty() {
                    "this machine does not direct it".to_owned()
                } else {
                    reason
                }));
            }
            return faults;
        };
        faults.extend(self.conflicts(director));
        let undone = self.undone.iter().filter(|(step, _)| director.needs(step));
        faults.extend(undone.map(|(_, text)| Fault::failed(text.clone())));
        faults.extend(self.errors(name));
        faults
    }

    fn of_served(&self, served: &ServedService) -> ServedStatus {
        let ServedService {
            namespace, name, ..
        } = served;
        let object = ObjectName::new(namespace, name);
        let (faults, warnings) = match &object {
            Ok(object) => (self.faults_of_serving(object), self.warnings(object)),
            Err(error) => {
                let text = format!("its name {error}");
                (vec![Fault::rejected(text)], Vec::new())
            }
        };
        let ready = faults.is_empty();
        let texts = faults.into_iter().map(|fault| fault.message);
        let mut message = texts.chain(warnings).collect::<Vec<_>>().join("; ");
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
        ServedStatus {
            namespace: namespace.clone(),
            name: name.clone(),
            ready,
            message,
        }
    }

    fn faults_of_serving(&self, name: &ObjectName) -> Vec<Fault> {
        if self.prepared.spec.directs.contains_key(name) {
            return self.faults_of_directing(name);
        }
        let mut faults: Vec<Fault> = self
            .rejected(&format!("VirtualService {name}"))
            .into_iter()
            .collect();
        let Some(role) = self.prepared.spec.serves.get(name) else {
            if faults.is_empty() {
                let text = "this machine has none of the addresses of its endpoints";
                faults.push(Fault::failed(text.to_owned()));
            }
            return faults;
        };
        let links = &self.prepared.desired.links;
        let undone = self
            .undone
            .iter()
            .filter(|(step, _)| role.needs(step, links));
        faults.extend(undone.map(|(_, text)| Fault::failed(text.clone())));
        faults.extend(self.foreign_links(role));
        faults.extend(self.errors(name));
        faults
    }

    /// Whether the machine does what is wanted: no word of single virtual services, whose own objects tell.
    fn of_machine(&self) -> Verdict {
        let Prepared { spec, desired, .. } = self.prepared;
        let concerns_a_service = |step: &Step| {
            spec.directs.values().any(|director| director.needs(step))
                || spec
                    .serves
                    .values()
                    .any(|role| role.needs(step, &desired.links))
        };
        let rejected = self.rejections.iter().filter(|(object, _)| {
            object.starts_with("LvsNode ") || object.starts_with("DirectorGroup ")
        });
        let rejected =
            rejected.map(|(_, rejections)| Fault::rejected(joined(rejections.iter().copied())));
        let failed = self.machine_errors().into_iter().map(Fault::failed);
        let undone = self.undone.iter();
        let undone = undone.filter(|(step, _)| !concerns_a_service(step));
        let undone = undone.map(|(_, text)| Fault::failed(text.clone()));
        let warnings = self.messages(None, Severity::Warning);
        verdict(
            READY,
            rejected.chain(failed).chain(undone).collect(),
            warnings.collect(),
        )
    }

    fn rejected(&self, object: &str) -> Option<Fault> {
        let rejections = self.rejections.get(object)?;
        Some(Fault::rejected(joined(rejections.iter().copied())))
    }

    /// The director's IPVS services that somebody else has. A pass that looked at some only does not see them: what is
    /// wanted, and neither owned before nor added, is another's, or its step is among the undone.
    fn conflicts(&self, director: &Director) -> Vec<Fault> {
        let Prepared {
            desired, ledger, ..
        } = self.prepared;
        let tried = |key: &ServiceKey| {
            self.undone
                .iter()
                .any(|(step, _)| matches!(step, Step::AddService { key: own, .. } if own == key))
        };
        director
            .service_keys()
            .filter(|key| desired.services.contains_key(key))
            .filter(|key| !ledger.services.contains(key) && !self.added.contains(key))
            .filter(|key| !tried(key))
            .map(|key| Fault {
                reason: "Conflict",
                message: format!(
                    "IPVS service {key} exists and was not made by lvs-agent; it is left alone"
                ),
            })
            .collect()
    }

    /// The tunnel devices with names of ours that somebody else has made.
    fn foreign_links(&self, role: &RealServerRole) -> Vec<Fault> {
        let Prepared {
            desired,
            observed,
            ledger,
            ..
        } = self.prepared;
        let foreign = observed.links.iter().filter(|(name, link)| {
            link.owner == lvs_model::Owner::Foreign
                && !ledger.links.contains(name)
                && role.needs_link(name, &desired.links)
        });
        foreign
            .map(|(name, _)| Fault {
                reason: "Conflict",
                message: format!(
                    "{name} exists and was not made by lvs-agent; remove it with `ip link del {name}`"
                ),
            })
            .collect()
    }

    fn errors(&self, name: &'a ObjectName) -> impl Iterator<Item = Fault> {
        let messages = self.messages(Some(name), Severity::Error);
        messages.map(|message| Fault {
            reason: "Incomplete",
            message,
        })
    }

    fn warnings(&self, name: &ObjectName) -> Vec<String> {
        self.messages(Some(name), Severity::Warning).collect()
    }

    fn machine_errors(&self) -> Vec<String> {
        self.messages(None, Severity::Error).collect()
    }

    fn messages(
        &self,
        name: Option<&ObjectName>,
        severity: Severity,
    ) -> impl Iterator<Item = String> {
        let problems = self.prepared.problems.iter();
        problems
            .filter(move |problem| problem.severity == severity && problem.service.as_ref() == name)
            .map(|problem| problem.message.clone())
    }
}

/// A condition that holds when there is no fault; the first fault gives the reason.
fn verdict(kind: &'static str, faults: Vec<Fault>, warnings: Vec<String>) -> Verdict {
    let reason = faults.first().map_or(kind, |fault| fault.reason);
    let status = Status::of(faults.is_empty());
    let texts = faults.into_iter().map(|fault| fault.message);
    let message = texts.chain(warnings).collect::<Vec<_>>().join("; ");
    Verdict::new(kind, status, reason, message)
}

fn joined<'r>(rejections: impl Iterator<Item = &'r Rejection>) -> String {
    let texts = rejections.map(ToString::to_string);
    texts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
