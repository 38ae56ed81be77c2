//! Conditions as the API conventions have them, and how a list of them changes.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use schemars::{Schema, SchemaGenerator, json_schema};

/// A condition without what depends on the moment and the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The type: an adjective or a past participle.
    pub kind: &'static str,
    /// Whether it holds.
    pub status: Status,
    /// One word in CamelCase for programs.
    pub reason: String,
    /// A sentence for people; may be empty.
    pub message: String,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It does.
    True,
    /// It does not.
    False,
    /// Nobody has looked.
    Unknown,
}

impl Status {
    /// The word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }

    /// Whether a statement is true.
    #[must_use]
    pub const fn of(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl Verdict {
    /// A verdict.
    #[must_use]
    pub fn new(
        kind: &'static str,
        status: Status,
        reason: &str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            status,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

/// The longest message that a condition carries, in bytes; the API's own limit is 32768.
const LONGEST_MESSAGE: usize = 1024;

/// The conditions to write: the verdicts in their order, each with the moment of its last transition.
///
/// `lastTransitionTime` moves only when `status` changes, or each write would be a reason for the next. A condition of
/// `before` without a verdict is dropped: kstatus takes `Stalled` and `Reconciling` for true when they are there.
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
            let same = before.iter().find(|condition| {
                condition.type_ == verdict.kind && condition.status == verdict.status.as_str()
            });
            Condition {
                type_: verdict.kind.to_owned(),
                status: verdict.status.as_str().to_owned(),
                reason: verdict.reason,
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

/// Says whether conditions are what the verdicts ask for, whatever the times of their transitions.
#[must_use]
pub fn agree(found: &[Condition], verdicts: &[Verdict], generation: Option<i64>) -> bool {
    found.len() == verdicts.len()
        && verdicts.iter().all(|verdict| {
            find(found, verdict.kind).is_some_and(|condition| {
                condition.status == verdict.status.as_str()
                    && condition.reason == verdict.reason
                    && condition.message == shortened(verdict.message.clone())
                    && condition.observed_generation == generation
            })
        })
}

/// A condition of a list, by its type.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// The schema of a list of conditions, with the bounds of the API conventions, which `Condition`'s own schema lacks.
pub(crate) fn list_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 8,
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {
                    "description": "The condition.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 316,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_./-]*[A-Za-z0-9])?$",
                },
                "status": {
                    "description": "Whether it holds.",
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
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
        let verdict = |status, reason| vec![Verdict::new("Ready", status, reason, "")];
        let first = conditions(verdict(Status::False, "Waiting"), &[], Some(1), at(10));
        let second = conditions(verdict(Status::False, "Conflict"), &first, Some(2), at(20));
        assert_eq!(second[0].last_transition_time, Time(at(10)));
        assert_eq!(second[0].reason, "Conflict");
        assert_eq!(second[0].observed_generation, Some(2));

        let third = conditions(verdict(Status::True, "Ready"), &second, Some(2), at(30));

        assert_eq!(third[0].last_transition_time, Time(at(30)));
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let verdict = Verdict::new("Ready", Status::False, "Long", "ä".repeat(1000));
        let written = conditions(vec![verdict], &[], None, Timestamp::UNIX_EPOCH);
        assert!(written[0].message.ends_with("ä..."));
        assert!(written[0].message.len() <= LONGEST_MESSAGE);
    }
}
