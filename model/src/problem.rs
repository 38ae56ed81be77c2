//! What is wrong, in words that a person can act on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{GroupName, NodeName, ObjectName, Target};

/// An object of the API, by kind and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name")]
pub enum ObjectRef {
    /// A DirectorBinding.
    DirectorBinding(ObjectName),
    /// A DirectorGroup.
    DirectorGroup(GroupName),
    /// An LvsNode.
    LvsNode(NodeName),
    /// A VirtualService.
    VirtualService(ObjectName),
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DirectorBinding(name) => write!(f, "DirectorBinding {name}"),
            Self::DirectorGroup(name) => write!(f, "DirectorGroup {name}"),
            Self::LvsNode(name) => write!(f, "LvsNode {name}"),
            Self::VirtualService(name) => write!(f, "VirtualService {name}"),
        }
    }
}

/// An object that is not served, with the field and the reason. Its neighbours are not touched by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rejection {
    /// The object; `None` for text in a file that is no object, or of which the name cannot be told.
    pub object: Option<ObjectRef>,
    /// Where it stands: a file, with the document or the line; empty for an object of the API server. Without an object,
    /// what there is in its place.
    pub origin: String,
    /// The path of the field, `spec.ports[0].targetPort` for one; empty when it is the object as a whole.
    pub field: String,
    /// The reason, a sentence that goes on from the field: `must …`.
    pub reason: String,
}

impl Rejection {
    /// Rejects an object.
    #[must_use]
    pub fn new(object: ObjectRef, field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            object: Some(object),
            origin: String::new(),
            field: field.into(),
            reason: reason.into(),
        }
    }

    /// The same, with the file in which it stands.
    #[must_use]
    pub fn in_file(mut self, file: &str) -> Self {
        self.origin = match (&self.object, self.origin.as_str()) {
            (None, what) if !what.is_empty() => format!("{what} ({file})"),
            (Some(_) | None, _) => file.to_owned(),
        };
        self
    }
}

/// `VirtualService shop/web (web.yaml): `spec.ports[0].port` must be between 1 and 65535, not '0'`
impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.object, self.origin.as_str()) {
            (Some(object), "") => write!(f, "{object}: ")?,
            (Some(object), origin) => write!(f, "{object} ({origin}): ")?,
            (None, origin) => write!(f, "{origin}: ")?,
        }
        if self.field.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "`{}` {}", self.field, self.reason)
        }
    }
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// Works as asked, and may not do what was meant.
    Warning,
    /// Part of what was asked is not done.
    Error,
}

/// What a problem is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Subject {
    /// The machine.
    Machine,
    /// A virtual service.
    Service(ObjectName),
    /// Something in the kernel, and so the virtual services that want it.
    Target(Target),
}

/// Something on this machine that keeps an accepted object from working in full.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub subject: Subject,
    /// What is wrong and what to do.
    pub message: String,
}

impl Problem {
    /// A problem that leaves part of what was asked undone.
    #[must_use]
    pub fn error(subject: Subject, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            subject,
            message: message.into(),
        }
    }

    /// A problem that leaves nothing undone.
    #[must_use]
    pub fn warning(subject: Subject, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            subject,
            message: message.into(),
        }
    }
}

impl Problem {
    /// What it is about and what is wrong, without the severity.
    #[must_use]
    pub fn sentence(&self) -> String {
        match &self.subject {
            Subject::Service(service) => format!("VirtualService {service}: {}", self.message),
            Subject::Machine | Subject::Target(_) => self.message.clone(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}: {}", self.sentence())
    }
}
