//! What is wrong between the routers of a virtual router, as their packets show it.

use std::time::Duration;

use lvs_vrrp::{Observation, Time};

/// How many observations are kept. Forged packets can show any number.
const MOST: usize = 8;
/// How long an observation is remembered at least after the last packet that shows it.
const SHORTEST_MEMORY: Duration = Duration::from_secs(10);
/// The same, in intervals between two advertisements.
const MEMORY_INTERVALS: u32 = 4;
/// For how long a difference must be seen until it is a problem: directors do not learn of a change at the same moment.
const SETTLING: Duration = Duration::from_secs(5);

/// The observations of one virtual router. Each packet may repeat them.
#[derive(Debug, Default)]
pub(super) struct Problems {
    seen: Vec<Sighting>,
}

#[derive(Debug)]
struct Sighting {
    observation: Observation,
    first: Time,
    last: Time,
    until: Time,
}

impl Sighting {
    /// When it becomes a problem, if packets still show it then.
    fn counts_at(&self) -> Time {
        self.first + SETTLING
    }

    /// Returns whether it has been seen for long enough. What belongs to a takeover never has.
    fn is_problem(&self) -> bool {
        let is_takeover = matches!(
            self.observation,
            Observation::TwoActives { .. } | Observation::Late { .. } | Observation::HandOverFailed
        );
        !is_takeover && self.last >= self.counts_at()
    }
}

impl Problems {
    /// Notes an observation. Returns it if it is new.
    pub(super) fn note(
        &mut self,
        observation: Observation,
        now: Time,
        interval: Duration,
    ) -> Option<&Observation> {
        let until = now + SHORTEST_MEMORY.max(interval * MEMORY_INTERVALS);
        let mut seen = self.seen.iter_mut();
        if let Some(known) = seen.find(|known| known.observation == observation) {
            known.last = now;
            known.until = until;
            return None;
        }
        if self.seen.len() >= MOST {
            return None;
        }
        self.seen.push(Sighting {
            observation,
            first: now,
            last: now,
            until,
        });
        self.seen.last().map(|seen| &seen.observation)
    }

    /// Forgets what no packet has shown for long enough.
    pub(super) fn forget(&mut self, now: Time) {
        self.seen.retain(|seen| seen.until > now);
    }

    /// When there is something to forget.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.seen.iter().map(|seen| seen.until).min()
    }

    /// The problems, for the status.
    pub(super) fn text(&self) -> Option<String> {
        let problems = self.seen.iter().filter(|seen| seen.is_problem());
        let texts: Vec<String> = problems.map(|seen| seen.observation.to_string()).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    fn at(seconds: u64) -> Time {
        Time::since_epoch(Duration::from_secs(seconds))
    }

    fn foreign(source: [u8; 4]) -> Observation {
        Observation::ForeignRouter {
            source: IpAddr::from(source),
            addresses: [IpAddr::from([192, 0, 2, 1])].into(),
        }
    }

    #[test]
    fn a_problem_is_new_once_counts_once_it_lasts_and_is_forgotten_when_it_is_over() {
        let mut problems = Problems::default();
        for second in [1, 5, 8, 15] {
            let is_new = problems.note(foreign([192, 0, 2, 9]), at(second), INTERVAL);
            assert_eq!(is_new.is_some(), second == 1);
            // Two that alternate are both new once.
            let is_new = problems.note(Observation::OwnSource, at(second), INTERVAL);
            assert_eq!(is_new.is_some(), second == 1);
            assert_eq!(problems.text().is_some(), second >= 8, "{second}");
        }
        assert_eq!(problems.deadline(), Some(at(25)));
        problems.forget(at(24));
        let text = problems.text().unwrap();
        assert_eq!(
            text,
            "192.0.2.9 uses the same router id for other addresses: 192.0.2.1; a packet has this router's own address as its source"
        );
        problems.forget(at(25));
        assert_eq!((problems.text(), problems.deadline()), (None, None));
    }

    #[test]
    fn a_problem_counts_for_several_intervals() {
        let mut problems = Problems::default();
        problems.note(Observation::OwnSource, at(0), Duration::from_secs(40));
        assert_eq!(problems.deadline(), Some(at(160)));
    }

    #[test]
    fn forged_packets_cannot_fill_the_memory() {
        let mut problems = Problems::default();
        for last in 1..=255 {
            problems.note(foreign([10, 0, 0, last]), at(0), INTERVAL);
        }
        assert_eq!(problems.seen.len(), MOST);
    }
}
