//! Files of YAML documents become API objects and rejections.
//!
//! [`parse`] is strict where `kubectl apply` with its defaults is: a field that the API does not have is refused, and
//! so is a value of another type. A document that is wrong rejects itself and no other; when not even its name can
//! be read, [`unreadable`](field@Manifest::unreadable) warns against taking an absent object for a deleted one.

mod document;
mod identity;
mod message;
mod plain;
mod separator;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroUsize,
    thread,
};

use lvs_model::{ObjectRef, Rejection};

use crate::{DirectorGroup, VirtualService};
use separator::Document;

/// The size from which a file is refused: 64 MiB, more than ten times the 100,000 real servers of the benchmarks.
pub const MAX_BYTES: usize = 64 << 20;

/// The size from which a file is parsed by several threads.
const PARALLEL_BYTES: usize = 256 << 10;

/// What a file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest<T = Object> {
    /// The objects that could be read, in the order of the file; no two with the same identity.
    pub objects: Vec<Entry<T>>,
    /// What could not, in the order of the file.
    pub rejections: Vec<Rejected>,
    /// Whether the file holds something whose identity is not known, so that an object which is not among
    /// [`objects`](Self::objects) and [`rejections`](Self::rejections) may be there all the same. The caller then
    /// deletes nothing because of this file.
    pub unreadable: bool,
}

/// An object with where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<T = Object> {
    /// What tells it from every other.
    pub identity: ObjectRef,
    /// A 64-bit hash of the text of its document. Equal texts have equal ones in one process.
    pub digest: u64,
    /// The object, or what the caller keeps of it.
    pub object: T,
}

/// An object of the API.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A virtual service.
    VirtualService(Box<VirtualService>),
    /// A group of directors.
    DirectorGroup(Box<DirectorGroup>),
}

/// A rejection with the object that it concerns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rejected {
    /// The object, when it could be told: its last good version stays in force. An accepted object may have the same
    /// identity, when it was declared twice.
    pub identity: Option<ObjectRef>,
    /// What is wrong.
    pub rejection: Rejection,
}

/// Reads a file. `origin` names it in the rejections: `web.yaml` for one.
#[must_use]
pub fn parse(origin: &str, bytes: &[u8]) -> Manifest {
    parse_each(origin, bytes, |_| None, |object| object)
}

/// Reads a file document by document, so that a large one costs no more memory than what is kept of it.
///
/// `recall` says by the digest of a document what an equal one gave before; such a document is not read again. `keep` is
/// given every object that is read. Both may be called from several threads.
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
    let file = File {
        origin,
        several: documents.len() > 1,
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

impl<T> Manifest<T> {
    /// A file of which nothing can be said but why.
    fn unreadable(origin: &str, reason: String) -> Self {
        let rejection = Rejection {
            object: None,
            origin: origin.to_owned(),
            field: String::new(),
            reason,
        };
        Self {
            objects: Vec::new(),
            rejections: vec![Rejected {
                identity: None,
                rejection,
            }],
            unreadable: true,
        }
    }
}

impl Object {
    /// Kind and name; `None` when the name is not one, which [`parse`] rules out.
    fn identity(&self) -> Option<ObjectRef> {
        match self {
            Self::VirtualService(object) => identity::of_service(
                object.metadata.namespace.as_deref(),
                object.metadata.name.as_deref()?,
            )
            .ok(),
            Self::DirectorGroup(object) => {
                identity::of_group(object.metadata.name.as_deref()?).ok()
            }
        }
    }
}

impl Rejected {
    fn of(
        identity: ObjectRef,
        place: &str,
        field: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        let rejection = Rejection::new(identity.clone(), field, reason).in_file(place);
        Self {
            identity: Some(identity),
            rejection,
        }
    }
}

/// A file as its documents' rejections name it.
struct File<'a> {
    origin: &'a str,
    several: bool,
}

impl File<'_> {
    fn place(&self, document: &Document<'_>, line: Option<usize>) -> String {
        let mut place = self.origin.to_owned();
        if self.several {
            place.push_str(&format!(", document {}", document.number));
        }
        if let Some(line) = line {
            place.push_str(&format!(", line {}", document.first_line + line - 1));
        }
        place
    }
}

type Read<T> = Result<Entry<T>, document::Refusal>;

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

/// Reads the documents, in their order, with as many threads as the machine has when the file is large.
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

fn collect<T>(file: &File<'_>, reads: Vec<Read<T>>) -> Manifest<T> {
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
