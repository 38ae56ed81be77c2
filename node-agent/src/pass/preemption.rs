//! When a director may take VIPs over from a less preferred one that works: once its own table is complete, and it knows the connections.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use lvs_model::{Keeping, NodeSpec, Outcomes, Plan, SyncDaemon, SyncRole, Target};

/// For how long a connection-sync daemon must have run until it is taken to know the connections. The kernel has no message for that: the
/// director with the VIPs sends each connection with its third packet and every 50 packets (`sync_threshold`), and when its state changes.
const CATCH_UP: Duration = Duration::from_secs(60);

type SyncDaemons = BTreeMap<SyncRole, SyncDaemon>;

/// What passes remember of the connection-sync daemons.
#[derive(Default)]
pub(super) struct CatchUp {
    /// Since when they run, if they may not have caught up.
    since: Option<Instant>,
}

impl CatchUp {
    /// Returns how long it takes until the daemons have caught up; `None` if they have, or none is desired. Those that run when the agent
    /// starts have.
    pub(super) fn time_left(
        &mut self,
        desired: &SyncDaemons,
        observed: &SyncDaemons,
        now: Instant,
    ) -> Option<Duration> {
        if desired != observed {
            self.since = Some(now);
        }
        if desired.is_empty() {
            self.since = None;
        }
        let left = CATCH_UP.saturating_sub(now.saturating_duration_since(self.since?));
        if left.is_zero() {
            self.since = None;
        }
        self.since.map(|_| left)
    }
}

/// Returns the VIPs whose connections a director learns from the others.
pub(super) fn synced_vips(spec: &NodeSpec) -> BTreeSet<IpAddr> {
    let directors = spec.directs.values();
    let synced = directors.filter(|director| director.keeping == Keeping::Sync);
    let vips = synced.flat_map(|director| director.service.frontend.vips());
    vips.copied().collect()
}

/// Returns the VIPs of the IPVS services that a plan did not bring to what is desired.
pub(super) fn incomplete_vips(plan: &Plan, outcomes: &Outcomes) -> BTreeSet<IpAddr> {
    let steps = outcomes.not_done();
    let steps = steps.filter_map(|(index, _)| plan.steps.get(index));
    steps
        .filter_map(|step| {
            if let Target::Service(key) = step.target() {
                key.vip()
            } else {
                None
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use lvs_model::SyncSettings;

    use super::*;

    fn daemons() -> SyncDaemons {
        let daemon = SyncDaemon {
            interface: "eth0".parse().unwrap(),
            settings: SyncSettings::default(),
        };
        SyncRole::BOTH.map(|role| (role, daemon.clone())).into()
    }

    #[test]
    fn daemons_that_were_started_catch_up_after_a_while() {
        let (mut catch_up, start) = (CatchUp::default(), Instant::now());
        let (none, both) = (SyncDaemons::new(), daemons());
        let mut left = |seconds, desired: &SyncDaemons, observed: &SyncDaemons| {
            let now = start + Duration::from_secs(seconds);
            catch_up.time_left(desired, observed, now)
        };
        assert_eq!(left(0, &both, &none), Some(CATCH_UP));
        assert_eq!(left(10, &both, &both), Some(Duration::from_secs(50)));
        // One has ended meanwhile.
        assert_eq!(left(20, &both, &none), Some(CATCH_UP));
        assert_eq!(left(80, &both, &both), None);
        assert_eq!(left(90, &both, &both), None);
        assert_eq!(left(100, &none, &both), None);
    }

    #[test]
    fn daemons_that_run_at_the_start_have_caught_up() {
        let both = daemons();
        let left = CatchUp::default().time_left(&both, &both, Instant::now());
        assert_eq!(left, None);
    }
}
