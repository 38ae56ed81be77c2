//! What is wrong between the routers of a virtual router, as their packets show it.

use std::time::Duration;

use lvs_vrrp::{Observation, Time};

/// How many observations are kept. Forged packets can show any number.
const MOST: usize = 8;
/// How long an observation counts at least after the last packet that shows it.
const SHORTEST_MEMORY: Duration = Duration::from_secs(10);
/// The same, in intervals between two advertisements.
const MEMORY_INTERVALS: u32 = 4;

/// The observations of one virtual router. Each packet may repeat them.
#[derive(Debug, Default)]
pub(super) struct Problems {
    /// With the time until which they count.
    seen: Vec<(Observation, Time)>,
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
        if let Some((_, known)) = self
            .seen
            .iter_mut()
            .find(|(known, _)| *known == observation)
        {
            *known = until;
            return None;
        }
        if self.seen.len() >= MOST {
            return None;
        }
        self.seen.push((observation, until));
        self.seen.last().map(|(observation, _)| observation)
    }

    /// Forgets what no packet has shown for long enough.
    pub(super) fn forget(&mut self, now: Time) {
        self.seen.retain(|(_, until)| *until > now);
    }

    /// When there is something to forget.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.seen.iter().map(|(_, until)| *until).min()
    }

    /// The problems that last, for the status. What a takeover shows for a moment does not count.
    pub(super) fn text(&self) -> Option<String> {
        let lasting = self.seen.iter().filter(|(observation, _)| {
            !matches!(
                observation,
                Observation::TwoActives { .. }
                    | Observation::Late { .. }
                    | Observation::HandOverFailed
            )
        });
        let texts: Vec<String> = lasting
            .map(|(observation, _)| observation.to_string())
            .collect();
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
    fn a_problem_is_new_once_and_is_forgotten_when_it_is_over() {
        let mut problems = Problems::default();
        let differs = Observation::OwnSource;
        for second in [1, 8, 15] {
            let is_new = problems
                .note(foreign([192, 0, 2, 9]), at(second), INTERVAL)
                .is_some();
            assert_eq!(is_new, second == 1);
            // Two that alternate are both new once.
            let is_new = problems
                .note(differs.clone(), at(second), INTERVAL)
                .is_some();
            assert_eq!(is_new, second == 1);
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
