//! VIPs that move from one virtual router of their group to another, because the group has got other routers.
//!
//! The directors do not learn of it at the same moment. Until all have, those that have not yet could take VIPs over that others have
//! already.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use lvs_model::{AddressKey, RouterKey, VirtualRouter};
use tracing::info;

use super::{claim_watch::SeenClaim, routers::Standings};
use crate::log_limit::log_limited;

/// The time in which all directors learn of other virtual routers, without the time for an election.
const PROPAGATION_TIME: Duration = Duration::from_secs(5);
/// How long an election takes at most, in intervals between two advertisements.
const ELECTION_INTERVALS: u32 = 4;

/// The VIPs that move:
///
/// 1. At first, the router that a VIP was in before decides who has it, and goes on electing. The other one elects beside it.
/// 2. After a while, the other one decides. A director that it does not choose keeps a VIP that it has until the one that it chooses has
///    announced it, so the VIP is always on a director.
/// 3. After the same time again, the move is over, and the first router ends, unless it has other VIPs. A director that has not learnt of the
///    move by then takes over what it takes for silent.
#[derive(Default)]
pub(super) struct Moves {
    /// The routers that were handed over last.
    known: BTreeMap<RouterKey, VirtualRouter>,
    moves: BTreeMap<AddressKey, Move>,
}

struct Move {
    former: RouterKey,
    /// The former router as it was, without VIPs.
    former_router: VirtualRouter,
    present: RouterKey,
    /// Whether the group did not have the present router before.
    is_present_new: bool,
    stage: Stage,
    /// When the next stage begins.
    next: Instant,
    /// How long a stage is.
    stage_duration: Duration,
}

/// Who has a VIP that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The one that the former router chooses.
    Former,
    /// The one that the present router chooses. One that had it before keeps it.
    Present,
    /// The same, and another machine has announced it since.
    Announced,
}

/// The virtual routers of a machine while VIPs move.
pub(super) struct RoutersDuringMoves {
    /// Those to take part in, with all VIPs that they list.
    pub candidates: BTreeMap<RouterKey, VirtualRouter>,
    /// The same, each with the VIPs about which it decides.
    pub deciding: BTreeMap<RouterKey, VirtualRouter>,
}

impl Moves {
    /// Follows the routers that are handed over, and the time. Returns how they are while VIPs move, if any does.
    pub(super) fn follow(
        &mut self,
        routers: &BTreeMap<RouterKey, VirtualRouter>,
        now: Instant,
    ) -> Option<RoutersDuringMoves> {
        self.advance(now);
        if self.known != *routers {
            self.compare(routers, now);
            self.known.clone_from(routers);
        }
        (!self.moves.is_empty()).then(|| self.routers())
    }

    /// When [`follow`](Self::follow) must be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.moves.values().map(|a_move| a_move.next).min()
    }

    /// Returns whether a VIP moves.
    pub(super) fn is_moving(&self, vip: &AddressKey) -> bool {
        self.moves.contains_key(vip)
    }

    /// Returns whether a VIP is on its way from a router that the group does not have any more. Then the ids have changed, and the
    /// director that has the VIP goes on as the active one.
    pub(super) fn is_renamed(&self, vip: &AddressKey) -> bool {
        let found = self.moves.get(vip);
        found.is_some_and(|found| !self.known.contains_key(&found.former))
    }

    /// Returns whether the router of a VIP has only got another id.
    pub(super) fn has_new_id(&self, vip: &AddressKey) -> bool {
        let found = self.moves.get(vip);
        self.is_renamed(vip) && found.is_some_and(|found| found.is_present_new)
    }

    /// The VIPs that a director keeps although the present router does not choose it, because the one that it chooses has not announced
    /// them yet.
    pub(super) fn unannounced(&self) -> BTreeSet<&AddressKey> {
        let all = self.moves.iter();
        let unannounced = all.filter(|(_, found)| found.stage == Stage::Present);
        unannounced.map(|(vip, _)| vip).collect()
    }

    /// Removes the claims to moving VIPs from `claims`. A claim to one that this machine does not take over, because its present router is
    /// not in `active`, is the announcement of its new director. As long as the former router decides, that concerns the machine that has the
    /// VIP, one of `held`, alone: another one may have to take it over by that router. Returns whether this machine must remove a VIP.
    pub(super) fn note_claims(
        &mut self,
        claims: &mut Vec<SeenClaim>,
        active: &BTreeSet<RouterKey>,
        held: &BTreeSet<AddressKey>,
    ) -> bool {
        let mut is_news = false;
        claims.retain(|(interface, (address, _))| {
            let vip = AddressKey::host(interface, *address);
            let Some(found) = self.moves.get_mut(&vip) else {
                return true;
            };
            let is_concerned = match found.stage {
                Stage::Former => held.contains(&vip),
                Stage::Present => true,
                Stage::Announced => false,
            };
            if !active.contains(&found.present) && is_concerned {
                info!(vip = %address, %interface, "announced by the director that takes it over");
                if found.stage == Stage::Former {
                    // The former router goes on for those that have not learnt of the move.
                    found.next += found.stage_duration;
                }
                found.stage = Stage::Announced;
                is_news = true;
            }
            false
        });
        is_news
    }

    /// Returns the standings to report: the director that has a moving VIP is active in its present router. `held` are the VIPs that this
    /// machine has.
    pub(super) fn reported(&self, standings: &Standings, held: &BTreeSet<AddressKey>) -> Standings {
        let mut shown = standings.clone();
        for (key, router) in &self.known {
            let all = self.moves.iter();
            let moving = || all.clone().filter(|(_, found)| found.present == *key);
            let mut here = moving().filter(|(vip, found)| match found.stage {
                Stage::Former => standings.active.contains(&found.former),
                Stage::Present => held.contains(*vip),
                Stage::Announced => false,
            });
            let elsewhere = moving().filter(|(_, found)| found.stage == Stage::Former);
            if here.next().is_some() {
                shown.reported_active.insert(key.clone());
            } else if elsewhere.count() == router.vips.len() && shown.active.remove(key) {
                shown.standby.insert(key.clone());
            }
        }
        shown
    }

    fn advance(&mut self, now: Instant) {
        for found in self.moves.values_mut() {
            if found.next <= now && found.stage == Stage::Former {
                found.stage = Stage::Present;
                found.next += found.stage_duration;
            }
        }
        self.moves.retain(|_, found| found.next > now);
    }

    /// Finds the VIPs that are in another router of their group than before.
    fn compare(&mut self, routers: &BTreeMap<RouterKey, VirtualRouter>, now: Instant) {
        let places = |routers: &BTreeMap<RouterKey, VirtualRouter>| {
            let routers = routers.iter();
            let vips = routers.flat_map(|(key, router)| {
                let vips = router.vips.iter().cloned();
                vips.map(move |vip| (vip, key.clone()))
            });
            vips.collect::<BTreeMap<AddressKey, RouterKey>>()
        };
        let (before, present) = (places(&self.known), places(routers));
        self.moves.retain(|vip, _| present.contains_key(vip));
        let mut started = Vec::new();
        for (vip, present) in present {
            let Some(former) = before.get(&vip).filter(|former| **former != present) else {
                continue;
            };
            // One that has not gone yet is still where it was.
            let (former, former_router) = match self.moves.remove(&vip) {
                Some(found) if found.stage == Stage::Former => (found.former, found.former_router),
                Some(_) | None => match self.known.get(former) {
                    Some(router) => (former.clone(), router.clone()),
                    None => continue,
                },
            };
            let is_of_group = routers
                .get(&present)
                .is_some_and(|router| !router.groups.is_disjoint(&former_router.groups));
            if former == present || !is_of_group {
                continue;
            }
            let interval = u64::from(former_router.candidacy.interval) * 10;
            let stage_duration =
                PROPAGATION_TIME + Duration::from_millis(interval) * ELECTION_INTERVALS;
            let router = VirtualRouter {
                vips: BTreeSet::new(),
                ..former_router
            };
            started.push((vip.clone(), former.router_id, present.router_id));
            let found = Move {
                former,
                former_router: router,
                is_present_new: !self.known.contains_key(&present),
                present,
                stage: Stage::Former,
                next: now + stage_duration,
                stage_duration,
            };
            self.moves.insert(vip, found);
        }
        log_limited(
            &started,
            |(vip, from, to)| info!(vip = %vip.address, from, to, "moves to another virtual router"),
            |more| info!("{more} more VIPs move to other virtual routers"),
        );
    }

    fn routers(&self) -> RoutersDuringMoves {
        let mut candidates = self.known.clone();
        let mut deciding = self.known.clone();
        for (vip, found) in &self.moves {
            let present = self.known.get(&found.present);
            let standby = present.is_some_and(|present| present.candidacy.standby);
            for routers in [&mut candidates, &mut deciding] {
                let former = routers.entry(found.former.clone()).or_insert_with(|| {
                    let mut router = found.former_router.clone();
                    router.candidacy.standby = standby;
                    router
                });
                former.vips.insert(vip.clone());
            }
            let other = match found.stage {
                Stage::Former => &found.present,
                Stage::Present | Stage::Announced => &found.former,
            };
            if let Some(other) = deciding.get_mut(other) {
                other.vips.remove(vip);
            }
        }
        RoutersDuringMoves {
            candidates,
            deciding,
        }
    }
}

#[cfg(test)]
mod tests;
