//! What the holder reports of each VIP.

use std::{collections::BTreeMap, net::IpAddr};

use lvs_model::{AddressKey, Holding};

/// Where a VIP stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VipState {
    /// It is being probed for or added.
    Pending,
    /// It is on its interface.
    Held,
    /// It could not be added, and why. It is tried again.
    Failed(String),
}

/// What the holder reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HolderReport {
    vips: BTreeMap<AddressKey, VipState>,
    /// What is to be released, with the reason why it is not yet; `None`: it was not tried.
    unreleased: BTreeMap<AddressKey, Option<String>>,
}

impl HolderReport {
    /// The report right after something was handed over: what was not held before is pending.
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

    /// Sets the state of a VIP that is to be held. Returns whether it is another than before.
    pub(crate) fn set(&mut self, key: &AddressKey, state: VipState) -> bool {
        match self.vips.get_mut(key) {
            Some(known) if *known != state => {
                *known = state;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Sets that something was released, or why not.
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

    /// The state of a VIP; `None` when it is not one to be held here.
    pub(crate) fn of(&self, vip: IpAddr) -> Option<&VipState> {
        let mut all = self.vips.iter();
        all.find(|(key, _)| key.address == vip)
            .map(|(_, state)| state)
    }

    /// Returns whether everything that was handed over was tried.
    pub(crate) fn is_settled(&self) -> bool {
        let mut vips = self.vips.values();
        let mut unreleased = self.unreleased.values();
        !vips.any(|state| *state == VipState::Pending) && unreleased.all(Option::is_some)
    }

    /// What is not as it was handed over, in words.
    pub(crate) fn failures(&self) -> impl Iterator<Item = &str> {
        let vips = self.vips.values().filter_map(|state| match state {
            VipState::Failed(reason) => Some(reason.as_str()),
            VipState::Held | VipState::Pending => None,
        });
        let unreleased = self.unreleased.values().flatten();
        vips.chain(unreleased.map(String::as_str))
    }

    /// Returns whether something is still to be released.
    pub(crate) fn is_unreleased(&self, key: &AddressKey) -> bool {
        self.unreleased.contains_key(key)
    }
}

#[cfg(test)]
mod tests;
