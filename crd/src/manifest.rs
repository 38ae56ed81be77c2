//! Files of YAML documents become API objects and rejections.
//!
//! [`parse`] is as strict as `kubectl apply` is by default: it refuses a field that the API does not have and a value of
//! another type. A document with an error rejects only itself. If not even its name can be read,
//! [`unreadable`](field@Manifest::unreadable) warns the caller that a missing object may not be deleted.

mod document;
mod explain;
mod identity;
mod kind;
mod message;
mod object;
mod place;
mod plain;
mod raw;
mod refusal;
mod separator;

pub use object::{Entry, Manifest, Object, Rejected};

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroUsize,
    thread,
};

use lvs_model::ObjectRef;

use place::SourceFile;
use refusal::Refusal;
use separator::Document;

/// The size above which a file is refused: 64 MiB, more than ten times what 100,000 real servers take.
pub const MAX_BYTES: usize = 64 << 20;

/// The size from which a file is parsed by several threads.
const PARALLEL_BYTES: usize = 256 << 10;

/// Reads a file. `origin` is its name in the rejections, such as `web.yaml`.
#[must_use]
pub fn parse(origin: &str, bytes: &[u8]) -> Manifest {
    parse_each(origin, bytes, |_| None, |object| object)
}

/// Reads a file document by document, so that a large file takes no more memory than the objects kept from it.
///
/// `recall` returns what an equal document gave before, by its digest; such a document is not read again. `keep` is called
/// with every object that is read. Both may be called from several threads.
#[must_use]
pub fn parse_each<T: Send>(
    origin: &str,
    bytes: &[u8],
    recall: impl Fn(u64) -> Option<(ObjectRef, T)> + Sync,
    keep: impl Fn(Object) -> T + Sync,
) -> Manifest<T> {
    let text = match text(bytes) {
        Ok(text) => text,
        Err(reason) => return Manifest::unreadable(origin, reason),
    };
    let documents = separator::documents(text);
    if documents.is_empty() {
        let reason = "holds no object: to remove what it declared, delete the file".to_owned();
        return Manifest::unreadable(origin, reason);
    }
    let file = SourceFile {
        origin,
        has_several: documents.len() > 1,
    };
    let read = |document: &Document<'_>| {
        let digest = digest(document.text);
        let (identity, object) = match recall(digest) {
            Some(known) => known,
            None => {
                let (identity, object) = document::read(&file, document)?;
                (identity, keep(object))
            }
        };
        Ok(Entry {
            identity,
            digest,
            object,
        })
    };
    collect(&file, read_all(&documents, bytes.len(), read))
}

fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

type Read<T> = Result<Entry<T>, Refusal>;

fn text(bytes: &[u8]) -> Result<&str, String> {
    if bytes.len() > MAX_BYTES {
        return Err(format!("must not be larger than {} MiB", MAX_BYTES >> 20));
    }
    let text = str::from_utf8(bytes).map_err(|error| {
        format!(
            "must be UTF-8 text: byte {} is not",
            error.valid_up_to() + 1
        )
    })?;
    match text.find('\0') {
        Some(at) => Err(format!("must be text: byte {} is zero", at + 1)),
        None => Ok(text),
    }
}

/// Reads the documents in their order; those of a large file in as many threads as the machine has processors.
fn read_all<T: Send>(
    documents: &[Document<'_>],
    size: usize,
    read: impl Fn(&Document<'_>) -> Read<T> + Sync,
) -> Vec<Read<T>> {
    let read_part = |part: &[Document<'_>]| -> Vec<Read<T>> { part.iter().map(&read).collect() };
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    if size < PARALLEL_BYTES || threads == 1 {
        return read_part(documents);
    }
    let mut parts = documents.chunks(documents.len().div_ceil(threads));
    let own = parts.next().unwrap_or_default();
    thread::scope(|scope| {
        let read_part = &read_part;
        let others: Vec<_> = parts
            .map(|part| {
                (
                    part,
                    thread::Builder::new().spawn_scoped(scope, move || read_part(part)),
                )
            })
            .collect();
        let mut all = read_part(own);
        for (part, thread) in others {
            match thread.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(reads)) => all.extend(reads),
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(_no_thread) => all.extend(read_part(part)),
            }
        }
        all
    })
}

fn collect<T>(file: &SourceFile<'_>, reads: Vec<Read<T>>) -> Manifest<T> {
    let mut manifest = Manifest {
        objects: Vec::with_capacity(reads.len()),
        rejections: Vec::new(),
        unreadable: false,
    };
    let mut declared = BTreeMap::new();
    for (read, number) in reads.into_iter().zip(1..) {
        match read {
            Ok(entry) => match declared.get(&entry.identity) {
                Some(first) => {
                    let place = format!("{}, document {number}", file.origin);
                    let reason = format!("must not be declared twice: document {first} has it");
                    manifest
                        .rejections
                        .push(Rejected::of(entry.identity, &place, "", reason));
                }
                None => {
                    declared.insert(entry.identity.clone(), number);
                    manifest.objects.push(entry);
                }
            },
            Err(refusal) => {
                manifest.unreadable |= refusal.may_hide_an_object;
                manifest.rejections.extend(refusal.rejections);
            }
        }
    }
    manifest
}
