//! The reference of the API: one table of fields for each kind, from the schemas.

#![expect(
    clippy::indexing_slicing,
    reason = "indexing a JSON value with a missing name gives null"
)]

use serde_json::Value;

use crate::condition::{ConditionType, Reason};

const INTRODUCTION: &str = "\
# API reference

Group `lvs-operator.io`, version `v1alpha1`, category `lvs` (`kubectl get lvs`). Other projects have a kind
`VirtualService` too: write `virtualservices.lvs-operator.io` in full, or the short name `lvsvs`.

People write VirtualServices and DirectorGroups, and the LvsNode of a machine outside the cluster. The controller writes
DirectorBindings, RealServerBindings and LvsNodes; the agent of a machine writes the status of its own. What a rule or a
bound below forbids is refused when the object is written. What takes more than one object to see is a condition of the object.
A value of another type is refused in the API server's own words:
[operations.md](operations.md#manifests-that-the-api-server-refuses) says what to write instead.

`[]` after a name stands for each entry of a list. A field without `required` may be left out.
";

/// Returns the reference in Markdown. `origin` says how it is generated.
pub(super) fn markdown(origin: &str, definitions: &[Value]) -> String {
    let mut text = format!("<!-- {origin} -->\n\n{INTRODUCTION}");
    let mut repeatable = None;
    for definition in definitions {
        kind(definition, &mut repeatable, &mut text);
    }
    conditions(&mut text);
    text
}

/// Appends the types and reasons of conditions.
fn conditions(text: &mut String) {
    put(text, "\n## Conditions\n\n");
    put(text, "| type | true when |\n|---|---|\n");
    for kind in ConditionType::ALL {
        put(text, &word_row(kind.as_str(), kind.meaning()));
    }
    put(text, "\n| reason | meaning |\n|---|---|\n");
    for reason in Reason::ALL {
        put(text, &word_row(reason.as_str(), reason.meaning()));
    }
}

fn word_row(word: &str, meaning: &str) -> String {
    format!("| `{word}` | {meaning} |\n")
}

fn kind<'a>(definition: &'a Value, repeatable: &mut Option<&'a Value>, text: &mut String) {
    let names = &definition["spec"]["names"];
    let version = &definition["spec"]["versions"][0];
    let schema = &version["schema"]["openAPIV3Schema"];
    let name = string(&names["kind"]);
    let scope = match string(&definition["spec"]["scope"]) {
        "Namespaced" => "in a namespace",
        _ => "of the whole cluster",
    };
    put(text, &format!("\n## {name}\n\n{}\n", description(schema)));
    put(
        text,
        &format!(
            "\n`{}`, short name `{}`, {scope}.\n",
            string(&definition["metadata"]["name"]),
            string(&names["shortNames"][0])
        ),
    );
    for part in ["spec", "status"] {
        put(text, &format!("\n### {name} {part}\n\n"));
        put(
            text,
            "| field | type | default | meaning |\n|---|---|---|---|\n",
        );
        let schema = &schema["properties"][part];
        let mut rules = Vec::new();
        fields(schema, "", *repeatable, text, &mut rules);
        rules_of(schema, "", &mut rules);
        if !rules.is_empty() {
            put(text, "\nRules:\n\n");
            rules.iter().for_each(|rule| put(text, rule));
        }
    }
    if name == "VirtualService" {
        *repeatable = Some(&schema["properties"]["spec"]["properties"]);
    }
}

/// Appends a row for each field, inner fields after their outer one, and collects their rules.
fn fields(
    schema: &Value,
    prefix: &str,
    repeatable: Option<&Value>,
    text: &mut String,
    rules: &mut Vec<String>,
) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{prefix}{name}");
        let required = schema["required"]
            .as_array()
            .is_some_and(|names| names.iter().any(|required| required == name));
        let default = match &field["default"] {
            _ if required => "required".to_owned(),
            Value::Null => String::new(),
            Value::Object(_) => "its fields'".to_owned(),
            Value::String(word) => format!("`{word}`"),
            default @ (Value::Bool(_) | Value::Number(_) | Value::Array(_)) => {
                format!("`{default}`")
            }
        };
        let inner = match field.get("items") {
            Some(items) => items,
            None => field,
        };
        let repeated = repeatable == Some(&inner["properties"]);
        let kind = if repeated {
            "[VirtualService spec](#virtualservice-spec)".to_owned()
        } else if is_condition(inner) {
            "list of `metav1.Condition`".to_owned()
        } else {
            type_of(field)
        };
        let meaning = description(field).replace('|', "\\|");
        put(
            text,
            &format!("| `{path}` | {kind} | {default} | {meaning} |\n"),
        );
        if repeated || is_condition(inner) {
            continue;
        }
        let inner_path = match field.get("items") {
            Some(_) => format!("{path}[]"),
            None => path.clone(),
        };
        rules_of(field, &path, rules);
        if field.get("items").is_some() {
            rules_of(inner, &inner_path, rules);
        }
        fields(inner, &format!("{inner_path}."), repeatable, text, rules);
    }
}

fn rules_of(schema: &Value, path: &str, rules: &mut Vec<String>) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let message = string(&rule["message"]);
        rules.push(match path {
            "" => format!("- {message}\n"),
            _ => format!("- `{path}`: {message}\n"),
        });
    }
}

fn is_condition(schema: &Value) -> bool {
    !schema["properties"]["lastTransitionTime"].is_null()
}

fn type_of(schema: &Value) -> String {
    let bound = |least: &str, most: &str| match (&schema[least], &schema[most]) {
        (Value::Null, Value::Null) => None,
        (Value::Null, most) => Some(format!("at most {most}")),
        (least, Value::Null) => Some(format!("at least {least}")),
        (least, most) if least == most => Some(format!("exactly {least}")),
        (least, most) => Some(format!("{least} to {most}")),
    };
    let with = |what: &str, bound: Option<String>, unit: &str| match bound {
        Some(bound) => format!("{what}, {bound}{unit}"),
        None => what.to_owned(),
    };
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<_> = words
            .iter()
            .map(|word| format!("`{}`", string(word)))
            .collect();
        return words.join(" ");
    }
    match string(&schema["type"]) {
        "string" => with("string", bound("minLength", "maxLength"), " characters"),
        "integer" => with("integer", bound("minimum", "maximum"), ""),
        "array" => {
            let list = match string(&schema["x-kubernetes-list-type"]) {
                "set" => "set",
                _ => "list",
            };
            let of = format!("{list} of {}", type_of(&schema["items"]));
            with(&of, bound("minItems", "maxItems"), " entries") + &keys(schema)
        }
        "object" if schema.get("additionalProperties").is_some() => with(
            "map of strings",
            bound("minProperties", "maxProperties"),
            " entries",
        ),
        other => other.to_owned(),
    }
}

/// Returns the fields that identify an entry of a list.
fn keys(schema: &Value) -> String {
    match schema["x-kubernetes-list-map-keys"].as_array() {
        Some(keys) => {
            let keys: Vec<_> = keys
                .iter()
                .map(|key| format!("`{}`", string(key)))
                .collect();
            format!(", no two with the same {}", keys.join(" and "))
        }
        None => String::new(),
    }
}

fn description(schema: &Value) -> String {
    string(&schema["description"]).replace('\n', " ")
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn put(text: &mut String, part: &str) {
    text.push_str(part);
}
