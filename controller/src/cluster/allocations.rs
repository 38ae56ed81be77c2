//! Addresses that were allocated from pools.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lvs_model::ObjectName;

use super::reconciled::Fault;

/// Addresses that were allocated from pools. The status of a virtual service keeps its addresses over a restart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allocations {
    /// At most one address of a family each.
    addresses: BTreeMap<ObjectName, Vec<IpAddr>>,
    /// The same by address. Two statuses may have one address.
    owners: BTreeMap<IpAddr, BTreeSet<ObjectName>>,
    /// The addresses that virtual services had and that others hold.
    lost: BTreeMap<ObjectName, IpAddr>,
    /// The virtual services that wait for an address, and why.
    waiting: BTreeMap<ObjectName, Fault>,
}

impl Allocations {
    /// The addresses of a virtual service.
    pub(crate) fn get(&self, name: &ObjectName) -> &[IpAddr] {
        self.addresses.get(name).map_or(&[], Vec::as_slice)
    }

    /// Returns whether an address is allocated.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.owners.contains_key(&address)
    }

    /// Sets the addresses of a virtual service. Returns whether it gave one up.
    pub(crate) fn set(&mut self, name: &ObjectName, addresses: Vec<IpAddr>) -> bool {
        let before = self.addresses.remove(name).unwrap_or_default();
        for address in &before {
            if let Some(owners) = self.owners.get_mut(address) {
                owners.remove(name);
                if owners.is_empty() {
                    self.owners.remove(address);
                }
            }
        }
        for address in &addresses {
            let owners = self.owners.entry(*address).or_default();
            owners.insert(name.clone());
        }
        let gives_up = before.iter().any(|address| !addresses.contains(address));
        if !addresses.is_empty() {
            self.addresses.insert(name.clone(), addresses);
        }
        gives_up
    }

    /// The address that a virtual service had and that another one holds.
    pub(crate) fn lost(&self, name: &ObjectName) -> Option<IpAddr> {
        self.lost.get(name).copied()
    }

    /// Notes an address that a virtual service had and that another one holds.
    pub(crate) fn set_lost(&mut self, name: &ObjectName, address: Option<IpAddr>) {
        match address {
            Some(address) => drop(self.lost.insert(name.clone(), address)),
            None => drop(self.lost.remove(name)),
        }
    }

    /// Notes why a virtual service waits for an address, or that it does not.
    pub(crate) fn set_waiting(&mut self, name: &ObjectName, why: Option<Fault>) {
        match why {
            Some(why) => drop(self.waiting.insert(name.clone(), why)),
            None => drop(self.waiting.remove(name)),
        }
    }

    /// Why a virtual service waits for an address; `None` if it does not.
    pub(crate) fn waiting(&self, name: &ObjectName) -> Option<&Fault> {
        self.waiting.get(name)
    }

    /// Takes the virtual services out that wait for an address.
    pub(crate) fn take_waiting(&mut self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut self.waiting).into_keys().collect()
    }
}
