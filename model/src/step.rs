//! Steps: single changes to a kernel, as plain data.
//!
//! Each family of kernel objects has its steps, and their text, in its own file. All steps implement [`Change`], which
//! returns the target of a step, its action on the target, and its reason.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Target;

mod change;
mod fou;
mod ipvs;
mod masquerade;
mod network;
mod strays;
mod sysctl;

pub(crate) use change::Change;

pub use change::Action;
pub use fou::FouStep;
pub use ipvs::IpvsStep;
pub use masquerade::MasqueradeStep;
pub use network::NetworkStep;
pub use strays::StrayStep;
pub use sysctl::SysctlStep;

/// One change to a kernel. It leaves no choice to the executor.
///
/// Executing a step twice has the same effect as executing it once, and removing what is gone succeeds. `Display`
/// prints the command that an administrator would type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// A change of the IPVS table.
    Ipvs(IpvsStep),
    /// A change of links, addresses, routes or rules.
    Network(NetworkStep),
    /// A change of a sysctl.
    Sysctl(SysctlStep),
    /// A change of the masquerading rules.
    Masquerade(MasqueradeStep),
    /// A change of the ports on which the kernel decapsulates GUE.
    Fou(FouStep),
    /// A change of the rules that mark stray packets.
    Strays(StrayStep),
}

impl Step {
    fn change(&self) -> &dyn Change {
        match self {
            Self::Ipvs(step) => step,
            Self::Network(step) => step,
            Self::Sysctl(step) => step,
            Self::Masquerade(step) => step,
            Self::Fou(step) => step,
            Self::Strays(step) => step,
        }
    }

    /// Returns the object that the step makes, changes or removes.
    #[must_use]
    pub fn target(&self) -> Target {
        self.change().target()
    }

    /// Returns what the step does to its target.
    #[must_use]
    pub fn action(&self) -> Action {
        self.change().action()
    }

    /// Returns why an administrator would type the command, in a few words. `None` where the command makes it clear.
    #[must_use]
    pub fn reason(&self) -> Option<&'static str> {
        self.change().reason()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.change().fmt(f)
    }
}

impl From<IpvsStep> for Step {
    fn from(step: IpvsStep) -> Self {
        Self::Ipvs(step)
    }
}

impl From<NetworkStep> for Step {
    fn from(step: NetworkStep) -> Self {
        Self::Network(step)
    }
}

impl From<SysctlStep> for Step {
    fn from(step: SysctlStep) -> Self {
        Self::Sysctl(step)
    }
}

impl From<MasqueradeStep> for Step {
    fn from(step: MasqueradeStep) -> Self {
        Self::Masquerade(step)
    }
}

impl From<FouStep> for Step {
    fn from(step: FouStep) -> Self {
        Self::Fou(step)
    }
}

impl From<StrayStep> for Step {
    fn from(step: StrayStep) -> Self {
        Self::Strays(step)
    }
}
