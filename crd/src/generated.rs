//! The files that are generated from the API types and committed: the chart's CRDs, one file for `kubectl`, the
//! reference.
//!
//! `make generate` writes them, and a test compares them with the types.

mod reference;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Number, Value};
use thiserror::Error;

/// A generated file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path in the repository.
    pub path: String,
    /// What it holds.
    pub text: String,
}

/// Why a file could not be generated.
#[derive(Debug, Error)]
pub enum Error {
    /// A definition could not be converted to JSON.
    #[error("turning a definition into JSON")]
    Json(#[from] serde_json::Error),
    /// A definition could not be converted to YAML.
    #[error("turning a definition into YAML")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

/// The text of the comment in the first line of each file.
const ORIGIN: &str = "Generated from the types in crd/src by: make generate";

/// Every generated file.
///
/// # Errors
/// A type that cannot be written.
pub fn files() -> Result<Vec<File>, Error> {
    let mut files = vec![
        File {
            path: "dist/crds.yaml".to_owned(),
            text: format!("# {ORIGIN}\n{}", yaml()?),
        },
        File {
            path: "docs/api.md".to_owned(),
            text: reference::markdown(ORIGIN, &definitions()?),
        },
    ];
    for crd in crate::crds() {
        files.push(File {
            path: format!(
                "charts/lvs-operator/templates/crds/{}.yaml",
                crd.spec.names.plural
            ),
            text: template(&document(&crd)?),
        });
    }
    Ok(files)
}

/// The CustomResourceDefinitions as YAML documents, for `kubectl apply --server-side -f -`.
///
/// # Errors
/// A type that cannot be written.
pub fn yaml() -> Result<String, Error> {
    crate::crds()
        .iter()
        .map(|crd| Ok(format!("---\n{}", document(crd)?)))
        .collect()
}

fn definitions() -> Result<Vec<Value>, Error> {
    Ok(crate::crds()
        .iter()
        .map(definition)
        .collect::<Result<_, _>>()?)
}

fn document(crd: &CustomResourceDefinition) -> Result<String, Error> {
    Ok(serde_saphyr::to_string(&definition(crd)?)?)
}

fn definition(crd: &CustomResourceDefinition) -> Result<Value, serde_json::Error> {
    serde_json::to_value(crd).map(with_integers)
}

/// Turns whole floating-point numbers into integers: the bounds of a schema are `f64` in Rust, and `1.0` is to
/// be written as `1`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "bounds of fields are far below 2^53, and a fraction stays what it is"
)]
fn with_integers(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 => {
                Value::Number(Number::from(float as i64))
            }
            _ => Value::Number(number),
        },
        Value::Array(items) => items.into_iter().map(with_integers).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, with_integers(value)))
            .collect(),
        other @ (Value::Null | Value::Bool(_) | Value::String(_)) => other,
    }
}

/// Returns a definition as a template of the chart. Values of the chart decide whether it is installed, and
/// whether it is kept when the chart is removed.
fn template(document: &str) -> String {
    let document = document.replace("{{", "{{ `{{` }}");
    let with_metadata = document.replacen(
        "\nmetadata:\n  annotations:\n",
        r#"
metadata:
  labels:
    {{- include "lvs-operator.labels" . | nindent 4 }}
  annotations:
    {{- if .Values.crds.keep }}
    helm.sh/resource-policy: keep
    {{- end }}
"#,
        1,
    );
    format!(
        "{{{{- /* {ORIGIN} */ -}}}}\n{{{{- if .Values.crds.enabled }}}}\n{with_metadata}{{{{- end }}}}\n"
    )
}
