//! The cases of the CEL rules, for the tests that evaluate the rules themselves and for those that use an API server.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::{collections::BTreeSet, fs, path::Path};

use serde::Deserialize;
use serde_json::Value;

/// The rules of one kind.
#[derive(Deserialize)]
pub(super) struct Cases {
    /// A spec that all rules accept.
    pub(super) spec: Value,
    /// A case for each rule.
    pub(super) cases: Vec<Case>,
}

/// A case of the rule with this field and this message: changes of the spec that the rule accepts, and changes that it
/// refuses.
#[derive(Deserialize)]
pub(super) struct Case {
    pub(super) at: String,
    pub(super) message: String,
    pub(super) accepted: Value,
    pub(super) refused: Value,
}

impl Cases {
    /// Reads `KIND.yaml`.
    pub(super) fn of(kind: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let file = root.join(format!("tests/cel-cases/{kind}.yaml"));
        serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap()
    }

    /// Returns the spec with the fields of `changes`; null removes a field.
    pub(super) fn spec_with(&self, changes: &Value) -> Value {
        let mut spec = self.spec.clone();
        let fields = spec.as_object_mut().unwrap();
        for (key, value) in changes.as_object().unwrap() {
            if value.is_null() {
                fields.remove(key);
            } else {
                fields.insert(key.clone(), value.clone());
            }
        }
        spec
    }
}

/// Returns every rule of a definition's first version, as path and message.
pub(super) fn rules_of(definition: &Value) -> BTreeSet<(String, String)> {
    let schema = definition.pointer("/spec/versions/0/schema/openAPIV3Schema");
    let mut rules = BTreeSet::new();
    collect_rules(schema.unwrap(), "", &mut rules);
    rules
}

fn collect_rules(schema: &Value, path: &str, rules: &mut BTreeSet<(String, String)>) {
    let own = schema.get("x-kubernetes-validations").into_iter();
    let own = own.filter_map(Value::as_array).flatten();
    let messages = own.filter_map(|rule| rule.get("message")?.as_str());
    rules.extend(messages.map(|message| (path.to_owned(), message.to_owned())));
    if let Some(items) = schema.get("items") {
        collect_rules(items, &format!("{path}[]"), rules);
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        let path = [path, name].join(if path.is_empty() { "" } else { "." });
        collect_rules(property, &path, rules);
    }
}
