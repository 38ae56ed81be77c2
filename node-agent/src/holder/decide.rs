//! Decides what the holder has to do, from the VIPs to hold and the addresses of the machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lvs_model::{AddressConfig, AddressKey, Holding, NetworkStep};

/// What the holder has to do, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// Removals of VIPs that no virtual service wants.
    pub release: Vec<NetworkStep>,
    /// Edits of VIPs whose attributes differ from the desired ones.
    pub edit: Vec<NetworkStep>,
    /// Missing VIPs, which are probed for before they are added.
    pub add: BTreeMap<AddressKey, AddressConfig>,
    /// Removals of VIPs from their old place, once the address is in its new place.
    pub moved: Vec<NetworkStep>,
}

/// Compares the VIPs to hold and to release with the addresses of the machine.
pub(super) fn decide(holding: &Holding, observed: &BTreeMap<AddressKey, AddressConfig>) -> Work {
    let mut work = Work::default();
    for (key, config) in &holding.hold {
        match observed.get(key) {
            None => drop(work.add.insert(key.clone(), *config)),
            Some(found) if found.differs_from(*config) => {
                let (key, config) = (key.clone(), *config);
                work.edit.push(NetworkStep::EditAddress { key, config });
            }
            Some(_) => {}
        }
    }
    let is_present = |key: &&AddressKey| observed.contains_key(*key);
    let release = holding.release.iter().filter(is_present);
    work.release = release.cloned().map(NetworkStep::RemoveAddress).collect();
    let others = observed.keys().filter(|key| !holding.moved.contains(*key));
    let elsewhere: BTreeSet<IpAddr> = others.map(|key| key.address).collect();
    let moved = holding.moved.iter().filter(is_present);
    let moved = moved.filter(|key| elsewhere.contains(&key.address));
    work.moved = moved.cloned().map(NetworkStep::RemoveAddress).collect();
    work
}

#[cfg(test)]
mod tests;
