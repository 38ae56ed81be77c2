//! Steps for GUE ports.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::change::{Action, Change};
use crate::{FouPort, Target};

/// A change of the ports on which the kernel decapsulates GUE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FouStep {
    /// Makes the kernel decapsulate GUE on a UDP port.
    AddPort(FouPort),
    /// Stops decapsulating GUE on a UDP port.
    RemovePort(FouPort),
}

impl Change for FouStep {
    fn target(&self) -> Target {
        match self {
            Self::AddPort(port) | Self::RemovePort(port) => Target::FouPort(*port),
        }
    }

    fn action(&self) -> Action {
        match self {
            Self::AddPort(_) => Action::Make,
            Self::RemovePort(_) => Action::Remove,
        }
    }

    fn reason(&self) -> Option<&'static str> {
        None
    }
}

impl fmt::Display for FouStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, FouPort { family, port }, kind) = match self {
            Self::AddPort(port) => ("add", port, " gue"),
            Self::RemovePort(port) => ("del", port, ""),
        };
        write!(f, "ip{} fou {verb} port {port}{kind}", family.ip_option())
    }
}
