//! Which changes of conditions are worth an event.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::EventType;
use lvs_crd::condition;

use crate::cluster::FAILED;

/// What is worth an event when conditions change, and how loud it is.
///
/// - An object that is stalled, or for another reason than before, is worth a warning: somebody has to do something.
/// - Otherwise Ready counts, when its status or its reason has changed: machines that failed are worth a warning, and
///   whatever the operator waits for is not. At first sight it is no news that an object is not ready yet.
pub(super) fn news<'a>(
    before: &[Condition],
    now: &'a [Condition],
) -> Option<(EventType, &'a Condition)> {
    let is_same = |kind: &str, new: &Condition| {
        condition::find(before, kind)
            .is_some_and(|old| (&old.status, &old.reason) == (&new.status, &new.reason))
    };
    if let Some(stalled) = condition::find(now, "Stalled") {
        return (!is_same("Stalled", stalled)).then_some((EventType::Warning, stalled));
    }
    let ready = condition::find(now, "Ready")?;
    let has_failed = ready.reason == FAILED;
    let is_first = condition::find(before, "Ready").is_none();
    if is_same("Ready", ready) || (is_first && ready.status != "True" && !has_failed) {
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
        let conditions = |kinds: &[(&'static str, Status, &str)]| {
            let verdicts = kinds.iter();
            let verdicts =
                verdicts.map(|(kind, status, reason)| Verdict::new(kind, *status, reason, ""));
            condition::conditions(verdicts.collect(), &[], None, Timestamp::UNIX_EPOCH)
        };
        let ready = conditions(&[("Ready", Status::True, "Ready")]);
        let pending = conditions(&[("Ready", Status::False, "Pending")]);
        let failed = conditions(&[("Ready", Status::False, FAILED)]);
        let stalled = |reason| {
            conditions(&[
                ("Ready", Status::False, reason),
                ("Stalled", Status::True, reason),
            ])
        };
        let told = |before: &[Condition], now: &[Condition]| {
            news(before, now)
                .map(|(type_, told)| (type_ == EventType::Warning, told.reason.clone()))
        };
        let loud = |reason: &str| Some((true, reason.to_owned()));
        let quiet = |reason: &str| Some((false, reason.to_owned()));

        assert_eq!(told(&[], &pending), None);
        assert_eq!(told(&[], &failed), loud(FAILED));
        assert_eq!(told(&[], &stalled("Conflict")), loud("Conflict"));
        assert_eq!(told(&pending, &ready), quiet("Ready"));
        assert_eq!(told(&ready, &pending), quiet("Pending"));
        assert_eq!(told(&ready, &failed), loud(FAILED));
        assert_eq!(told(&ready, &stalled("Conflict")), loud("Conflict"));
        assert_eq!(told(&stalled("Conflict"), &stalled("Conflict")), None);
        assert_eq!(
            told(&stalled("Conflict"), &stalled("Invalid")),
            loud("Invalid")
        );
        assert_eq!(told(&stalled("Conflict"), &pending), quiet("Pending"));
        assert_eq!(told(&ready, &ready), None);
    }
}
