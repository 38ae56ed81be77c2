//! The holder's report: the state of each VIP.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use lvs_model::{AddressKey, GroupName, Holding, MacAddr, RouterKey, VirtualRouter};
use tokio::sync::watch;

use super::routers::Standings;

/// The state of a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VipState {
    /// It is being probed for or added.
    Pending,
    /// It is on its interface.
    Held,
    /// Another director holds it, or may take it.
    Standby,
    /// It could not be added, for this reason. It is retried.
    Failed(String),
    /// The same, because another machine answers for it.
    InUse {
        /// The MAC address of that machine.
        mac: MacAddr,
        /// The reason in full.
        reason: String,
    },
}

impl VipState {
    /// Why the VIP could not be added.
    pub(crate) fn failure(&self) -> Option<&str> {
        match self {
            Self::Failed(reason) | Self::InUse { reason, .. } => Some(reason),
            Self::Pending | Self::Held | Self::Standby => None,
        }
    }
}

/// What this machine is in a virtual router, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// What it is.
    pub state: StandingState,
    /// What is wrong.
    pub problem: Option<String>,
}

/// What this machine is in a virtual router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StandingState {
    /// It holds the VIPs.
    Active,
    /// It waits to take them over.
    Standby,
    /// It cannot take part.
    Failed,
}

/// The holder's report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HolderReport {
    vips: BTreeMap<AddressKey, VipState>,
    /// What this machine is for each group in each of its virtual routers.
    standings: BTreeMap<(GroupName, RouterKey), Standing>,
    /// What is wrong with VIPs that are held.
    vip_problems: BTreeMap<IpAddr, String>,
    /// The VIPs still to be released, with the reason why the removal failed; `None` if it was not tried yet.
    unreleased: BTreeMap<AddressKey, Option<String>>,
}

impl HolderReport {
    /// The report right after a handover: VIPs that are new in it are pending.
    pub(crate) fn handed(&self, holding: &Holding) -> Self {
        let hold = holding.hold.keys().map(|key| {
            let known = self.vips.get(key).cloned();
            (key.clone(), known.unwrap_or(VipState::Pending))
        });
        Self {
            vips: hold.collect(),
            ..self.releasing(holding)
        }
    }

    /// The report right after VIPs were handed over for release only. The states of the others stay.
    pub(crate) fn releasing(&self, holding: &Holding) -> Self {
        let release = holding.release.iter().chain(&holding.moved);
        let release = release.map(|key| {
            let known = self.unreleased.get(key).cloned().flatten();
            (key.clone(), known)
        });
        Self {
            vips: self.vips.clone(),
            standings: self.standings.clone(),
            vip_problems: self.vip_problems.clone(),
            unreleased: release.collect(),
        }
    }

    /// Sets the state of a VIP to hold. Returns whether the state has changed.
    pub(crate) fn set(&mut self, key: &AddressKey, state: VipState) -> bool {
        match self.vips.get_mut(key) {
            Some(known) if *known != state => {
                *known = state;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Sets what this machine is in its virtual routers, and what is wrong with single VIPs.
    pub(super) fn set_standings(
        &mut self,
        holding: &Holding,
        standings: &Standings,
        of_vips: &BTreeMap<AddressKey, String>,
    ) {
        let standing = |(key, router): (&RouterKey, &VirtualRouter)| {
            let failure = standings.failed.get(key);
            let reported = &standings.reported_active;
            let state = if standings.active.contains(key) || reported.contains(key) {
                StandingState::Active
            } else if standings.standby.contains(key) {
                StandingState::Standby
            } else {
                failure.map(|_| StandingState::Failed)?
            };
            let problem = failure.or_else(|| standings.problems.get(key));
            let of_vips = of_vips.iter();
            let of_vips = of_vips.filter(|(vip, _)| router.vips.contains(*vip));
            let problems = problem.into_iter().chain(of_vips.map(|(_, text)| text));
            let problems: Vec<&str> = problems.map(String::as_str).collect();
            let problem = (!problems.is_empty()).then(|| problems.join("; "));
            Some(Standing { state, problem })
        };
        let known = holding.routers.iter();
        let known =
            known.filter_map(|(key, router)| Some((key, &router.groups, standing((key, router))?)));
        self.standings = known
            .flat_map(|(key, groups, standing)| {
                let of_group = move |group: &GroupName| {
                    let place = (group.clone(), key.clone());
                    (place, standing.clone())
                };
                groups.iter().map(of_group)
            })
            .collect();
        let of_vips = of_vips.iter();
        self.vip_problems = of_vips
            .map(|(key, problem)| (key.address, problem.clone()))
            .collect();
    }

    /// What is wrong with VIPs that are held, by address: another machine answers for one too, or another program removes it.
    #[cfg(feature = "kube")]
    pub(crate) const fn vip_problems(&self) -> &BTreeMap<IpAddr, String> {
        &self.vip_problems
    }

    /// What this machine is for each group in each of its virtual routers.
    #[cfg(feature = "kube")]
    pub(crate) const fn standings(&self) -> &BTreeMap<(GroupName, RouterKey), Standing> {
        &self.standings
    }

    /// Records that a VIP was released, or why not.
    pub(super) fn set_released(&mut self, key: &AddressKey, result: Result<(), String>) {
        match result {
            Ok(()) => drop(self.unreleased.remove(key)),
            Err(reason) => {
                if let Some(known) = self.unreleased.get_mut(key) {
                    *known = Some(reason);
                }
            }
        }
    }

    /// Returns whether it is reported that a VIP could not be held or released, for this reason.
    pub(super) fn has_failed(&self, key: &AddressKey, reason: &str) -> bool {
        let unheld = self.vips.get(key).and_then(VipState::failure);
        let unreleased = self.unreleased.get(key).and_then(Option::as_deref);
        unheld == Some(reason) || unreleased == Some(reason)
    }

    /// The states of the VIPs to hold, by address.
    #[cfg(feature = "kube")]
    pub(crate) fn by_address(&self) -> BTreeMap<IpAddr, &VipState> {
        let all = self.vips.iter();
        all.map(|(key, state)| (key.address, state)).collect()
    }

    /// The VIPs that could not be added.
    pub(crate) fn failed(&self) -> impl Iterator<Item = &AddressKey> {
        let all = self.vips.iter();
        let failed = all.filter(|(_, state)| state.failure().is_some());
        failed.map(|(key, _)| key)
    }

    /// Returns whether every VIP that was handed over was tried.
    pub(crate) fn is_settled(&self) -> bool {
        let mut vips = self.vips.values();
        !vips.any(|state| *state == VipState::Pending) && self.has_released()
    }

    /// Returns whether the release of every VIP that is to go was tried. One that moves stays in its old place as long as it
    /// cannot be added in the new one.
    pub(crate) fn has_released(&self) -> bool {
        let untried = self.unreleased.iter();
        let mut untried = untried.filter(|(_, reason)| reason.is_none()).peekable();
        if untried.peek().is_none() {
            return true;
        }
        let stay: BTreeSet<IpAddr> = self.failed().map(|key| key.address).collect();
        untried.all(|(key, _)| stay.contains(&key.address))
    }

    /// The VIPs that are not held or not released, each with the reason.
    pub(crate) fn failures(&self) -> impl Iterator<Item = String> {
        let vips = self.vips.iter().filter_map(|(key, state)| match state {
            VipState::Held | VipState::Standby => None,
            VipState::Pending => Some(format!("VIP {} is not held yet", key.address)),
            VipState::Failed(reason) | VipState::InUse { reason, .. } => Some(reason.clone()),
        });
        let unreleased = self.unreleased.iter().map(|(key, reason)| {
            let untried = || format!("VIP {} is still on {}", key.address, key.interface);
            reason.clone().unwrap_or_else(untried)
        });
        vips.chain(unreleased)
    }

    /// Returns whether a VIP is still to be released.
    pub(crate) fn is_unreleased(&self, key: &AddressKey) -> bool {
        self.unreleased.contains_key(key)
    }
}

/// Publishes a new report that is computed from the last one, unless they are equal. The thread and its handle both publish,
/// so neither may compute from a report that the other has replaced.
pub(super) fn publish(
    report: &watch::Sender<Arc<HolderReport>>,
    change: impl FnOnce(&HolderReport) -> HolderReport,
) {
    report.send_if_modified(|report| {
        let new = change(report);
        let is_modified = new != **report;
        *report = Arc::new(new);
        is_modified
    });
}

#[cfg(test)]
mod tests;
