//! Rejections and problems, with messages that say what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{GroupName, NodeName, ObjectName, PoolName, Target};

/// An API object, by kind and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name")]
pub enum ObjectRef {
    /// An AddressPool.
    AddressPool(PoolName),
    /// A DirectorBinding.
    DirectorBinding(ObjectName),
    /// A DirectorGroup.
    DirectorGroup(GroupName),
    /// An LvsNode.
    LvsNode(NodeName),
    /// A RealServerBinding.
    RealServerBinding(ObjectName),
    /// A VirtualService.
    VirtualService(ObjectName),
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressPool(name) => write!(f, "AddressPool {name}"),
            Self::DirectorBinding(name) => write!(f, "DirectorBinding {name}"),
            Self::DirectorGroup(name) => write!(f, "DirectorGroup {name}"),
            Self::LvsNode(name) => write!(f, "LvsNode {name}"),
            Self::RealServerBinding(name) => write!(f, "RealServerBinding {name}"),
            Self::VirtualService(name) => write!(f, "VirtualService {name}"),
        }
    }
}

/// An object that is not served, with the field and the reason. Other objects are not affected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rejection {
    /// The object. `None` for a document in a file that is not an object of ours, or whose name cannot be read.
    pub object: Option<ObjectRef>,
    /// Where the object comes from: a file, with the document or the line. Empty for an object of the API server.
    /// Without an object, a description of what was found instead.
    pub origin: String,
    /// The path of the field, such as `spec.ports[0].targetPort`. Empty if the object as a whole is rejected.
    pub field: String,
    /// The reason, which continues the sentence that the field begins: `must …`.
    pub reason: String,
}

impl Rejection {
    /// Creates a rejection of an object.
    #[must_use]
    pub fn new(object: ObjectRef, field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            object: Some(object),
            origin: String::new(),
            field: field.into(),
            reason: reason.into(),
        }
    }

    /// Adds the file that the object comes from.
    #[must_use]
    pub fn in_file(mut self, file: &str) -> Self {
        self.origin = match (&self.object, self.origin.as_str()) {
            (None, what) if !what.is_empty() => format!("{what} ({file})"),
            (Some(_) | None, _) => file.to_owned(),
        };
        self
    }
}

/// ```text
/// VirtualService shop/web (web.yaml): `spec.ports[0].port` must be between 1 and 65535, not '0'
/// ```
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

/// The severity of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// Nothing is wrong. Shown by `plan` only.
    Note,
    /// Everything that was asked for is done, but it may not have the intended effect.
    Warning,
    /// Part of what was asked for is not done.
    Error,
}

/// What a problem is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Subject {
    /// The machine.
    Machine,
    /// A virtual service.
    Service(ObjectName),
    /// A virtual service that the machine directs, as far as it is a real server of it too.
    Serving(ObjectName),
    /// A target in the kernel, and so the virtual services that need it.
    Target(Target),
}

/// A condition on this machine that keeps an accepted object from working in full.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// How severe it is.
    pub severity: Severity,
    /// What it is about.
    pub subject: Subject,
    /// What is wrong and what to do.
    pub message: String,
}

impl Problem {
    /// Creates an error: part of what was asked for is not done.
    #[must_use]
    pub fn error(subject: Subject, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            subject,
            message: message.into(),
        }
    }

    /// Creates a note: nothing is wrong.
    #[must_use]
    pub fn note(subject: Subject, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Note,
            subject,
            message: message.into(),
        }
    }

    /// Creates a warning: everything that was asked for is done.
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
    /// Returns the subject and the message, without the severity.
    #[must_use]
    pub fn sentence(&self) -> String {
        match &self.subject {
            Subject::Service(service) | Subject::Serving(service) => {
                format!("VirtualService {service}: {}", self.message)
            }
            Subject::Machine | Subject::Target(_) => self.message.clone(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}: {}", self.sentence())
    }
}
