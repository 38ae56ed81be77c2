//! Steps for the masquerading rules.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::change::{Action, Change};
use crate::{Masquerade, Target};

/// A change of the masquerading rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MasqueradeStep {
    /// Makes the rules cover exactly these services.
    Set(Masquerade),
    /// Removes the rules.
    Remove,
}

impl Change for MasqueradeStep {
    fn target(&self) -> Target {
        Target::Masquerade
    }

    fn action(&self) -> Action {
        match self {
            Self::Set(_) => Action::Set,
            Self::Remove => Action::Remove,
        }
    }

    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Set(_) => Some("replies come back to the director's own address"),
            Self::Remove => None,
        }
    }
}

impl fmt::Display for MasqueradeStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Set(masquerade) = self else {
            return f.write_str("nft delete table inet lvs-operator");
        };
        f.write_str("nft add table inet lvs-operator # postrouting masquerades")?;
        for (index, service) in masquerade.services.iter().enumerate() {
            write!(f, "{} {service}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}
