//! Groups in which two directors report that they hold the same VIPs.
//!
//! Right after a takeover that is no news: the director before may have lost its power, and cannot take its report back. Its agent is
//! silent after the duration of its Lease. So a contest counts only once it has lasted for longer.

use std::collections::BTreeMap;

/// The contests of all groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contests {
    groups: BTreeMap<String, Contest>,
    /// The number of contests so far.
    count: u64,
}

/// Two directors hold the VIPs of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Contest {
    /// Which of all contests it is.
    number: u64,
    /// Whether it has lasted for longer than an agent's silence goes unnoticed.
    is_confirmed: bool,
}

impl Contests {
    /// Records whether a group is contested.
    pub(crate) fn set(&mut self, group: &str, is_contested: bool) {
        if !is_contested {
            self.groups.remove(group);
        } else if !self.groups.contains_key(group) {
            self.count += 1;
            let contest = Contest {
                number: self.count,
                is_confirmed: false,
            };
            self.groups.insert(group.to_owned(), contest);
        }
    }

    /// Confirms a contest, if it has not ended since. Returns whether it has not.
    pub(crate) fn confirm(&mut self, group: &str, number: u64) -> bool {
        let contest = self.groups.get_mut(group);
        contest
            .filter(|contest| contest.number == number)
            .is_some_and(|contest| !std::mem::replace(&mut contest.is_confirmed, true))
    }

    /// Returns whether the contest of a group counts.
    pub(crate) fn is_confirmed(&self, group: &str) -> bool {
        self.groups
            .get(group)
            .is_some_and(|contest| contest.is_confirmed)
    }

    /// The contests that do not count yet: the group and the number of each.
    pub(crate) fn unconfirmed(&self) -> impl Iterator<Item = (&str, u64)> {
        let contests = self.groups.iter();
        let unconfirmed = contests.filter(|(_, contest)| !contest.is_confirmed);
        unconfirmed.map(|(group, contest)| (group.as_str(), contest.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_contest_that_has_lasted_is_confirmed() {
        let mut contests = Contests::default();
        contests.set("edge", true);
        contests.set("edge", true);
        assert_eq!(contests.unconfirmed().collect::<Vec<_>>(), [("edge", 1)]);
        contests.set("edge", false);
        contests.set("edge", true);
        assert!(!contests.confirm("edge", 1));
        assert!(!contests.is_confirmed("edge"));
        assert!(contests.confirm("edge", 2));
        assert!(!contests.confirm("edge", 2));
        assert!(contests.is_confirmed("edge"));
        assert_eq!(contests.unconfirmed().count(), 0);
    }
}
