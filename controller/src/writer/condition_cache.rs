//! What this controller wrote last, which may be newer than what it has seen.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};

use crate::cluster::Subject;

/// How many objects are remembered, whatever there is.
const FEW: usize = 100;

/// The conditions that were written last, by object.
///
/// - A watch tells of a write a moment later. What changes in that moment must be compared with what was written, or an
///   event would be published a second time and a condition would change its time without having changed.
/// - Nobody else writes these conditions while this controller leads.
#[derive(Clone, Default)]
pub(super) struct Written(Arc<Mutex<BTreeMap<Subject, Last>>>);

struct Last {
    uid: Option<String>,
    conditions: Vec<Condition>,
}

impl Written {
    /// The conditions of an object before the next write; `seen` are those that a watch has told.
    pub(super) fn before(
        &self,
        subject: &Subject,
        metadata: &ObjectMeta,
        seen: &[Condition],
    ) -> Vec<Condition> {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = written.get(subject).filter(|last| last.uid == metadata.uid);
        last.map_or(seen, |last| &last.conditions).to_vec()
    }

    /// Notes what was written of an object.
    pub(super) fn note(&self, subject: Subject, metadata: &ObjectMeta, conditions: &[Condition]) {
        let last = Last {
            uid: metadata.uid.clone(),
            conditions: conditions.to_vec(),
        };
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.insert(subject, last);
    }

    /// Forgets the objects that are gone, once they are as many as those that are there: a look at all is not worth it
    /// for each.
    pub(super) fn forget(&self, count: usize, exists: impl Fn(&Subject) -> bool) {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if written.len() > 2 * count + FEW {
            written.retain(|subject, _| exists(subject));
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use lvs_crd::condition::{self, ConditionType, Reason, Status, Verdict};

    use super::*;

    fn mk_conditions(reason: Reason) -> Vec<Condition> {
        let verdict = Verdict::new(ConditionType::Ready, Status::False, reason, "");
        condition::conditions(vec![verdict], &[], None, Timestamp::UNIX_EPOCH)
    }

    fn mk_metadata(uid: &str) -> ObjectMeta {
        ObjectMeta {
            uid: Some(uid.to_owned()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn what_was_written_counts_more_than_what_was_seen_unless_the_object_is_another() {
        let written = Written::default();
        let group = Subject::Group("edge".to_owned());
        let (seen, new) = (
            mk_conditions(Reason::Pending),
            mk_conditions(Reason::SeveralDirectors),
        );
        assert_eq!(written.before(&group, &mk_metadata("1"), &seen), seen);
        written.note(group.clone(), &mk_metadata("1"), &new);
        assert_eq!(written.before(&group, &mk_metadata("1"), &seen), new);
        assert_eq!(written.before(&group, &mk_metadata("2"), &seen), seen);
    }

    #[test]
    fn objects_that_are_gone_are_forgotten_at_last() {
        let written = Written::default();
        let name = |number| Subject::Group(format!("group-{number}"));
        for number in 0..=FEW + 2 {
            written.note(name(number), &mk_metadata("1"), &[]);
            written.forget(1, |subject| *subject == name(number));
        }
        let left: Vec<Subject> = written.0.lock().unwrap().keys().cloned().collect();
        assert_eq!(left, [name(FEW + 2)]);
    }
}
