//! The status of a DirectorGroup.

use lvs_crd::{
    DirectorGroupStatus,
    condition::{self, ConditionType, Reason, Status, Verdict},
};

use lvs_model::{NodeName, abridged};

use super::active::LONGEST_LINE;
use crate::{
    cluster::{Cluster, Election, Fault, members},
    write::{Revision, Write},
};

impl Cluster {
    /// The status of a group, if it differs from the one that it has.
    pub(super) fn reconcile_group(&self, name: &String) -> Option<Write> {
        let group = self.objects.groups.get(name)?;
        let members = members(&self.objects, group);
        let active = self.active_of_group(name);
        let lack = self.lack_of_routers(name);
        let verdicts = match self.index.election(name)? {
            Ok(Election { directors, warning }) => {
                let mut refused = directors.iter();
                let refused = refused.find(|node| self.refusals.nodes.contains_key(*node));
                let unheld = active.verdict;
                match (refused, warning.as_ref().or(lack.as_ref()), unheld) {
                    (Some(director), _, _) => self.refused_node(director),
                    (None, Some(fault), _) => verdicts_of(fault),
                    (None, None, Some(unheld)) => verdicts_of_unheld(unheld),
                    (None, None, None) => vec![
                        Verdict::new(ConditionType::Accepted, Status::True, Reason::Accepted, ""),
                        self.router_problem(name).unwrap_or_else(|| {
                            Verdict::new(ConditionType::Ready, Status::True, Reason::Ready, "")
                        }),
                    ],
                }
            }
            Err(fault) => verdicts_of(fault),
        };
        let directors: Vec<&str> = members.iter().map(String::as_str).collect();
        let status = DirectorGroupStatus {
            observed_generation: group.metadata.generation,
            directors: abridged(&directors, ",", LONGEST_LINE),
            active: active.names,
            active_since: active.since,
            routers: active.routers,
            conditions: Vec::new(),
        };
        let is_written = group.status.as_ref().is_some_and(|found| {
            found.observed_generation == status.observed_generation
                && found.directors == status.directors
                && found.active == status.active
                && found.active_since == status.active_since
                && found.routers == status.routers
                && condition::agree(&found.conditions, &verdicts, status.observed_generation)
        });
        (!is_written).then(|| Write::GroupStatus {
            name: name.clone(),
            revision: Revision::of(group.as_ref()),
            status,
            verdicts,
        })
    }
}

impl Cluster {
    /// The conditions of a group whose director's LvsNode cannot be written.
    fn refused_node(&self, director: &NodeName) -> Vec<Verdict> {
        let fault = self.refusal_of_node(director);
        let accepted = ConditionType::Accepted;
        let abnormal = [
            (ConditionType::Ready, Status::False),
            (ConditionType::Stalled, Status::True),
        ];
        let abnormal = abnormal.into_iter().filter_map(|(kind, status)| {
            let Fault { reason, message } = fault.as_ref()?;
            Some(Verdict::new(kind, status, *reason, &**message))
        });
        let accepted = Verdict::new(accepted, Status::True, Reason::Accepted, "");
        [accepted].into_iter().chain(abnormal).collect()
    }
}

/// A group that waits is accepted, and so is one that has lost a director; an invalid one, and one that gets fewer virtual routers than it
/// asks for, is refused. What is programmed stays.
fn verdicts_of(fault: &Fault) -> Vec<Verdict> {
    let Fault { reason, message } = fault;
    let reason = *reason;
    let accepted = Status::of(matches!(reason, Reason::NoDirector | Reason::LostDirector));
    let abnormal = if reason == Reason::NoDirector {
        ConditionType::Reconciling
    } else {
        ConditionType::Stalled
    };
    vec![
        Verdict::new(ConditionType::Accepted, accepted, reason, &**message),
        Verdict::new(ConditionType::Ready, Status::False, reason, &**message),
        Verdict::new(abnormal, Status::True, reason, &**message),
    ]
}

/// A group whose VIPs have no holder, or several, is accepted all the same.
fn verdicts_of_unheld(ready: Verdict) -> Vec<Verdict> {
    let kind = if ready.reason == Reason::SeveralActive {
        ConditionType::Stalled
    } else {
        ConditionType::Reconciling
    };
    let abnormal = Verdict::new(kind, Status::True, ready.reason, &*ready.message);
    let accepted = Verdict::new(ConditionType::Accepted, Status::True, Reason::Accepted, "");
    vec![accepted, ready, abnormal]
}
