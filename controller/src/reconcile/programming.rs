//! What the agents of a virtual service's machines report.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use lvs_crd::{
    DirectorBinding, DirectorBindingSpec, NodeFailure, VipInUse, VirtualService,
    condition::{self, ConditionType, Reason},
};
use lvs_model::{NodeName, ObjectName};

use crate::cluster::{Bindings, Cluster, DesiredBinding, Fault, Reconciled, macs, report};

/// The most machines that are named as those that could not do their part.
const MAX_FAILURES: usize = 10;

/// What the agents report of this generation of a virtual service.
pub(super) struct Programming {
    /// How many directors have it in their kernel.
    pub done: usize,
    /// The machines that could not do their part.
    pub failures: Vec<NodeFailure>,
    /// Why it is not known what a director has.
    pub unknown: Option<Fault>,
    /// Of how many directors it is not known.
    pub silent: usize,
    /// Why the binding of a director, or what must be there before it, cannot be written.
    pub refused: Option<Fault>,
    /// A warning of a director that has it.
    pub warning: Option<String>,
    /// How the tables of two directors differ.
    pub difference: Option<String>,
}

impl Cluster {
    /// What the agents report of this generation of a virtual service.
    ///
    /// - A director counts when its report is about the binding that it should have. A report with the reason `Pending`
    ///   is none: the agent still waits for something.
    /// - The report of an agent that is silent does not count: what its kernel has is unknown.
    /// - Real servers come and go without a new generation. Until the director reports on such a change, its report on this
    ///   generation counts. Otherwise every virtual service would be unready with every pod that starts.
    pub(super) fn programming(
        &self,
        name: &ObjectName,
        object: &VirtualService,
        reconciled: &Reconciled,
        desired: &Bindings,
    ) -> Programming {
        let (mut done, mut failures) = (0, Vec::new());
        let (mut unknown, mut refused, mut silent) = (None, None, 0);
        let (mut warning, mut tables) = (None, Vec::new());
        for (name, bound) in desired {
            let DesiredBinding { first: desired, .. } = bound;
            let binding = self.objects.bindings.get(name);
            if binding.is_none_or(|binding| binding.spec != *desired) {
                refused = refused.or_else(|| self.refusal_of_binding(name, bound));
            }
            if binding.is_none() {
                refused = refused.or_else(|| self.refusal_of_group(&desired.director_group));
            }
            if let Some(fault) = self.unknown(&desired.node, binding.map(AsRef::as_ref)) {
                failures.push(NodeFailure {
                    node: desired.node.clone(),
                    message: fault.message.clone(),
                });
                let message = format!("{}: {}", desired.node, fault.message);
                unknown.get_or_insert(Fault::new(fault.reason, message));
                silent += 1;
                continue;
            }
            let Some(binding) = binding else {
                continue;
            };
            let Some(report) = report_on(binding) else {
                continue;
            };
            let stands = binding.spec.generation == desired.generation
                && known_status(object) == Some(&report.status);
            if !is_current(binding, desired, report) && !stands {
                continue;
            }
            if condition::is_true(report) {
                done += 1;
                warning = warning.or_else(|| warning_of(binding, report));
                tables.extend(table(binding).filter(|_| is_current(binding, desired, report)));
            } else {
                failures.push(NodeFailure {
                    node: binding.spec.node.clone(),
                    message: report.message.clone(),
                });
            }
        }
        let refused = refused.or_else(|| self.refusal_of_served(name, reconciled));
        failures.extend(self.failures_of_real_servers(name, reconciled));
        failures.sort();
        failures.dedup_by(|one, other| one.node == other.node);
        failures.truncate(MAX_FAILURES);
        Programming {
            done,
            failures,
            unknown,
            silent,
            refused,
            warning,
            difference: difference(&tables),
        }
    }

    /// Why the API server refuses to store a binding, or one of its slices.
    pub(super) fn refusal_of_binding(
        &self,
        name: &ObjectName,
        binding: &DesiredBinding,
    ) -> Option<Fault> {
        binding.objects(name).find_map(|(name, _)| {
            let cause = self.refusals.bindings.get(name)?;
            let message = format!("DirectorBinding {name} cannot be written: {cause}");
            Some(Fault::new(Reason::WriteRefused, message))
        })
    }

    fn failures_of_real_servers(
        &self,
        name: &ObjectName,
        reconciled: &Reconciled,
    ) -> impl Iterator<Item = NodeFailure> {
        let machines = reconciled.machines.keys();
        let heard = machines.filter(|machine| !self.agents.is_silent(machine));
        heard.filter_map(|machine| {
            let report = report(self.served_binding(name, machine)?)?;
            let report = Some(report).filter(|report| !condition::is_true(report))?;
            Some(NodeFailure {
                node: machine.to_string(),
                message: report.message.clone(),
            })
        })
    }

    /// Returns whether a director may still send packets to machines that are no longer real servers of a virtual service:
    /// it has not yet reported that it has the binding that it should have.
    pub(super) fn may_be_directed(&self, service: &ObjectName, desired: &Bindings) -> bool {
        self.bindings_of(service).any(|(name, _)| {
            let desired = desired.get(&name);
            !desired.is_some_and(|desired| self.is_done(&name, &desired.first))
        })
    }

    /// Returns whether a director has reported that it has the binding that it should have.
    pub(super) fn is_done(&self, name: &ObjectName, desired: &DirectorBindingSpec) -> bool {
        let report = self.current_report(name, desired);
        report.is_some_and(condition::is_true)
    }

    /// Returns whether a director lacks nothing but VIPs that one of these machines answers for.
    pub(super) fn waits_for_vips_of(
        &self,
        machines: &[&NodeName],
        name: &ObjectName,
        desired: &DirectorBindingSpec,
    ) -> bool {
        let report = self.current_report(name, desired);
        let waits = report.is_some_and(|report| condition::has_reason(report, Reason::VipInUse));
        let status = self.objects.bindings.get(name);
        let status = status.and_then(|binding| binding.status.as_ref());
        let in_use = status.map_or(&[][..], |status| &status.vips_in_use);
        let is_theirs = |vip: &VipInUse| {
            let mut machines = machines.iter();
            machines.any(|machine| {
                let lvs_node = self.objects.lvs_nodes.get(*machine).map(AsRef::as_ref);
                macs(lvs_node).contains(vip.mac_address.as_str())
            })
        };
        waits && !in_use.is_empty() && in_use.iter().all(is_theirs)
    }

    /// Returns whether a director has its binding in the kernel, as far as its agent knows and is alive.
    pub(super) fn is_held(&self, name: &ObjectName) -> bool {
        self.objects.bindings.get(name).is_some_and(|binding| {
            self.unknown(&binding.spec.node, Some(binding)).is_none()
                && report_on(binding).is_some_and(condition::is_true)
        })
    }

    /// The report of a director on the binding that it should have.
    fn current_report(
        &self,
        name: &ObjectName,
        desired: &DirectorBindingSpec,
    ) -> Option<&Condition> {
        let binding = self.objects.bindings.get(name)?;
        report_on(binding).filter(|report| is_current(binding, desired, report))
    }
}

/// The warning in a report of a director that has its binding.
fn warning_of(binding: &DirectorBinding, report: &Condition) -> Option<String> {
    let message = &report.message;
    (!message.is_empty()).then(|| format!("{}: {message}", binding.spec.node))
}

/// A director, and the digest of what its kernel has for a binding.
fn table(binding: &DirectorBinding) -> Option<(&str, &str)> {
    let digest = binding.status.as_ref()?.table_digest.as_deref()?;
    Some((&binding.spec.node, digest))
}

/// Says how the tables of two directors differ; `None` if all are equal.
fn difference(tables: &[(&str, &str)]) -> Option<String> {
    let ((first, known), others) = tables.split_first()?;
    let (other, found) = others.iter().find(|(_, digest)| digest != known)?;
    Some(format!(
        "the IPVS tables of {first} and {other} differ for it (digests {known} and {found}): connections can be lost when another director \
         takes over. Compare the output of `lvs-agent show` on both, and the versions of their agents"
    ))
}

/// The report of a director's agent on its binding. `None` as well while the agent still waits for something.
fn report_on(binding: &DirectorBinding) -> Option<&Condition> {
    let status = binding.status.as_ref()?;
    let report = condition::find(&status.conditions, ConditionType::Programmed)?;
    (!condition::has_reason(report, Reason::Pending)).then_some(report)
}

/// Returns whether a report is about the binding as it is, and the binding is as it should be.
fn is_current(
    binding: &DirectorBinding,
    desired: &DirectorBindingSpec,
    report: &Condition,
) -> bool {
    binding.spec == *desired && report.observed_generation == binding.metadata.generation
}

/// The status of Programmed for this generation; `None` until a director has reported on it.
fn known_status(object: &VirtualService) -> Option<&String> {
    let conditions = &object.status.as_ref()?.conditions;
    let known = condition::find(conditions, ConditionType::Programmed)?;
    let is_known = known.observed_generation == object.metadata.generation
        && !condition::has_reason(known, Reason::Pending);
    is_known.then_some(&known.status)
}
