//! The status of a DirectorGroup.

use std::collections::BTreeSet;

use lvs_crd::{
    DirectorGroupStatus,
    condition::{self, ConditionType, Reason, Status, Verdict},
};

use crate::{
    cluster::{Cluster, Election, Fault, elect, members},
    write::Write,
};

impl Cluster {
    /// The status of a group, if it differs from the one that it has.
    pub(super) fn reconcile_group(&self, name: &String) -> Option<Write> {
        let group = self.objects.groups.get(name)?;
        let members = members(&self.objects, group);
        let has_bindings = |machine: &_| self.index.is_bound(machine, name);
        let verdicts = match elect(&members, has_bindings) {
            Ok(Election { warning: None, .. }) => vec![
                Verdict::new(ConditionType::Accepted, Status::True, Reason::Accepted, ""),
                Verdict::new(ConditionType::Ready, Status::True, Reason::Ready, ""),
            ],
            Ok(Election {
                warning: Some(fault),
                ..
            })
            | Err(fault) => verdicts_of(fault),
        };
        let status = DirectorGroupStatus {
            observed_generation: group.metadata.generation,
            directors: listed(&members),
            conditions: Vec::new(),
        };
        let is_written = group.status.as_ref().is_some_and(|found| {
            found.observed_generation == status.observed_generation
                && found.directors == status.directors
                && condition::agree(&found.conditions, &verdicts, status.observed_generation)
        });
        (!is_written).then(|| Write::GroupStatus {
            name: name.clone(),
            status,
            verdicts,
        })
    }
}

/// The most machines that a status names.
const MAX_NAMED: usize = 4;

/// The machines of a group in one line. A selector may match any number of them.
fn listed(members: &BTreeSet<String>) -> String {
    let named: Vec<&str> = members.iter().take(MAX_NAMED).map(String::as_str).collect();
    let named = named.join(",");
    match members.len().checked_sub(MAX_NAMED) {
        None | Some(0) => named,
        Some(more) => format!("{named} and {more} more"),
    }
}

/// A group that waits for a node is accepted, and so is one with several, of which one directs; an invalid one is refused.
fn verdicts_of(fault: Fault) -> Vec<Verdict> {
    let Fault { reason, message } = fault;
    let accepted = Status::of(matches!(
        reason,
        Reason::NoDirector | Reason::SeveralDirectors
    ));
    let abnormal = if reason == Reason::NoDirector {
        ConditionType::Reconciling
    } else {
        ConditionType::Stalled
    };
    vec![
        Verdict::new(ConditionType::Accepted, accepted, reason, &*message),
        Verdict::new(ConditionType::Ready, Status::False, reason, &*message),
        Verdict::new(abnormal, Status::True, reason, message),
    ]
}
