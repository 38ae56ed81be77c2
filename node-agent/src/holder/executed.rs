//! The results of steps for VIPs.

use lvs_model::{AddressKey, NetworkStep};

use super::report::VipState;

/// The VIPs of steps that were executed.
#[derive(Default)]
pub(super) struct Executed {
    /// Those that were changed.
    pub done: Vec<AddressKey>,
    /// Those that could not be changed, with the reasons.
    pub failed: Vec<(AddressKey, String)>,
}

impl Executed {
    /// Adds the result of a step.
    pub(super) fn add(&mut self, step: &NetworkStep, result: Result<(), String>) {
        let (NetworkStep::AddAddress { key, .. }
        | NetworkStep::EditAddress { key, .. }
        | NetworkStep::RemoveAddress(key)) = step
        else {
            return;
        };
        match result {
            Ok(()) => self.done.push(key.clone()),
            Err(reason) => self.failed.push((key.clone(), reason)),
        }
    }
}

/// The states of VIPs that could not be added or edited, with the reasons.
pub(super) fn unadded_states(failed: &[(AddressKey, String)]) -> Vec<(AddressKey, VipState)> {
    let failed = failed.iter();
    failed
        .map(|(key, reason)| (key.clone(), VipState::Failed(reason.clone())))
        .collect()
}
