//! What the holder has to do at the moment.

use std::collections::BTreeMap;

use lvs_model::{AddressConfig, AddressKey, Holding, NetworkStep};

/// What the holder has to do at the moment, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// VIPs that are given up: nothing here wants them any more.
    pub release: Vec<NetworkStep>,
    /// VIPs that are there with other attributes than they should have.
    pub edit: Vec<NetworkStep>,
    /// VIPs that are missing: probed for before they are added.
    pub add: BTreeMap<AddressKey, AddressConfig>,
    /// VIPs that have moved: given up once the address is in its other place.
    pub moved: Vec<NetworkStep>,
}

/// Compares what is to be held with the addresses of the machine.
pub(super) fn decide(holding: &Holding, observed: &BTreeMap<AddressKey, AddressConfig>) -> Work {
    let mut work = Work::default();
    for (key, config) in &holding.hold {
        match observed.get(key) {
            None => drop(work.add.insert(key.clone(), *config)),
            Some(found) if found.deprecated != config.deprecated => {
                let (key, config) = (key.clone(), *config);
                work.edit.push(NetworkStep::EditAddress { key, config });
            }
            Some(_) => {}
        }
    }
    let is_there = |key: &&AddressKey| observed.contains_key(*key);
    let release = holding.release.iter().filter(is_there);
    work.release = release.cloned().map(NetworkStep::RemoveAddress).collect();
    let is_elsewhere = |moved: &&AddressKey| {
        let mut others = observed.keys().filter(|key| key != moved);
        others.any(|key| key.address == moved.address)
    };
    let moved = holding.moved.iter().filter(is_there).filter(is_elsewhere);
    work.moved = moved.cloned().map(NetworkStep::RemoveAddress).collect();
    work
}

#[cfg(test)]
mod tests;
