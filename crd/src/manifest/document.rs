//! Reads one document.
//!
//! A document of the [plain subset](super::plain) becomes JSON, and one typed pass reads that. Any other is read as YAML by
//! one typed pass that only collects unknown fields. If either gives no object, [`explain`] reads the document again, more
//! slowly, to find the error.

use lvs_model::ObjectRef;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    explain::explain,
    kind::Kind,
    message,
    object::Object,
    place::SourceFile,
    plain,
    raw::{
        GroupKind, PoolKind, Raw, ServiceKind, nulls_as_absent, options, strictly, tracked, typed,
    },
    refusal::Refusal,
    separator::Document,
};
use crate::{AddressPoolSpec, DirectorGroupSpec, VirtualServiceSpec};

/// Reads a document.
pub(super) fn read(
    file: &SourceFile<'_>,
    document: &Document<'_>,
) -> Result<(ObjectRef, Object), Refusal> {
    match read_plain(document.text) {
        Some(read) => Ok(read),
        None => read_yaml(file, document),
    }
}

/// The fast path; `None` if [`read_yaml`] has to read the document.
fn read_plain(text: &str) -> Option<(ObjectRef, Object)> {
    let json = plain::to_json(text)?;
    let mut unknown = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(&json);
    let object = match Kind::guess(text) {
        Kind::DirectorGroup => {
            tracked::<Raw<GroupKind, DirectorGroupSpec>, _>(&mut deserializer, &mut unknown)
                .ok()?
                .group()
        }
        Kind::AddressPool => {
            tracked::<Raw<PoolKind, AddressPoolSpec>, _>(&mut deserializer, &mut unknown)
                .ok()?
                .pool()
        }
        Kind::VirtualService => {
            tracked::<Raw<ServiceKind, VirtualServiceSpec>, _>(&mut deserializer, &mut unknown)
                .ok()?
                .service()
        }
    };
    unknown.is_empty().then_some((object.identity()?, object))
}

/// The slow path, for every document that the fast path does not read.
fn read_yaml(
    file: &SourceFile<'_>,
    document: &Document<'_>,
) -> Result<(ObjectRef, Object), Refusal> {
    let mut unknown = Vec::new();
    let text = document.text;
    let object = match Kind::guess(text) {
        Kind::DirectorGroup => {
            read_typed::<GroupKind, DirectorGroupSpec>(text, &mut unknown).map(|raw| raw.group())
        }
        Kind::AddressPool => {
            read_typed::<PoolKind, AddressPoolSpec>(text, &mut unknown).map(|raw| raw.pool())
        }
        Kind::VirtualService => read_typed::<ServiceKind, VirtualServiceSpec>(text, &mut unknown)
            .map(|raw| raw.service()),
    };
    match object {
        Some(object) => match object.identity() {
            Some(identity) if unknown.is_empty() => match strict_error(text) {
                None => Ok((identity, object)),
                Some(error) => {
                    let place = file.place(document, None);
                    Err(Refusal::of_fields(&identity, &place, [error]))
                }
            },
            Some(identity) => {
                let place = file.place(document, None);
                let value: Value =
                    serde_saphyr::from_str_with_options(text, options()).unwrap_or_default();
                let unknown = unknown.into_iter().map(|field| {
                    let reason = message::no_such_field(&field, &value);
                    (field, reason)
                });
                Err(Refusal::of_fields(&identity, &place, unknown))
            }
            None => Err(explain(file, document)),
        },
        None => Err(explain(file, document)),
    }
}

fn read_typed<K: DeserializeOwned, S: DeserializeOwned>(
    text: &str,
    unknown: &mut Vec<String>,
) -> Option<Raw<K, S>> {
    let read = typed(text, unknown).ok();
    read.or_else(|| nulls_as_absent(text, unknown))
}

/// Returns the field, and what is wrong with it, if `kubectl` and the API server would read a value as another type than its
/// field has: a number in quotes, or a word such as `on`, which is a boolean in YAML 1.1.
fn strict_error(text: &str) -> Option<(String, String)> {
    match Kind::guess(text) {
        Kind::AddressPool => strictly::<PoolKind, AddressPoolSpec>(text),
        Kind::DirectorGroup => strictly::<GroupKind, DirectorGroupSpec>(text),
        Kind::VirtualService => strictly::<ServiceKind, VirtualServiceSpec>(text),
    }
}

#[cfg(test)]
mod tests;
