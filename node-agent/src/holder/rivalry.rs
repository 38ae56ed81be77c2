//! Other directors that are active too, as after a split of the network, and give way to this one. Neighbours may have learnt that
//! those have the VIPs.

use std::time::Duration;

use lvs_vrrp::Time;

/// The shortest time between two announcements because of rivals: an announcement is repeated for two seconds, and forged packets
/// must not cause more.
const PAUSE: Duration = Duration::from_secs(3);

/// The rivals of one virtual router, and how often this director has prevailed over them. It announces the VIPs each time.
#[derive(Debug, Default)]
pub(super) struct Rivalry {
    prevailed: u32,
    last: Option<Time>,
    /// When it prevails over those that were heard since.
    due: Option<Time>,
}

impl Rivalry {
    /// Notes an advertisement of another active director that was not followed.
    pub(super) fn meet(&mut self, now: Time) {
        let earliest = self.last.map(|last| last + PAUSE);
        let due = earliest.map_or(now, |earliest| earliest.max(now));
        self.due.get_or_insert(due);
    }

    /// When [`prevail`](Self::prevail) must be called.
    pub(super) const fn deadline(&self) -> Option<Time> {
        self.due
    }

    /// Counts those that were heard until now.
    pub(super) const fn prevail(&mut self, now: Time) {
        self.prevailed = self.prevailed.wrapping_add(1);
        self.last = Some(now);
        self.due = None;
    }

    /// How often this director has prevailed.
    pub(super) const fn prevailed(&self) -> u32 {
        self.prevailed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a director prevails within ten seconds that hears a rival at these times, in milliseconds.
    fn count(heard: impl IntoIterator<Item = u64>) -> u32 {
        let at = |milliseconds| Time::since_epoch(Duration::from_millis(milliseconds));
        let mut rivalry = Rivalry::default();
        let mut heard = heard.into_iter().peekable();
        for now in 0..=10_000 {
            while heard.next_if_eq(&now).is_some() {
                rivalry.meet(at(now));
            }
            if rivalry.deadline().is_some_and(|due| due <= at(now)) {
                rivalry.prevail(at(now));
            }
        }
        rivalry.prevailed()
    }

    #[test]
    fn each_rival_is_prevailed_over_but_a_flood_of_them_only_now_and_then() {
        assert_eq!(count([]), 0);
        assert_eq!(count([100]), 1);
        // The second one is not forgotten because it comes soon after the first.
        assert_eq!(count([100, 1_500]), 2);
        assert_eq!(count([100, 8_000]), 2);
        assert_eq!(count(0..=10_000), 4);
    }
}
