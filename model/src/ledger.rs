//! What is owned: made by us and recorded so.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    AddressKey, FouPort, InterfaceName, KernelState, Outcome, Outcomes, Plan, PolicyRule, Route,
    ServiceKey, Step, Sysctl, Timeouts,
};

/// The record of what is owned.
///
/// It is stored before anything new is made (`intend`) and after anything was removed (`settle`), so at every moment
/// it holds at least what is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ledger {
    /// The kernel and network namespace that it describes.
    pub stamp: Stamp,
    /// IPVS services; their destinations are owned with them.
    pub services: BTreeSet<ServiceKey>,
    /// Addresses.
    pub addresses: BTreeSet<AddressKey>,
    /// Tunnel devices.
    pub links: BTreeSet<InterfaceName>,
    /// GUE ports.
    pub fou_ports: BTreeSet<FouPort>,
    /// Routes.
    pub routes: BTreeSet<Route>,
    /// Policy routing rules.
    pub rules: BTreeSet<PolicyRule>,
    /// Whether the nft table is ours.
    pub masquerade: bool,
    /// The IPVS timeouts found before ours were set.
    pub timeouts: Option<Timeouts>,
    /// Each sysctl that was changed.
    pub sysctls: BTreeMap<Sysctl, SysctlRecord>,
}

/// What is known of a sysctl that was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SysctlRecord {
    /// The value found before us.
    pub before: i64,
    /// The value that we set; `None` for one that the kernel changes together with another.
    pub set: Option<i64>,
}

impl SysctlRecord {
    /// Says whether a value found is the one that came with us. Another writer's is left alone, and its record is void.
    pub(crate) fn describes(&self, found: Option<i64>) -> bool {
        found.is_some() && (self.set.is_none() || self.set == found)
    }
}

/// One network namespace of one running kernel. A ledger with another stamp is void: the state it describes is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// The namespace's number, as `/proc/self/ns/net` names it.
    pub namespace: u64,
}

impl Ledger {
    /// An empty ledger for a namespace.
    #[must_use]
    pub fn new(stamp: Stamp) -> Self {
        Self {
            stamp,
            ..Self::default()
        }
    }

    /// Says whether nothing is owned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::new(self.stamp.clone())
    }

    /// The ledger to store before a plan is executed: with everything that the plan makes or changes.
    #[must_use]
    pub fn intend(&self, plan: &Plan, observed: &KernelState) -> Self {
        let mut ledger = self.clone();
        if plan.steps.iter().any(|step| {
            matches!(
                step,
                Step::SetSysctl {
                    sysctl: Sysctl::Ipv4Forward,
                    ..
                }
            )
        }) {
            ledger.record_forwarding(observed);
        }
        for step in &plan.steps {
            ledger.record(step);
        }
        ledger
    }

    fn record(&mut self, step: &Step) {
        match step {
            Step::SetSysctl {
                sysctl,
                previous: Some(previous),
                value,
            } => {
                let record = SysctlRecord {
                    before: *previous,
                    set: None,
                };
                self.sysctls.entry(sysctl.clone()).or_insert(record).set = Some(*value);
            }
            Step::SetTimeouts { previous, .. } => self.timeouts = self.timeouts.or(*previous),
            Step::AddFouPort(port) => drop(self.fou_ports.insert(*port)),
            Step::AddLink { name, .. } => drop(self.links.insert(name.clone())),
            Step::AddAddress { key, .. } => drop(self.addresses.insert(key.clone())),
            Step::AddRoute(route) => drop(self.routes.insert(route.clone())),
            Step::AddRule(rule) => drop(self.rules.insert(*rule)),
            Step::SetMasquerade(_) => self.masquerade = true,
            Step::AddService { key, .. } => drop(self.services.insert(*key)),
            Step::SetSysctl { previous: None, .. }
            | Step::SetLinkUp(_)
            | Step::EditAddress { .. }
            | Step::EditService { .. }
            | Step::AddDestination { .. }
            | Step::EditDestination { .. }
            | Step::RemoveDestination { .. }
            | Step::RemoveService(_)
            | Step::RemoveAddress(_)
            | Step::RemoveMasquerade
            | Step::RemoveRule(_)
            | Step::RemoveRoute(_)
            | Step::RemoveLink(_)
            | Step::RemoveFouPort(_)
            | Step::RestoreTimeouts(_)
            | Step::RestoreSysctl { .. } => {}
        }
    }

    /// Records the sysctls that the kernel changes together with `ip_forward`: `forwarding` of every interface and
    /// `accept_redirects` of `all` (`inet_forward_change`, net/ipv4/devinet.c).
    fn record_forwarding(&mut self, observed: &KernelState) {
        if self.sysctls.contains_key(&Sysctl::Ipv4Forward) {
            return;
        }
        for (sysctl, before) in &observed.sysctls {
            let after_restore = match sysctl {
                Sysctl::Forwarding(Some(_)) => 0,
                Sysctl::AcceptRedirects(None) => 1,
                Sysctl::Forwarding(None)
                | Sysctl::AcceptRedirects(Some(_))
                | Sysctl::Ipv4Forward
                | Sysctl::Ipv6Forward
                | Sysctl::ArpIgnore(_)
                | Sysctl::ArpAnnounce(_)
                | Sysctl::RpFilter(_)
                | Sysctl::SendRedirects(_)
                | Sysctl::VsConntrack
                | Sysctl::VsExpireNodestConn
                | Sysctl::VsExpireQuiescentTemplate => continue,
            };
            if *before != after_restore {
                self.sysctls.entry(sysctl.clone()).or_insert(SysctlRecord {
                    before: *before,
                    set: None,
                });
            }
        }
    }

    /// The ledger to store after a plan was executed: without what it removed.
    #[must_use]
    pub fn settle(&self, plan: &Plan, outcomes: &Outcomes) -> Self {
        let mut ledger = self.clone();
        for (index, step) in plan.steps.iter().enumerate() {
            match outcomes.of(index) {
                Outcome::Done => {
                    ledger.forget(step);
                    ledger.record(step);
                }
                // What the kernel refused to make may be somebody else's.
                Outcome::Failed(failure) if !failure.may_have_applied() => {
                    ledger.forget_intended(step);
                }
                Outcome::Failed(_) => {}
                Outcome::Skipped { .. } => ledger.forget_intended(step),
            }
        }
        // A device that could not be replaced is ours as before.
        for (index, _) in outcomes.not_done() {
            if let Some(Step::RemoveLink(name)) = plan.steps.get(index) {
                ledger.links.insert(name.clone());
            }
        }
        ledger
    }

    fn forget(&mut self, step: &Step) {
        match step {
            Step::RemoveService(key) => drop(self.services.remove(key)),
            Step::RemoveAddress(key) => drop(self.addresses.remove(key)),
            Step::RemoveMasquerade => self.masquerade = false,
            Step::RemoveRule(rule) => drop(self.rules.remove(rule)),
            Step::RemoveRoute(route) => drop(self.routes.remove(route)),
            Step::RemoveLink(name) => {
                self.links.remove(name);
                self.addresses.retain(|key| key.interface != *name);
            }
            Step::RemoveFouPort(port) => drop(self.fou_ports.remove(port)),
            Step::RestoreTimeouts(_) => self.timeouts = None,
            Step::RestoreSysctl { sysctl, .. } => drop(self.sysctls.remove(sysctl)),
            Step::SetSysctl { .. }
            | Step::SetTimeouts { .. }
            | Step::AddFouPort(_)
            | Step::AddLink { .. }
            | Step::SetLinkUp(_)
            | Step::AddAddress { .. }
            | Step::EditAddress { .. }
            | Step::AddRoute(_)
            | Step::AddRule(_)
            | Step::SetMasquerade(_)
            | Step::AddService { .. }
            | Step::EditService { .. }
            | Step::AddDestination { .. }
            | Step::EditDestination { .. }
            | Step::RemoveDestination { .. } => {}
        }
    }

    /// Forgets what a step was to make. Sysctls, timeouts and the nft table are kept: they are never somebody else's.
    fn forget_intended(&mut self, step: &Step) {
        match step {
            Step::AddFouPort(port) => drop(self.fou_ports.remove(port)),
            Step::AddLink { name, .. } => drop(self.links.remove(name)),
            Step::AddAddress { key, .. } => drop(self.addresses.remove(key)),
            Step::AddRoute(route) => drop(self.routes.remove(route)),
            Step::AddRule(rule) => drop(self.rules.remove(rule)),
            Step::AddService { key, .. } => drop(self.services.remove(key)),
            Step::SetSysctl { .. }
            | Step::SetLinkUp(_)
            | Step::EditAddress { .. }
            | Step::SetMasquerade(_)
            | Step::SetTimeouts { .. }
            | Step::EditService { .. }
            | Step::AddDestination { .. }
            | Step::EditDestination { .. }
            | Step::RemoveDestination { .. }
            | Step::RemoveService(_)
            | Step::RemoveAddress(_)
            | Step::RemoveMasquerade
            | Step::RemoveRule(_)
            | Step::RemoveRoute(_)
            | Step::RemoveLink(_)
            | Step::RemoveFouPort(_)
            | Step::RestoreTimeouts(_)
            | Step::RestoreSysctl { .. } => {}
        }
    }

    /// The ledger without what is neither wanted nor there any more: somebody else has removed or changed it.
    #[must_use]
    pub fn without_gone(&self, desired: &KernelState, observed: &KernelState) -> Self {
        let mut ledger = self.clone();
        let Self {
            stamp: _,
            services,
            addresses,
            links,
            fou_ports,
            routes,
            rules,
            masquerade,
            timeouts: _,
            sysctls,
        } = &mut ledger;
        services.retain(|key| {
            desired.services.contains_key(key) || observed.services.contains_key(key)
        });
        addresses.retain(|key| {
            desired.addresses.contains_key(key) || observed.addresses.contains_key(key)
        });
        links.retain(|name| desired.links.contains_key(name) || observed.links.contains_key(name));
        fou_ports
            .retain(|port| desired.fou_ports.contains(port) || observed.fou_ports.contains(port));
        routes.retain(|route| desired.routes.contains(route) || observed.routes.contains(route));
        rules.retain(|rule| desired.rules.contains(rule) || observed.rules.contains(rule));
        *masquerade &= desired.masquerade.is_some() || observed.masquerade.is_some();
        sysctls.retain(|sysctl, record| {
            desired.needs(sysctl) || record.describes(observed.sysctls.get(sysctl).copied())
        });
        ledger
    }
}
