//! Turns errors of the parser into messages.

use std::net::Ipv4Addr;

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
    text: &str,
) -> (String, String) {
    let field = field_of(path);
    let value = value_at(path, value);
    let found = match value {
        None => "the present value".to_owned(),
        Some(Value::Number(number)) => {
            let written = written(text, error).unwrap_or_else(|| number.to_string());
            format!("'{written}'")
        }
        Some(value) => found(value),
    };
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
    let hint = value.and_then(|value| instead(&field, value));
    let hint = hint.map_or_else(String::new, |hint| format!("; write {hint}"));
    (field, reason + &hint)
}

/// Returns the field and what is wrong with it if its value is of another type because of its quotes.
pub(super) fn quoting_error(path: &serde_path_to_error::Path, value: &Value) -> (String, String) {
    let found = value_at(path, value);
    let reason = match found {
        Some(Value::String(text)) if text.parse::<f64>().is_ok() => {
            format!("must be a number: '{text}' must not have quotes")
        }
        Some(Value::Bool(_)) => {
            "must be a string: a word that YAML 1.1 reads as true or false needs quotes".to_owned()
        }
        Some(value) => format!("must be of another type, not {}", self::found(value)),
        None => "must be of another type".to_owned(),
    };
    (field_of(path), reason)
}

/// Returns the message for a field that the API does not have. `document` is what holds it.
pub(super) fn no_such_field(path: &str, document: &Value) -> String {
    let key = path.rsplit('.').next().unwrap_or(path);
    let pointer = format!("/{}", path.replace(['.', '['], "/").replace(']', ""));
    let prefix_length = match document.pointer(&pointer) {
        Some(Value::String(text)) => mask_length(text),
        Some(Value::Number(length)) => Some(length.to_string()),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => None,
    };
    let prefix_length = prefix_length.as_deref();
    let of_ipv4 = format!(
        "`persistence: {{ipv4PrefixLength: {}}}`",
        prefix_length.unwrap_or("24")
    );
    let of_ipv6 = format!(
        "`persistence: {{ipv6PrefixLength: {}}}`",
        prefix_length.unwrap_or("64")
    );
    let instead = match key {
        "lb_kind" | "lvs_method" => "`forwarding: DR`, NAT or TUN",
        "lb_algo" | "lvs_sched" => "`scheduler: {name: rr}`",
        "persistence_timeout" => "`persistence: {timeoutSeconds: 300}`",
        "persistence_granularity" | "prefixLength" => &of_ipv4,
        "prefixLengthV6" => &of_ipv6,
        "real_server" | "realServers" | "endpoints" => "a list in `backends`",
        "vip" | "virtual_ipaddress" => "`addresses`",
        _ => return "must not be set: there is no such field".to_owned(),
    };
    format!("must not be set: there is no such field; write {instead}")
}

/// Returns what to write instead of a value of another type.
fn instead(field: &str, value: &Value) -> Option<String> {
    let key = field.rsplit('.').next()?;
    match value {
        Value::String(text) if key == "scheduler" => Some(format!("`{{name: {text}}}`")),
        Value::String(text) if key.starts_with("backends[") => {
            Some(format!("`{{address: {text}}}`"))
        }
        Value::String(text) if key.ends_with("refixLength") => mask_length(text),
        Value::String(text) if key == "port" && text.contains(['-', ':']) => {
            Some("one port, or `fwmark` for a range".to_owned())
        }
        Value::String(_) if key == "port" || key == "targetPort" => {
            Some("a number, such as 80 for http".to_owned())
        }
        Value::Number(port) if key.starts_with("ports[") => Some(format!("`{{port: {port}}}`")),
        Value::String(_)
        | Value::Number(_)
        | Value::Null
        | Value::Bool(_)
        | Value::Array(_)
        | Value::Object(_) => None,
    }
}

/// Returns the prefix length of a netmask: 26 of 255.255.255.192.
fn mask_length(text: &str) -> Option<String> {
    let mask = text.parse().ok().map(Ipv4Addr::to_bits)?;
    let is_mask = mask.leading_ones() + mask.trailing_zeros() == u32::BITS;
    is_mask.then(|| mask.leading_ones().to_string())
}

/// Returns the number at the place of an error, as it is written: the value of 0120 is 120.
fn written(text: &str, error: &Error) -> Option<String> {
    let at = error.location()?;
    let line = usize::try_from(at.line()).ok()?.checked_sub(1)?;
    let column = usize::try_from(at.column()).ok()?.checked_sub(1)?;
    let rest = text.lines().nth(line)?.get(column..)?;
    let is_number = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '_');
    let end = rest.find(|c| !is_number(c)).unwrap_or(rest.len());
    let number = rest.get(..end)?;
    let is_written = number.contains(|c: char| c.is_ascii_digit());
    is_written.then(|| number.to_owned())
}

fn field_of(path: &serde_path_to_error::Path) -> String {
    path.iter()
        .fold(String::new(), |path, segment| match segment {
            Segment::Seq { index } => format!("{path}[{index}]"),
            Segment::Map { key } => join(&path, key),
            Segment::Enum { .. } | Segment::Unknown => path,
        })
}

/// Returns the value at a path of a document.
pub(super) fn value_at<'v>(
    path: &serde_path_to_error::Path,
    value: &'v Value,
) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, segment| match segment {
        Segment::Seq { index } => value.get(index),
        Segment::Map { key } => value.get(key),
        Segment::Enum { .. } | Segment::Unknown => Some(value),
    })
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
