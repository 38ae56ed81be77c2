//! What is wrong, told so that a person can act on it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ObjectName;

/// An object that is not served, with the field and the reason. Its neighbours are not touched by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rejection {
    /// Kind and name of the object, `VirtualService shop/web` for one, or a place in a file.
    pub object: String,
    /// The path of the field, `spec.ports[0].targetPort` for one; empty when it is the object as a whole.
    pub field: String,
    /// The reason, a sentence that goes on from the field: `must …`.
    pub reason: String,
}

impl Rejection {
    /// Rejects a VirtualService.
    #[must_use]
    pub fn of_service(
        name: &ObjectName,
        field: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            object: format!("VirtualService {name}"),
            field: field.into(),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            write!(f, "{}: {}", self.object, self.reason)
        } else {
            write!(f, "{}: `{}` {}", self.object, self.field, self.reason)
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

/// Something on this machine that keeps a virtual service from working in full.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The virtual service; `None` when it concerns the machine.
    pub service: Option<ObjectName>,
    /// What is wrong and what to do.
    pub message: String,
}

impl Problem {
    /// A problem that leaves part of what was asked undone.
    #[must_use]
    pub fn error(service: Option<&ObjectName>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            service: service.cloned(),
            message: message.into(),
        }
    }

    /// A problem that leaves nothing undone.
    #[must_use]
    pub fn warning(service: Option<&ObjectName>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            service: service.cloned(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        match &self.service {
            Some(service) => write!(f, "{severity}: VirtualService {service}: {}", self.message),
            None => write!(f, "{severity}: {}", self.message),
        }
    }
}
