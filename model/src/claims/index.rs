//! The claims of each VIP, port and mark, in the order of age.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::claim::Claim;
use crate::{GroupName, ObjectName, ServiceKey};

/// The order of claims: the oldest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seniority {
    is_of_file: bool,
    created: Option<i64>,
    /// The virtual service.
    pub(super) name: ObjectName,
}

impl Seniority {
    pub(super) fn new(name: &ObjectName, claim: &Claim) -> Self {
        Self {
            is_of_file: claim.created.is_none(),
            created: claim.created,
            name: name.clone(),
        }
    }
}

/// Claimants in the order of age. Most keys have one, for which a vector takes less time and memory than a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claimants(Vec<Seniority>);

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

    /// The claimants that are older than one of them.
    pub(super) fn older_than(&self, claimant: &Seniority) -> impl Iterator<Item = &Seniority> {
        self.0.iter().take_while(move |other| *other < claimant)
    }

    /// The claimants that are younger than one of them.
    fn younger_than(&self, claimant: &Seniority) -> impl Iterator<Item = &Seniority> {
        let start = self.0.partition_point(|other| other <= claimant);
        self.0.iter().skip(start)
    }
}

/// The claimants of each key in the order of age, and the virtual services of each real server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ClaimIndex {
    keys: BTreeMap<ServiceKey, Claimants>,
    /// The claimants of each VIP by their groups, in the order of the groups.
    vips: BTreeMap<IpAddr, Vec<(GroupName, Claimants)>>,
    /// Virtual services by the addresses of their real servers.
    servers: BTreeMap<IpAddr, BTreeSet<ObjectName>>,
}

impl ClaimIndex {
    pub(super) fn insert(&mut self, own: &Seniority, claim: &Claim) {
        for key in claim.frontend.keys() {
            self.keys.entry(key).or_default().insert(own);
        }
        for vip in claim.frontend.vips() {
            let groups = self.vips.entry(*vip).or_default();
            let at = groups.binary_search_by(|(group, _)| group.cmp(&claim.group));
            let at = at.unwrap_or_else(|at| {
                groups.insert(at, (claim.group.clone(), Claimants::default()));
                at
            });
            if let Some((_, claimants)) = groups.get_mut(at) {
                claimants.insert(own);
            }
        }
        for server in &claim.servers {
            let users = self.servers.entry(*server).or_default();
            users.insert(own.name.clone());
        }
    }

    pub(super) fn remove(&mut self, own: &Seniority, claim: &Claim) {
        for key in claim.frontend.keys() {
            if let Some(claimants) = self.keys.get_mut(&key) {
                claimants.remove(own);
                if claimants.0.is_empty() {
                    self.keys.remove(&key);
                }
            }
        }
        for vip in claim.frontend.vips() {
            if let Some(groups) = self.vips.get_mut(vip) {
                for (_, claimants) in groups.iter_mut() {
                    claimants.remove(own);
                }
                groups.retain(|(_, claimants)| !claimants.0.is_empty());
                if groups.is_empty() {
                    self.vips.remove(vip);
                }
            }
        }
        for server in &claim.servers {
            if let Some(users) = self.servers.get_mut(server) {
                users.remove(&own.name);
                if users.is_empty() {
                    self.servers.remove(server);
                }
            }
        }
    }

    /// The claimants of a key.
    pub(super) fn of_key(&self, key: &ServiceKey) -> Option<&Claimants> {
        self.keys.get(key)
    }

    /// The claimants of a VIP by their groups.
    pub(super) fn of_vip(&self, vip: IpAddr) -> &[(GroupName, Claimants)] {
        self.vips.get(&vip).map_or(&[], Vec::as_slice)
    }

    /// The virtual services that have an address among their real servers, in the order of their names.
    pub(super) fn of_server(&self, address: IpAddr) -> impl Iterator<Item = &ObjectName> {
        self.servers.get(&address).into_iter().flatten()
    }

    /// All claimants of a VIP.
    pub(super) fn claimants_of(&self, vip: IpAddr) -> impl Iterator<Item = &Seniority> {
        let groups = self.of_vip(vip).iter();
        groups.flat_map(|(_, claimants)| &claimants.0)
    }

    /// The claimants of the VIPs that are among the real servers of a claim.
    pub(super) fn claimants_of_servers(&self, claim: &Claim) -> impl Iterator<Item = &Seniority> {
        let servers = claim.servers.iter();
        servers.flat_map(|server| self.claimants_of(*server))
    }

    /// The younger claims that cannot be granted beside a claim.
    pub(super) fn younger_rivals(
        &self,
        own: &Seniority,
        claim: &Claim,
    ) -> impl Iterator<Item = &Seniority> {
        let of_keys = claim.frontend.keys();
        let of_keys = of_keys.filter_map(|key| self.of_key(&key));
        let of_vips = claim.frontend.vips().iter();
        let of_vips = of_vips
            .flat_map(|vip| self.of_vip(*vip))
            .filter(|(group, _)| *group != claim.group)
            .map(|(_, claimants)| claimants);
        of_keys
            .chain(of_vips)
            .flat_map(|claimants| claimants.younger_than(own))
    }
}
