//! Directors program a changed set of real servers a moment later than the real servers learn of it, where connections are found again by
//! the hash.
//!
//! All machines read a change at about the same time. A director that programmed it first, and took over or had just taken over, would
//! send open connections to real servers that do not know the set from before yet, and those would reset them. That is for files; in a
//! cluster, the controller tells real servers first.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{Director, Keeping, ObjectName, VirtualService};

/// For how long a director still programs the set from before a change.
const SETTLING: Duration = Duration::from_secs(2);

/// The sets of real servers that a director programs.
#[derive(Clone, Debug, Default)]
pub struct Settling {
    programmed: BTreeMap<ObjectName, Arc<VirtualService>>,
    /// When a change of the set is programmed, with all later ones up to then.
    due: BTreeMap<ObjectName, Instant>,
}

impl Settling {
    /// Replaces virtual services whose sets have just changed by the versions before. Returns how long until the first of them is due.
    ///
    /// A change counts at once if it is not of the real servers alone, if there were none before, or if only their order differs.
    pub fn hold(
        &mut self,
        directs: &mut BTreeMap<ObjectName, Director>,
        now: Instant,
    ) -> Option<Duration> {
        self.programmed
            .retain(|name, _| directs.get(name).is_some_and(settles));
        self.due
            .retain(|name, _| self.programmed.contains_key(name));
        for (name, director) in directs.iter_mut().filter(|(_, director)| settles(director)) {
            let before = self.programmed.get(name);
            let before = before.filter(|before| is_held(before, &director.service));
            let held = before.filter(|_| {
                let due = self.due.entry(name.clone());
                *due.or_insert(now + SETTLING) > now
            });
            if let Some(before) = held {
                director.service = Arc::clone(before);
                continue;
            }
            self.due.remove(name);
            let service = Arc::clone(&director.service);
            self.programmed.insert(name.clone(), service);
        }
        let left = |due: &Instant| due.saturating_duration_since(now);
        self.due.values().map(left).min()
    }
}

/// Whether a director programs changes of a virtual service later than it reads them: one of files, which have no time of creation.
fn settles(director: &Director) -> bool {
    director.keeping == Keeping::Hash && director.service.created.is_none()
}

/// Whether a change from one version to another has to wait.
fn is_held(before: &Arc<VirtualService>, now: &Arc<VirtualService>) -> bool {
    before != now
        && !before.real_servers.is_empty()
        && before.is_like_but_for_real_servers(now)
        && !before.has_same_real_servers(now)
}

#[cfg(test)]
mod tests;
