//! Which virtual service may have a VIP, a port of a VIP, a firewall mark or a real server: decides conflicts.

mod claim;
mod conflict;
mod index;

pub use claim::{Claim, Sharing, Stage};
pub use conflict::{Conflict, check_machines};

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    slice,
    sync::Arc,
};

use crate::{Frontend, ObjectName, ServiceKey};
use index::{ClaimIndex, Seniority, Tenant};

/// Whether a claim is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// The virtual service may have all that it claims.
    Granted,
    /// It may not: something stands in the way of one part at least.
    Waiting(Conflict),
    /// It may not, for a reason that has nothing to do with other claims.
    Refused,
}

/// The claims of all virtual services, each granted or waiting.
///
/// A virtual service *claims* what its spec asks for, and it *holds* what it has: what its directors are given, what its status
/// grants, and what was granted to it before the last [`Self::commit`]. Two virtual services are in each other's way if they
/// claim or hold
///
/// - the same key: a VIP with protocol and port, or a firewall mark,
/// - one VIP in two groups, or in two namespaces where [`Sharing`] forbids that,
/// - an address that is a VIP of one and a real server of the other.
///
/// A claim is granted unless
///
/// 1. the virtual service is refused for another reason,
/// 2. another one holds what is in its way, unless this one holds the same and goes first: because directors have it for this
///    one only, or because it is older,
/// 3. or it is in the way of an older claim that is granted, and does not hold the same.
///
/// The mark and the real servers of an idle claim stand in no other claim's way: without a group, they are not permitted.
///
/// So what is held is kept, and of two newcomers the older one gets it. Of equally old ones, the first by namespace
/// and name counts as the older; files have no age and come last. Which claims are granted depends on what is claimed and held,
/// and not on the order of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    sharing: Sharing,
    entries: BTreeMap<ObjectName, Entry>,
    claimed: ClaimIndex,
    holdings: BTreeMap<ObjectName, Holdings>,
    held: ClaimIndex,
    /// The virtual services whose claim, or the state of it, has changed since the last commit.
    uncommitted: BTreeSet<ObjectName>,
    /// What [`Self::take_touched`] returns next.
    touched: BTreeSet<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    claim: Arc<Claim>,
    state: ClaimState,
}

/// What a virtual service holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Holdings {
    /// What its objects show.
    stored: Vec<Arc<Claim>>,
    /// Its claim that was granted at the last commit.
    committed: Option<Arc<Claim>>,
}

impl Holdings {
    fn all(&self) -> Vec<Arc<Claim>> {
        self.stored.iter().chain(&self.committed).cloned().collect()
    }
}

/// The claims that are to be decided again, and the virtual services whose claims have changed their state so far.
#[derive(Default)]
struct Undecided {
    claims: BTreeSet<Seniority>,
    changed: BTreeSet<ObjectName>,
}

/// Those that hold a thing, and those that claim it.
struct Rivals<'c, O, H, C> {
    /// The virtual service itself among those that hold it.
    own_hold: O,
    held: H,
    claimed: C,
    own: &'c Seniority,
}

impl Claims {
    /// No claims yet.
    #[must_use]
    pub fn new(sharing: Sharing) -> Self {
        Self {
            sharing,
            ..Self::default()
        }
    }

    /// Replaces the claim of a virtual service, or with `None` withdraws it. Returns the other virtual services whose claims
    /// have changed their state.
    pub fn replace(&mut self, name: &ObjectName, claim: Option<Claim>) -> BTreeSet<ObjectName> {
        let before = self.entries.remove(name);
        if let (Some(before), Some(claim)) = (&before, &claim)
            && *before.claim == *claim
        {
            self.entries.insert(name.clone(), before.clone());
            return BTreeSet::new();
        }
        let mut undecided = Undecided::default();
        if let Some(before) = before.as_ref().filter(|before| is_granted(before)) {
            self.add_younger_rivals(name, &before.claim, &mut undecided);
        }
        let old: Option<Arc<Claim>> = before.map(|before| before.claim);
        let new = claim.map(Arc::new);
        self.claimed.replace(name, as_slice(&old), as_slice(&new));
        self.touch(as_slice(&old));
        self.touch_freed(as_slice(&old), as_slice(&new));
        if let Some(claim) = new {
            undecided.claims.insert(Seniority::new(name, &claim));
            // Provisional: it is undecided.
            let state = ClaimState::Refused;
            self.entries.insert(name.clone(), Entry { claim, state });
        }
        self.uncommitted.insert(name.clone());
        let mut changed = self.settle(undecided);
        changed.remove(name);
        changed
    }

    /// Sets what the objects show a virtual service to hold. Returns the virtual services whose claims have changed their
    /// state, which may include this one.
    pub fn set_stored(&mut self, name: &ObjectName, stored: Vec<Claim>) -> BTreeSet<ObjectName> {
        let before = self.holdings.get(name);
        let is_same = before.map_or(stored.is_empty(), |before| {
            before.stored.iter().map(AsRef::as_ref).eq(&stored)
        });
        if is_same {
            return BTreeSet::new();
        }
        let now = Holdings {
            stored: stored.into_iter().map(Arc::new).collect(),
            committed: before.and_then(|before| before.committed.clone()),
        };
        let undecided = self.hold(name, now);
        self.settle(undecided)
    }

    /// From here on, virtual services hold what is granted to them. Returns those whose claims have changed their state since
    /// another one does not hold something any more.
    pub fn commit(&mut self) -> BTreeSet<ObjectName> {
        let mut undecided = Undecided::default();
        for name in std::mem::take(&mut self.uncommitted) {
            let entry = self.entries.get(&name).filter(|entry| is_granted(entry));
            let committed =
                entry.and_then(|entry| match (entry.claim.stage, &entry.claim.frontend) {
                    (Stage::Asked | Stage::Programmed, _) => Some(Arc::clone(&entry.claim)),
                    (Stage::Idle, Frontend::Addresses { .. }) => Some(Arc::new(Claim {
                        servers: BTreeSet::new(),
                        ..entry.claim.as_ref().clone()
                    })),
                    (Stage::Idle, Frontend::Fwmark(_)) => None,
                });
            let before = self.holdings.get(&name);
            if before.and_then(|before| before.committed.as_ref()) == committed.as_ref() {
                continue;
            }
            let stored = before.map_or_else(Vec::new, |before| before.stored.clone());
            let now = Holdings { stored, committed };
            undecided.claims.extend(self.hold(&name, now).claims);
        }
        self.settle(undecided)
    }

    /// The claim of a virtual service.
    #[must_use]
    pub fn get(&self, name: &ObjectName) -> Option<&Claim> {
        self.entries.get(name).map(|entry| entry.claim.as_ref())
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

    /// Returns whether a virtual service may have what it claims.
    #[must_use]
    pub fn is_granted(&self, name: &ObjectName) -> bool {
        self.entries.get(name).is_some_and(is_granted)
    }

    /// Returns whether a virtual service has an address as its VIP, or may have it.
    #[must_use]
    pub fn is_claimed(&self, vip: IpAddr) -> bool {
        let mut claimed = self.claimed.claimants_of(vip);
        !self.held.of_vip(vip).is_empty() || claimed.any(|claimant| self.is_granted(&claimant.name))
    }

    /// Returns whether a virtual service has an address as a real server, or may have it.
    #[must_use]
    pub fn is_server(&self, address: IpAddr) -> bool {
        let mut claimed = self.claimed.of_server(address);
        let mut held = self.held.of_server(address);
        held.next().is_some() || claimed.any(|claimant| self.is_granted(&claimant.name))
    }

    /// Returns whether a virtual service holds a key.
    #[must_use]
    pub fn holds(&self, name: &ObjectName, key: &ServiceKey) -> bool {
        self.held.of_key(key).any(|holder| holder.name == *name)
    }

    /// Returns whether a virtual service holds an address as its VIP.
    #[must_use]
    pub fn holds_vip(&self, name: &ObjectName, vip: IpAddr) -> bool {
        let mut holders = self.held.claimants_of(vip);
        holders.any(|holder| holder.name == *name)
    }

    /// Returns whether a virtual service holds an address as a real server.
    #[must_use]
    pub fn holds_server(&self, name: &ObjectName, address: IpAddr) -> bool {
        let mut holders = self.held.of_server(address);
        holders.any(|holder| holder.name == *name)
    }

    /// The number of VIPs in a range that virtual services hold.
    #[must_use]
    pub fn held_between(&self, first: IpAddr, last: IpAddr) -> usize {
        self.held.vips_between(first, last)
    }

    /// The virtual services that hold an address as their VIP, the oldest first.
    pub fn holders_of(&self, vip: IpAddr) -> impl Iterator<Item = &ObjectName> {
        let mut holders: Vec<&Seniority> = self.held.claimants_of(vip).collect();
        holders.sort();
        holders.into_iter().map(|holder| &holder.name)
    }

    /// The virtual services that claim or hold an address, as a VIP or as a real server.
    #[must_use]
    pub fn users_of(&self, address: IpAddr) -> BTreeSet<&ObjectName> {
        let vips = [&self.claimed, &self.held].into_iter();
        let vips = vips.flat_map(|index| index.claimants_of(address));
        let servers = [&self.claimed, &self.held].into_iter();
        let servers = servers.flat_map(|index| index.of_server(address));
        index::names(vips.chain(servers))
    }

    /// Returns the addresses whose use may have changed since the last call: VIPs that a virtual service gained or gave up, and real
    /// servers that one gave up.
    pub fn take_touched(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.touched)
    }

    fn touch(&mut self, claims: &[Arc<Claim>]) {
        let vips = claims.iter().flat_map(|claim| claim.frontend.vips());
        self.touched.extend(vips);
    }

    /// Notes the real servers that are in no claim any more.
    fn touch_freed(&mut self, before: &[Arc<Claim>], now: &[Arc<Claim>]) {
        let servers = before.iter().flat_map(|claim| &claim.servers);
        let freed = servers.filter(|server| {
            let mut now = now.iter();
            !now.any(|claim| claim.servers.contains(*server))
        });
        self.touched.extend(freed);
    }

    /// Replaces what a virtual service holds. The claims that this may concern become undecided.
    fn hold(&mut self, name: &ObjectName, now: Holdings) -> Undecided {
        let before = self.holdings.remove(name).unwrap_or_default();
        let (old, new) = (before.all(), now.all());
        self.held.replace(name, &old, &new);
        self.touch(&old);
        self.touch(&new);
        self.touch_freed(&old, &new);
        if !new.is_empty() {
            self.holdings.insert(name.clone(), now);
        }
        let mut undecided = Undecided::default();
        let own = self.entries.get(name);
        let own = own.map(|entry| Seniority::new(name, &entry.claim));
        undecided.claims.extend(own);
        for claim in old.iter().chain(&new) {
            let rivals = self.claimed.rivals(name, claim);
            undecided.claims.extend(rivals.cloned());
        }
        undecided
    }

    fn add_younger_rivals(&self, name: &ObjectName, claim: &Claim, undecided: &mut Undecided) {
        let own = Seniority::new(name, claim);
        let rivals = self.claimed.rivals(name, claim);
        undecided
            .claims
            .extend(rivals.filter(|rival| **rival > own).cloned());
    }

    /// Decides claims from the oldest to the youngest, since each depends on older ones only.
    fn settle(&mut self, mut undecided: Undecided) -> BTreeSet<ObjectName> {
        while let Some(next) = undecided.claims.pop_first() {
            self.decide_again(&next, &mut undecided);
        }
        undecided.changed
    }

    /// Decides a claim again. If that changes whether it is granted, its younger rivals become undecided.
    fn decide_again(&mut self, own: &Seniority, undecided: &mut Undecided) {
        let Some(entry) = self.entries.get(&own.name) else {
            return;
        };
        let claim = Arc::clone(&entry.claim);
        let state = self.decide(own, &claim);
        if state == entry.state {
            return;
        }
        if state == ClaimState::Granted || is_granted(entry) {
            self.add_younger_rivals(&own.name, &claim, undecided);
        }
        if is_granted(entry) {
            self.touch(slice::from_ref(&claim));
            self.touch_freed(slice::from_ref(&claim), &[]);
        }
        if let Some(entry) = self.entries.get_mut(&own.name) {
            entry.state = state;
        }
        self.uncommitted.insert(own.name.clone());
        undecided.changed.insert(own.name.clone());
    }

    /// The state of a claim, once all older claims are decided.
    fn decide(&self, own: &Seniority, claim: &Claim) -> ClaimState {
        if claim.is_refused {
            return ClaimState::Refused;
        }
        let vips = || claim.frontend.vips().iter().copied();
        let conflict = vips()
            .find_map(|vip| self.real_server(vip, own))
            .or_else(|| vips().find_map(|vip| self.other_group(vip, own, claim)))
            .or_else(|| vips().find_map(|vip| self.other_namespace(vip, own)))
            .or_else(|| {
                let mut keys = claim.frontend.keys();
                keys.find_map(|key| self.other_holder(key, own))
            })
            .or_else(|| {
                let mut servers = claim.servers.iter();
                servers.find_map(|server| self.other_vip(*server, own))
            });
        conflict.map_or(ClaimState::Granted, ClaimState::Waiting)
    }

    fn real_server(&self, vip: IpAddr, own: &Seniority) -> Option<Conflict> {
        let user = self.in_the_way(Rivals {
            own_hold: self.held.claimants_of(vip),
            held: self.held.of_server(vip),
            claimed: self
                .claimed
                .of_server(vip)
                .filter(|other| !self.is_idle(other)),
            own,
        })?;
        Some(Conflict::RealServer { vip, user })
    }

    fn other_group(&self, vip: IpAddr, own: &Seniority, claim: &Claim) -> Option<Conflict> {
        let tenants = [&self.held, &self.claimed].into_iter();
        let tenants = tenants.flat_map(|index| index.of_vip(vip));
        let groups = tenants.map(|(tenant, _)| &tenant.group);
        let others: BTreeSet<_> = groups.filter(|group| **group != claim.group).collect();
        others.into_iter().find_map(|group| {
            let is_own = |tenant: &Tenant| tenant.group == claim.group;
            let is_other = |tenant: &Tenant| tenant.group == *group;
            let holder = self.in_the_way(Rivals {
                own_hold: self.held.claimants_of_tenants(vip, is_own),
                held: self.held.claimants_of_tenants(vip, is_other),
                claimed: self.claimed.claimants_of_tenants(vip, is_other),
                own,
            })?;
            let group = group.clone();
            Some(Conflict::Group { vip, group, holder })
        })
    }

    fn other_namespace(&self, vip: IpAddr, own: &Seniority) -> Option<Conflict> {
        match self.sharing {
            Sharing::AcrossNamespaces => return None,
            Sharing::WithinNamespace => {}
        }
        let is_other = |tenant: &Tenant| tenant.namespace != own.name.namespace();
        let holder = self.in_the_way(Rivals {
            own_hold: self.held.claimants_of(vip),
            held: self.held.claimants_of_tenants(vip, is_other),
            claimed: self.claimed.claimants_of_tenants(vip, is_other),
            own,
        })?;
        Some(Conflict::Namespace { vip, holder })
    }

    fn other_holder(&self, key: ServiceKey, own: &Seniority) -> Option<Conflict> {
        let is_mark = matches!(key, ServiceKey::Fwmark { .. });
        let claimed = self.claimed.of_key(&key);
        let holder = self.in_the_way(Rivals {
            own_hold: self.held.of_key(&key),
            held: self.held.of_key(&key),
            claimed: claimed.filter(|other| !is_mark || !self.is_idle(other)),
            own,
        })?;
        Some(Conflict::Key { key, holder })
    }

    /// Returns whether no director would be given what a virtual service claims.
    fn is_idle(&self, claimant: &Seniority) -> bool {
        let entry = self.entries.get(&claimant.name);
        entry.is_some_and(|entry| entry.claim.stage == Stage::Idle)
    }

    fn other_vip(&self, server: IpAddr, own: &Seniority) -> Option<Conflict> {
        let holder = self.in_the_way(Rivals {
            own_hold: self.held.of_server(server),
            held: self.held.claimants_of(server),
            claimed: self.claimed.claimants_of(server),
            own,
        })?;
        Some(Conflict::Vip { server, holder })
    }

    /// Another virtual service that is in the way: the oldest one that holds the thing, or the oldest one whose claim to it
    /// goes first.
    fn in_the_way<'c>(
        &self,
        rivals: Rivals<
            'c,
            impl Iterator<Item = &'c Seniority>,
            impl Iterator<Item = &'c Seniority>,
            impl Iterator<Item = &'c Seniority>,
        >,
    ) -> Option<ObjectName> {
        let Rivals {
            own_hold,
            held,
            claimed,
            own,
        } = rivals;
        let mut others = held.filter(|other| other.name != own.name).peekable();
        let older = claimed.filter(|other| *other < own && self.is_granted(&other.name));
        let mut older = older.peekable();
        if others.peek().is_none() && older.peek().is_none() {
            return None;
        }
        let own_hold = own_hold.filter(|holder| holder.name == own.name).min();
        let holder = others
            .filter(|other| own_hold.is_none_or(|own_hold| *other < own_hold))
            .min();
        let found = holder.or_else(|| older.filter(|_| own_hold.is_none()).min());
        found.map(|other| other.name.clone())
    }
}

fn is_granted(entry: &Entry) -> bool {
    entry.state == ClaimState::Granted
}

fn as_slice(claim: &Option<Arc<Claim>>) -> &[Arc<Claim>] {
    claim.as_ref().map_or(&[], slice::from_ref)
}
