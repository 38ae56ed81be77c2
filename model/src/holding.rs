//! The VIPs that the network sees. They are not part of a plan: the holder adds and removes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    AddressConfig, AddressKey, KernelState, Ledger, NetworkStep, Plan, RouterKey, Step,
    VirtualRouter,
};

/// The VIPs that a machine's holder must add, announce and remove.
///
/// The ledger contains all of them before the holder gets them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// The VIPs to hold: added where they are missing, and announced.
    pub hold: BTreeMap<AddressKey, AddressConfig>,
    /// The VIPs to remove: ours, and not desired on this machine. They are removed before their services.
    pub release: BTreeSet<AddressKey>,
    /// The VIPs whose address is desired elsewhere on this machine. They are removed after the address was added there.
    pub moved: BTreeSet<AddressKey>,
    /// The VIPs in `hold` that this machine holds only while no other director does.
    pub routers: BTreeMap<RouterKey, VirtualRouter>,
}

/// Computes which VIPs to hold and which to remove. Foreign addresses are in none of the sets.
#[must_use]
pub fn holding(desired: &KernelState, observed: &KernelState, ledger: &Ledger) -> Holding {
    let is_visible = |key: &AddressKey| {
        !key.interface.is_loopback()
            && !desired.links.contains_key(&key.interface)
            && !observed.links.contains_key(&key.interface)
    };
    let is_ours = |key: &AddressKey, found: &AddressConfig| ledger.owns_address(key, found.owner);
    let is_free = |key: &AddressKey| {
        let found = observed.addresses.get(key);
        found.is_none_or(|found| is_ours(key, found))
    };
    let wanted = desired.addresses.iter();
    let hold = wanted.filter(|(key, _)| is_visible(key) && is_free(key));
    let unwanted = observed.addresses.iter().filter(|(key, found)| {
        is_visible(key) && !desired.addresses.contains_key(key) && is_ours(key, found)
    });
    let still_wanted: BTreeSet<IpAddr> = desired.addresses.keys().map(|key| key.address).collect();
    let (moved, release) = unwanted
        .map(|(key, _)| key.clone())
        .partition(|key| still_wanted.contains(&key.address));
    let hold: BTreeMap<AddressKey, AddressConfig> =
        hold.map(|(key, config)| (key.clone(), *config)).collect();
    let mut routers = desired.routers.clone();
    routers.retain(|_, router| {
        router.vips.retain(|vip| hold.contains_key(vip));
        !router.vips.is_empty()
    });
    Holding {
        hold,
        release,
        moved,
        routers,
    }
}

impl Holding {
    /// Puts the machine on standby in all of its virtual routers.
    pub fn put_on_standby(&mut self) {
        for router in self.routers.values_mut() {
            router.candidacy.standby = true;
        }
    }

    /// Puts the machine on standby in the virtual routers that have any of these VIPs.
    pub fn put_on_standby_for(&mut self, unfit: &BTreeSet<IpAddr>) {
        for router in self.routers.values_mut() {
            let mut vips = router.vips.iter();
            router.candidacy.standby |= vips.any(|vip| unfit.contains(&vip.address));
        }
    }

    /// Forbids preemption in the virtual routers that have any of these VIPs.
    pub fn forbid_preemption_for(&mut self, vips: &BTreeSet<IpAddr>) {
        for router in self.routers.values_mut() {
            let mut own = router.vips.iter();
            if own.any(|vip| vips.contains(&vip.address)) {
                router.candidacy.preempt_after = None;
            }
        }
    }

    /// Returns the changes for a kernel with these addresses, in order: a VIP that moves is added before it is removed.
    #[must_use]
    pub fn changes(&self, observed: &BTreeMap<AddressKey, AddressConfig>) -> Vec<NetworkStep> {
        let wanted = self.hold.iter().filter_map(|(key, config)| {
            let (key, config) = (key.clone(), *config);
            match observed.get(&key) {
                // Whether it is to be added is not decided here: another director may hold it.
                None if config.expires => None,
                None => Some(NetworkStep::AddAddress { key, config }),
                Some(found) if found.differs_from(config) => {
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

    /// Returns the part that is done before the plan: VIPs to remove, and edits of VIPs that exist.
    ///
    /// A VIP is removed before its services are, and added after its services were.
    #[must_use]
    pub fn before_plan(&self, observed: &BTreeMap<AddressKey, AddressConfig>) -> Self {
        let hold = self.hold.iter();
        let there = hold.filter(|(key, _)| observed.contains_key(key));
        Self {
            hold: there.map(|(key, config)| (key.clone(), *config)).collect(),
            release: self.release.clone(),
            moved: BTreeSet::new(),
            routers: self.routers.clone(),
        }
    }
}

/// Returns all changes of a pass in order: VIPs that are removed, the plan, VIPs that are added or moved.
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
