//! Turns errors of the parser into messages.

use serde_json::Value;
use serde_path_to_error::Segment;
use serde_saphyr::Error;

/// Returns the path of a field that the types do not have: `spec.ports[0].prot`.
pub(super) fn path(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", self::path(parent)),
        Path::Map { parent, key } => join(&self::path(parent), key),
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => self::path(parent),
    }
}

/// Returns the message for text that is not valid YAML.
pub(super) fn syntax(error: &Error) -> String {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the enum is foreign and may grow"
    )]
    match error.without_snippet() {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("must not hold the key '{key}' twice")
        }
        Error::MultipleDocuments { .. } => "must start the next document with '---'".to_owned(),
        other => format!("must be valid YAML: {}", without_location(other)),
    }
}

/// Returns the field and what is wrong with its type. `value` is the document, from which the present value
/// is quoted.
pub(super) fn type_error(
    error: &Error,
    path: &serde_path_to_error::Path,
    value: &Value,
) -> (String, String) {
    let field = path
        .iter()
        .fold(String::new(), |path, segment| match segment {
            Segment::Seq { index } => format!("{path}[{index}]"),
            Segment::Map { key } => join(&path, key),
            Segment::Enum { .. } | Segment::Unknown => path,
        });
    let found = path.iter().try_fold(value, |value, segment| match segment {
        Segment::Seq { index } => value.get(index),
        Segment::Map { key } => value.get(key),
        Segment::Enum { .. } | Segment::Unknown => Some(value),
    });
    let found = found.map_or_else(|| "the present value".to_owned(), self::found);
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the enum is foreign and may grow"
    )]
    let reason = match error.without_snippet() {
        Error::SerdeMissingField { field: missing, .. } => {
            return (join(&field, missing), "must be set".to_owned());
        }
        Error::SerdeUnknownVariant { expected, .. } => {
            format!("must be {}, not {found}", one_of(expected))
        }
        Error::InvalidScalar { .. } => format!("must be an integer, not {found}"),
        Error::InvalidBooleanStrict { .. } => format!("must be true or false, not {found}"),
        Error::Unexpected {
            expected: "sequence start",
            ..
        } => format!("must be a list, not {found}"),
        Error::Unexpected {
            expected: "mapping start",
            ..
        } => format!("must be a mapping, not {found}"),
        Error::QuotingRequired { value, .. } => format!("must be a string: '{value}' needs quotes"),
        Error::Unexpected { .. }
        | Error::NullIntoString { .. }
        | Error::ExternallyTaggedEnumExpectedScalarOrMapping { .. }
        | Error::UnexpectedValueForUnitEnumVariant { .. } => {
            format!("must be a single value, not {found}")
        }
        other => format!("must be of another type: {}", without_location(other)),
    };
    (field, reason)
}

/// Returns a value as messages quote it: a short one in full, a long one by its kind.
pub(super) fn found(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("'{value}'"),
        Value::Number(value) => format!("'{value}'"),
        Value::String(value) if value.chars().count() > 64 => "a long string".to_owned(),
        Value::String(value) => format!("'{}'", value.escape_debug()),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

fn one_of(names: &[&str]) -> String {
    match names {
        [only] => format!("'{only}'"),
        names => format!("one of {}", names.join(", ")),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// Returns the message without its ` at line 1, column 4`. That line counts from the start of the document;
/// the rejection already names the line of the file.
fn without_location(error: &Error) -> String {
    let text = error.to_string();
    let location = error
        .location()
        .map(|at| format!(" at line {}, column {}", at.line(), at.column()));
    match location.and_then(|location| text.strip_suffix(&location).map(str::to_owned)) {
        Some(message) => message,
        None => text,
    }
}
