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
    /// Whether the machine ever was a real server while no group was there. It is nothing that is owned: it outlives
    /// the stamp, and only a cleanup ends it.
    pub has_served: bool,
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

/// One network namespace of one running kernel. What a ledger with another stamp says to be owned is gone.
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

    /// The ledger under another stamp: what was owned is gone, what the machine has been is not.
    #[must_use]
    pub fn restamped(self, stamp: Stamp) -> Self {
        Self {
            has_served: self.has_served,
            ..Self::new(stamp)
        }
    }

    /// Says whether nothing is owned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == self.clone().restamped(self.stamp.clone())
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
            if let Effect::Makes(owned) | Effect::Sets(owned) = Effect::of(step) {
                ledger.record(owned);
            }
        }
        ledger
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
            let is_done = match outcomes.of(index) {
                Outcome::Done => true,
                Outcome::Failed(failure) if failure.may_have_applied() => continue,
                Outcome::Failed(_) | Outcome::Skipped { .. } => false,
            };
            match Effect::of(step) {
                Effect::Makes(owned) if is_done => ledger.record(owned),
                // What the kernel refused to make may be somebody else's.
                Effect::Makes(owned) => ledger.forget(owned),
                Effect::Sets(owned) if is_done => ledger.record(owned),
                Effect::Removes(owned) if is_done => {
                    ledger.forget(owned);
                    // A device takes its addresses with it.
                    if let Owned::Link(name) = owned {
                        ledger.addresses.retain(|key| key.interface != *name);
                    }
                }
                Effect::Sets(_) | Effect::Removes(_) | Effect::Neither => {}
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

    fn record(&mut self, owned: Owned<'_>) {
        match owned {
            Owned::Service(key) => drop(self.services.insert(*key)),
            Owned::Address(key) => drop(self.addresses.insert(key.clone())),
            Owned::Link(name) => drop(self.links.insert(name.clone())),
            Owned::FouPort(port) => drop(self.fou_ports.insert(*port)),
            Owned::Route(route) => drop(self.routes.insert(route.clone())),
            Owned::Rule(rule) => drop(self.rules.insert(*rule)),
            Owned::Masquerade => self.masquerade = true,
            Owned::Timeouts(before) => self.timeouts = self.timeouts.or(before),
            Owned::Sysctl(sysctl, record) => {
                let first = self.sysctls.entry(sysctl.clone()).or_insert(record);
                first.set = record.set;
            }
        }
    }

    fn forget(&mut self, owned: Owned<'_>) {
        match owned {
            Owned::Service(key) => drop(self.services.remove(key)),
            Owned::Address(key) => drop(self.addresses.remove(key)),
            Owned::Link(name) => drop(self.links.remove(name)),
            Owned::FouPort(port) => drop(self.fou_ports.remove(port)),
            Owned::Route(route) => drop(self.routes.remove(route)),
            Owned::Rule(rule) => drop(self.rules.remove(rule)),
            Owned::Masquerade => self.masquerade = false,
            Owned::Timeouts(_) => self.timeouts = None,
            Owned::Sysctl(sysctl, _) => drop(self.sysctls.remove(sysctl)),
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
            has_served: _,
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

/// Something that the ledger holds.
#[derive(Clone, Copy)]
enum Owned<'a> {
    Service(&'a ServiceKey),
    Address(&'a AddressKey),
    Link(&'a InterfaceName),
    FouPort(&'a FouPort),
    Route(&'a Route),
    Rule(&'a PolicyRule),
    Masquerade,
    Timeouts(Option<Timeouts>),
    Sysctl(&'a Sysctl, SysctlRecord),
}

/// What a step does to what is owned.
enum Effect<'a> {
    /// Makes it, unless somebody else has made it before.
    Makes(Owned<'a>),
    /// Sets it: there is one only, and a step that failed leaves it ours.
    Sets(Owned<'a>),
    /// Removes it, or puts back what was found.
    Removes(Owned<'a>),
    /// Leaves it as it is.
    Neither,
}

impl<'a> Effect<'a> {
    fn of(step: &'a Step) -> Self {
        let record = |before, set| SysctlRecord { before, set };
        match step {
            Step::AddService { key, .. } => Self::Makes(Owned::Service(key)),
            Step::AddAddress { key, .. } => Self::Makes(Owned::Address(key)),
            Step::AddLink { name, .. } => Self::Makes(Owned::Link(name)),
            Step::AddFouPort(port) => Self::Makes(Owned::FouPort(port)),
            Step::AddRoute(route) => Self::Makes(Owned::Route(route)),
            Step::AddRule(rule) => Self::Makes(Owned::Rule(rule)),
            Step::SetMasquerade(_) => Self::Sets(Owned::Masquerade),
            Step::SetTimeouts { previous, .. } => Self::Sets(Owned::Timeouts(*previous)),
            Step::SetSysctl {
                sysctl,
                value,
                previous: Some(before),
            } => Self::Sets(Owned::Sysctl(sysctl, record(*before, Some(*value)))),
            Step::RemoveService(key) => Self::Removes(Owned::Service(key)),
            Step::RemoveAddress(key) => Self::Removes(Owned::Address(key)),
            Step::RemoveLink(name) => Self::Removes(Owned::Link(name)),
            Step::RemoveFouPort(port) => Self::Removes(Owned::FouPort(port)),
            Step::RemoveRoute(route) => Self::Removes(Owned::Route(route)),
            Step::RemoveRule(rule) => Self::Removes(Owned::Rule(rule)),
            Step::RemoveMasquerade => Self::Removes(Owned::Masquerade),
            Step::RestoreTimeouts(before) => Self::Removes(Owned::Timeouts(Some(*before))),
            Step::RestoreSysctl { sysctl, value } => {
                Self::Removes(Owned::Sysctl(sysctl, record(*value, None)))
            }
            // It goes with the device that it is on.
            Step::SetSysctl { previous: None, .. }
            | Step::SetLinkUp(_)
            | Step::EditAddress { .. }
            | Step::EditService { .. }
            | Step::AddDestination { .. }
            | Step::EditDestination { .. }
            | Step::RemoveDestination { .. } => Self::Neither,
        }
    }
}
