//! The VIPs that the network sees: no steps of a plan, but the business of the holder.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    AddressConfig, AddressKey, KernelState, Ledger, NetworkStep, Owner, Plan, Step, Target,
};

/// The VIPs that the network sees, as the holder of a machine is handed them.
///
/// The ledger names all of them before the holder gets them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Those to have: added where they are missing, and announced.
    pub hold: BTreeMap<AddressKey, AddressConfig>,
    /// Those to give up: ours, and no longer wanted on this machine. They go before the services behind them.
    pub release: BTreeSet<AddressKey>,
    /// Those whose address is wanted in another place on this machine, to be given up when it is there.
    pub moved: BTreeSet<AddressKey>,
}

/// Works out which VIPs to hold and which to release. Nothing foreign is among either.
#[must_use]
pub fn holding(desired: &KernelState, observed: &KernelState, ledger: &Ledger) -> Holding {
    let is_seen = |key: &AddressKey| {
        !key.interface.is_loopback()
            && !desired.links.contains_key(&key.interface)
            && !observed.links.contains_key(&key.interface)
    };
    let is_ours = |key: &AddressKey, found: &AddressConfig| {
        found.owner == Owner::Ours || ledger.owns(&Target::Address(key.clone()))
    };
    let is_free = |key: &AddressKey| {
        let found = observed.addresses.get(key);
        found.is_none_or(|found| is_ours(key, found))
    };
    let wanted = desired.addresses.iter();
    let hold = wanted.filter(|(key, _)| is_seen(key) && is_free(key));
    let unwanted = observed.addresses.iter().filter(|(key, found)| {
        is_seen(key) && !desired.addresses.contains_key(key) && is_ours(key, found)
    });
    let still_wanted: BTreeSet<IpAddr> = desired.addresses.keys().map(|key| key.address).collect();
    let (moved, release) = unwanted
        .map(|(key, _)| key.clone())
        .partition(|key| still_wanted.contains(&key.address));
    Holding {
        hold: hold.map(|(key, config)| (key.clone(), *config)).collect(),
        release,
        moved,
    }
}

impl Holding {
    /// The changes that it takes on a kernel with these addresses, in order: what moves is there before it goes.
    #[must_use]
    pub fn changes(&self, observed: &BTreeMap<AddressKey, AddressConfig>) -> Vec<NetworkStep> {
        let wanted = self.hold.iter().filter_map(|(key, config)| {
            let (key, config) = (key.clone(), *config);
            match observed.get(&key) {
                None => Some(NetworkStep::AddAddress { key, config }),
                Some(found) if found.deprecated != config.deprecated => {
                    Some(NetworkStep::EditAddress { key, config })
                }
                Some(_) => None,
            }
        });
        let released = self.release.iter().chain(&self.moved);
        let released = released.filter(|key| observed.contains_key(key));
        wanted
            .chain(released.cloned().map(NetworkStep::RemoveAddress))
            .collect()
    }

    /// The part that is done before a plan is executed: a VIP that nothing wants any more goes before the services behind
    /// it, and one that comes, comes after them.
    #[must_use]
    pub fn before_plan(&self, observed: &BTreeMap<AddressKey, AddressConfig>) -> Self {
        let hold = self.hold.iter();
        let there = hold.filter(|(key, _)| observed.contains_key(key));
        Self {
            hold: there.map(|(key, config)| (key.clone(), *config)).collect(),
            release: self.release.clone(),
            moved: BTreeSet::new(),
        }
    }
}

/// Everything that a pass does to a kernel, in order: the VIPs that go, the plan, and the VIPs that come or move.
#[must_use]
pub fn steps_in_order(
    plan: &Plan,
    holding: &Holding,
    observed: &BTreeMap<AddressKey, AddressConfig>,
) -> Vec<Step> {
    let before = holding.before_plan(observed).changes(observed);
    let after = holding.changes(observed);
    let after = after.into_iter().filter(|step| !before.contains(step));
    let after: Vec<Step> = after.map(Step::Network).collect();
    let before = before.iter().cloned().map(Step::Network);
    before
        .chain(plan.steps.iter().cloned())
        .chain(after)
        .collect()
}
