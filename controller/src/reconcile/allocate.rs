//! The first step: allocates VIPs to a virtual service that names none.

use std::{collections::BTreeSet, net::IpAddr};

use lvs_crd::{IpFamily, VirtualService, condition::Reason};
use lvs_model::{Asker, Conflict, Family, ObjectName, PoolName, PoolRefusal};

use crate::cluster::{Cluster, Fault, has_facts};

impl Cluster {
    /// Allocates a VIP of each family that a virtual service asks for, if it names none.
    ///
    /// 1. A spec with addresses or a firewall mark needs none.
    /// 2. An address that is allocated already is kept, whatever becomes of the pool. It is replaced only if another virtual
    ///    service holds it and no director has it for this one: after two statuses with one address were restored.
    /// 3. Otherwise the first free address of a pool is allocated: one that is no VIP, no real server's, no machine's, no
    ///    gateway's and not the API server's. If there is none, the virtual service waits, and is given nothing.
    /// 4. It waits too until a director of its group has reported: before, the addresses of machines and gateways round the group are
    ///    not known.
    pub(super) fn allocate(&mut self, name: &ObjectName, object: &VirtualService) -> Vec<IpAddr> {
        if !object.spec.addresses.is_empty() || object.spec.fwmark.is_some() {
            self.release(name);
            return Vec::new();
        }
        let known = self.allocations.get(name).iter().copied();
        let (lost, kept): (Vec<IpAddr>, Vec<IpAddr>) =
            known.partition(|address| self.has_lost(name, *address));
        if let Some(lost) = lost.first() {
            self.allocations.set_lost(name, Some(*lost));
        }
        match self.choose_addresses(name, object, &kept) {
            Ok(addresses) => {
                self.set_allocation(name, addresses.clone());
                self.allocations.set_waiting(name, None);
                addresses
            }
            Err(why) => {
                self.set_allocation(name, kept);
                self.allocations.set_waiting(name, Some(why));
                Vec::new()
            }
        }
    }

    /// Releases the addresses of a virtual service that is deleted, or that needs none.
    pub(super) fn release(&mut self, name: &ObjectName) {
        self.allocations.set_waiting(name, None);
        self.allocations.set_lost(name, None);
        self.set_allocation(name, Vec::new());
    }

    /// Returns whether another virtual service holds the address that is allocated to this one.
    pub(super) fn has_lost(&self, name: &ObjectName, address: IpAddr) -> bool {
        let conflict = self.claims.check(name).err();
        let is_held = conflict.and_then(Conflict::held_vip) == Some(address);
        is_held && self.index.bindings_of(name).is_empty()
    }

    fn choose_addresses(
        &self,
        name: &ObjectName,
        object: &VirtualService,
        kept: &[IpAddr],
    ) -> Result<Vec<IpAddr>, Fault> {
        let spec = &object.spec;
        let Ok(group) = spec.director_group.parse() else {
            return Err(Fault::new(
                Reason::Invalid,
                "`spec.directorGroup` is no name",
            ));
        };
        let asker = Asker {
            namespace: name.namespace(),
            group: &group,
        };
        let named = spec.address_pool.as_deref().map(str::parse::<PoolName>);
        let named = named
            .transpose()
            .map_err(|error| Fault::new(Reason::Invalid, format!("`spec.addressPool` {error}")))?;
        let listed = spec.backends.iter();
        let listed: BTreeSet<IpAddr> = listed
            .filter_map(|backend| backend.address.as_deref()?.parse().ok())
            .collect();
        let families = spec.ip_families.as_deref().unwrap_or(&[IpFamily::V4]);
        let addresses = families.iter().map(|family| {
            let family = Family::from(*family);
            let mut kept = kept.iter().copied();
            if let Some(kept) = kept.find(|kept| Family::of(*kept) == family) {
                return Ok(kept);
            }
            let is_taken = |address: IpAddr| listed.contains(&address) || self.is_taken(address);
            let allocated = self.pools.allocate(asker, named.as_ref(), family, is_taken);
            match &allocated {
                // Known whatever the addresses of machines are.
                Err(PoolRefusal::NotServed { .. } | PoolRefusal::Outside { .. }) => {}
                Ok(_) | Err(PoolRefusal::Exhausted { .. }) => {
                    self.check_report(&spec.director_group)?;
                }
            }
            allocated.map_err(|refusal| self.pool_fault(name, asker, &refusal))
        });
        addresses.collect()
    }

    /// Fails as long as no director of a group has reported its addresses, or if there is no such group.
    fn check_report(&self, group: &str) -> Result<(), Fault> {
        if self.index.election(group).is_none() {
            let message = format!("there is no DirectorGroup '{group}'");
            return Err(Fault::new(Reason::DirectorGroupNotFound, message));
        }
        let mut directors = self.index.directors(group).iter();
        let has_reported = directors.any(|director| {
            let lvs_node = self.objects.lvs_nodes.get(director);
            has_facts(lvs_node.map(AsRef::as_ref))
        });
        if has_reported {
            return Ok(());
        }
        let message = format!(
            "no director of DirectorGroup '{group}' has reported its addresses yet; an address is allocated once one has"
        );
        Err(Fault::new(Reason::NotReported, message))
    }

    /// Returns whether an address cannot be allocated: something has it.
    fn is_taken(&self, address: IpAddr) -> bool {
        self.allocations.contains(address)
            || self.claims.is_claimed(address)
            || self.claims.is_server(address)
            || self.index.machines().contains_key(&address)
            || self.is_reserved(address)
            || self.objects.is_api_server(address)
    }

    /// The fault of a virtual service that gets no address from the pools.
    fn pool_fault(&self, name: &ObjectName, asker: Asker<'_>, refusal: &PoolRefusal) -> Fault {
        let reason = match refusal {
            PoolRefusal::Exhausted { .. } => Reason::NoFreeAddress,
            PoolRefusal::NotServed { .. } | PoolRefusal::Outside { .. } => Reason::NoAddressPool,
        };
        let mut message = refusal.text(asker);
        if let Some(lost) = self.allocations.lost(name)
            && let Some(holder) = self.claims.holders_of(lost).next()
        {
            message.push_str(&format!(
                "; '{lost}', which it had, is held by VirtualService {holder}"
            ));
        }
        Fault::new(reason, message)
    }

    /// Notes the allocated addresses. If another one becomes free, those that wait for an address are reconciled again.
    fn set_allocation(&mut self, name: &ObjectName, addresses: Vec<IpAddr>) {
        if self.allocations.set(name, addresses) {
            self.enqueue_waiting();
        }
    }
}
