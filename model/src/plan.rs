//! Ordered steps, and what became of each.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{Action, InterfaceName, IpvsStep, NetworkStep, Step, Sysctl, SysctlStep, Target};

/// The steps from observed to desired, in order: what is used is made before its users and removed after them.
///
/// `Display` prints one command a line, with the reason behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Returns whether there is nothing to do.
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

    /// What became of the step is not known; the next pass sees.
    #[must_use]
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            may_have_applied: true,
        }
    }

    /// Returns whether the kernel may have done it all the same.
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
    /// Returns whether a step must be skipped, and if so records that it is.
    pub fn skips(&mut self, index: usize, step: &Step) -> bool {
        let Some(because) = self.blockers.of(step).cloned() else {
            return false;
        };
        self.not_done.insert(index, Outcome::Skipped { because });
        self.blockers.add(step);
        true
    }

    /// Records that a step failed; what depends on it is skipped from here on.
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

    /// Returns whether every step was done.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.not_done.is_empty()
    }
}

/// The commands that failed, by the target that they were to make, set or remove.
///
/// 1. A destination needs its service.
/// 2. Addresses and sysctls of a link of ours need the link, and a link needs the one removed that it replaces.
/// 3. An IPv4 VIP on lo needs the ARP sysctls, or this host answers for it; they are restored only after it is gone.
/// 4. A rule needs the routes of its table, and a table is emptied only after its rules are gone.
/// 5. What the kernel changes with `ip_forward` is restored after it, or it would change again.
///
/// A step in place (an edit) that failed stops nothing: what it was to change is there all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Blockers(BTreeMap<Target, String>);

impl Blockers {
    fn add(&mut self, step: &Step) {
        match step.action() {
            Action::Make | Action::Set | Action::Remove => {
                self.0.insert(step.target(), step.to_string());
            }
            Action::Edit => {}
        }
    }

    /// The failed command that a step depends on.
    fn of(&self, step: &Step) -> Option<&String> {
        if self.0.is_empty() {
            return None;
        }
        match step {
            Step::Ipvs(IpvsStep::AddDestination { service, .. }) => {
                self.failed(&Target::Service(*service))
            }
            Step::Ipvs(_) | Step::Masquerade(_) | Step::Fou(_) => None,
            Step::Network(step) => self.of_network(step),
            Step::Sysctl(step) => self.of_sysctl(step),
        }
    }

    fn of_network(&self, step: &NetworkStep) -> Option<&String> {
        match step {
            NetworkStep::AddLink { name, .. } => self.failed_link(name),
            NetworkStep::AddAddress { key, .. } if key.is_hidden_v4() => self
                .failed(&Target::Sysctl(Sysctl::ArpIgnore(None)))
                .or_else(|| self.failed(&Target::Sysctl(Sysctl::ArpAnnounce(None)))),
            NetworkStep::AddAddress { key, .. } => self.failed_link(&key.interface),
            NetworkStep::AddRule(rule) => self.first_failed(
                Target::first_route(rule.table),
                |target| matches!(target, Target::Route(route) if route.table == rule.table),
            ),
            NetworkStep::RemoveRoute(route) => self.first_failed(
                Target::first_rule(route.table),
                |target| matches!(target, Target::Rule(rule) if rule.table == route.table),
            ),
            NetworkStep::SetLinkUp(_)
            | NetworkStep::RemoveLink(_)
            | NetworkStep::EditAddress { .. }
            | NetworkStep::RemoveAddress(_)
            | NetworkStep::AddRoute(_)
            | NetworkStep::RemoveRule(_) => None,
        }
    }

    fn of_sysctl(&self, step: &SysctlStep) -> Option<&String> {
        match step {
            SysctlStep::Set { sysctl, .. } => self.failed_link(sysctl.interface()?),
            SysctlStep::Restore { sysctl, .. } if sysctl.is_of_arp() => self.first_failed(
                Target::first_hidden(),
                |target| matches!(target, Target::Address(key) if key.is_hidden_v4()),
            ),
            SysctlStep::Restore { sysctl, .. } if sysctl.follows_forwarding() => {
                self.failed(&Target::Sysctl(Sysctl::Ipv4Forward))
            }
            SysctlStep::Restore { .. } => None,
        }
    }

    fn failed(&self, target: &Target) -> Option<&String> {
        self.0.get(target)
    }

    fn failed_link(&self, name: &InterfaceName) -> Option<&String> {
        self.failed(&Target::Link(name.clone()))
    }

    /// The first failed target from `first` on, if it is one of a group whose targets follow each other in order.
    fn first_failed(&self, first: Target, is_one: impl Fn(&Target) -> bool) -> Option<&String> {
        let (target, command) = self.0.range(first..).next()?;
        is_one(target).then_some(command)
    }
}
