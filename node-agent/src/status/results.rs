//! The results of a pass for each object, computed from the pass alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lvs_crd::{
    DirectorBinding, Facts, RealServerBinding, VipInUse,
    condition::{ConditionType, LONGEST_MESSAGE, Reason, Status, Verdict},
    convert::Bound,
};
use lvs_model::{
    Director, GroupName, ObjectName, ObjectRef, Rejection, Severity, Step, Subject, Sysctl, Target,
    abridged, digest,
};

use super::version::ObjectVersion;
use crate::{
    holder::VipState,
    pass::{Applied, Prepared},
    report,
    source::api::NodeObjects,
};

/// The most objects that a condition names as those that cannot be decoded.
const MOST_UNREADABLE: usize = 5;

/// The results of a pass for the objects of one machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PassResults {
    /// The results of its DirectorBindings.
    pub bindings: Vec<BindingResult>,
    /// The results of its RealServerBindings.
    pub served: Vec<ServedResult>,
    /// The status of its LvsNode.
    pub node: Option<NodeStatus>,
}

/// The result of a binding, without the state of its VIPs, which the holder reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BindingResult {
    /// The binding.
    pub version: ObjectVersion,
    /// The VIPs of its virtual service.
    vips: Vec<IpAddr>,
    faults: Vec<Fault>,
    warnings: Vec<String>,
    /// The digest of its IPVS services, if they are in the kernel and another director must have the same.
    table_digest: Option<String>,
}

/// What is reported of a binding.
#[derive(Debug)]
pub(super) struct BindingReport {
    /// Programmed.
    pub verdict: Verdict,
    /// The VIPs that another machine answers for.
    pub vips_in_use: Vec<VipInUse>,
    /// The digest of its IPVS services.
    pub table_digest: Option<String>,
}

/// The result of a RealServerBinding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServedResult {
    /// The binding.
    pub version: ObjectVersion,
    /// Ready.
    pub verdict: Verdict,
}

/// The status of an LvsNode.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NodeStatus {
    /// The LvsNode.
    pub version: ObjectVersion,
    /// The facts of the machine; `None` if they are unchanged.
    pub facts: Option<Facts>,
    /// Why the connection-sync daemons do not run as the groups need them, for each group; `None` if nothing is known of them.
    pub sync_problems: Option<BTreeMap<GroupName, String>>,
    /// Ready.
    pub verdict: Verdict,
}

/// Why something differs from its desired state.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    reason: Reason,
    message: String,
}

impl Fault {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { reason, message }
    }

    fn failed(message: impl Into<String>) -> Self {
        Self::new(Reason::ProgrammingFailed, message)
    }

    fn rejected<'r>(rejections: impl IntoIterator<Item = &'r Rejection>) -> Self {
        let texts = rejections.into_iter().map(ToString::to_string);
        Self::new(Reason::Rejected, message(&texts.collect::<Vec<_>>()))
    }
}

impl BindingResult {
    /// Creates the result of a binding of which nothing but a fault is known.
    fn with_fault(version: ObjectVersion, fault: Fault) -> Self {
        Self {
            version,
            vips: Vec::new(),
            faults: vec![fault],
            warnings: Vec::new(),
            table_digest: None,
        }
    }

    /// Creates the result of a binding without a fault.
    #[cfg(test)]
    pub(super) const fn without_faults(version: ObjectVersion) -> Self {
        Self {
            version,
            vips: Vec::new(),
            faults: Vec::new(),
            warnings: Vec::new(),
            table_digest: None,
        }
    }

    /// Returns what is reported of the binding. `held` are the states of all VIPs, and `problems` is what is wrong with some that are
    /// held.
    pub(super) fn report(
        &self,
        held: &BTreeMap<IpAddr, &VipState>,
        problems: &BTreeMap<IpAddr, String>,
    ) -> BindingReport {
        BindingReport {
            verdict: self.verdict(held, problems),
            vips_in_use: self.vips_in_use(held),
            table_digest: self.table_digest.clone(),
        }
    }

    /// Returns the VIPs of the binding that another machine answers for.
    pub(super) fn vips_in_use(&self, held: &BTreeMap<IpAddr, &VipState>) -> Vec<VipInUse> {
        let vips = self.vips.iter().filter_map(|vip| match held.get(vip)? {
            VipState::InUse { mac, .. } => Some(VipInUse {
                address: vip.to_string(),
                mac_address: mac.to_string(),
            }),
            VipState::Pending | VipState::Held | VipState::Standby | VipState::Failed(_) => None,
        });
        vips.collect()
    }

    /// Returns the condition of the binding, including the holder's reports about its VIPs.
    fn verdict(
        &self,
        held: &BTreeMap<IpAddr, &VipState>,
        problems: &BTreeMap<IpAddr, String>,
    ) -> Verdict {
        let vips = self.vips.iter().filter_map(|vip| match *held.get(vip)? {
            VipState::Held | VipState::Standby => None,
            VipState::Pending => {
                let message = format!("VIP {vip} is not held yet");
                Some(Fault::new(Reason::Pending, message))
            }
            VipState::Failed(reason) => Some(Fault::failed(reason)),
            VipState::InUse { reason, .. } => Some(Fault::new(Reason::VipInUse, reason)),
        });
        let mut faults: Vec<Fault> = self.faults.iter().cloned().chain(vips).collect();
        // The first fault gives the reason, and `VipInUse` says that there is no other.
        faults.sort_by_key(|fault| fault.reason == Reason::VipInUse);
        let of_vips = self.vips.iter().filter_map(|vip| problems.get(vip));
        let warnings = of_vips.chain(&self.warnings).cloned();
        verdict(
            ConditionType::Programmed,
            Reason::Programmed,
            faults,
            &warnings.collect::<Vec<_>>(),
        )
    }
}

/// Returns the results of a pass over all objects.
pub(super) fn of_all(objects: &NodeObjects, applied: &Applied, facts: Facts) -> PassResults {
    let results = Results::new(&objects.rejections, applied);
    let bound = objects.bound.iter();
    let own = bound.filter(|bound| bound.is_for(&objects.node));
    let bindings = own.map(|bound| results.of_binding(bound)).collect();
    let served = objects.served.iter();
    let own = served.filter(|bound| bound.is_for(&objects.node));
    let served = own.map(|bound| results.of_served(bound)).collect();
    let node = objects.lvs_node.as_ref().map(|object| NodeStatus {
        version: ObjectVersion::of(&object.metadata),
        facts: Some(facts),
        sync_problems: Some(results.sync_problems()),
        verdict: results.of_machine(&objects.unreadable),
    });
    PassResults {
        bindings,
        served,
        node,
    }
}

/// Returns the results of a pass over the updated bindings alone, of which none was rejected.
pub(super) fn of_updated(objects: &NodeObjects, applied: &Applied) -> Vec<BindingResult> {
    let results = Results::new(&[], applied);
    let updated = objects.updated();
    updated.map(|bound| results.of_binding(bound)).collect()
}

/// Returns the status of the machine if no pass was possible; nothing is known about its bindings then.
pub(super) fn of_failed(objects: &NodeObjects, reason: &str) -> Option<NodeStatus> {
    objects.lvs_node.as_ref().map(|object| NodeStatus {
        version: ObjectVersion::of(&object.metadata),
        facts: None,
        sync_problems: None,
        verdict: Verdict::new(
            ConditionType::Ready,
            Status::False,
            Reason::KernelUnreadable,
            reason,
        ),
    })
}

/// Faults and warnings of one virtual service, or of the machine.
#[derive(Clone, Debug, Default)]
struct Findings {
    faults: Vec<Fault>,
    warnings: Vec<String>,
}

impl Findings {
    fn add(&mut self, severity: Severity, fault: &Fault) {
        match severity {
            Severity::Error => self.faults.push(fault.clone()),
            Severity::Warning => self.warnings.push(fault.message.clone()),
            Severity::Note => {}
        }
    }
}

/// The results of a pass, by the object that they concern.
struct Results<'a> {
    prepared: &'a Prepared,
    rejections: BTreeMap<&'a ObjectRef, Vec<&'a Rejection>>,
    services: BTreeMap<&'a ObjectName, Findings>,
    /// Those of virtual services that the machine directs, as far as it is a real server of them too.
    serving: BTreeMap<&'a ObjectName, Findings>,
    machine: Findings,
    /// Why connection-sync daemons do not run as they must, and the virtual services that need them.
    unsynced: Vec<(&'a [ObjectName], String)>,
}

impl<'a> Results<'a> {
    fn new(rejected: &'a [Rejection], applied: &'a Applied) -> Self {
        let prepared = &applied.prepared;
        let mut results = Self {
            prepared,
            rejections: BTreeMap::new(),
            services: BTreeMap::new(),
            serving: BTreeMap::new(),
            machine: Findings::default(),
            unsynced: Vec::new(),
        };
        for rejection in rejected.iter().chain(&prepared.rejections) {
            if let Some(object) = &rejection.object {
                let all = results.rejections.entry(object).or_default();
                all.push(rejection);
            }
        }
        results.add_problems();
        for (step, text) in report::undone(applied) {
            results.add_undone(step, &text);
        }
        results
    }

    /// Adds the problems. A problem with a target is a conflict: another program has made it, or changes it.
    fn add_problems(&mut self) {
        for problem in &self.prepared.problems {
            let severity = problem.severity;
            let fault = |reason| Fault::new(reason, &problem.message);
            match &problem.subject {
                Subject::Machine => self
                    .machine
                    .add(severity, &fault(Reason::ProgrammingFailed)),
                Subject::Service(name) => {
                    let findings = self.services.entry(name).or_default();
                    findings.add(severity, &fault(Reason::Incomplete));
                }
                Subject::Serving(name) => {
                    let findings = self.serving.entry(name).or_default();
                    findings.add(severity, &fault(Reason::Incomplete));
                }
                Subject::Target(target) => {
                    self.add_to_owners(target, severity, &fault(Reason::Conflict));
                }
            }
        }
    }

    fn add_undone(&mut self, step: &Step, text: &str) {
        self.add_to_owners(&step.target(), Severity::Error, &Fault::failed(text));
    }

    /// Adds a fault or a warning of a target to the virtual services that need it; without any, to the machine.
    fn add_to_owners(&mut self, target: &Target, severity: Severity, fault: &Fault) {
        let prepared = self.prepared;
        let owners = prepared.owners.of(target);
        if matches!(target, Target::SyncDaemon(_)) {
            self.unsynced.push((owners, fault.message.clone()));
        }
        if owners.is_empty() {
            self.machine.add(self.severity(target, severity), fault);
        }
        let lowered = self.severity(target, severity);
        for name in owners {
            let is_shared = prepared.spec.is_serving_director_of(name);
            let (serves, directs) = target.roles();
            if !is_shared || directs {
                self.services.entry(name).or_default().add(lowered, fault);
            }
            if is_shared && serves {
                // Without its rules, the machine would send back what another director has sent.
                let is_needed = *target == Target::Strays;
                let severity = if is_needed { severity } else { lowered };
                self.serving.entry(name).or_default().add(severity, fault);
            }
        }
    }

    /// What keeps connections of another real server is no error where it fails: a real server that is not ready would get no new ones.
    fn severity(&self, target: &Target, severity: Severity) -> Severity {
        let is_of_real_servers = self.prepared.spec.directs.is_empty()
            && *target == Target::Sysctl(Sysctl::VsExpireNodestConn);
        if target.is_for_second_chances() || is_of_real_servers {
            severity.min(Severity::Warning)
        } else {
            severity
        }
    }

    fn of_binding(&self, bound: &Bound<DirectorBinding>) -> BindingResult {
        let version = ObjectVersion::of(&bound.object.metadata);
        if !bound.waits.is_empty() {
            let message = format!("`spec.slices` {}; the last complete set stays", bound.waits);
            return BindingResult::with_fault(version, Fault::new(Reason::Pending, message));
        }
        let Some(name) = bound.name() else {
            let rejections = bound.service.as_ref().err();
            let fault = Fault::rejected(rejections.into_iter().flatten());
            return BindingResult::with_fault(version, fault);
        };
        let rejected = bound.object_ref().and_then(|object| self.rejected(&object));
        let faults = match rejected {
            Some(fault) => vec![fault],
            None => self.faults_of_directing(&name),
        };
        let director = self.prepared.spec.directs.get(&name);
        let one_of_several = director.filter(|director| director.candidacy.is_some());
        BindingResult {
            version,
            vips: director.map_or_else(Vec::new, |director| {
                director.service.frontend.vips().to_vec()
            }),
            table_digest: one_of_several
                .filter(|_| faults.is_empty())
                .map(|director| self.table_digest(director)),
            faults,
            warnings: self.findings(&name).warnings,
        }
    }

    /// The digest of the IPVS services of a virtual service. Without a fault they are in the kernel as desired.
    fn table_digest(&self, director: &Director) -> String {
        let services = &self.prepared.desired.services;
        let keys = director.service.frontend.keys();
        let own = keys.filter_map(|key| Some((key, services.get(&key)?.as_ref())));
        digest(own)
    }

    /// Returns what prevents a virtual service from being directed.
    fn faults_of_directing(&self, name: &ObjectName) -> Vec<Fault> {
        let object = ObjectRef::VirtualService(name.clone());
        let mut faults: Vec<Fault> = self.rejected(&object).into_iter().collect();
        if self.prepared.spec.directs.contains_key(name) {
            faults.extend(self.findings(name).faults);
        } else if faults.is_empty() {
            let texts = self
                .machine
                .faults
                .iter()
                .map(|fault| fault.message.as_str());
            let text = message(&texts.collect::<Vec<_>>());
            faults.push(Fault::failed(if text.is_empty() {
                "this machine does not direct it".to_owned()
            } else {
                text
            }));
        }
        faults
    }

    fn of_served(&self, bound: &Bound<RealServerBinding>) -> ServedResult {
        let rejected = bound.object_ref().and_then(|object| self.rejected(&object));
        let (faults, warnings) = match (bound.name(), rejected) {
            (_, Some(fault)) => (vec![fault], Vec::new()),
            (Some(name), None) if self.prepared.spec.is_serving_director_of(&name) => {
                let findings = self.serving.get(&name).cloned().unwrap_or_default();
                (findings.faults, findings.warnings)
            }
            (Some(name), None) => (self.faults_of_serving(&name), self.findings(&name).warnings),
            (None, None) => {
                let rejections = bound.service.as_ref().err();
                let fault = Fault::rejected(rejections.into_iter().flatten());
                (vec![fault], Vec::new())
            }
        };
        ServedResult {
            version: ObjectVersion::of(&bound.object.metadata),
            verdict: verdict(ConditionType::Ready, Reason::Ready, faults, &warnings),
        }
    }

    /// Returns what prevents a virtual service from being served.
    fn faults_of_serving(&self, name: &ObjectName) -> Vec<Fault> {
        if self.prepared.spec.directs.contains_key(name) {
            return self.faults_of_directing(name);
        }
        let object = ObjectRef::VirtualService(name.clone());
        let mut faults: Vec<Fault> = self.rejected(&object).into_iter().collect();
        if self.prepared.spec.serves.contains_key(name) {
            faults.extend(self.findings(name).faults);
        } else if faults.is_empty() {
            let text = "this machine has none of the addresses of its endpoints";
            faults.push(Fault::failed(text));
        }
        faults
    }

    /// Returns the condition of the machine as a whole; each virtual service has its own status. `unreadable` are the
    /// objects that could not be decoded.
    fn of_machine(&self, unreadable: &[Rejection]) -> Verdict {
        let rejected = self.rejections.iter().filter(|(object, _)| match object {
            ObjectRef::LvsNode(_) | ObjectRef::DirectorGroup(_) | ObjectRef::AddressPool(_) => true,
            ObjectRef::VirtualService(_)
            | ObjectRef::DirectorBinding(_)
            | ObjectRef::RealServerBinding(_) => false,
        });
        let rejected = rejected.map(|(_, rejections)| Fault::rejected(rejections.iter().copied()));
        let faults = rejected
            .chain(unreadable_fault(unreadable))
            .chain(self.machine.faults.iter().cloned());
        verdict(
            ConditionType::Ready,
            Reason::Ready,
            faults.collect(),
            &self.machine.warnings,
        )
    }

    /// Returns why the connection-sync daemons do not run as the groups of the virtual services need them.
    fn sync_problems(&self) -> BTreeMap<GroupName, String> {
        let mut of_groups: BTreeMap<GroupName, BTreeSet<&str>> = BTreeMap::new();
        for (services, text) in &self.unsynced {
            let services = services.iter();
            let directors = services.filter_map(|name| self.prepared.spec.directs.get(name));
            for director in directors {
                let group = director.service.group.clone();
                of_groups.entry(group).or_default().insert(text);
            }
        }
        let texts = of_groups.into_iter();
        texts
            .map(|(group, texts)| (group, message(&Vec::from_iter(texts))))
            .collect()
    }

    fn rejected(&self, object: &ObjectRef) -> Option<Fault> {
        let rejections = self.rejections.get(object)?;
        Some(Fault::rejected(rejections.iter().copied()))
    }

    fn findings(&self, name: &ObjectName) -> Findings {
        self.services.get(name).cloned().unwrap_or_default()
    }
}

/// Returns a fault that counts the objects that could not be decoded, and names the first of them.
fn unreadable_fault(unreadable: &[Rejection]) -> Option<Fault> {
    let named = unreadable.iter().take(MOST_UNREADABLE);
    let named = named.map(ToString::to_string).collect::<Vec<_>>();
    let count = unreadable.len();
    let message = format!(
        "{count} objects of this machine are rejected: {}",
        named.join("; ")
    );
    (count > 0).then(|| Fault::new(Reason::Rejected, message))
}

/// Returns a condition that is true with the reason `fulfilled` if there is no fault. Otherwise the first fault gives the
/// reason.
fn verdict(
    kind: ConditionType,
    fulfilled: Reason,
    faults: Vec<Fault>,
    warnings: &[String],
) -> Verdict {
    let reason = faults.first().map_or(fulfilled, |fault| fault.reason);
    let status = Status::of(faults.is_empty());
    let texts = faults.into_iter().map(|fault| fault.message);
    let texts = texts.chain(warnings.iter().cloned());
    let message = message(&texts.collect::<Vec<_>>());
    Verdict::new(kind, status, reason, message)
}

fn message<T: AsRef<str>>(texts: &[T]) -> String {
    abridged(texts, "; ", LONGEST_MESSAGE)
}

#[cfg(test)]
mod tests;
