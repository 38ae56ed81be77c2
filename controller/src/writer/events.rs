//! Which changes of conditions are worth an event.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::EventType;
use lvs_crd::condition::{self, ConditionType, Reason};

/// What is worth an event when conditions change, and how loud it is.
///
/// - An object that is stalled, or for another reason than before, is worth a warning: somebody has to do something.
/// - Otherwise Ready counts, when its status or its reason has changed: machines that failed are worth a warning, and
///   whatever the operator waits for is not. At first sight it is no news that an object is not ready yet.
pub(super) fn news<'a>(
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
    let has_failed = condition::has_reason(ready, Reason::ProgrammingFailed);
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

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use lvs_crd::condition::{Status, Verdict};

    use super::*;

    #[test]
    fn a_warning_is_for_what_is_stalled_or_has_failed() {
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
            let (type_, condition) = news(before, now)?;
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
}
