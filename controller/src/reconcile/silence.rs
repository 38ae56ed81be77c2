//! What a silent agent reported last becomes unknown.
//!
//! The status of a binding or an LvsNode has two writers that never write at the same time: its agent publishes only while its
//! Lease is fresh, and the controller writes only once it has seen no renewal for the duration of the Lease. When the agent
//! returns, it compares, finds the controller's condition, and writes its own.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use lvs_crd::{
    DirectorBinding,
    condition::{self, ConditionType, Reason, Status, Verdict},
};
use lvs_model::{NodeName, ObjectName};

use crate::{
    cluster::{Cluster, Fault, silence},
    write::{Reported, Revision, Write},
};

impl Cluster {
    /// The condition of an LvsNode whose agent is silent, if it does not have it.
    pub(super) fn write_silent_node(&self, name: &NodeName) -> Option<Write> {
        let node = self.objects.lvs_nodes.get(name)?;
        let fault = self.silence(name, Reason::AgentUnreachable)?;
        let status = node.status.as_ref();
        let conditions = status.map_or(&[][..], |status| status.conditions.as_slice());
        write(
            Reported::Node(name.clone()),
            node.as_ref(),
            ConditionType::Ready,
            fault,
            conditions,
        )
    }

    /// The conditions of the bindings of a virtual service whose agents are silent, where they do not have them.
    pub(super) fn write_silent_bindings(&self, service: &ObjectName) -> Vec<Write> {
        let directors = self.silent_directors(service).into_iter();
        directors.chain(self.silent_real_servers(service)).collect()
    }

    fn silent_real_servers(&self, service: &ObjectName) -> Vec<Write> {
        let bindings = self.index.served_bindings_of(service).into_iter();
        let writes = bindings.filter_map(|name| {
            let binding = self.objects.served.get(&name)?;
            let node = binding.spec.node.parse().ok()?;
            let fault = self.silence(&node, Reason::AgentUnreachable)?;
            let status = binding.status.as_ref();
            let conditions = status.map_or(&[][..], |status| status.conditions.as_slice());
            write(
                Reported::Served(name),
                binding.as_ref(),
                ConditionType::Ready,
                fault,
                conditions,
            )
        });
        writes.collect()
    }

    fn silent_directors(&self, service: &ObjectName) -> Vec<Write> {
        let writes = self.bindings_of(service).filter_map(|(name, binding)| {
            let node = binding.spec.node.parse().ok()?;
            let fault = self.silence(&node, Reason::DirectorUnreachable)?;
            write(
                Reported::Binding(name),
                binding.as_ref(),
                ConditionType::Programmed,
                fault,
                conditions(binding),
            )
        });
        writes.collect()
    }

    /// Why it is not known what a director has: its agent is silent, or has not yet written its own condition since it was.
    pub(super) fn unknown(
        &self,
        director: &str,
        binding: Option<&DirectorBinding>,
    ) -> Option<Fault> {
        let node = director.parse().ok()?;
        if let Some(fault) = self.silence(&node, Reason::DirectorUnreachable) {
            return Some(fault);
        }
        let condition = condition::find(conditions(binding?), ConditionType::Programmed)?;
        let reason = unknown_reason(condition)?;
        Some(Fault::new(reason, condition.message.clone()))
    }

    fn silence(&self, node: &NodeName, unreachable: Reason) -> Option<Fault> {
        if !self.agents.is_silent(node) {
            return None;
        }
        let lvs_node = self.objects.lvs_nodes.get(node).map(AsRef::as_ref);
        let (reason, message) = silence(lvs_node, unreachable);
        Some(Fault::new(reason, message))
    }
}

fn conditions(binding: &DirectorBinding) -> &[Condition] {
    let status = binding.status.as_ref();
    status.map_or(&[], |status| status.conditions.as_slice())
}

/// The reason of a condition that the controller has written for a silent agent.
fn unknown_reason(condition: &Condition) -> Option<Reason> {
    if condition.status != Status::Unknown.as_str() {
        return None;
    }
    condition.reason.parse().ok()
}

/// A condition with the status Unknown, unless the object has one.
fn write(
    object: Reported,
    seen: &impl Resource,
    kind: ConditionType,
    fault: Fault,
    conditions: &[Condition],
) -> Option<Write> {
    let known = condition::find(conditions, kind).and_then(unknown_reason);
    let Fault { reason, message } = fault;
    (known != Some(reason)).then(|| Write::Silence {
        object,
        revision: Revision::of(seen),
        verdict: Verdict::new(kind, Status::Unknown, reason, message),
    })
}
