//! The first step: allocates a VIP to a virtual service that names none.

use std::net::IpAddr;

use lvs_crd::{VirtualService, convert};
use lvs_model::{Conflict, ObjectName, Pool, allocate};

use crate::cluster::Cluster;

impl Cluster {
    /// Allocates a VIP to a virtual service that names none.
    ///
    /// 1. A spec with addresses or a firewall mark needs none.
    /// 2. An address that is allocated already is kept, whatever becomes of the pool. It is replaced only if another virtual
    ///    service holds it and no director has it for this one: after two statuses with one address were restored.
    /// 3. Otherwise the first address that is no VIP, no real server's and no machine's is allocated. If there is none, the
    ///    virtual service waits.
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

    /// Returns whether another virtual service holds the address that is allocated to this one.
    pub(super) fn has_lost(&self, name: &ObjectName, address: IpAddr) -> bool {
        let conflict = self.claims.check(name).err();
        let is_held = conflict.and_then(Conflict::held_vip) == Some(address);
        is_held && self.index.bindings_of(name).is_empty()
    }

    /// Returns whether a virtual service or a machine has an address, or a virtual service claims it.
    fn is_taken(&self, address: IpAddr) -> bool {
        self.allocations.contains(address)
            || self.claims.is_claimed(address)
            || self.claims.is_server(address)
            || self.index.machines().contains_key(&address)
    }

    fn choose_address(&self, name: &ObjectName, pools: Option<&[Pool]>) -> Option<IpAddr> {
        let known = self.allocations.get(name);
        let known = known.filter(|address| !self.has_lost(name, *address));
        let is_taken = |address| self.is_taken(address);
        known.or_else(|| allocate(pools?, name.namespace(), is_taken))
    }

    /// Notes an allocated address. If another one becomes free, those that wait for an address are reconciled again.
    fn set_allocation(&mut self, name: &ObjectName, address: Option<IpAddr>) {
        if self.allocations.set(name, address).is_some() {
            self.enqueue_waiting();
        }
    }
}
