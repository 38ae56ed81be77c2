//! Addresses that were allocated from pools.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lvs_model::ObjectName;

/// Addresses that were allocated from pools. The status of a virtual service keeps its address over a restart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allocations {
    addresses: BTreeMap<ObjectName, IpAddr>,
    /// The same by address. Two statuses may have one address.
    owners: BTreeMap<IpAddr, BTreeSet<ObjectName>>,
    /// The virtual services for which no address was free.
    waiting: BTreeSet<ObjectName>,
}

impl Allocations {
    /// The address of a virtual service.
    pub(crate) fn get(&self, name: &ObjectName) -> Option<IpAddr> {
        self.addresses.get(name).copied()
    }

    /// Returns whether an address is allocated.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.owners.contains_key(&address)
    }

    /// Sets the address of a virtual service. Returns the one that it had before, if that is another.
    pub(crate) fn set(&mut self, name: &ObjectName, address: Option<IpAddr>) -> Option<IpAddr> {
        let before = self.get(name);
        if before == address {
            return None;
        }
        if let Some(before) = before
            && let Some(owners) = self.owners.get_mut(&before)
        {
            owners.remove(name);
            if owners.is_empty() {
                self.owners.remove(&before);
            }
        }
        match address {
            Some(address) => {
                let owners = self.owners.entry(address).or_default();
                owners.insert(name.clone());
                self.addresses.insert(name.clone(), address);
            }
            None => drop(self.addresses.remove(name)),
        }
        before
    }

    /// Notes whether a virtual service waits for an address.
    pub(crate) fn set_waiting(&mut self, name: &ObjectName, is_waiting: bool) {
        if is_waiting {
            self.waiting.insert(name.clone());
        } else {
            self.waiting.remove(name);
        }
    }

    /// Returns whether a virtual service waits for an address.
    pub(crate) fn is_waiting(&self, name: &ObjectName) -> bool {
        self.waiting.contains(name)
    }

    /// Takes the virtual services out that wait for an address.
    pub(crate) fn take_waiting(&mut self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut self.waiting)
    }
}
