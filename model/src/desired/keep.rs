//! What cannot be reached at the moment, and what of it stays.
//!
//! A network of this machine can be missing for a moment: its address is replaced, its link goes down and up, its routes are
//! swept. That is no reason to remove anything, since what serves then serves on as soon as the network is back:
//!
//! 1. A VIP stays on the interface where the agent has put it, as long as that interface exists and no other interface has the
//!    VIP's network.
//! 2. A real server that a service has and that is on no network at the moment stays in the service. One that the service does
//!    not have is not added.
//! 3. Our routes, rules and sysctls that depend on a route or an address that is missing stay as they are.
//!
//! Each case is reported. What was deleted, or changed by an accepted version, is removed as always.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    Absence, Absent, Desired, Family, Ledger, ObjectName, Problem, Services, Subject, Target,
};

/// The most addresses that one problem names.
const MOST_NAMED: usize = 10;

impl Desired {
    /// Adds the real servers that are on no network at the moment to the services that have them. Their problems, and those of
    /// the VIPs that stay, become one for each virtual service and address family.
    pub fn keep_absent(&mut self, observed: &Services, ledger: &Ledger) {
        let (mut kept, mut others) = (Vec::new(), BTreeSet::new());
        for absence in std::mem::take(&mut self.absences) {
            if self.keeps(&absence.what, observed, ledger) {
                kept.push(absence);
            } else {
                others.insert(absence.problem);
            }
        }
        let replaced: BTreeSet<&Problem> = kept.iter().map(|absence| &absence.problem).collect();
        self.problems
            .retain(|problem| others.contains(problem) || !replaced.contains(problem));
        self.problems.extend(problems(&kept));
        self.problems.sort();
    }

    /// Returns whether something stays; then it is desired.
    fn keeps(&mut self, what: &Absent, observed: &Services, ledger: &Ledger) -> bool {
        let Absent::Server {
            key,
            destination,
            settings,
        } = what
        else {
            return true;
        };
        let found = observed.get(key);
        let found = found.filter(|_| ledger.owns(&Target::Service(*key)));
        let is_there = found.is_some_and(|found| found.destinations.contains_key(destination));
        let Some(service) = self.state.services.get_mut(key).filter(|_| is_there) else {
            return false;
        };
        Arc::make_mut(service).add(*destination, *settings);
        true
    }
}

/// One problem for each virtual service and family.
fn problems(kept: &[Absence]) -> impl Iterator<Item = Problem> {
    let mut groups: BTreeMap<(&ObjectName, Family), BTreeSet<(bool, IpAddr)>> = BTreeMap::new();
    for Absence { service, what, .. } in kept {
        let address = what.address();
        let is_server = matches!(what, Absent::Server { .. });
        let group = groups.entry((service, Family::of(address))).or_default();
        group.insert((is_server, address));
    }
    groups.into_iter().map(|((service, _), members)| {
        let named = members.iter().take(MOST_NAMED);
        let mut names: Vec<String> = named
            .map(|(is_server, address)| match is_server {
                false => format!("VIP {address}"),
                true => format!("real server {address}"),
            })
            .collect();
        if let Some(more) = members.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
            names.push(format!("{more} more"));
        }
        let names = names.join(", ");
        let message = format!(
            "not on any network of this machine at the moment: {names}; what is programmed for them stays, and works as soon \
             as the network is back"
        );
        Problem::error(Subject::Service(service.clone()), message)
    })
}
