//! The virtual routers of this machine: with each, the directors of a group agree who holds some VIPs.
//!
//! They run on a thread of their own, see `election`. The holder adds the VIPs of those that are active, and removes the others.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::select_all;
use lvs_model::RouterKey;
use lvs_runtime::error::chain;
use lvs_vrrp::State;
use tracing::{info, warn};

use super::{
    metrics::RouterMetrics,
    router::{Router, RouterError, Wanted, now},
};

/// What the thread of the virtual routers is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Instructions {
    /// The virtual routers to take part in.
    pub wanted: BTreeMap<RouterKey, Wanted>,
    /// Those that have ended although this machine keeps the VIPs: it is the only director left, or has them by another router.
    pub kept: BTreeSet<RouterKey>,
}

/// What this machine is in each of its virtual routers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standings {
    /// Where it is active.
    pub active: BTreeSet<RouterKey>,
    /// Where it is active and has not heard any other director: one that does not take part may have the VIPs.
    pub alone: BTreeSet<RouterKey>,
    /// Where it is on standby.
    pub standby: BTreeSet<RouterKey>,
    /// Where it is on standby since a moment ago and keeps the VIPs until its successor has surely added them.
    pub handed_over: BTreeSet<RouterKey>,
    /// Where it is on standby and is still to be reported as active.
    pub reported_active: BTreeSet<RouterKey>,
    /// How often it has prevailed over another director that was active too, where it is active.
    pub prevailed: BTreeMap<RouterKey, u32>,
    /// Where it cannot take part, and why.
    pub failed: BTreeMap<RouterKey, String>,
    /// What is wrong where it takes part.
    pub problems: BTreeMap<RouterKey, String>,
}

/// The virtual routers of this machine.
pub(super) struct Routers {
    metrics: RouterMetrics,
    routers: BTreeMap<RouterKey, Router>,
    /// Those that cannot take part, and why.
    failed: BTreeMap<RouterKey, String>,
}

impl Routers {
    /// None yet.
    pub(super) const fn new(metrics: RouterMetrics) -> Self {
        Self {
            metrics,
            routers: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Starts, configures and stops routers. One whose VIPs this machine keeps ends without a word: to resign would make a director
    /// that has not yet learnt that it is none any more take them over.
    pub(super) fn follow(&mut self, Instructions { wanted, kept }: &Instructions) {
        let gone = |key: &RouterKey, _: &mut Router| !wanted.contains_key(key);
        for (key, router) in self.routers.extract_if(.., gone) {
            if kept.contains(&key) {
                info!(interface = %key.interface, router = key.router_id, "ends, and the VIPs stay here");
                self.metrics.remove(&key);
                continue;
            }
            router.stop(&key);
            self.metrics.remove(&key);
        }
        let known = std::mem::take(&mut self.failed);
        for (key, wanted) in wanted {
            if let Err(error) = self.follow_one(key, wanted) {
                let error = chain(&error);
                // If it does not run, its VIPs fail, which is logged.
                if self.routers.contains_key(key) && known.get(key) != Some(&error) {
                    warn!(interface = %key.interface, router = key.router_id, error, "keeps its earlier settings");
                }
                self.failed.insert(key.clone(), error);
            }
        }
    }

    fn follow_one(&mut self, key: &RouterKey, wanted: &Wanted) -> Result<(), RouterError> {
        if let Some(router) = self.routers.get_mut(key) {
            return router.follow(key, wanted);
        }
        let router = Router::start(key, wanted, self.metrics.clone())?;
        self.routers.insert(key.clone(), router);
        Ok(())
    }

    /// Waits until a router has something to do. Cancel-safe.
    pub(super) async fn wait(&self) {
        if self.routers.is_empty() {
            return std::future::pending().await;
        }
        let deadlines = self.routers.values();
        let deadline = deadlines.filter_map(Router::deadline).min();
        let until_deadline = async {
            match deadline {
                Some(deadline) => tokio::time::sleep(deadline.since(now())).await,
                None => std::future::pending().await,
            }
        };
        let readable = self.routers.values();
        let readable = readable.map(|router| Box::pin(router.readable()));
        tokio::select! {
            () = until_deadline => {}
            _ = select_all(readable) => {}
        }
    }

    /// Handles some of the packets that have arrived, and then the deadlines that are due.
    pub(super) fn work(&mut self) {
        for (key, router) in &mut self.routers {
            router.work(key);
        }
    }

    /// What this machine is in each of them.
    pub(super) fn standings(&self) -> Standings {
        let mut standings = Standings {
            failed: self.failed.clone(),
            ..Standings::default()
        };
        for (key, router) in &self.routers {
            let state = router.state();
            match state {
                State::Active => {
                    standings.active.insert(key.clone());
                    standings.prevailed.insert(key.clone(), router.prevailed());
                }
                State::Backup | State::Initialize => {
                    standings.standby.insert(key.clone());
                }
                // Its VIPs stay as they are.
                State::Resuming => {}
            }
            if router.keeps_vips() {
                standings.handed_over.insert(key.clone());
            }
            if router.is_reported_active() {
                standings.reported_active.insert(key.clone());
            }
            let problem = router.problem().map(|problem| (key.clone(), problem));
            standings.problems.extend(problem);
            if state == State::Active && !router.is_acquainted() {
                standings.alone.insert(key.clone());
            }
        }
        standings
    }
}
