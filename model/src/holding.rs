//! The VIPs that the network sees. They are not part of a plan: the holder adds and removes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use crate::{
    AddressConfig, AddressKey, KernelState, Ledger, NetworkStep, Owner, Plan, RouterKey, Step,
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

/// A virtual router with the settings of its VIPs, as the agent saves it for its next start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedRouter {
    /// Which one.
    pub key: RouterKey,
    /// This machine's part, and the VIPs.
    pub router: VirtualRouter,
    /// The settings of each VIP.
    pub hold: Vec<(AddressKey, AddressConfig)>,
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
    /// The virtual routers, to be saved for the next start of the agent.
    #[must_use]
    pub fn saved(&self) -> Vec<SavedRouter> {
        let saved = self.routers.iter().map(|(key, router)| {
            let hold = router.vips.iter();
            let hold = hold.filter_map(|vip| Some((vip.clone(), *self.hold.get(vip)?)));
            SavedRouter {
                key: key.clone(),
                router: router.clone(),
                hold: hold.collect(),
            }
        });
        saved.collect()
    }

    /// What an agent that was restarted goes on with before it has read its configuration: the VIPs that it has and that expire without it.
    /// It adds, edits and removes no other.
    #[must_use]
    pub fn resumed(
        saved: Vec<SavedRouter>,
        observed: &BTreeMap<AddressKey, AddressConfig>,
    ) -> Self {
        let is_held = |vip: &AddressKey| {
            let found = observed.get(vip);
            found.is_some_and(|found| found.expires && found.owner != Owner::Foreign)
        };
        let mut resumed = Self::default();
        for SavedRouter {
            key,
            mut router,
            hold,
        } in saved
        {
            let hold = hold.into_iter().filter(|(vip, _)| is_held(vip));
            resumed.hold.extend(hold);
            router.vips.retain(is_held);
            if !router.vips.is_empty() {
                resumed.routers.insert(key, router);
            }
        }
        resumed
    }

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

#[cfg(test)]
mod tests {
    use crate::{Candidacy, Family, InterfaceName};

    use super::*;

    fn mk_vip(last: u8) -> AddressKey {
        let eth0: InterfaceName = "eth0".parse().unwrap();
        AddressKey::host(&eth0, IpAddr::from([10, 0, 0, last]))
    }

    fn mk_config(expires: bool) -> AddressConfig {
        AddressConfig {
            deprecated: false,
            expires,
            owner: Owner::Ours,
        }
    }

    /// A machine that takes part in router 51 with .100 and .101, and in router 52 with .102.
    fn mk_holding() -> Holding {
        let router = |id: u8, vips: &[u8]| {
            let key = RouterKey {
                interface: "eth0".parse().unwrap(),
                family: Family::V4,
                router_id: id,
            };
            let candidacy = Candidacy {
                router_id: 51,
                routers: 2,
                interval: 100,
                preempt_after: None,
                priorities: vec![100, 99],
                standby: false,
                unicast: None,
            };
            let router = VirtualRouter {
                candidacy,
                groups: BTreeSet::from(["edge".parse().unwrap()]),
                vips: vips.iter().map(|last| mk_vip(*last)).collect(),
            };
            (key, router)
        };
        let hold = [100, 101, 102].map(|last| (mk_vip(last), mk_config(true)));
        Holding {
            hold: BTreeMap::from(hold),
            release: BTreeSet::from([mk_vip(99)]),
            moved: BTreeSet::from([mk_vip(98)]),
            routers: BTreeMap::from([router(51, &[100, 101]), router(52, &[102])]),
        }
    }

    #[test]
    fn a_restart_goes_on_with_the_vips_that_have_not_expired_and_changes_nothing_else() {
        let before = mk_holding();
        let saved = before.saved();
        // .99 and .102 are there, but not for a limited time; .100 has expired.
        let observed = BTreeMap::from([
            (mk_vip(99), mk_config(false)),
            (mk_vip(101), mk_config(true)),
            (mk_vip(102), mk_config(false)),
        ]);
        let resumed = Holding::resumed(saved.clone(), &observed);
        assert!(resumed.release.is_empty() && resumed.moved.is_empty());
        let held: Vec<&AddressKey> = resumed.hold.keys().collect();
        assert_eq!(held, [&mk_vip(101)]);
        let routers: Vec<_> = resumed.routers.iter().collect();
        let [(key, router)] = routers.as_slice() else {
            panic!("{routers:?}")
        };
        assert_eq!(key.router_id, 51);
        assert_eq!(router.vips, BTreeSet::from([mk_vip(101)]));
        assert_eq!(router.candidacy, before.routers[*key].candidacy);

        let foreign = AddressConfig {
            owner: Owner::Foreign,
            ..mk_config(true)
        };
        for observed in [BTreeMap::new(), BTreeMap::from([(mk_vip(101), foreign)])] {
            assert_eq!(
                Holding::resumed(saved.clone(), &observed),
                Holding::default()
            );
        }
    }
}
