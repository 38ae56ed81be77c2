//! Who has a VIP with a protocol and port, or a firewall mark.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lvs_model::{ObjectName, ServiceKey};

/// A claimant by age: the oldest comes first, and of equally old ones the first by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claimant {
    /// When it was created, in seconds since 1970.
    pub created: i64,
    /// Its name.
    pub name: ObjectName,
}

/// What a virtual service claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    /// Its keys.
    pub keys: BTreeSet<ServiceKey>,
    /// Its VIPs.
    pub vips: BTreeSet<IpAddr>,
    /// Its group: a VIP belongs to one.
    pub group: String,
}

/// Who claims what. The oldest claimant of each has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claims {
    keys: BTreeMap<ServiceKey, BTreeSet<Claimant>>,
    vips: BTreeMap<IpAddr, BTreeMap<Claimant, String>>,
    taken: BTreeSet<IpAddr>,
}

/// Why a claim is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Conflict {
    /// Another virtual service has the key.
    Key(ServiceKey, ObjectName),
    /// Another group has the VIP.
    Vip(IpAddr, String, ObjectName),
}

impl Claims {
    /// Replaces what a virtual service claims. Returns the others whose claims may be decided otherwise by that.
    pub(super) fn replace(
        &mut self,
        before: (&Claimant, &Claim),
        now: (&Claimant, &Claim),
    ) -> BTreeSet<ObjectName> {
        if before == now {
            return BTreeSet::new();
        }
        let ((old, before), (new, now)) = (before, now);
        let mut concerned = BTreeSet::new();
        for key in &before.keys {
            concerned.extend(self.rivals_of_key(key));
            if let Some(claimants) = self.keys.get_mut(key) {
                claimants.remove(old);
                if claimants.is_empty() {
                    self.keys.remove(key);
                }
            }
        }
        for vip in &before.vips {
            let old_group = self.group_of(*vip).cloned();
            if let Some(claimants) = self.vips.get_mut(vip) {
                claimants.remove(old);
                if claimants.is_empty() {
                    self.vips.remove(vip);
                    self.taken.remove(vip);
                }
            }
            concerned.extend(self.moved(*vip, old_group.as_ref()));
        }
        for key in &now.keys {
            self.keys.entry(*key).or_default().insert(new.clone());
            concerned.extend(self.rivals_of_key(key));
        }
        for vip in &now.vips {
            let old_group = self.group_of(*vip).cloned();
            self.taken.insert(*vip);
            let claimants = self.vips.entry(*vip).or_default();
            claimants.insert(new.clone(), now.group.clone());
            concerned.extend(self.moved(*vip, old_group.as_ref()));
        }
        concerned
    }

    /// Says whether a claim is granted.
    pub(super) fn check(&self, claimant: &Claimant, claim: &Claim) -> Result<(), Conflict> {
        for vip in &claim.vips {
            if let Some((owner, group)) = self.vips.get(vip).and_then(BTreeMap::first_key_value)
                && *group != claim.group
            {
                return Err(Conflict::Vip(*vip, group.clone(), owner.name.clone()));
            }
        }
        for key in &claim.keys {
            if let Some(owner) = self.keys.get(key).and_then(BTreeSet::first)
                && owner != claimant
            {
                return Err(Conflict::Key(*key, owner.name.clone()));
            }
        }
        Ok(())
    }

    /// The VIPs that somebody claims.
    pub(super) const fn taken(&self) -> &BTreeSet<IpAddr> {
        &self.taken
    }

    /// Keeps an address from being allocated until somebody claims it.
    pub(super) fn reserve(&mut self, address: IpAddr) {
        self.taken.insert(address);
    }

    /// Lets an address be allocated again, unless somebody claims it.
    pub(super) fn release(&mut self, address: IpAddr) {
        if !self.vips.contains_key(&address) {
            self.taken.remove(&address);
        }
    }

    /// The virtual services that claim a VIP.
    pub(super) fn users_of(&self, vip: IpAddr) -> impl Iterator<Item = &ObjectName> {
        self.vips
            .get(&vip)
            .into_iter()
            .flat_map(|claimants| claimants.keys().map(|claimant| &claimant.name))
    }

    fn rivals_of_key(&self, key: &ServiceKey) -> Vec<ObjectName> {
        let claimants = self.keys.get(key).into_iter().flatten();
        claimants.map(|claimant| claimant.name.clone()).collect()
    }

    fn group_of(&self, vip: IpAddr) -> Option<&String> {
        self.vips
            .get(&vip)?
            .first_key_value()
            .map(|(_, group)| group)
    }

    /// All users of a VIP when its group has changed.
    fn moved(&self, vip: IpAddr, before: Option<&String>) -> Vec<ObjectName> {
        if self.group_of(vip) == before {
            return Vec::new();
        }
        self.users_of(vip).cloned().collect()
    }
}
