//! The thread on which the virtual routers of this machine send and listen. Nothing else runs there, so no advertisement is late
//! because the holder probes for addresses, adds thousands of them or announces them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    thread,
};

use lvs_kernel::announce;
use lvs_model::{AddressConfig, AddressKey, InterfaceName, Owner, RouterKey, VirtualRouter};
use lvs_runtime::error::chain;
use lvs_vrrp::{Link, Start};
use tokio::sync::watch;
use tracing::{error, warn};

use super::{
    metrics::RouterMetrics,
    moves::Moves,
    removals::Removals,
    router::{Wanted, own_address},
    routers::{Instructions, Routers, Standings},
};

/// The handle to the thread. Dropping it ends the thread; other directors then notice its silence.
pub(super) struct Election {
    metrics: RouterMetrics,
    running: Option<Running>,
    /// The interfaces that are up. `None` before they are read.
    links: Option<BTreeSet<InterfaceName>>,
}

/// What the virtual routers depend on.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    /// The addresses of the machine.
    pub observed: &'a BTreeMap<AddressKey, AddressConfig>,
    /// The VIPs that this process holds.
    pub held: &'a BTreeSet<AddressKey>,
    /// The VIPs that another program removes.
    pub removals: &'a Removals,
    /// The VIPs that move.
    pub moves: &'a Moves,
}

struct Running {
    instructions: watch::Sender<Instructions>,
    standings: watch::Receiver<Arc<Standings>>,
}

impl Election {
    /// One without a thread.
    pub(super) const fn new(metrics: RouterMetrics) -> Self {
        Self {
            metrics,
            running: None,
            links: None,
        }
    }

    /// Lets the virtual routers follow their settings. The thread is started with the first one. `hold` are the VIPs of the machine.
    pub(super) fn follow(
        &mut self,
        hold: &BTreeMap<AddressKey, AddressConfig>,
        routers: &BTreeMap<RouterKey, VirtualRouter>,
        surroundings: Surroundings<'_>,
    ) {
        if self.running.is_none() && !routers.is_empty() {
            self.running = start(self.metrics.clone());
        }
        let Some(running) = &self.running else {
            return;
        };
        if self.links.is_none() {
            self.links = links_that_are_up();
        }
        let links = self.links.as_ref();
        running.instructions.send_if_modified(|instructions| {
            let Instructions { wanted, kept } = &*instructions;
            let active = &running.standings.borrow().active;
            let is_active_with = |vip: &AddressKey| {
                let mut routers = active.iter().filter_map(|key| routers.get(key));
                routers.any(|router| router.vips.contains(vip))
            };
            let stays = |vip: &AddressKey| {
                let config = hold.get(vip);
                config.is_some_and(|config| !config.expires || is_active_with(vip))
            };
            let ended = wanted.iter().filter(|(key, _)| !routers.contains_key(*key));
            let ended = ended.filter(|(_, wanted)| wanted.router.vips.iter().any(stays));
            let kept = kept.iter().chain(ended.map(|(key, _)| key));
            let kept = kept.filter(|key| !routers.contains_key(*key));
            let kept: BTreeSet<RouterKey> = kept.cloned().collect();
            let now = routers.iter().map(|(key, router)| {
                let mut now = wanted_router((key, router), wanted.get(key), surroundings, links);
                // A director whose VIPs stay is better, but none is not.
                let mut vips = router.vips.iter();
                now.router.candidacy.standby |=
                    vips.any(|vip| surroundings.removals.are_too_many(vip));
                (key.clone(), now)
            });
            let now = Instructions {
                wanted: now.collect(),
                kept,
            };
            let is_modified = now != *instructions;
            *instructions = now;
            is_modified
        });
    }

    /// Makes the next [`follow`](Self::follow) read which interfaces are up.
    pub(super) fn forget_links(&mut self) {
        self.links = None;
    }

    /// What this machine is in each of its virtual routers.
    pub(super) fn standings(&self) -> Arc<Standings> {
        let running = self.running.as_ref();
        running.map_or_else(Arc::default, |running| {
            // Not marked as seen: a change that this call finds must still end `changed`.
            Arc::clone(&running.standings.borrow())
        })
    }

    /// Waits until the standings change. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        if let Some(running) = &mut self.running
            && running.standings.changed().await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// A router to take part in. `known` is the same one before: what was found at first stays, so an address that is away for a moment changes
/// nothing.
fn wanted_router(
    (key, router): (&RouterKey, &VirtualRouter),
    known: Option<&Wanted>,
    surroundings: Surroundings<'_>,
    links: Option<&BTreeSet<InterfaceName>>,
) -> Wanted {
    let Surroundings {
        observed,
        held,
        removals: _,
        moves,
    } = surroundings;
    let unicast = router.candidacy.unicast.as_ref();
    let known = known.filter(|known| known.source.is_some());
    let start = || {
        let is_ours = |found: &AddressConfig| found.owner != Owner::Foreign;
        // One that moves between the routers of its group does not make this machine the active one of its new router.
        let counts = |vip: &&AddressKey| !moves.is_moving(vip) || moves.is_renamed(vip);
        let vips = router.vips.iter().filter(counts);
        let mut present = vips.filter(|vip| observed.get(vip).is_some_and(is_ours));
        if present.clone().any(|vip| held.contains(vip)) {
            Start::Continue
        } else if present.next().is_some() {
            Start::Resume
        } else {
            Start::Fresh
        }
    };
    let same = known.filter(|known| known.router.candidacy.unicast.as_ref() == unicast);
    let own = || own_address(key, router, observed);
    // If the links cannot be read, silence alone decides.
    let is_up = |name: &InterfaceName| links.is_none_or(|links| links.contains(name));
    let own = same.map_or_else(own, |known| known.source);
    let mut router = router.clone();
    // Without the link of a gateway, another director is better, but none is not.
    let has_links = router.vips.iter().all(|vip| is_up(&vip.interface));
    router.candidacy.standby |= !has_links;
    let link = if is_up(&key.interface) {
        Link::Up
    } else {
        Link::Down
    };
    Wanted {
        source: own,
        start: known.map_or_else(start, |known| known.start),
        router,
        link,
    }
}

fn links_that_are_up() -> Option<BTreeSet<InterfaceName>> {
    let links = announce::running();
    links
        .inspect_err(|error| warn!(error = chain(error), "cannot list interfaces"))
        .ok()
}

fn start(metrics: RouterMetrics) -> Option<Running> {
    let (instructions, to_follow) = watch::channel(Instructions::default());
    let (publish, standings) = watch::channel(Arc::default());
    let spawned = thread::Builder::new()
        .name("vrrp".to_owned())
        .spawn(move || run(to_follow, &publish, metrics));
    match spawned {
        Ok(_) => Some(Running {
            instructions,
            standings,
        }),
        Err(error) => {
            error!(error = chain(&error), "cannot start the thread for VRRP");
            None
        }
    }
}

fn run(
    mut instructions: watch::Receiver<Instructions>,
    standings: &watch::Sender<Arc<Standings>>,
    metrics: RouterMetrics,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return error!(error = chain(&error), "cannot start the thread for VRRP"),
    };
    runtime.block_on(async {
        let mut routers = Routers::new(metrics);
        loop {
            tokio::select! {
                changed = instructions.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    routers.follow(&instructions.borrow_and_update());
                }
                () = routers.wait() => routers.work(),
            }
            let now = routers.standings();
            standings.send_if_modified(|known| {
                let is_modified = **known != now;
                *known = Arc::new(now);
                is_modified
            });
        }
    });
}
