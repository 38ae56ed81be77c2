//! Which changes are published as events.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::EventType;
use lvs_crd::{
    RouterStatus,
    condition::{self, ConditionType, Reason},
};

/// The condition that is published as an event after a change, and the type of the event.
///
/// - A condition Stalled that is new, or has another reason than before, is a warning: the object or the cluster has to be changed.
/// - Otherwise Ready counts, if its status or reason has changed. It is a warning if a machine has failed or is silent, or something is
///   wrong between directors. An object that is not ready yet when it is first seen gets no event.
pub(super) fn condition_to_publish<'a>(
    before: &[Condition],
    now: &'a [Condition],
) -> Option<(EventType, &'a Condition)> {
    let is_same = |kind: ConditionType, new: &Condition| {
        condition::find(before, kind)
            .is_some_and(|old| (&old.status, &old.reason) == (&new.status, &new.reason))
    };
    if let Some(stalled) = condition::find(now, ConditionType::Stalled) {
        return (!is_same(ConditionType::Stalled, stalled))
            .then_some((EventType::Warning, stalled));
    }
    let ready = condition::find(now, ConditionType::Ready)?;
    let has_failed = [
        Reason::ProgrammingFailed,
        Reason::DirectorUnreachable,
        Reason::SeveralActive,
        Reason::RouterProblem,
        Reason::DirectorsDiffer,
    ]
    .into_iter()
    .any(|reason| condition::has_reason(ready, reason));
    let is_first = condition::find(before, ConditionType::Ready).is_none();
    if is_same(ConditionType::Ready, ready)
        || (is_first && !condition::is_true(ready) && !has_failed)
    {
        return None;
    }
    let type_ = if has_failed {
        EventType::Warning
    } else {
        EventType::Normal
    };
    Some((type_, ready))
}

/// Says who holds the VIPs of which virtual routers of a group, where that is another director than before.
/// One text for all, since events of one reason are counted as one.
pub(super) fn takeovers(before: &[RouterStatus], now: &[RouterStatus]) -> Option<String> {
    let mut moves: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for router in now {
        let place = (router.router_id, router.family);
        let mut known = before.iter();
        let known = known.find(|known| (known.router_id, known.family) == place);
        let (before, now) = (known.map_or("", |known| &known.active), &*router.active);
        if !before.is_empty() && !now.is_empty() && before != now {
            let name = format!("{} ({})", router.router_id, router.family);
            moves.entry((now, before)).or_default().push(name);
        }
    }
    let notes = moves.into_iter().map(|((now, before), routers)| {
        let what = if routers.len() == 1 {
            "virtual router"
        } else {
            "virtual routers"
        };
        let routers = routers.join(", ");
        format!("{now} holds the VIPs of {what} {routers}, after {before}")
    });
    let notes: Vec<String> = notes.collect();
    (!notes.is_empty()).then(|| notes.join("; "))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use lvs_crd::{
        IpFamily,
        condition::{Status, Verdict},
    };

    use super::*;

    #[test]
    fn only_stalled_and_failed_objects_get_a_warning() {
        let conditions = |kinds: &[(ConditionType, Status, Reason)]| {
            let verdicts = kinds.iter();
            let verdicts =
                verdicts.map(|(kind, status, reason)| Verdict::new(*kind, *status, *reason, ""));
            condition::conditions(verdicts.collect(), &[], None, Timestamp::UNIX_EPOCH)
        };
        let ready = conditions(&[(ConditionType::Ready, Status::True, Reason::Ready)]);
        let unready = |reason| conditions(&[(ConditionType::Ready, Status::False, reason)]);
        let pending = unready(Reason::Pending);
        let failed = unready(Reason::ProgrammingFailed);
        let stalled = |reason| {
            conditions(&[
                (ConditionType::Ready, Status::False, reason),
                (ConditionType::Stalled, Status::True, reason),
            ])
        };
        let published = |before: &[Condition], now: &[Condition]| {
            let (type_, condition) = condition_to_publish(before, now)?;
            Some((type_ == EventType::Warning, condition.reason.parse().ok()?))
        };
        let warning = |reason: Reason| Some((true, reason));
        let normal = |reason: Reason| Some((false, reason));
        let (conflict, invalid) = (stalled(Reason::Conflict), stalled(Reason::Invalid));

        assert_eq!(published(&[], &pending), None);
        assert_eq!(published(&[], &failed), warning(Reason::ProgrammingFailed));
        assert_eq!(published(&[], &conflict), warning(Reason::Conflict));
        assert_eq!(published(&pending, &ready), normal(Reason::Ready));
        assert_eq!(published(&ready, &pending), normal(Reason::Pending));
        assert_eq!(
            published(&ready, &failed),
            warning(Reason::ProgrammingFailed)
        );
        assert_eq!(published(&ready, &conflict), warning(Reason::Conflict));
        assert_eq!(published(&conflict, &conflict), None);
        assert_eq!(published(&conflict, &invalid), warning(Reason::Invalid));
        assert_eq!(published(&conflict, &pending), normal(Reason::Pending));
        assert_eq!(published(&ready, &ready), None);
    }

    #[test]
    fn a_takeover_has_a_director_before_and_another_one_after_and_names_the_routers() {
        let routers = |all: [&str; 3]| -> Vec<RouterStatus> {
            let all = all.into_iter().zip([51, 52, 53]);
            let all = all.map(|(active, router_id)| RouterStatus {
                router_id,
                family: IpFamily::V4,
                active: active.to_owned(),
                active_since: None,
            });
            all.collect()
        };
        let before = routers(["lvs1", "lvs2", "lvs1"]);
        assert_eq!(
            takeovers(&before, &routers(["lvs2", "lvs2", "lvs2"])).as_deref(),
            Some("lvs2 holds the VIPs of virtual routers 51 (IPv4), 53 (IPv4), after lvs1")
        );
        assert_eq!(
            takeovers(&before, &routers(["lvs3", "lvs2", "lvs2"])).as_deref(),
            Some(
                "lvs2 holds the VIPs of virtual router 53 (IPv4), after lvs1; \
                 lvs3 holds the VIPs of virtual router 51 (IPv4), after lvs1"
            )
        );
        assert_eq!(takeovers(&before, &routers(["", "", ""])), None);
        assert_eq!(takeovers(&routers(["", "", ""]), &before), None);
        assert_eq!(takeovers(&[], &before), None);
    }
}
