//! When virtual services are reconciled again although no object has changed.

use std::collections::{BTreeMap, BTreeSet};

use lvs_model::ObjectName;

/// When virtual services are reconciled again although no object has changed, in seconds since 1970: at most one time for each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deadlines {
    times: BTreeMap<ObjectName, u64>,
    queue: BTreeSet<(u64, ObjectName)>,
}

impl Deadlines {
    /// Sets the time of a virtual service, or removes it.
    pub(crate) fn set(&mut self, name: &ObjectName, time: Option<u64>) {
        let before = match time {
            Some(time) => self.times.insert(name.clone(), time),
            None => self.times.remove(name),
        };
        if let Some(before) = before {
            self.queue.remove(&(before, name.clone()));
        }
        self.queue.extend(time.map(|time| (time, name.clone())));
    }

    /// The first time.
    pub(crate) fn first(&self) -> Option<u64> {
        self.queue.first().map(|(time, _)| *time)
    }

    /// Takes the virtual services whose time has come.
    pub(crate) fn take_due(&mut self, now: u64) -> Vec<ObjectName> {
        let mut due = Vec::new();
        while self.first().is_some_and(|time| time <= now) {
            let first = self.queue.pop_first();
            due.extend(first.map(|(_, name)| name));
        }
        for name in &due {
            self.times.remove(name);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_service_is_due_at_its_last_time_only() {
        let name = |name| ObjectName::new("shop", name).unwrap();
        let mut deadlines = Deadlines::default();
        deadlines.set(&name("web"), Some(5));
        deadlines.set(&name("web"), Some(20));
        deadlines.set(&name("api"), Some(10));
        deadlines.set(&name("old"), Some(1));
        deadlines.set(&name("old"), None);
        assert_eq!(deadlines.first(), Some(10));
        assert_eq!(deadlines.take_due(9), []);
        assert_eq!(deadlines.take_due(10), [name("api")]);
        assert_eq!(deadlines.take_due(30), [name("web")]);
        assert_eq!(deadlines.first(), None);
    }
}
