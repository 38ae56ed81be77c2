//! The ledger: the record of what the agent owns in a kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    AcceptedVips, Action, AddressKey, DirectorGroup, Extent, GroupName, IpvsStep, KernelState,
    NetworkStep, Outcome, Outcomes, Owner, Plan, Route, ServerSet, ServiceExtent, ServiceKey, Step,
    SyncRole, Sysctl, SysctlStep, Target, Timeouts,
    server_set::{is_marked_by_us, is_second},
};

/// The record of what is owned.
///
/// It is stored before anything is made ([`Ledger::intend`]) and after anything was removed ([`Ledger::settle`]), so
/// that at every moment it contains at least what is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// The kernel and network namespace that it describes.
    pub stamp: Stamp,
    /// What the agent made. It is removed when it is not desired. A service stands for its destinations too.
    pub made: BTreeSet<Target>,
    /// The sysctls that were changed. Each is restored when it is not desired.
    pub sysctls: BTreeMap<Sysctl, SysctlRecord>,
    /// The IPVS timeouts found before ours were set.
    pub timeouts: Option<Timeouts>,
    /// Whether the machine has ever been a real server without any DirectorGroup in the configuration. It is kept
    /// when the stamp changes, and only a cleanup resets it.
    #[serde(default)]
    pub has_served: bool,
    /// The machine's own addresses with which it was a real server in the last pass. One that is missing at the moment still
    /// counts, as long as a virtual service names it.
    #[serde(default)]
    pub served_at: BTreeSet<IpAddr>,
    /// Those with which it was a real server before a change, and serves connections that it has since.
    #[serde(default)]
    pub formerly_served_at: BTreeSet<IpAddr>,
    /// The sets of real servers of the virtual services whose connections are kept, in the order of their keys.
    #[serde(default)]
    pub server_sets: Vec<ServerSet>,
    /// The virtual services of files that were accepted, with their VIPs. They stay when a pool is added that does not have these. Kept
    /// when the stamp changes.
    #[serde(default)]
    pub accepted: Arc<AcceptedVips>,
    /// The groups of these. They stay in force when they are deleted first. Kept when the stamp changes.
    #[serde(default)]
    pub groups: BTreeMap<GroupName, DirectorGroup>,
}

/// The record of a sysctl that was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SysctlRecord {
    /// The value found before the agent changed it.
    pub before: i64,
    /// The value that the agent set. `None`: the kernel changes this sysctl together with another.
    pub set: Option<i64>,
}

impl SysctlRecord {
    /// Returns whether a value found is the one that the agent set. For a sysctl that the kernel changes with another,
    /// any value matches.
    ///
    /// If it does not match, another program has changed the sysctl: its value is left as it is, and the record is
    /// void.
    pub(crate) fn matches(&self, found: Option<i64>) -> bool {
        found.is_some() && (self.set.is_none() || self.set == found)
    }
}

/// Identifies one network namespace of one boot. What a ledger with another stamp owns is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// The namespace's inode number, as in `/proc/self/ns/net`.
    pub namespace: u64,
}

impl Ledger {
    /// Creates an empty ledger for a namespace.
    #[must_use]
    pub fn new(stamp: Stamp) -> Self {
        Self {
            stamp,
            ..Self::default()
        }
    }

    /// Returns the ledger for another stamp: empty, except for what does not depend on the kernel.
    #[must_use]
    pub fn restamped(self, stamp: Stamp) -> Self {
        Self {
            has_served: self.has_served,
            accepted: self.accepted,
            groups: self.groups,
            ..Self::new(stamp)
        }
    }

    /// Returns whether nothing is owned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.made.is_empty() && self.sysctls.is_empty() && self.timeouts.is_none()
    }

    /// Returns whether the agent made or changed a target.
    #[must_use]
    pub fn owns(&self, target: &Target) -> bool {
        match target {
            Target::Sysctl(sysctl) => self.sysctls.contains_key(sysctl),
            Target::Timeouts => self.timeouts.is_some(),
            Target::FouPort(_)
            | Target::Link(_)
            | Target::Address(_)
            | Target::Route(_)
            | Target::Rule(_)
            | Target::Masquerade
            | Target::Strays
            | Target::SyncDaemon(_)
            | Target::Service(_) => self.made.contains(target),
        }
    }

    /// Returns whether an address that was found is ours. Where the kernel stores marks, the mark alone decides: the ledger
    /// may also name an address that could not be added because another program was faster.
    #[must_use]
    pub fn owns_address(&self, key: &AddressKey, found: Owner) -> bool {
        match found {
            Owner::Ours => true,
            Owner::Foreign => false,
            Owner::Unknown => self.owns(&Target::Address(key.clone())),
        }
    }

    /// Iterates over the addresses that are owned.
    pub fn addresses(&self) -> impl Iterator<Item = &AddressKey> {
        self.made.iter().filter_map(|target| match target {
            Target::Address(key) => Some(key),
            Target::Sysctl(_)
            | Target::FouPort(_)
            | Target::Link(_)
            | Target::Route(_)
            | Target::Rule(_)
            | Target::Masquerade
            | Target::Strays
            | Target::Timeouts
            | Target::SyncDaemon(_)
            | Target::Service(_) => None,
        })
    }

    /// Iterates over the routes that are owned.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        let routes = self
            .made
            .range(Target::first_route(0)..Target::first_rule(0));
        routes.filter_map(|target| {
            let Target::Route(route) = target else {
                return None;
            };
            Some(route)
        })
    }

    /// Iterates over the IPVS services that are owned.
    pub fn services(&self) -> impl Iterator<Item = &ServiceKey> {
        let services = self.made.range(Target::first_service()..);
        services.filter_map(Target::service)
    }

    /// Iterates over the second services that are owned.
    pub fn second_services(&self) -> impl Iterator<Item = &ServiceKey> {
        self.services().filter(|key| is_second(key))
    }

    /// Returns whether any IPVS service is owned.
    #[must_use]
    pub fn owns_services(&self) -> bool {
        self.services().next().is_some()
    }

    /// Returns whether any connection-sync daemon is owned.
    #[must_use]
    pub fn owns_sync_daemons(&self) -> bool {
        let mut roles = SyncRole::BOTH.into_iter();
        roles.any(|role| self.owns(&Target::SyncDaemon(role)))
    }

    /// Returns whether any IPVS service of a director is owned.
    #[must_use]
    pub fn directs(&self) -> bool {
        self.services().any(|key| !is_marked_by_us(key))
    }

    /// Returns whether any GUE port is owned.
    #[must_use]
    pub fn owns_fou_ports(&self) -> bool {
        let first = self.made.range(Target::first_fou_port()..).next();
        matches!(first, Some(Target::FouPort(_)))
    }

    /// Records everything that a plan makes or sets. Store the ledger before executing the plan.
    ///
    /// Returns whether the ledger has changed.
    pub fn intend(&mut self, plan: &Plan, observed: &KernelState) -> bool {
        let mut has_changed = false;
        for step in &plan.steps {
            has_changed |= match step.action() {
                Action::Make | Action::Set => self.record(step, observed),
                Action::Edit | Action::Remove => false,
            };
        }
        has_changed
    }

    /// Records the VIPs that the holder can add. Store the ledger before passing them to the holder.
    ///
    /// Returns whether the ledger has changed.
    pub fn intend_vips<'a>(&mut self, vips: impl Iterator<Item = &'a AddressKey>) -> bool {
        let before = self.made.len();
        self.made.extend(vips.cloned().map(Target::Address));
        self.made.len() != before
    }

    /// Records the outcomes of a plan: what was removed is not owned any more. Store the ledger afterwards.
    ///
    /// Returns whether the ledger has changed.
    pub fn settle(&mut self, plan: &Plan, outcomes: &Outcomes) -> bool {
        let mut has_changed = false;
        for (index, step) in plan.steps.iter().enumerate() {
            let is_done = match outcomes.of(index) {
                Outcome::Done => true,
                Outcome::Failed(failure) if failure.may_have_applied() => continue,
                Outcome::Failed(_) | Outcome::Skipped { .. } => false,
            };
            has_changed |= match (step.action(), is_done) {
                // A replaced device was forgotten when its removal was settled: it is recorded again.
                (Action::Make, true) => self.made.insert(step.target()),
                // What the kernel refused to make can exist and be foreign.
                (Action::Make, false) | (Action::Remove, true) => self.forget(&step.target()),
                (Action::Set | Action::Edit, _) | (Action::Remove, false) => false,
            };
        }
        // A device or daemon whose removal failed is still ours, also where its replacement failed.
        for (index, _) in outcomes.not_done() {
            if let Some(
                step @ (Step::Network(NetworkStep::RemoveLink(_))
                | Step::Ipvs(IpvsStep::StopDaemon(_))),
            ) = plan.steps.get(index)
            {
                has_changed |= self.made.insert(step.target());
            }
        }
        has_changed
    }

    /// Forgets what is neither desired nor observed: another program has removed it, or has changed the sysctl. What is
    /// outside `extent` is kept.
    ///
    /// Returns whether the ledger has changed.
    pub fn forget_gone(
        &mut self,
        desired: &KernelState,
        observed: &KernelState,
        extent: &Extent,
    ) -> bool {
        let before = self.made.len() + self.sysctls.len();
        let is_gone = |target: &Target| !desired.has(target) && !observed.has(target);
        match (&extent.services, extent.network) {
            (ServiceExtent::Only(keys), false) => {
                for target in keys.iter().copied().map(Target::Service) {
                    if is_gone(&target) {
                        self.made.remove(&target);
                    }
                }
            }
            (ServiceExtent::All | ServiceExtent::Only(_), _) => self
                .made
                .retain(|target| !extent.covers(target) || !is_gone(target)),
        }
        if extent.network {
            self.sysctls.retain(|sysctl, record| {
                desired.needs(sysctl) || record.matches(observed.sysctls.get(sysctl).copied())
            });
        }
        self.made.len() + self.sysctls.len() != before
    }

    /// Forgets a target that is gone. Returns whether the ledger has changed.
    pub fn forget(&mut self, target: &Target) -> bool {
        match target {
            Target::Sysctl(sysctl) => self.sysctls.remove(sysctl).is_some(),
            Target::Timeouts => self.timeouts.take().is_some(),
            Target::Link(name) => {
                // The kernel removes a device's addresses with it.
                self.made
                    .retain(|made| !matches!(made, Target::Address(key) if key.interface == *name));
                self.made.remove(target)
            }
            Target::FouPort(_)
            | Target::Address(_)
            | Target::Route(_)
            | Target::Rule(_)
            | Target::Masquerade
            | Target::Strays
            | Target::SyncDaemon(_)
            | Target::Service(_) => self.made.remove(target),
        }
    }

    fn record(&mut self, step: &Step, observed: &KernelState) -> bool {
        match step {
            Step::Sysctl(SysctlStep::Set {
                sysctl,
                value,
                previous,
            }) => {
                previous.is_some_and(|before| self.record_sysctl(sysctl, before, *value, observed))
            }
            Step::Sysctl(SysctlStep::Restore { .. }) => false,
            Step::Ipvs(IpvsStep::SetTimeouts { previous, .. }) => {
                let is_first = self.timeouts.is_none() && previous.is_some();
                self.timeouts = self.timeouts.or(*previous);
                is_first
            }
            Step::Ipvs(_)
            | Step::Network(_)
            | Step::Masquerade(_)
            | Step::Fou(_)
            | Step::Strays(_) => self.made.insert(step.target()),
        }
    }

    fn record_sysctl(
        &mut self,
        sysctl: &Sysctl,
        before: i64,
        value: i64,
        observed: &KernelState,
    ) -> bool {
        if *sysctl == Sysctl::Ipv4Forward && !self.sysctls.contains_key(sysctl) {
            self.record_forwarding(observed);
        }
        let set = Some(value);
        let known = self.sysctls.get(sysctl);
        let record = SysctlRecord {
            before: known.map_or(before, |known| known.before),
            set,
        };
        self.sysctls.insert(sysctl.clone(), record) != Some(record)
    }

    /// Records the sysctls that the kernel changes together with `ip_forward`: `forwarding` of every interface and
    /// `accept_redirects` of `all` (`inet_forward_change`, net/ipv4/devinet.c).
    fn record_forwarding(&mut self, observed: &KernelState) {
        for (sysctl, before) in &observed.sysctls {
            if let Some(after) = sysctl.after_forwarding_ends()
                && *before != after
            {
                self.sysctls.entry(sysctl.clone()).or_insert(SysctlRecord {
                    before: *before,
                    set: None,
                });
            }
        }
    }
}
