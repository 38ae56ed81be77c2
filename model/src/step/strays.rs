//! Steps for the marks of packets to VIPs.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::change::{Action, Change};
use crate::{Strays, Target};

/// A change of the rules that mark stray packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StrayStep {
    /// Makes the rules set exactly these marks.
    Set(Strays),
    /// Removes the rules.
    Remove,
}

impl Change for StrayStep {
    fn target(&self) -> Target {
        Target::Strays
    }

    fn action(&self) -> Action {
        match self {
            Self::Set(_) => Action::Set,
            Self::Remove => Action::Remove,
        }
    }

    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Set(strays) if strays.marks.is_empty() => {
                Some("packets from another director are not sent on")
            }
            Self::Set(_) => Some("packets without a socket here go to the server that had them"),
            Self::Remove => None,
        }
    }
}

impl fmt::Display for StrayStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Set(strays) = self else {
            return f.write_str("nft delete table inet lvs-operator-strays");
        };
        f.write_str("nft add table inet lvs-operator-strays # prerouting")?;
        let marks = strays.marks.iter();
        let marks = marks.map(|stray| format!(" marks {} with {}", stray.service, stray.mark));
        let local = strays.local.iter();
        let local = local.map(|key| format!(" keeps {key} here"));
        let all: Vec<String> = marks.chain(local).collect();
        f.write_str(&all.join(","))
    }
}
