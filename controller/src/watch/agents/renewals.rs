//! When each agent renewed its Lease last.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use lvs_crd::AGENT_LEASE_DURATION;
use lvs_model::NodeName;
use tokio::time::Instant;

/// When each agent renewed its Lease last, by the clock of the caller.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    leases: BTreeMap<NodeName, Renewal>,
    /// The agents that are not silent, in the order of their last renewal.
    alive: BTreeSet<(Instant, NodeName)>,
    is_started: bool,
}

#[derive(Debug)]
struct Renewal {
    /// The time in the Lease, by the clock of the agent. Only whether it differs counts.
    time: Option<MicroTime>,
    /// When the renewal was seen; `None` for a silent agent.
    seen: Option<Instant>,
}

impl Renewals {
    /// Returns whether every Lease was listed once.
    pub(super) const fn is_started(&self) -> bool {
        self.is_started
    }

    /// Records that every Lease was listed.
    pub(super) const fn start(&mut self) {
        self.is_started = true;
    }

    /// Records a Lease as it was seen. Returns whether its agent is alive and was not before.
    pub(super) fn observe(
        &mut self,
        node: &NodeName,
        time: Option<MicroTime>,
        now: Instant,
    ) -> bool {
        let known = self.leases.get(node);
        if known.is_some_and(|known| known.time == time) {
            return false;
        }
        let seen = known.and_then(|known| known.seen);
        if let Some(seen) = seen {
            self.alive.remove(&(seen, node.clone()));
        }
        self.alive.insert((now, node.clone()));
        let renewal = Renewal {
            time,
            seen: Some(now),
        };
        self.leases.insert(node.clone(), renewal);
        seen.is_none()
    }

    /// When the first agent becomes silent.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let (seen, _) = self.alive.first()?;
        Some(*seen + AGENT_LEASE_DURATION)
    }

    /// The agents that have become silent.
    pub(super) fn take_silent(&mut self, now: Instant) -> Vec<NodeName> {
        let mut silent = Vec::new();
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            let Some((_, node)) = self.alive.pop_first() else {
                break;
            };
            if let Some(renewal) = self.leases.get_mut(&node) {
                renewal.seen = None;
            }
            silent.push(node);
        }
        silent
    }

    /// Gives every agent that is not silent the whole duration again.
    pub(super) fn start_again(&mut self, now: Instant) {
        for (_, node) in std::mem::take(&mut self.alive) {
            if let Some(renewal) = self.leases.get_mut(&node) {
                renewal.seen = Some(now);
            }
            self.alive.insert((now, node));
        }
    }
}
