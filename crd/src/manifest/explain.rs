//! What is wrong with a document that gives no object.
//!
//! The document is read without types, to find out which object it is, and then again by its type, with the path of
//! each field.

use lvs_model::ObjectRef;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use serde_saphyr::{Error, with_deserializer_from_str_with_options};

use super::{
    identity,
    kind::{API_VERSION, GROUP, Kind},
    message,
    place::SourceFile,
    raw::{Metadata, by_type, options},
    refusal::Refusal,
    separator::Document,
};
use crate::{AddressPoolSpec, DirectorGroupSpec, VirtualServiceSpec};

/// Finds out what is wrong with a document that gave no object.
pub(super) fn explain(file: &SourceFile<'_>, document: &Document<'_>) -> Refusal {
    let value: Value = match serde_saphyr::from_str_with_options(document.text, options()) {
        Ok(value) => value,
        Err(error) => {
            return Refusal::of_unknown(
                place_of(file, document, &error),
                "",
                message::syntax(&error),
            );
        }
    };
    let place = || file.place(document, None);
    if !value.is_object() {
        let reason = "must hold `apiVersion`, `kind`, `metadata` and `spec`";
        return Refusal::of_unknown(place(), "", reason.to_owned());
    }
    let identity = identity_of(&value);
    let head = head(&value);
    match (identity, head) {
        (Ok(identity), Err((field, reason))) => {
            Refusal::of_fields(&identity, &place(), [(field.to_owned(), reason)])
        }
        (Err(_), Err((field, reason))) => Refusal {
            may_hide_an_object: !is_foreign(&value),
            ..Refusal::of_unknown(place(), field, reason)
        },
        (Err((field, reason)), Ok(())) => Refusal::of_unknown(place(), field, reason),
        (Ok(identity), Ok(())) => {
            let (field, reason, error) = match Kind::of(&value) {
                Some(Kind::DirectorGroup) => traced::<DirectorGroupSpec>(document.text, &value),
                Some(Kind::AddressPool) => traced::<AddressPoolSpec>(document.text, &value),
                Some(Kind::VirtualService) | None => {
                    traced::<VirtualServiceSpec>(document.text, &value)
                }
            };
            let place = error.map_or_else(place, |error| place_of(file, document, &error));
            Refusal::of_fields(&identity, &place, [(field, reason)])
        }
    }
}

/// Checks `apiVersion` and `kind`.
fn head(value: &Value) -> Result<(), (&'static str, String)> {
    let wrong = |field, wanted: &str| match value.get(field) {
        None => (field, format!("must be {wanted}, and is missing")),
        Some(found) => (
            field,
            format!("must be {wanted}, not {}", message::found(found)),
        ),
    };
    if value.get("apiVersion").and_then(Value::as_str) != Some(API_VERSION) {
        return Err(wrong("apiVersion", &format!("'{API_VERSION}'")));
    }
    if Kind::of(value).is_none() {
        let [one, two, three] = Kind::ALL.map(Kind::as_str);
        return Err(wrong("kind", &format!("'{one}', '{two}' or '{three}'")));
    }
    Ok(())
}

/// Returns the identity of the object, or what is wrong with `metadata`.
fn identity_of(value: &Value) -> Result<ObjectRef, (&'static str, String)> {
    let metadata = value.get("metadata");
    let name = metadata.and_then(|metadata| metadata.get("name"));
    let name = match name {
        Some(Value::String(name)) => name,
        Some(other) => {
            return Err((
                "metadata.name",
                format!("must be a string, not {}", message::found(other)),
            ));
        }
        None => return Err(("metadata.name", "must be set".to_owned())),
    };
    let namespace = match metadata.and_then(|metadata| metadata.get("namespace")) {
        Some(Value::String(namespace)) => Some(namespace.as_str()),
        None | Some(Value::Null) => None,
        Some(other) => {
            return Err((
                "metadata.namespace",
                format!("must be a string, not {}", message::found(other)),
            ));
        }
    };
    match Kind::of(value) {
        Some(Kind::DirectorGroup) => {
            identity::of_group(name).map_err(|error| ("metadata.name", error.to_string()))
        }
        Some(Kind::AddressPool) => {
            identity::of_pool(name).map_err(|error| ("metadata.name", error.to_string()))
        }
        Some(Kind::VirtualService) => identity::of_service(namespace, name).map_err(|error| {
            let field = if identity::of_service(namespace, "x").is_ok() {
                "metadata.name"
            } else {
                "metadata.namespace"
            };
            (field, error.to_string())
        }),
        None => Err(("kind", String::new())),
    }
}

/// Returns whether a document is certainly no object of ours, such as a ConfigMap. A list may hold objects of ours.
fn is_foreign(value: &Value) -> bool {
    let text = |field| value.get(field).and_then(Value::as_str);
    match (text("apiVersion"), text("kind")) {
        (Some(version), Some(kind)) => {
            !version.starts_with(GROUP) && !kind.ends_with("List") && Kind::of(value).is_none()
        }
        (None, _) | (_, None) => false,
    }
}

#[derive(Deserialize)]
struct Spec<S> {
    #[expect(dead_code, reason = "read for its errors")]
    metadata: Metadata,
    #[expect(dead_code, reason = "read for its errors")]
    spec: S,
}

/// Reads a document again, with the path of each field. Returns the field with the error and the reason, and the error itself for its
/// line. A null counts as absent, so an error behind it has no line.
fn traced<S: DeserializeOwned>(text: &str, value: &Value) -> (String, String, Option<Error>) {
    let Some((error, path)) = first_error::<S>(text) else {
        return (String::new(), "cannot be read".to_owned(), None);
    };
    let (field, reason) = message::type_error(&error, &path, value, text);
    if message::value_at(&path, value).is_some_and(Value::is_null)
        && let Some((real, reason)) = error_without_nulls::<S>(value)
        && real != field
    {
        return (real, reason, None);
    }
    (field, reason, Some(error))
}

/// Returns the field with the first error once the nulls before it are removed, and the reason.
fn error_without_nulls<S: DeserializeOwned>(value: &Value) -> Option<(String, String)> {
    let mut rest = value.clone();
    // Its error lacks the details that a message needs.
    let _ = by_type::<Spec<S>>(&mut rest);
    let text = rest.to_string();
    let (error, path) = first_error::<S>(&text)?;
    Some(message::type_error(&error, &path, &rest, &text))
}

fn first_error<S: DeserializeOwned>(text: &str) -> Option<(Error, serde_path_to_error::Path)> {
    let mut track = serde_path_to_error::Track::new();
    let result = with_deserializer_from_str_with_options(text, options(), |deserializer| {
        Spec::<S>::deserialize(serde_path_to_error::Deserializer::new(
            deserializer,
            &mut track,
        ))
    });
    let error = result.err()?;
    Some((error, track.path()))
}

fn place_of(file: &SourceFile<'_>, document: &Document<'_>, error: &Error) -> String {
    let line = error
        .location()
        .and_then(|location| usize::try_from(location.line()).ok());
    file.place(document, line.filter(|line| *line > 0))
}
