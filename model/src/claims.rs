//! Which virtual service may have a VIP, a port of a VIP, or a firewall mark: decides the conflict of two virtual services.

mod claim;
mod conflict;
mod index;

pub use claim::Claim;
pub use conflict::{Conflict, check_machines};

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{ObjectName, ServiceKey};
use index::{ClaimIndex, Claimants, Seniority};

/// Whether a claim is granted. A virtual service is served only while its claim is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// The virtual service holds all that it claims.
    Granted,
    /// It holds nothing: something stands in the way of one key at least.
    Waiting(Conflict),
    /// It holds nothing, for a reason that has nothing to do with other claims.
    Refused,
}

/// The claims of all virtual services, each granted or waiting.
///
/// A claim is granted unless
///
/// 1. the virtual service is refused for another reason,
/// 2. one of its VIPs is a real server's address, in any virtual service,
/// 3. one of its VIPs is held by an older claim of another group,
/// 4. or one of its keys (a VIP with protocol and port, or a firewall mark) is held by an older claim.
///
/// Only granted claims hold anything. Of equally old claims the first by namespace and name counts as the older; files have
/// no age and come last. So the claims that are granted do not depend on the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    entries: BTreeMap<ObjectName, Entry>,
    index: ClaimIndex,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    claim: Claim,
    state: ClaimState,
}

/// The claims that are to be decided again, and the virtual services whose claims have changed their state so far.
#[derive(Default)]
struct Undecided {
    claims: BTreeSet<Seniority>,
    changed: BTreeSet<ObjectName>,
}

impl Undecided {
    fn add<'s>(&mut self, claims: impl Iterator<Item = &'s Seniority>) {
        self.claims.extend(claims.cloned());
    }

    /// Takes the oldest claim out, if it is older than another one.
    fn pop_before(&mut self, other: &Seniority) -> Option<Seniority> {
        let first = self.claims.first()?;
        if first < other {
            self.claims.pop_first()
        } else {
            None
        }
    }
}

impl Claims {
    /// Replaces the claim of a virtual service, or with `None` withdraws it. Returns the other virtual services whose claims
    /// have changed their state.
    ///
    /// Claims are decided from the oldest to the youngest, since each depends on older ones only.
    pub fn replace(&mut self, name: &ObjectName, claim: Option<Claim>) -> BTreeSet<ObjectName> {
        let mut undecided = Undecided::default();
        if let Some(before) = self.entries.remove(name) {
            if claim.as_ref() == Some(&before.claim) {
                self.entries.insert(name.clone(), before);
                return BTreeSet::new();
            }
            self.withdraw(name, &before, &mut undecided);
        }
        if let Some(claim) = claim {
            self.make(name, claim, &mut undecided);
        }
        while let Some(next) = undecided.claims.pop_first() {
            self.decide_again(next, &mut undecided);
        }
        undecided.changed
    }

    /// The claim of a virtual service.
    #[must_use]
    pub fn get(&self, name: &ObjectName) -> Option<&Claim> {
        self.entries.get(name).map(|entry| &entry.claim)
    }

    /// The state of a virtual service's claim; `None` if it has none.
    #[must_use]
    pub fn state(&self, name: &ObjectName) -> Option<&ClaimState> {
        self.entries.get(name).map(|entry| &entry.state)
    }

    /// All virtual services that claim something, with the states of their claims, in the order of their names.
    pub fn states(&self) -> impl Iterator<Item = (&ObjectName, &ClaimState)> {
        let entries = self.entries.iter();
        entries.map(|(name, entry)| (name, &entry.state))
    }

    /// Checks that the claim of a virtual service does not wait.
    ///
    /// # Errors
    /// What stands in its way.
    pub fn check(&self, name: &ObjectName) -> Result<(), &Conflict> {
        match self.state(name) {
            Some(ClaimState::Waiting(conflict)) => Err(conflict),
            Some(ClaimState::Granted | ClaimState::Refused) | None => Ok(()),
        }
    }

    /// Returns whether a virtual service holds what it claims.
    #[must_use]
    pub fn is_granted(&self, name: &ObjectName) -> bool {
        self.state(name) == Some(&ClaimState::Granted)
    }

    /// Returns whether an address is claimed as a VIP.
    #[must_use]
    pub fn is_claimed(&self, vip: IpAddr) -> bool {
        !self.index.of_vip(vip).is_empty()
    }

    /// The virtual services that claim an address as their VIP or have it among their real servers.
    pub fn users_of(&self, address: IpAddr) -> impl Iterator<Item = &ObjectName> {
        let claimants = self.index.claimants_of(address);
        let claimants = claimants.map(|claimant| &claimant.name);
        claimants.chain(self.index.of_server(address))
    }

    fn withdraw(&mut self, name: &ObjectName, entry: &Entry, undecided: &mut Undecided) {
        let Entry { claim, state } = entry;
        let own = Seniority::new(name, claim);
        self.index.remove(&own, claim);
        undecided.add(self.index.claimants_of_servers(claim));
        if *state == ClaimState::Granted {
            undecided.add(self.index.younger_rivals(&own, claim));
        }
    }

    fn make(&mut self, name: &ObjectName, claim: Claim, undecided: &mut Undecided) {
        let own = Seniority::new(name, &claim);
        self.index.insert(&own, &claim);
        undecided.add(self.index.claimants_of_servers(&claim));
        while let Some(older) = undecided.pop_before(&own) {
            self.decide_again(older, undecided);
        }
        let state = self.decide(&own, &claim);
        if state == ClaimState::Granted {
            undecided.add(self.index.younger_rivals(&own, &claim));
        }
        undecided.claims.remove(&own);
        self.entries.insert(name.clone(), Entry { claim, state });
    }

    /// Decides a claim again. If that changes whether it is granted, its younger rivals become undecided.
    fn decide_again(&mut self, own: Seniority, undecided: &mut Undecided) {
        let Some(Entry {
            claim,
            state: before,
        }) = self.entries.get(&own.name)
        else {
            return;
        };
        let state = self.decide(&own, claim);
        if state == *before {
            return;
        }
        if state == ClaimState::Granted || *before == ClaimState::Granted {
            undecided.add(self.index.younger_rivals(&own, claim));
        }
        if let Some(entry) = self.entries.get_mut(&own.name) {
            entry.state = state;
        }
        undecided.changed.insert(own.name);
    }

    /// The state of a claim, once all older claims are decided.
    fn decide(&self, own: &Seniority, claim: &Claim) -> ClaimState {
        if claim.is_refused {
            return ClaimState::Refused;
        }
        let vips = claim.frontend.vips();
        let conflict = vips
            .iter()
            .find_map(|vip| self.real_server(*vip))
            .or_else(|| {
                vips.iter()
                    .find_map(|vip| self.other_group(*vip, own, claim))
            })
            .or_else(|| {
                claim
                    .frontend
                    .keys()
                    .find_map(|key| self.other_holder(key, own))
            });
        conflict.map_or(ClaimState::Granted, ClaimState::Waiting)
    }

    fn real_server(&self, vip: IpAddr) -> Option<Conflict> {
        let user = self.index.of_server(vip).next()?.clone();
        Some(Conflict::RealServer { vip, user })
    }

    fn other_group(&self, vip: IpAddr, own: &Seniority, claim: &Claim) -> Option<Conflict> {
        let groups = self.index.of_vip(vip).iter();
        let mut others = groups.filter(|(group, _)| *group != claim.group);
        others.find_map(|(group, claimants)| {
            let holder = self.oldest_holder(claimants, own)?;
            Some(Conflict::Group {
                vip,
                group: group.clone(),
                holder: holder.clone(),
            })
        })
    }

    fn other_holder(&self, key: ServiceKey, own: &Seniority) -> Option<Conflict> {
        let claimants = self.index.of_key(&key)?;
        let holder = self.oldest_holder(claimants, own)?.clone();
        Some(Conflict::Key { key, holder })
    }

    /// The oldest claimant that is older than a claim and holds what it claims.
    fn oldest_holder<'c>(
        &self,
        claimants: &'c Claimants,
        own: &Seniority,
    ) -> Option<&'c ObjectName> {
        let mut older = claimants.older_than(own).map(|claimant| &claimant.name);
        older.find(|name| self.is_granted(name))
    }
}
