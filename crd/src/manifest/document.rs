//! Reads one document: its kind, its name, its spec.
//!
//! A document of the [plain subset](super::plain) becomes JSON, and one typed pass reads that. What is not plain, or
//! gives no object that way, is read as YAML by one typed pass that only counts what it did not know. Whatever goes
//! wrong there is told by another pass that takes its time: it reads the document untyped, finds out whose it is, and
//! then goes through the types again with the path of each field.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;
use serde_saphyr::{
    Error, Options, options::DuplicateKeyPolicy, with_deserializer_from_str_with_options,
};

use super::{File, Object, Rejected, identity, message, plain, separator::Document};
use crate::{DirectorGroup, DirectorGroupSpec, VirtualService, VirtualServiceSpec};
use lvs_model::{ObjectRef, Rejection};

const GROUP: &str = "lvs-operator.io/";
const API_VERSION: &str = "lvs-operator.io/v1alpha1";
const KINDS: [&str; 2] = ["VirtualService", "DirectorGroup"];

/// Fields that the API server writes or only people read. They are skipped, so that the output of
/// `kubectl get -o yaml` is a file that can be read.
const SKIPPED: [&str; 12] = [
    "status",
    "metadata.annotations",
    "metadata.creationTimestamp",
    "metadata.deletionGracePeriodSeconds",
    "metadata.deletionTimestamp",
    "metadata.finalizers",
    "metadata.generation",
    "metadata.labels",
    "metadata.managedFields",
    "metadata.ownerReferences",
    "metadata.resourceVersion",
    "metadata.uid",
];

/// Why a document gives no object.
pub(super) struct Refusal {
    pub(super) rejections: Vec<Rejected>,
    /// Whether it may be an object of ours whose name cannot be told.
    pub(super) may_hide_an_object: bool,
}

/// Reads a document.
pub(super) fn read(
    file: &File<'_>,
    document: &Document<'_>,
) -> Result<(ObjectRef, Object), Refusal> {
    match read_plain(document.text) {
        Some(read) => Ok(read),
        None => read_yaml(file, document),
    }
}

/// The fast path: `None` says nothing but that [`read_yaml`] has to look.
fn read_plain(text: &str) -> Option<(ObjectRef, Object)> {
    let json = plain::to_json(text)?;
    let mut unknown = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(&json);
    let object = if text.contains("DirectorGroup") {
        tracked::<Raw<GroupKind, DirectorGroupSpec>, _>(&mut deserializer, &mut unknown)
            .ok()?
            .group()
    } else {
        tracked::<Raw<ServiceKind, VirtualServiceSpec>, _>(&mut deserializer, &mut unknown)
            .ok()?
            .service()
    };
    unknown.is_empty().then_some((object.identity()?, object))
}

/// The slow path, which judges whatever the fast one leaves.
fn read_yaml(file: &File<'_>, document: &Document<'_>) -> Result<(ObjectRef, Object), Refusal> {
    let mut unknown = Vec::new();
    let object = if document.text.contains("DirectorGroup") {
        typed::<GroupKind, DirectorGroupSpec>(document.text, &mut unknown).map(|raw| raw.group())
    } else {
        typed::<ServiceKind, VirtualServiceSpec>(document.text, &mut unknown)
            .map(|raw| raw.service())
    };
    match object {
        Ok(object) => match object.identity() {
            Some(identity) if unknown.is_empty() => Ok((identity, object)),
            Some(identity) => Err(refuse_unknown(
                &identity,
                &file.place(document, None),
                unknown,
            )),
            None => Err(explain(file, document)),
        },
        Err(_) => Err(explain(file, document)),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw<K, S> {
    #[expect(dead_code, reason = "its type is its value")]
    api_version: ApiVersion,
    #[expect(dead_code, reason = "its type is its value")]
    kind: K,
    metadata: Metadata,
    spec: S,
}

#[derive(Deserialize)]
enum ApiVersion {
    #[serde(rename = "lvs-operator.io/v1alpha1")]
    V1Alpha1,
}

#[derive(Deserialize)]
enum ServiceKind {
    VirtualService,
}

#[derive(Deserialize)]
enum GroupKind {
    DirectorGroup,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: Option<String>,
}

impl From<Metadata> for ObjectMeta {
    fn from(metadata: Metadata) -> Self {
        Self {
            name: Some(metadata.name),
            namespace: metadata.namespace,
            ..Self::default()
        }
    }
}

impl Raw<ServiceKind, VirtualServiceSpec> {
    fn service(self) -> Object {
        let object = VirtualService {
            metadata: self.metadata.into(),
            spec: self.spec,
            status: None,
        };
        Object::VirtualService(Box::new(object))
    }
}

impl Raw<GroupKind, DirectorGroupSpec> {
    fn group(self) -> Object {
        let object = DirectorGroup {
            metadata: self.metadata.into(),
            spec: self.spec,
            status: None,
        };
        Object::DirectorGroup(Box::new(object))
    }
}

/// One pass through the types; gives the paths of fields that they do not have.
fn typed<K: DeserializeOwned, S: DeserializeOwned>(
    text: &str,
    unknown: &mut Vec<String>,
) -> Result<Raw<K, S>, Error> {
    let mut options = options();
    // The types refuse a field twice by themselves; the parser's own check costs a tenth of the time.
    options.duplicate_keys = DuplicateKeyPolicy::PassThrough;
    with_deserializer_from_str_with_options(text, options, |deserializer| {
        tracked(deserializer, unknown)
    })
}

/// Reads a value and notes the paths of fields that its type does not have.
fn tracked<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
    unknown: &mut Vec<String>,
) -> Result<T, D::Error> {
    serde_ignored::deserialize(deserializer, |path| {
        let path = message::path(&path);
        if !SKIPPED.contains(&path.as_str()) {
            unknown.push(path);
        }
    })
}

/// Snippets would quote the file in every error. Strings that read as numbers or booleans need quotes, as they do for
/// `kubectl`. The size of the file bounds what a document may hold; depth and aliases, which cost
/// more than their size, keep the parser's limits.
fn options() -> Options {
    let budget = serde_saphyr::budget! {
        max_events: usize::MAX,
        max_nodes: usize::MAX,
        max_total_scalar_bytes: usize::MAX,
    };
    serde_saphyr::options! {
        budget: budget,
        with_snippet: false,
        strict_booleans: true,
        no_schema: true,
        emit_comments: false,
    }
}

fn refuse_unknown(identity: &ObjectRef, place: &str, unknown: Vec<String>) -> Refusal {
    let reject = |path| {
        Rejected::of(
            identity.clone(),
            place,
            path,
            "must not be set: there is no such field",
        )
    };
    Refusal {
        rejections: unknown.into_iter().map(reject).collect(),
        may_hide_an_object: false,
    }
}

/// The second pass: finds out what is wrong with a document that gave no object.
fn explain(file: &File<'_>, document: &Document<'_>) -> Refusal {
    let value: Value = match serde_saphyr::from_str_with_options(document.text, options()) {
        Ok(value) => value,
        Err(error) => {
            return anonymous(
                place_of(file, document, &error),
                "",
                message::syntax(&error),
            );
        }
    };
    let place = || file.place(document, None);
    if !value.is_object() {
        let reason = "must hold `apiVersion`, `kind`, `metadata` and `spec`";
        return anonymous(place(), "", reason.to_owned());
    }
    let identity = identity_of(&value);
    let head = head(&value);
    match (identity, head) {
        (Ok(identity), Err((field, reason))) => named(&identity, &place(), field, reason),
        (Err(_), Err((field, reason))) => Refusal {
            may_hide_an_object: !is_foreign(&value),
            ..anonymous(place(), field, reason)
        },
        (Err((field, reason)), Ok(())) => anonymous(place(), field, reason),
        (Ok(identity), Ok(())) => {
            let (field, reason, error) = match &identity {
                ObjectRef::VirtualService(_) => traced::<VirtualServiceSpec>(document.text, &value),
                ObjectRef::DirectorGroup(_)
                | ObjectRef::DirectorBinding(_)
                | ObjectRef::LvsNode(_) => traced::<DirectorGroupSpec>(document.text, &value),
            };
            let place = error.map_or_else(place, |error| place_of(file, document, &error));
            named(&identity, &place, &field, reason)
        }
    }
}

/// What is wrong with `apiVersion` or `kind`.
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
    if !value
        .get("kind")
        .and_then(Value::as_str)
        .is_some_and(|kind| KINDS.contains(&kind))
    {
        return Err(wrong("kind", &format!("'{}' or '{}'", KINDS[0], KINDS[1])));
    }
    Ok(())
}

/// Whose document it is, or what is wrong with `metadata`.
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
    match value.get("kind").and_then(Value::as_str) {
        Some("DirectorGroup") => {
            identity::of_group(name).map_err(|error| ("metadata.name", error.to_string()))
        }
        Some("VirtualService") => identity::of_service(namespace, name).map_err(|error| {
            let field = if identity::of_service(namespace, "x").is_ok() {
                "metadata.name"
            } else {
                "metadata.namespace"
            };
            (field, error.to_string())
        }),
        Some(_) | None => Err(("kind", String::new())),
    }
}

/// Says whether a document is certainly no object of ours: a ConfigMap beside them, for one. A list may hold ours.
fn is_foreign(value: &Value) -> bool {
    let text = |field| value.get(field).and_then(Value::as_str);
    match (text("apiVersion"), text("kind")) {
        (Some(version), Some(kind)) => {
            !version.starts_with(GROUP) && !kind.ends_with("List") && !KINDS.contains(&kind)
        }
        (None, _) | (_, None) => false,
    }
}

/// Goes through the types again, with the path of each field.
fn traced<S: DeserializeOwned>(text: &str, value: &Value) -> (String, String, Option<Error>) {
    #[derive(Deserialize)]
    struct Spec<S> {
        #[expect(dead_code, reason = "read for its errors")]
        metadata: Metadata,
        #[expect(dead_code, reason = "read for its errors")]
        spec: S,
    }
    let mut track = serde_path_to_error::Track::new();
    let result = with_deserializer_from_str_with_options(text, options(), |deserializer| {
        Spec::<S>::deserialize(serde_path_to_error::Deserializer::new(
            deserializer,
            &mut track,
        ))
    });
    match result {
        Ok(_) => (String::new(), "cannot be read".to_owned(), None),
        Err(error) => {
            let (field, reason) = message::type_error(&error, &track.path(), value);
            (field, reason, Some(error))
        }
    }
}

fn place_of(file: &File<'_>, document: &Document<'_>, error: &Error) -> String {
    let line = error
        .location()
        .and_then(|location| usize::try_from(location.line()).ok());
    file.place(document, line.filter(|line| *line > 0))
}

fn anonymous(origin: String, field: &str, reason: String) -> Refusal {
    let rejection = Rejection {
        object: None,
        origin,
        field: field.to_owned(),
        reason,
    };
    Refusal {
        rejections: vec![Rejected {
            identity: None,
            rejection,
        }],
        may_hide_an_object: true,
    }
}

fn named(identity: &ObjectRef, place: &str, field: &str, reason: String) -> Refusal {
    let rejections = vec![Rejected::of(identity.clone(), place, field, reason)];
    Refusal {
        rejections,
        may_hide_an_object: false,
    }
}

#[cfg(test)]
mod tests;
