//! The holder's report: the state of each VIP.

use std::collections::BTreeMap;
#[cfg(feature = "kube")]
use std::net::IpAddr;

use lvs_model::{AddressKey, Holding};

/// The state of a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VipState {
    /// It is being probed for or added.
    Pending,
    /// It is on its interface.
    Held,
    /// It could not be added, for this reason. It is retried.
    Failed(String),
}

/// The holder's report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HolderReport {
    vips: BTreeMap<AddressKey, VipState>,
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
        let release = holding.release.iter().chain(&holding.moved);
        let release = release.map(|key| {
            let known = self.unreleased.get(key).cloned().flatten();
            (key.clone(), known)
        });
        Self {
            vips: hold.collect(),
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

    /// Records that a VIP was released, or why not. Returns whether that is new.
    pub(super) fn set_released(&mut self, key: &AddressKey, result: Result<(), String>) -> bool {
        match result {
            Ok(()) => self.unreleased.remove(key).is_some(),
            Err(reason) => {
                let known = self.unreleased.get_mut(key);
                known.is_some_and(|known| known.replace(reason.clone()) != Some(reason))
            }
        }
    }

    /// The state of a VIP; `None` if it is not to be held here.
    #[cfg(feature = "kube")]
    pub(crate) fn of(&self, vip: IpAddr) -> Option<&VipState> {
        let mut all = self.vips.iter();
        all.find(|(key, _)| key.address == vip)
            .map(|(_, state)| state)
    }

    /// Returns whether every VIP that was handed over was tried.
    pub(crate) fn is_settled(&self) -> bool {
        let mut vips = self.vips.values();
        let mut unreleased = self.unreleased.values();
        !vips.any(|state| *state == VipState::Pending) && unreleased.all(Option::is_some)
    }

    /// The reasons why VIPs could not be held or released.
    pub(crate) fn failures(&self) -> impl Iterator<Item = &str> {
        let vips = self.vips.values().filter_map(|state| match state {
            VipState::Failed(reason) => Some(reason.as_str()),
            VipState::Held | VipState::Pending => None,
        });
        let unreleased = self.unreleased.values().flatten();
        vips.chain(unreleased.map(String::as_str))
    }

    /// Returns whether a VIP is still to be released.
    pub(crate) fn is_unreleased(&self, key: &AddressKey) -> bool {
        self.unreleased.contains_key(key)
    }
}

#[cfg(test)]
mod tests;
