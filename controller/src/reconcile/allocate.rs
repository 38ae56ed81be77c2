//! The first step: allocates a VIP to a virtual service that names none.

use std::net::IpAddr;

use lvs_crd::{VirtualService, convert};
use lvs_model::{Conflict, ObjectName, Pool, allocate};

use crate::cluster::Cluster;

impl Cluster {
    /// Allocates a VIP to a virtual service that names none.
    ///
    /// 1. A spec with addresses or a firewall mark needs none.
    /// 2. An address that is allocated already is kept while a pool of the group has it for the namespace, and also while
    ///    the group does not exist: the group may come back. It is lost when an older virtual service names it.
    /// 3. Otherwise the first address that no virtual service has is allocated. If there is none, the virtual service waits.
    pub(super) fn allocate(
        &mut self,
        name: &ObjectName,
        object: &VirtualService,
    ) -> Option<IpAddr> {
        let needs_address = object.spec.addresses.is_empty() && object.spec.fwmark.is_none();
        let group = self.objects.groups.get(&object.spec.director_group);
        let pools = group.map(|group| convert::pools_of(group));
        let address = if needs_address {
            self.choose_address(name, pools.as_deref())
        } else {
            None
        };
        let is_waiting = needs_address && address.is_none() && pools.is_some();
        self.set_allocation(name, address);
        self.allocations.set_waiting(name, is_waiting);
        address
    }

    /// Releases the address of a deleted virtual service.
    pub(super) fn release(&mut self, name: &ObjectName) {
        self.allocations.set_waiting(name, false);
        self.set_allocation(name, None);
    }

    /// Returns whether an older virtual service names the address that is allocated to this one.
    pub(super) fn has_lost(&self, name: &ObjectName, address: IpAddr) -> bool {
        let conflict = self.claims.check(name).err();
        conflict.and_then(Conflict::held_vip) == Some(address)
    }

    /// Returns whether a virtual service has or claims an address.
    pub(super) fn is_taken(&self, address: IpAddr) -> bool {
        self.claims.is_claimed(address) || self.allocations.contains(address)
    }

    fn choose_address(&self, name: &ObjectName, pools: Option<&[Pool]>) -> Option<IpAddr> {
        let known = self.allocations.get(name);
        let known = known.filter(|address| !self.has_lost(name, *address));
        let Some(pools) = pools else {
            return known;
        };
        let namespace = name.namespace();
        let fits = |address: &IpAddr| {
            let mut pools = pools.iter();
            pools.any(|pool| pool.serves(namespace) && pool.contains(*address))
        };
        let is_taken = |address| self.is_taken(address);
        known
            .filter(fits)
            .or_else(|| allocate(pools, namespace, is_taken))
    }

    /// Notes an allocated address. If another one becomes free, those that wait for an address are reconciled again.
    fn set_allocation(&mut self, name: &ObjectName, address: Option<IpAddr>) {
        if self.allocations.set(name, address).is_some() {
            self.enqueue_waiting();
        }
    }
}
