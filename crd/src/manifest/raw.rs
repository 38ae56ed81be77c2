//! Documents as the types of the API read them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;
use serde_path_to_error::Segment;
use serde_saphyr::{
    Error, Options, options::DuplicateKeyPolicy, with_deserializer_from_str_with_options,
};

use super::{message, object::Object};
use crate::{
    AddressPool, AddressPoolSpec, DirectorGroup, DirectorGroupSpec, VirtualService,
    VirtualServiceSpec,
};

/// Fields that the API server writes or that only people read. They are skipped, so that the output of
/// `kubectl get -o yaml` can be used as a file.
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

/// A document of one kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Raw<K, S> {
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
pub(super) enum ServiceKind {
    VirtualService,
}

#[derive(Deserialize)]
pub(super) enum GroupKind {
    DirectorGroup,
}

#[derive(Deserialize)]
pub(super) enum PoolKind {
    AddressPool,
}

/// The part of the metadata that is read.
#[derive(Deserialize)]
pub(super) struct Metadata {
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
    pub(super) fn service(self) -> Object {
        let object = VirtualService {
            metadata: self.metadata.into(),
            spec: self.spec,
            status: None,
        };
        Object::VirtualService(Box::new(object))
    }
}

impl Raw<GroupKind, DirectorGroupSpec> {
    pub(super) fn group(self) -> Object {
        let object = DirectorGroup {
            metadata: self.metadata.into(),
            spec: self.spec,
            status: None,
        };
        Object::DirectorGroup(Box::new(object))
    }
}

impl Raw<PoolKind, AddressPoolSpec> {
    pub(super) fn pool(self) -> Object {
        let object = AddressPool {
            metadata: self.metadata.into(),
            spec: self.spec,
            status: None,
        };
        Object::AddressPool(Box::new(object))
    }
}

/// Reads a document of YAML, and collects the paths of fields that its type does not have.
pub(super) fn typed<K: DeserializeOwned, S: DeserializeOwned>(
    text: &str,
    unknown: &mut Vec<String>,
) -> Result<Raw<K, S>, Error> {
    let mut options = options();
    // The types refuse a repeated field themselves; the parser's own check takes a tenth of the time.
    options.duplicate_keys = DuplicateKeyPolicy::PassThrough;
    with_deserializer_from_str_with_options(text, options, |deserializer| {
        tracked(deserializer, unknown)
    })
}

/// Reads a document of YAML like [`typed`], except that a null counts as an absent field if its type allows no null. The API server does
/// the same.
pub(super) fn nulls_as_absent<K: DeserializeOwned, S: DeserializeOwned>(
    text: &str,
    unknown: &mut Vec<String>,
) -> Option<Raw<K, S>> {
    unknown.clear();
    let mut value: Value = serde_saphyr::from_str_with_options(text, options()).ok()?;
    by_type::<Raw<K, S>>(&mut value).ok()?;
    // Read as YAML again: from a value, the types would accept a list for a struct.
    typed(&value.to_string(), unknown).ok()
}

/// Reads a value by its type, and removes the nulls that the type does not allow. Fails with the path of the first other error.
pub(super) fn by_type<T: DeserializeOwned>(
    value: &mut Value,
) -> Result<T, serde_path_to_error::Path> {
    loop {
        let mut track = serde_path_to_error::Track::new();
        let deserializer = serde_path_to_error::Deserializer::new(&*value, &mut track);
        if let Ok(read) = T::deserialize(deserializer) {
            return Ok(read);
        }
        let path = track.path();
        let last = path.iter().next_back();
        // All fields of that name at once: a document may have many fields, but few names.
        let is_changed = match last {
            Some(Segment::Map { key }) => remove_null(value, key),
            Some(Segment::Seq { .. } | Segment::Enum { .. } | Segment::Unknown) | None => false,
        };
        if !is_changed {
            return Err(path);
        }
    }
}

/// Removes each field of a name that is null. Returns whether there was one.
fn remove_null(value: &mut Value, name: &str) -> bool {
    match value {
        Value::Object(fields) => {
            let is_null = fields.get(name).is_some_and(Value::is_null);
            if is_null {
                fields.remove(name);
            }
            let fields = fields.values_mut();
            fields
                .filter_map(|field| remove_null(field, name).then_some(()))
                .count()
                > 0
                || is_null
        }
        Value::Array(items) => {
            let items = items.iter_mut();
            items
                .filter_map(|item| remove_null(item, name).then_some(()))
                .count()
                > 0
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Reads a value, and collects the paths of fields that its type does not have.
pub(super) fn tracked<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
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

/// Reads a document by the rules of YAML 1.1, where `on` is a boolean. Returns the first field whose value has another type than the
/// field, and what is wrong with it.
pub(super) fn strictly<K: DeserializeOwned, S: DeserializeOwned>(
    text: &str,
) -> Option<(String, String)> {
    let mut options = options();
    options.strict_booleans = false;
    let mut value: Value = serde_saphyr::from_str_with_options(text, options).ok()?;
    let path = by_type::<Raw<K, S>>(&mut value).err()?;
    Some(message::quoting_error(&path, &value))
}

/// Returns the options of the YAML parser. Errors quote no snippets of the file. Strings that look like numbers or booleans
/// need quotes, as with `kubectl`. The size of the file limits what a document may hold. Depth and aliases, which cost more
/// than their size, keep the parser's limits.
pub(super) fn options() -> Options {
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
