//! Why a document gives no object.

use lvs_model::{ObjectRef, Rejection};

use super::object::Rejected;

/// Why a document gives no object.
pub(super) struct Refusal {
    pub(super) rejections: Vec<Rejected>,
    /// Whether it may be an object of ours with an unknown name.
    pub(super) may_hide_an_object: bool,
}

impl Refusal {
    /// Creates the refusal of an object, with a rejection for each field and reason.
    pub(super) fn of_fields(
        identity: &ObjectRef,
        place: &str,
        fields: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let reject = |(field, reason): (String, String)| {
            Rejected::of(identity.clone(), place, field, reason)
        };
        Self {
            rejections: fields.into_iter().map(reject).collect(),
            may_hide_an_object: false,
        }
    }

    /// Creates the refusal of a document whose object is unknown.
    pub(super) fn of_unknown(origin: String, field: &str, reason: String) -> Self {
        let rejection = Rejection {
            object: None,
            origin,
            field: field.to_owned(),
            reason,
        };
        Self {
            rejections: vec![Rejected {
                identity: None,
                rejection,
            }],
            may_hide_an_object: true,
        }
    }
}
