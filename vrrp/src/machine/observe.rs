//! How the other routers differ from this one, as their advertisements show.

use std::collections::BTreeSet;

use super::{Machine, State};
use crate::{Action, Observation, Received, RouterKey, config::distinctive};

impl Machine {
    /// Reports how another router differs from this one. Returns whether the advertisement is of this virtual router, and not of a router
    /// that is none of the peers.
    ///
    /// None of the differences makes the advertisement void (RFC 9568, section 7.1).
    pub(super) fn observe(&self, received: &Received, actions: &mut Vec<Action>) -> bool {
        let advertisement = &received.advertisement;
        let key = RouterKey {
            vrid: advertisement.vrid,
            family: advertisement.addresses.family(),
        };
        if key != self.key() || self.state() == State::Initialize {
            return false;
        }
        let observations = if received.source == self.config.source {
            vec![Observation::OwnSource]
        } else if !self.hears(received.source) {
            let source = received.source;
            actions.push(Action::Report(Observation::UnknownPeer { source }));
            return false;
        } else {
            let differences = [
                self.other_interval(received),
                self.other_checksum(received),
                self.other_addresses(received),
            ];
            differences.into_iter().flatten().collect()
        };
        actions.extend(observations.into_iter().map(Action::Report));
        true
    }

    fn other_interval(&self, received: &Received) -> Option<Observation> {
        let source = received.source;
        let interval = received.advertisement.interval;
        let differs = interval != self.config.interval;
        differs.then_some(Observation::IntervalDiffers { source, interval })
    }

    fn other_checksum(&self, received: &Received) -> Option<Observation> {
        let source = received.source;
        let checksum = received.checksum?;
        let differs = checksum != self.config.checksum;
        differs.then_some(Observation::ChecksumDiffers { source, checksum })
    }

    fn other_addresses(&self, received: &Received) -> Option<Observation> {
        let source = received.source;
        let (theirs, ours) = (&received.advertisement.addresses, &self.config.addresses);
        if theirs == ours {
            return None;
        }
        let (their_set, our_set): (BTreeSet<_>, BTreeSet<_>) =
            (theirs.iter().collect(), ours.iter().collect());
        if their_set == our_set {
            return None;
        }
        let (their_own, our_own) = (distinctive(theirs), distinctive(ours));
        if !their_own.is_empty() && their_own.is_disjoint(&our_own) {
            let addresses = their_set;
            return Some(Observation::ForeignRouter { source, addresses });
        }
        Some(Observation::AddressesDiffer {
            source,
            additional: their_set.difference(&our_set).copied().collect(),
            missing: our_set.difference(&their_set).copied().collect(),
        })
    }
}
