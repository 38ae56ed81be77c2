//! Ordered steps, and what became of them.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{Family, InterfaceName, ServiceKey, Step, Sysctl};

/// The steps from observed to desired, in order: what is used is made before its users and removed after them.
///
/// `Display` prints one command a line, with the reason behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Says whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            let command = step.to_string();
            match step.reason() {
                Some(reason) => writeln!(f, "{command:<62}  # {reason}")?,
                None => writeln!(f, "{command}")?,
            }
        }
        Ok(())
    }
}

/// What became of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It failed.
    Failed(StepFailure),
    /// It was not tried, since the named command had failed.
    Skipped {
        /// The command that it depends on.
        because: String,
    },
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct StepFailure {
    reason: String,
    may_have_applied: bool,
}

impl StepFailure {
    /// The kernel refused the step and changed nothing.
    #[must_use]
    pub fn refused(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            may_have_applied: false,
        }
    }

    /// Nobody knows what became of the step; the next pass sees.
    #[must_use]
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            may_have_applied: true,
        }
    }

    /// Says whether the kernel may have done it all the same.
    #[must_use]
    pub const fn may_have_applied(&self) -> bool {
        self.may_have_applied
    }
}

/// What became of the steps of a plan. A step that is not named was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    not_done: BTreeMap<usize, Outcome>,
    blockers: Blockers,
}

impl Outcomes {
    /// Says whether a step must be skipped, and if so notes it.
    pub fn skips(&mut self, index: usize, step: &Step) -> bool {
        let Some(because) = self.blockers.of(step) else {
            return false;
        };
        self.not_done.insert(index, Outcome::Skipped { because });
        self.blockers.add(step);
        true
    }

    /// Notes a step that failed; what depends on it is skipped from here on.
    pub fn fail(&mut self, index: usize, step: &Step, failure: StepFailure) {
        self.blockers.add(step);
        self.not_done.insert(index, Outcome::Failed(failure));
    }

    /// What became of a step.
    #[must_use]
    pub fn of(&self, index: usize) -> &Outcome {
        self.not_done.get(&index).unwrap_or(&Outcome::Done)
    }

    /// The steps that were not done, by their index in the plan.
    pub fn not_done(&self) -> impl Iterator<Item = (usize, &Outcome)> {
        self.not_done
            .iter()
            .map(|(index, outcome)| (*index, outcome))
    }

    /// Says whether every step was done.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.not_done.is_empty()
    }
}

/// Failed steps, as far as others depend on them:
///
/// 1. A destination needs its service.
/// 2. Addresses and sysctls of a link of ours need the link, and a link needs the one removed that it replaces.
/// 3. An IPv4 VIP on lo needs the ARP sysctls, or this host answers for it; they are given up only after it is gone.
/// 4. A rule needs the routes of its table, and a table is emptied only after its rules are gone.
/// 5. What the kernel changes with `ip_forward` is written back after it, or it would change again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Blockers {
    services: BTreeMap<ServiceKey, String>,
    links: BTreeMap<InterfaceName, String>,
    tables: BTreeMap<u32, String>,
    arp_settings: Option<String>,
    hidden_vips: Option<String>,
    forwarding: Option<String>,
}

impl Blockers {
    fn add(&mut self, step: &Step) {
        let command = step.to_string();
        match step {
            Step::AddService { key, .. } => {
                self.services.insert(*key, command);
            }
            Step::AddLink { name, .. } | Step::RemoveLink(name) => {
                self.links.insert(name.clone(), command);
            }
            Step::AddRoute(route) => {
                self.tables.insert(route.table(), command);
            }
            Step::RemoveRule(rule) => {
                self.tables.insert(rule.table, command);
            }
            Step::SetSysctl {
                sysctl: Sysctl::ArpIgnore(_) | Sysctl::ArpAnnounce(_),
                ..
            } => {
                self.arp_settings = Some(command);
            }
            Step::RemoveAddress(key) if key.interface.as_str() == "lo" => {
                self.hidden_vips = Some(command);
            }
            Step::RestoreSysctl {
                sysctl: Sysctl::Ipv4Forward,
                ..
            } => {
                self.forwarding = Some(command);
            }
            Step::SetSysctl { .. }
            | Step::AddFouPort(_)
            | Step::SetLinkUp(_)
            | Step::AddAddress { .. }
            | Step::EditAddress { .. }
            | Step::AddRule(_)
            | Step::SetMasquerade(_)
            | Step::SetTimeouts { .. }
            | Step::EditService { .. }
            | Step::AddDestination { .. }
            | Step::EditDestination { .. }
            | Step::RemoveDestination { .. }
            | Step::RemoveService(_)
            | Step::RemoveAddress(_)
            | Step::RemoveMasquerade
            | Step::RemoveRoute(_)
            | Step::RemoveFouPort(_)
            | Step::RestoreTimeouts(_)
            | Step::RestoreSysctl { .. } => {}
        }
    }

    fn of(&self, step: &Step) -> Option<String> {
        match step {
            Step::AddDestination { service, .. } => self.services.get(service),
            Step::AddLink { name, .. } => self.links.get(name),
            Step::AddAddress { key, .. } => self.links.get(&key.interface).or_else(|| {
                let hidden =
                    key.interface.as_str() == "lo" && Family::of(key.address) == Family::V4;
                self.arp_settings.as_ref().filter(|_| hidden)
            }),
            Step::SetSysctl { sysctl, .. } => sysctl
                .interface()
                .and_then(|interface| self.links.get(interface)),
            Step::AddRule(rule) => self.tables.get(&rule.table),
            Step::RemoveRoute(route) => self.tables.get(&route.table()),
            Step::RestoreSysctl {
                sysctl: Sysctl::ArpIgnore(_) | Sysctl::ArpAnnounce(_),
                ..
            } => self.hidden_vips.as_ref(),
            Step::RestoreSysctl { sysctl, .. } if sysctl.follows_forwarding() => {
                self.forwarding.as_ref()
            }
            Step::AddFouPort(_)
            | Step::SetLinkUp(_)
            | Step::EditAddress { .. }
            | Step::AddRoute(_)
            | Step::SetMasquerade(_)
            | Step::SetTimeouts { .. }
            | Step::AddService { .. }
            | Step::EditService { .. }
            | Step::EditDestination { .. }
            | Step::RemoveDestination { .. }
            | Step::RemoveService(_)
            | Step::RemoveAddress(_)
            | Step::RemoveMasquerade
            | Step::RemoveRule(_)
            | Step::RemoveLink(_)
            | Step::RemoveFouPort(_)
            | Step::RestoreTimeouts(_)
            | Step::RestoreSysctl { .. } => None,
        }
        .cloned()
    }
}
