//! The conditions that this controller wrote last, which may be newer than those that the watches show.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};

use crate::cluster::ReconcileRequest;

/// How many deleted objects the cache may hold besides as many as there are objects.
const SLACK: usize = 100;

/// The conditions that were written last, by object.
///
/// - A watch shows a write a moment later. A change in that moment must be compared with what was written. Otherwise an
///   event would be published twice, and a condition would get a new transition time without a transition.
/// - Only the leader writes these conditions.
#[derive(Clone, Default)]
pub(super) struct ConditionCache(Arc<Mutex<BTreeMap<ReconcileRequest, Written>>>);

struct Written {
    uid: Option<String>,
    conditions: Vec<Condition>,
}

impl ConditionCache {
    /// The conditions of an object that were written last, or those that the watch shows (`seen`) if there are none.
    pub(super) fn get_or(
        &self,
        request: &ReconcileRequest,
        metadata: &ObjectMeta,
        seen: &[Condition],
    ) -> Vec<Condition> {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = cache
            .get(request)
            .filter(|written| written.uid == metadata.uid);
        written.map_or(seen, |written| &written.conditions).to_vec()
    }

    /// Caches the conditions that were written to an object.
    pub(super) fn insert(
        &self,
        request: ReconcileRequest,
        metadata: &ObjectMeta,
        conditions: &[Condition],
    ) {
        let written = Written {
            uid: metadata.uid.clone(),
            conditions: conditions.to_vec(),
        };
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(request, written);
    }

    /// Evicts deleted objects, but only once there are about as many of them as of the `count` objects that exist: a look at
    /// all of them after each deletion would cost too much.
    pub(super) fn evict(&self, count: usize, exists: impl Fn(&ReconcileRequest) -> bool) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() > 2 * count + SLACK {
            cache.retain(|request, _| exists(request));
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
    fn written_conditions_take_precedence_over_seen_ones_of_the_same_object() {
        let cache = ConditionCache::default();
        let group = ReconcileRequest::Group("edge".to_owned());
        let (seen, new) = (
            mk_conditions(Reason::Pending),
            mk_conditions(Reason::NoActiveDirector),
        );
        assert_eq!(cache.get_or(&group, &mk_metadata("1"), &seen), seen);
        cache.insert(group.clone(), &mk_metadata("1"), &new);
        assert_eq!(cache.get_or(&group, &mk_metadata("1"), &seen), new);
        assert_eq!(cache.get_or(&group, &mk_metadata("2"), &seen), seen);
    }

    #[test]
    fn deleted_objects_are_evicted_eventually() {
        let cache = ConditionCache::default();
        let name = |number| ReconcileRequest::Group(format!("group-{number}"));
        for number in 0..=SLACK + 2 {
            cache.insert(name(number), &mk_metadata("1"), &[]);
            cache.evict(1, |request| *request == name(number));
        }
        let left: Vec<ReconcileRequest> = cache.0.lock().unwrap().keys().cloned().collect();
        assert_eq!(left, [name(SLACK + 2)]);
    }
}
