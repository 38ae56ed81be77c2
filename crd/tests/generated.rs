//! The generated files match the types.

use std::{fs, path::Path};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use lvs_crd::{
    condition::{ConditionType, Reason},
    generated,
};

#[test]
fn the_committed_files_match_the_types() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for file in generated::files().unwrap() {
        let committed = fs::read_to_string(root.join(&file.path)).unwrap_or_default();
        assert!(
            committed == file.text,
            "{} differs from the types; run: make generate",
            file.path
        );
    }
}

#[test]
fn every_condition_type_and_reason_is_in_the_reference() {
    let files = generated::files().unwrap();
    let reference = files
        .iter()
        .find(|file| file.path == "docs/api.md")
        .unwrap();
    let kinds = ConditionType::ALL
        .iter()
        .map(|kind| (kind.as_str(), kind.meaning()));
    let reasons = Reason::ALL
        .iter()
        .map(|reason| (reason.as_str(), reason.meaning()));
    for (word, meaning) in kinds.chain(reasons) {
        assert!(meaning.ends_with('.'), "{word}: {meaning}");
        let row = format!("| `{word}` | {meaning} |");
        assert!(reference.text.lines().any(|line| line == row), "{row}");
    }
}

#[test]
fn the_yaml_contains_the_definitions() {
    let text = generated::yaml().unwrap();
    let read: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
    assert_eq!(read.len(), lvs_crd::crds().len());
    for (read, crd) in read.iter().zip(lvs_crd::crds()) {
        let read: CustomResourceDefinition = serde_json::from_value(read.clone()).unwrap();
        assert_eq!(read, crd);
    }
}

/// The API server warns about formats that it does not know (`uint16`) at every apply. It refuses rules over lists and
/// strings without a bound, because they may cost too much.
#[test]
fn every_string_and_list_is_bounded_and_every_format_known() {
    every_field(&mut |schema, path| {
        let format = schema.format.as_deref();
        assert!(
            [None, Some("int32"), Some("int64"), Some("date-time")].contains(&format),
            "{path}: format {format:?}"
        );
        match schema.type_.as_deref() {
            Some("string") if schema.enum_.is_none() && format.is_none() => {
                assert!(schema.max_length.is_some(), "{path}: no maxLength");
            }
            Some("integer") => assert!(schema.minimum.is_some(), "{path}: no minimum"),
            Some("array") => {
                assert!(schema.max_items.is_some(), "{path}: no maxItems");
                assert!(
                    schema.x_kubernetes_list_type.is_some(),
                    "{path}: no list type"
                );
            }
            Some("object") if schema.additional_properties.is_some() => {
                assert!(schema.max_properties.is_some(), "{path}: no maxProperties");
            }
            _ => {}
        }
    });
}

/// Flux applies manifests with the fields that their authors have set to null. The API server takes null only where the schema allows it,
/// or has a default to put in its place.
#[test]
fn every_field_of_a_spec_that_may_be_absent_may_be_null() {
    let mut count = 0;
    every_field(&mut |schema, path| {
        let kinds = ["VirtualService", "DirectorGroup", "AddressPool"];
        let mut specs = kinds.iter().map(|kind| format!("{kind}.spec"));
        if !specs.any(|spec| path.starts_with(&spec)) {
            return;
        }
        let required = schema.required.as_deref().unwrap_or_default();
        let fields = schema.properties.iter().flatten();
        for (name, field) in fields.filter(|(name, _)| !required.contains(name)) {
            let is_nullable = field.nullable == Some(true) || field.default.is_some();
            assert!(is_nullable, "{path}.{name}");
            count += 1;
        }
    });
    assert!(count > 50, "{count} fields");
}

fn walk(schema: &JSONSchemaProps, path: &str, look: &mut impl FnMut(&JSONSchemaProps, &str)) {
    look(schema, path);
    for (name, field) in schema.properties.iter().flatten() {
        walk(field, &format!("{path}.{name}"), look);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        walk(items, &format!("{path}[]"), look);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
        walk(values, &format!("{path}[]"), look);
    }
}

/// Words of other programs, which are written as there: schedulers and persistence engines as in `ipvsadm`.
const FOREIGN_WORDS: [&str; 3] = [".scheduler.name", ".persistence.engine", ".matchLabels[]"];

#[test]
fn every_enumeration_is_in_camel_case() {
    let is_camel_case = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_uppercase())
            && word.chars().all(|c| c.is_ascii_alphanumeric())
    };
    let mut count = 0;
    every_field(&mut |schema, path| {
        let words = words_of(schema);
        if words.is_empty() || FOREIGN_WORDS.iter().any(|end| path.ends_with(end)) {
            return;
        }
        count += 1;
        for word in words {
            assert!(is_camel_case(&word), "{path}: {word}");
        }
    });
    assert!(count > 20, "{count} enumerations");
}

/// The most values that a description has to name. More of them, such as all schedulers, would hide the rest of the text; `kubectl
/// explain` lists them as the enumeration.
const MOST_NAMED_VALUES: usize = 4;

/// What `kubectl explain` shows of a field: a sentence, with its values and bounds, and without words of the source.
#[test]
fn every_description_is_a_sentence_with_values_and_bounds() {
    every_field(&mut |schema, path| {
        // Entries of a list, and values of a map, are described by it.
        if path.ends_with("[]") {
            return;
        }
        let text = schema.description.as_deref().unwrap_or_default();
        assert!(text.contains(' ') && text.ends_with('.'), "{path}: {text}");
        for word in ["::", "[`", "`]", "Option<", "Vec<", "CustomResource"] {
            assert!(!text.contains(word), "{path}: {text}");
        }
        let words = words_of(schema);
        if words.len() <= MOST_NAMED_VALUES {
            for word in words {
                assert!(text.contains(&word), "{path}: no {word}: {text}");
            }
        }
        if let Some(most) = schema.maximum {
            assert!(
                text.contains(&format!("{most}")) || text.contains("to `upperThreshold`"),
                "{path}: no {most}: {text}"
            );
        }
        if path.ends_with("Seconds") {
            assert!(text.contains("in seconds"), "{path}: {text}");
        }
    });
}

fn every_field(look: &mut impl FnMut(&JSONSchemaProps, &str)) {
    for crd in lvs_crd::crds() {
        let schemas = crd.spec.versions.iter();
        let schemas = schemas.filter_map(|version| version.schema.as_ref());
        for schema in schemas.filter_map(|schema| schema.open_api_v3_schema.as_ref()) {
            walk(schema, &crd.spec.names.kind, look);
        }
    }
}

/// Returns the values of an enumeration. One that may be null has a pattern in place of a list.
fn words_of(schema: &JSONSchemaProps) -> Vec<String> {
    let listed = schema.enum_.iter().flatten();
    let listed: Vec<String> = listed
        .filter_map(|value| value.0.as_str().map(str::to_owned))
        .collect();
    let pattern = schema.pattern.as_deref().unwrap_or_default();
    let words = pattern
        .strip_prefix("^(")
        .and_then(|rest| rest.strip_suffix(")$"));
    let words = words.into_iter().flat_map(|words| words.split('|'));
    listed.into_iter().chain(words.map(str::to_owned)).collect()
}
