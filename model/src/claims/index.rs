//! The claimants of each VIP, port, mark and real server, in the order of age.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use smallvec::SmallVec;

use super::claim::{Claim, Stage};
use crate::{GroupName, ObjectName, ServiceKey};

/// The order of claims: those that directors have first, then the oldest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seniority {
    is_unprogrammed: bool,
    is_of_file: bool,
    created: Option<i64>,
    /// The virtual service.
    pub(super) name: ObjectName,
}

impl Seniority {
    pub(super) fn new(name: &ObjectName, claim: &Claim) -> Self {
        Self {
            is_unprogrammed: claim.stage != Stage::Programmed,
            is_of_file: claim.created.is_none(),
            created: claim.created,
            name: name.clone(),
        }
    }
}

/// Whose a claim is. Many virtual services may share a VIP, but nearly always those of one group and namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tenant {
    /// The group.
    pub(super) group: GroupName,
    /// The namespace.
    pub(super) namespace: String,
}

/// Claimants in the order of age. Most keys have one, which is stored in place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claimants(SmallVec<[Seniority; 1]>);

impl Claimants {
    fn insert(&mut self, claimant: &Seniority) {
        if let Err(at) = self.0.binary_search(claimant) {
            self.0.insert(at, claimant.clone());
        }
    }

    fn remove(&mut self, claimant: &Seniority) {
        if let Ok(at) = self.0.binary_search(claimant) {
            self.0.remove(at);
        }
    }

    /// All claimants.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Seniority> {
        self.0.iter()
    }
}

/// The claimants of each key, VIP and real server, in the order of age.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ClaimIndex {
    keys: BTreeMap<ServiceKey, Claimants>,
    /// The claimants of each VIP by their groups and namespaces, in the order of these.
    vips: BTreeMap<IpAddr, Vec<(Tenant, Claimants)>>,
    /// The claimants that have an address among their real servers.
    servers: BTreeMap<IpAddr, Claimants>,
}

impl ClaimIndex {
    /// Replaces the claims of a virtual service. The work follows what differs.
    pub(super) fn replace(
        &mut self,
        name: &ObjectName,
        before: &[impl AsRef<Claim>],
        now: &[impl AsRef<Claim>],
    ) {
        if let ([before], [now]) = (before, now)
            && has_same_frontend(before.as_ref(), now.as_ref())
        {
            return self.replace_servers(name, before.as_ref(), now.as_ref());
        }
        for claim in before {
            self.remove(&Seniority::new(name, claim.as_ref()), claim.as_ref());
        }
        for claim in now {
            self.insert(&Seniority::new(name, claim.as_ref()), claim.as_ref());
        }
    }

    fn replace_servers(&mut self, name: &ObjectName, before: &Claim, now: &Claim) {
        let own = Seniority::new(name, now);
        for server in before.servers.difference(&now.servers) {
            remove(&mut self.servers, server, &own);
        }
        for server in now.servers.difference(&before.servers) {
            self.servers.entry(*server).or_default().insert(&own);
        }
    }

    fn insert(&mut self, own: &Seniority, claim: &Claim) {
        for key in claim.frontend.keys() {
            self.keys.entry(key).or_default().insert(own);
        }
        for vip in claim.frontend.vips() {
            let tenants = self.vips.entry(*vip).or_default();
            let key = (&claim.group, own.name.namespace());
            let at = tenants
                .binary_search_by(|(tenant, _)| (&tenant.group, &*tenant.namespace).cmp(&key));
            let at = at.unwrap_or_else(|at| {
                let tenant = Tenant {
                    group: claim.group.clone(),
                    namespace: own.name.namespace().to_owned(),
                };
                tenants.insert(at, (tenant, Claimants::default()));
                at
            });
            if let Some((_, claimants)) = tenants.get_mut(at) {
                claimants.insert(own);
            }
        }
        for server in &claim.servers {
            self.servers.entry(*server).or_default().insert(own);
        }
    }

    fn remove(&mut self, own: &Seniority, claim: &Claim) {
        for key in claim.frontend.keys() {
            remove(&mut self.keys, &key, own);
        }
        for vip in claim.frontend.vips() {
            if let Some(tenants) = self.vips.get_mut(vip) {
                for (_, claimants) in tenants.iter_mut() {
                    claimants.remove(own);
                }
                tenants.retain(|(_, claimants)| !claimants.0.is_empty());
                if tenants.is_empty() {
                    self.vips.remove(vip);
                }
            }
        }
        for server in &claim.servers {
            remove(&mut self.servers, server, own);
        }
    }

    /// The claimants of a key.
    pub(super) fn of_key(&self, key: &ServiceKey) -> impl Iterator<Item = &Seniority> {
        self.keys.get(key).into_iter().flat_map(Claimants::iter)
    }

    /// The claimants of a VIP by their groups and namespaces.
    pub(super) fn of_vip(&self, vip: IpAddr) -> &[(Tenant, Claimants)] {
        self.vips.get(&vip).map_or(&[], Vec::as_slice)
    }

    /// The number of VIPs in a range.
    pub(super) fn vips_between(&self, first: IpAddr, last: IpAddr) -> usize {
        self.vips.range(first..=last).count()
    }

    /// The claimants that have an address among their real servers.
    pub(super) fn of_server(&self, address: IpAddr) -> impl Iterator<Item = &Seniority> {
        let claimants = self.servers.get(&address);
        claimants.into_iter().flat_map(Claimants::iter)
    }

    /// All claimants of a VIP.
    pub(super) fn claimants_of(&self, vip: IpAddr) -> impl Iterator<Item = &Seniority> {
        self.claimants_of_tenants(vip, |_| true)
    }

    /// The claimants of a VIP that belong to some tenants.
    pub(super) fn claimants_of_tenants(
        &self,
        vip: IpAddr,
        is_meant: impl Fn(&Tenant) -> bool,
    ) -> impl Iterator<Item = &Seniority> {
        let tenants = self.of_vip(vip).iter();
        let tenants = tenants.filter(move |(tenant, _)| is_meant(tenant));
        tenants.flat_map(|(_, claimants)| claimants.iter())
    }

    /// The claims that may be in the way of a claim, or the claim in theirs. Those of one tenant share VIPs.
    pub(super) fn rivals(
        &self,
        name: &ObjectName,
        claim: &Claim,
    ) -> impl Iterator<Item = &Seniority> {
        let is_other =
            |tenant: &Tenant| tenant.group != claim.group || tenant.namespace != name.namespace();
        let keys = claim.frontend.keys();
        let of_keys = keys.flat_map(|key| self.keys.get(&key).into_iter());
        let vips = claim.frontend.vips();
        let of_vips = vips.iter();
        let of_vips = of_vips.flat_map(move |vip| self.claimants_of_tenants(*vip, is_other));
        let of_vips_as_servers = vips.iter().flat_map(|vip| self.of_server(*vip));
        let servers = claim.servers.iter();
        let of_servers = servers.flat_map(|server| self.claimants_of(*server));
        of_keys
            .flat_map(Claimants::iter)
            .chain(of_vips)
            .chain(of_vips_as_servers)
            .chain(of_servers)
    }
}

fn has_same_frontend(one: &Claim, other: &Claim) -> bool {
    one.stage == other.stage
        && one.created == other.created
        && one.group == other.group
        && one.frontend == other.frontend
}

fn remove<K: Ord>(map: &mut BTreeMap<K, Claimants>, key: &K, own: &Seniority) {
    if let Some(claimants) = map.get_mut(key) {
        claimants.remove(own);
        if claimants.0.is_empty() {
            map.remove(key);
        }
    }
}

/// The names of claimants, each once and in their order.
pub(super) fn names<'c>(
    claimants: impl Iterator<Item = &'c Seniority>,
) -> BTreeSet<&'c ObjectName> {
    claimants.map(|claimant| &claimant.name).collect()
}
