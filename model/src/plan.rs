//! Plans, and the outcome of each step.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    Action, InterfaceName, IpvsStep, NetworkStep, Step, StrayStep, Sysctl, SysctlStep, Target,
    server_set::is_marked_by_us,
};

/// The steps from observed to desired, in order: a step comes after the creation, and before the removal, of what it
/// uses.
///
/// `Display` prints one command per line, followed by its reason.
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

/// The outcome of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The step was done.
    Done,
    /// The step failed.
    Failed(StepFailure),
    /// The step was not tried, because one that it depends on had failed or was skipped.
    Skipped {
        /// The command of that step.
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
    /// Creates a failure of a step that the kernel refused: nothing was changed.
    #[must_use]
    pub fn refused(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            may_have_applied: false,
        }
    }

    /// Creates a failure of a step whose result is unknown: the next pass observes it.
    #[must_use]
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            may_have_applied: true,
        }
    }

    /// Returns whether it is possible that the kernel applied the step.
    #[must_use]
    pub const fn may_have_applied(&self) -> bool {
        self.may_have_applied
    }
}

/// The outcomes of a plan's steps. A step without an entry was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    not_done: BTreeMap<usize, Outcome>,
    blockers: Blockers,
}

impl Outcomes {
    /// Returns whether a step must be skipped, and records it as skipped if so.
    pub fn skips(&mut self, index: usize, step: &Step) -> bool {
        let Some(because) = self.blockers.of(step).cloned() else {
            return false;
        };
        self.not_done.insert(index, Outcome::Skipped { because });
        self.blockers.add(step);
        true
    }

    /// Records that a step failed. The steps that depend on it are skipped from now on.
    pub fn fail(&mut self, index: usize, step: &Step, failure: StepFailure) {
        self.blockers.add(step);
        self.not_done.insert(index, Outcome::Failed(failure));
    }

    /// Returns the outcome of a step.
    #[must_use]
    pub fn of(&self, index: usize) -> &Outcome {
        self.not_done.get(&index).unwrap_or(&Outcome::Done)
    }

    /// Iterates over the steps that were not done, with their index in the plan.
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

/// The commands that failed or were skipped, by the target that they make, set or remove.
///
/// These dependencies decide what is skipped:
///
/// 1. A destination needs its service.
/// 2. Addresses and sysctls of a tunnel device need the device. A device that replaces another needs that one removed.
/// 3. An IPv4 VIP on lo, or a route to one in the local table, needs the ARP sysctls, or this host answers ARP requests for it; they
///    are restored only after it is gone.
/// 4. A rule needs the routes of its table, and the routes are removed only after the table's rules are gone.
/// 5. The marks of packets need the services that they lead to, which are removed only after the marks are gone.
/// 6. A service that this machine directs and is a real server of, while others direct it too, needs the marks, or it would send on
///    what others send here.
/// 7. Connection sync needs `backup_only` at 0, or a machine with a backup daemon forwards nothing.
/// 8. Sysctls that the kernel changes with `ip_forward` are restored after it, or the kernel would change them again.
///
/// A failed edit blocks nothing: its target exists all the same.
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
        if let Step::Strays(StrayStep::Set(strays)) = step {
            let unmarked = strays.local.iter().map(|key| Target::Service(*key));
            self.0
                .extend(unmarked.map(|target| (target, step.to_string())));
        }
    }

    /// Returns the failed command that a step depends on.
    fn of(&self, step: &Step) -> Option<&String> {
        if self.0.is_empty() {
            return None;
        }
        match step {
            Step::Ipvs(
                IpvsStep::AddDestination { service: key, .. } | IpvsStep::AddService { key, .. },
            ) => self.failed(&Target::Service(*key)),
            Step::Strays(StrayStep::Set(strays)) => strays
                .lead_to()
                .find_map(|key| self.failed(&Target::Service(key))),
            Step::Ipvs(IpvsStep::RemoveService(key)) if is_marked_by_us(key) => {
                self.failed(&Target::Strays)
            }
            Step::Ipvs(IpvsStep::StartDaemon { .. }) => {
                self.failed(&Target::Sysctl(Sysctl::VsBackupOnly))
            }
            Step::Ipvs(_) | Step::Masquerade(_) | Step::Fou(_) | Step::Strays(_) => None,
            Step::Network(step) => self.of_network(step),
            Step::Sysctl(step) => self.of_sysctl(step),
        }
    }

    fn of_network(&self, step: &NetworkStep) -> Option<&String> {
        match step {
            NetworkStep::AddLink { name, .. } => self.failed_link(name),
            NetworkStep::AddAddress { key, .. } if key.is_hidden_v4() => self.failed_arp(),
            NetworkStep::AddRoute(route) if route.is_hidden_v4() => self.failed_arp(),
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
            SysctlStep::Restore { sysctl, .. } if sysctl.is_of_arp() => self
                .first_failed(
                    Target::first_hidden(),
                    |target| matches!(target, Target::Address(key) if key.is_hidden_v4()),
                )
                .or_else(|| {
                    self.first_failed(
                        Target::first_route_to_vip(),
                        |target| matches!(target, Target::Route(route) if route.is_hidden_v4()),
                    )
                }),
            SysctlStep::Restore { sysctl, .. } if sysctl.follows_forwarding() => {
                self.failed(&Target::Sysctl(Sysctl::Ipv4Forward))
            }
            SysctlStep::Restore { .. } => None,
        }
    }

    fn failed_arp(&self) -> Option<&String> {
        self.failed(&Target::Sysctl(Sysctl::ArpIgnore(None)))
            .or_else(|| self.failed(&Target::Sysctl(Sysctl::ArpAnnounce(None))))
    }

    fn failed(&self, target: &Target) -> Option<&String> {
        self.0.get(target)
    }

    fn failed_link(&self, name: &InterfaceName) -> Option<&String> {
        self.failed(&Target::Link(name.clone()))
    }

    /// Returns the command of the first failed target from `first` on, if it belongs to the group that `belongs`
    /// accepts.
    ///
    /// The group's targets must follow each other in the order of targets.
    fn first_failed(&self, first: Target, belongs: impl Fn(&Target) -> bool) -> Option<&String> {
        let (target, command) = self.0.range(first..).next()?;
        belongs(target).then_some(command)
    }
}
