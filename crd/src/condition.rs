//! Conditions as the API conventions have them, and how a list of them changes.

mod kind;
mod reason;
mod words;

pub use kind::ConditionType;
pub use reason::Reason;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use schemars::{Schema, SchemaGenerator, json_schema};

words::words! {
    /// Whether a condition holds.
    pub enum Status {
        /// It holds.
        True,
        /// It does not hold.
        False,
        /// It is not known.
        Unknown,
    }
}

impl Status {
    /// Returns `True` for a statement that holds, `False` for one that does not.
    #[must_use]
    pub const fn of(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// A condition without its generation and the time of its last transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The type.
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: Status,
    /// Why, in one word for programs.
    pub reason: Reason,
    /// Why, in a sentence for people; may be empty.
    pub message: String,
}

impl Verdict {
    /// Creates a verdict.
    #[must_use]
    pub fn new(
        kind: ConditionType,
        status: Status,
        reason: Reason,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            status,
            reason,
            message: message.into(),
        }
    }
}

/// The longest message that a condition carries, in bytes; the API's own limit is 32768.
pub const LONGEST_MESSAGE: usize = 1024;

/// The conditions to write: the verdicts in their order, each with the moment of its last transition.
///
/// `lastTransitionTime` moves only when `status` changes; otherwise each write would cause the next. A condition of
/// `before` without a verdict is dropped, since kstatus goes by the presence of `Stalled` and `Reconciling`.
#[must_use]
pub fn conditions(
    verdicts: Vec<Verdict>,
    before: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    verdicts
        .into_iter()
        .map(|verdict| {
            let same = find(before, verdict.kind);
            let same = same.filter(|condition| condition.status == verdict.status.as_str());
            Condition {
                type_: verdict.kind.as_str().to_owned(),
                status: verdict.status.as_str().to_owned(),
                reason: verdict.reason.as_str().to_owned(),
                message: shortened(verdict.message),
                observed_generation: generation,
                last_transition_time: same.map_or_else(
                    || Time(now),
                    |condition| condition.last_transition_time.clone(),
                ),
            }
        })
        .collect()
}

fn shortened(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        let end = message.floor_char_boundary(LONGEST_MESSAGE - 3);
        message.truncate(end);
        message.push_str("...");
    }
    message
}

/// Returns whether conditions are those of the verdicts, apart from the times of their transitions.
#[must_use]
pub fn agree(found: &[Condition], verdicts: &[Verdict], generation: Option<i64>) -> bool {
    found.len() == verdicts.len()
        && verdicts.iter().all(|verdict| {
            find(found, verdict.kind).is_some_and(|condition| {
                condition.status == verdict.status.as_str()
                    && condition.reason == verdict.reason.as_str()
                    && condition.message == shortened(verdict.message.clone())
                    && condition.observed_generation == generation
            })
        })
}

/// Returns the condition of a type.
#[must_use]
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    let mut conditions = conditions.iter();
    conditions.find(|condition| condition.type_ == kind.as_str())
}

/// Returns whether a condition is true.
#[must_use]
pub fn is_true(condition: &Condition) -> bool {
    condition.status == Status::True.as_str()
}

/// Returns whether a condition has a reason.
#[must_use]
pub fn has_reason(condition: &Condition, reason: Reason) -> bool {
    condition.reason == reason.as_str()
}

/// Returns the schema of a moment.
pub(crate) fn time_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// Returns the schema of a list of conditions, with the bounds of the API conventions, which `Condition`'s own
/// schema lacks.
pub(crate) fn list_schema(_: &mut SchemaGenerator) -> Schema {
    let statuses: Vec<&str> = Status::ALL.iter().map(|status| status.as_str()).collect();
    json_schema!({
        "type": "array",
        "maxItems": 8,
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {
                    "description": "The name of the condition.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 316,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_./-]*[A-Za-z0-9])?$",
                },
                "status": {
                    "description": "Whether it holds: True, False or Unknown.",
                    "type": "string",
                    "enum": statuses,
                },
                "observedGeneration": {
                    "description": "The generation of the spec that it is about.",
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                },
                "lastTransitionTime": {
                    "description": "When its status last changed.",
                    "type": "string",
                    "format": "date-time",
                },
                "reason": {
                    "description": "Why, in one word for programs.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "message": {
                    "description": "Why, in a sentence for people; may be empty.",
                    "type": "string",
                    "maxLength": 32768,
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let verdict = |status, reason| vec![Verdict::new(ConditionType::Ready, status, reason, "")];
        let first = conditions(
            verdict(Status::False, Reason::Pending),
            &[],
            Some(1),
            at(10),
        );
        let second = conditions(
            verdict(Status::False, Reason::Conflict),
            &first,
            Some(2),
            at(20),
        );
        assert_eq!(second[0].last_transition_time, Time(at(10)));
        assert_eq!(second[0].reason, "Conflict");
        assert_eq!(second[0].observed_generation, Some(2));

        let third = conditions(
            verdict(Status::True, Reason::Ready),
            &second,
            Some(2),
            at(30),
        );

        assert_eq!(third[0].last_transition_time, Time(at(30)));
    }

    #[test]
    fn a_word_of_the_api_is_read_back() {
        assert_eq!("PodsNeedNat".parse(), Ok(Reason::PodsNeedNat));
        assert_eq!("ResolvedRefs".parse(), Ok(ConditionType::ResolvedRefs));
        assert_eq!("Else".parse::<Status>(), Err(()));
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let long = "ä".repeat(1000);
        let verdict = Verdict::new(ConditionType::Ready, Status::False, Reason::Pending, long);
        let written = conditions(vec![verdict], &[], None, Timestamp::UNIX_EPOCH);
        assert!(written[0].message.ends_with("ä..."));
        assert!(written[0].message.len() <= LONGEST_MESSAGE);
    }
}
