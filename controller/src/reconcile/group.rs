//! The status of a DirectorGroup.

use lvs_crd::{
    DirectorGroupStatus,
    condition::{self, ConditionType, Reason, Status, Verdict},
};

use crate::{
    cluster::{Cluster, Fault, director, members},
    write::Write,
};

impl Cluster {
    /// The status of a group, if it differs from the one that it has.
    pub(super) fn reconcile_group(&self, name: &String) -> Option<Write> {
        let group = self.objects.groups.get(name)?;
        let members = members(&self.objects, group);
        let verdicts = match director(&members) {
            Ok(_) => vec![
                Verdict::new(ConditionType::Accepted, Status::True, Reason::Accepted, ""),
                Verdict::new(ConditionType::Ready, Status::True, Reason::Ready, ""),
            ],
            Err(fault) => verdicts_of(fault),
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
            name: name.clone(),
            status,
            verdicts,
        })
    }
}

/// A group that waits for a node is accepted; any other that has no director is refused.
fn verdicts_of(fault: Fault) -> Vec<Verdict> {
    let Fault { reason, message } = fault;
    let (accepted, abnormal) = if reason == Reason::NoDirector {
        (Status::True, ConditionType::Reconciling)
    } else {
        (Status::False, ConditionType::Stalled)
    };
    vec![
        Verdict::new(ConditionType::Accepted, accepted, reason, &*message),
        Verdict::new(ConditionType::Ready, Status::False, reason, &*message),
        Verdict::new(abnormal, Status::True, reason, message),
    ]
}
