//! The holder's thread: waits for an event, compares desired and observed VIPs, acts.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use lvs_kernel::{VipSocket, events::Notifications, fault};
use lvs_model::{AddressConfig, AddressKey, Holding, NetworkStep, Owner, RouterKey, VirtualRouter};
use lvs_runtime::error::chain;
use tokio::{
    sync::{oneshot, watch},
    time::sleep_until,
};
use tracing::{debug, error, info, warn};

use super::{
    announcer::Announcer,
    contested::{Contested, in_use, probe},
    decide::{Work, decide},
    elected::{unasked, vips_of, vips_of_failed},
    election::{Election, Surroundings},
    executed::{Executed, unadded_states},
    metrics::RouterMetrics,
    moves::Moves,
    removals::Removals,
    report::{self, HolderReport, VipState},
    routers::Standings,
};
use crate::log_limit::{OngoingFault, log_limited};

/// The first and the longest delay before a retry.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How often VIPs that expire are renewed: several times in their lifetime.
const RENEWAL: Duration = Duration::from_secs(1);
/// The longest delay while other machines answer for VIPs. A director that lets go of a VIP is followed within this time.
const LAST_RETRY_IN_USE: Duration = Duration::from_secs(5);

/// The state of the holder's thread.
pub(super) struct Worker {
    handed: watch::Receiver<Option<Arc<Holding>>>,
    report: watch::Sender<Arc<HolderReport>>,
    socket: VipSocket,
    announcer: Announcer,
    election: Election,
    /// When VIPs that expire are renewed.
    renew_at: Option<Instant>,
    /// The VIPs that this worker has found or added, and announced.
    held: BTreeSet<AddressKey>,
    /// How often this machine had prevailed over other active directors when VIPs were announced because of that.
    prevailed: BTreeMap<RouterKey, u32>,
    contested: Contested,
    removals: Removals,
    moves: Moves,
    /// The virtual routers while VIPs move between them, each with the VIPs about which it decides. `None`: as they were handed over.
    deciding: Option<BTreeMap<RouterKey, VirtualRouter>>,
    /// Why addresses cannot be read.
    fault: OngoingFault,
    retry_at: Option<Instant>,
    retry: Duration,
}

impl Worker {
    /// Runs until the handle is dropped.
    pub(super) fn run(
        handed: watch::Receiver<Option<Arc<Holding>>>,
        report: watch::Sender<Arc<HolderReport>>,
        metrics: RouterMetrics,
        started: oneshot::Sender<Result<(), String>>,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(chain(&error)))),
        };
        runtime.block_on(async {
            let opened = VipSocket::connect().map_err(|error| chain(&error));
            let changes = Notifications::of_addresses().map_err(|error| chain(&error));
            match (opened, changes) {
                (Ok(socket), Ok(changes)) => {
                    let worker = Self {
                        handed,
                        report,
                        socket,
                        announcer: Announcer::default(),
                        election: Election::new(metrics.clone()),
                        renew_at: None,
                        held: BTreeSet::new(),
                        prevailed: BTreeMap::new(),
                        contested: Contested::new(metrics),
                        removals: Removals::default(),
                        moves: Moves::default(),
                        deciding: None,
                        fault: OngoingFault::default(),
                        retry_at: None,
                        retry: FIRST_RETRY,
                    };
                    let _ = started.send(Ok(()));
                    worker.hold(changes).await;
                }
                (Err(reason), _) | (_, Err(reason)) => drop(started.send(Err(reason))),
            }
        });
    }

    async fn hold(mut self, mut changes: Notifications) {
        loop {
            let announcement = self.announcer.next();
            let mut links_changed = false;
            tokio::select! {
                // VIPs that are handed over are not announced, and floods of changes hold up nothing else.
                biased;
                handed = self.handed.changed() => if handed.is_err() { return },
                () = self.election.changed() => {}
                () = at(announcement) => {
                    self.announcer.send_due(&self.held).await;
                    continue;
                }
                () = at(self.renew_at) => {
                    self.renew().await;
                    continue;
                }
                () = at(self.retry_at) => {}
                () = at(self.removals.deadline()) => self.removals.forget(Instant::now()),
                () = at(self.moves.deadline()) => {}
                change = changes.next() => {
                    links_changed = change.is_of_links();
                    self.removals.note_change(change);
                    // One comparison covers all changes so far, such as those of this thread's own steps.
                    while let Some(more) = changes.next().now_or_never() {
                        links_changed |= more.is_of_links();
                        self.removals.note_change(more);
                    }
                }
                mut news = self.contested.news() => {
                    let active = &self.election.standings().active;
                    let is_announced = self.moves.note_claims(&mut news, active, &self.held);
                    if !self.contested.act(news, &mut self.announcer).await && !is_announced {
                        continue;
                    }
                }
            }
            if links_changed {
                self.election.forget_links();
            }
            self.act().await;
            if links_changed {
                self.announcer.follow_links(&self.held).await;
            }
            self.contested.follow(&self.held, links_changed);
        }
    }

    /// Compares and acts, until the last handover is done or has failed.
    async fn act(&mut self) {
        loop {
            let Some(holding) = self.handed.borrow_and_update().clone() else {
                return;
            };
            match self.socket.addresses().await {
                Ok(observed) => {
                    if self.fault.ends() {
                        info!("addresses are read again");
                    }
                    self.apply(&holding, &observed).await;
                }
                Err(error) => {
                    let error = chain(&error);
                    if self.fault.begins(&error) {
                        error!(error, "cannot read addresses; VIPs stay as they are");
                    }
                    self.retry_later();
                }
            }
            if !self.handed.has_changed().unwrap_or(false) {
                return;
            }
        }
    }

    async fn apply(&mut self, handed: &Holding, observed: &BTreeMap<AddressKey, AddressConfig>) {
        let gone = handed.hold.keys();
        let gone = gone.filter(|key| !observed.contains_key(*key) && self.held.contains(*key));
        self.removals.follow(gone, Instant::now());
        let shape = self.moves.follow(&handed.routers, Instant::now());
        let candidates = shape
            .as_ref()
            .map_or(&handed.routers, |shape| &shape.candidates);
        let surroundings = Surroundings {
            observed,
            held: &self.held,
            removals: &self.removals,
            moves: &self.moves,
        };
        self.election.follow(&handed.hold, candidates, surroundings);
        let standings = self.election.standings();
        self.deciding = shape.map(|shape| shape.deciding);
        let deciding = self.deciding_of(handed);
        let holding = &*deciding;
        let unable = vips_of_failed(&standings, holding);
        let elected =
            (!holding.routers.is_empty()).then(|| self.elected(holding, observed, &standings));
        let holding = elected.as_ref().unwrap_or(holding);
        let Work {
            release,
            edit,
            add,
            moved,
        } = decide(holding, observed);
        // One that is handed over belongs to the successor: an announcement would divert its traffic to here.
        let handed_over = vips_of(&standings.handed_over, holding);
        self.held
            .retain(|key| observed.contains_key(key) && !handed_over.contains(key));
        let mut is_done = self.remove(&release).await;
        let unedited = self.edit(&edit).await;
        is_done &= unedited.is_empty();
        let unasked = unasked(&standings, holding, &self.moves);
        is_done &= self.add(add, &unasked).await;
        is_done &= self.remove(&moved).await;
        is_done &= unable.is_empty();
        self.report_added(&[], unadded_states(&unable));
        let problems = self.removals.problems_beside(self.contested.problems());
        let shown = self.moves.reported(&standings, &self.held);
        self.report(|report| report.set_standings(handed, &shown, &problems));
        self.report_present(holding, observed, &unedited).await;
        self.announce_prevailing(holding, &standings).await;
        if is_done {
            self.retry_at = None;
            self.retry = FIRST_RETRY;
        } else {
            self.retry_later();
        }
    }

    /// Leaves VIPs out that this machine does not hold, given its standings, and releases those that it has. What it is not known to
    /// be yet stays as it is.
    fn elected(
        &mut self,
        holding: &Holding,
        observed: &BTreeMap<AddressKey, AddressConfig>,
        standings: &Standings,
    ) -> Holding {
        let active = vips_of(&standings.active, holding);
        let standby = vips_of(&standings.standby, holding);
        let handed_over = vips_of(&standings.handed_over, holding);
        let kept = self.kept();
        let is_kept = |key: &AddressKey| kept.contains(key) && observed.contains_key(key);
        let mut elected = holding.clone();
        elected
            .hold
            .retain(|key, config| !config.expires || active.contains(key) || is_kept(key));
        // One that this machine had while it was alone does not expire.
        let is_present = |key: &&AddressKey| {
            let found = observed.get(*key);
            found.is_some_and(|found| found.expires || found.owner == Owner::Ours)
        };
        let present = standby.difference(&handed_over).filter(is_present);
        let released = present.filter(|key| !is_kept(key));
        elected.release.extend(released.cloned());
        let due = self.renew_at.unwrap_or_else(|| Instant::now() + RENEWAL);
        self.renew_at = (!active.is_empty() || !kept.is_empty()).then_some(due);
        self.report(|report| {
            for key in &standby {
                report.set(key, VipState::Standby);
            }
        });
        elected
    }

    /// What was handed over, with the virtual routers that decide while VIPs move.
    fn deciding_of<'h>(&self, handed: &'h Holding) -> Cow<'h, Holding> {
        self.deciding
            .as_ref()
            .map_or(Cow::Borrowed(handed), |routers| {
                Cow::Owned(Holding {
                    routers: routers.clone(),
                    ..handed.clone()
                })
            })
    }

    /// The VIPs that this machine has and keeps although it is on standby, until the director that takes them over has announced them.
    fn kept(&self) -> BTreeSet<AddressKey> {
        let unannounced = self.moves.unannounced().into_iter();
        let kept = unannounced.filter(|key| self.held.contains(*key));
        kept.cloned().collect()
    }

    /// Renews the VIPs that expire. One that is gone meanwhile is added by the next comparison.
    async fn renew(&mut self) {
        self.renew_at = None;
        let Some(holding) = self.handed.borrow().clone() else {
            return;
        };
        let active = &self.election.standings().active;
        let mut renewed = vips_of(active, &self.deciding_of(&holding));
        renewed.extend(self.kept());
        // Renewing would add one that another machine answers for.
        let held = renewed.iter().filter(|key| self.held.contains(*key));
        let renewed = held.filter_map(|key| {
            let (key, config) = holding.hold.get_key_value(key)?;
            let (key, config) = (key.clone(), *config);
            Some(NetworkStep::EditAddress { key, config })
        });
        let renewed: Vec<NetworkStep> = renewed.collect();
        self.renew_at = (!renewed.is_empty()).then(|| Instant::now() + RENEWAL);
        for (_, error) in self.execute(&renewed).await.failed {
            debug!(error, "a VIP is not renewed");
        }
    }

    /// Reports the VIPs that were there already. Announces those that an earlier process added, since it may have ended before
    /// it announced them.
    ///
    /// A VIP that could not be added and is there now was added by another program: it is not held.
    async fn report_present(
        &mut self,
        holding: &Holding,
        observed: &BTreeMap<AddressKey, AddressConfig>,
        unedited: &BTreeSet<AddressKey>,
    ) {
        let failed: BTreeSet<AddressKey> = self.report.borrow().failed().cloned().collect();
        let is_ours = |key: &AddressKey, found: &AddressConfig| {
            found.owner == Owner::Ours || self.held.contains(key) || !failed.contains(key)
        };
        let is_held = |key: &&AddressKey| {
            let found = observed.get(*key).filter(|_| !unedited.contains(*key));
            found.is_some_and(|found| is_ours(key, found))
        };
        let present: Vec<AddressKey> = holding.hold.keys().filter(is_held).cloned().collect();
        let fresh = present.iter().filter(|key| !self.held.contains(*key));
        let fresh: Vec<AddressKey> = fresh.cloned().collect();
        self.held.extend(fresh.iter().cloned());
        self.announcer.announce(fresh).await;
        let gone = holding.release.iter().chain(&holding.moved);
        let gone = gone.filter(|key| !observed.contains_key(key));
        self.report(|report| {
            for key in &present {
                report.set(key, VipState::Held);
            }
            for key in gone {
                report.set_released(key, Ok(()));
            }
        });
    }

    /// Announces the VIPs again that another director had too until this one prevailed: neighbours may have learnt its address.
    async fn announce_prevailing(&mut self, holding: &Holding, standings: &Standings) {
        let routers = standings.prevailed.iter();
        let news = routers.filter(|(key, count)| {
            let known = self.prevailed.get(*key).copied();
            known.unwrap_or_default() != **count
        });
        let vips = news.filter_map(|(key, _)| holding.routers.get(key));
        let vips = vips.flat_map(|router| &router.vips);
        let vips = vips.filter(|vip| self.held.contains(*vip)).cloned();
        let vips: Vec<AddressKey> = vips.collect();
        self.prevailed.clone_from(&standings.prevailed);
        self.announcer.announce(vips).await;
    }

    /// Adds the VIPs that no other machine answers for; returns whether all were added.
    ///
    /// A virtual router that knows the other directors takes over at once: its election stands for the probe.
    async fn add(
        &mut self,
        add: BTreeMap<AddressKey, AddressConfig>,
        elected: &BTreeSet<AddressKey>,
    ) -> bool {
        let (elected, mut free): (BTreeMap<_, _>, BTreeMap<_, _>) =
            add.into_iter().partition(|(key, _)| elected.contains(key));
        let is_done = self.add_free(&elected).await;
        if free.is_empty() {
            return is_done;
        }
        let mut taken = probe(free.keys()).await;
        // A pass may have ended meanwhile, or another director have taken over. The VIPs that are not wanted any more are left to the
        // next comparison; the others are added, however closely passes follow each other.
        self.retain_wanted(&mut free);
        taken.retain(|key, _| free.remove(key).is_some());
        let is_done = self.add_free(&free).await && is_done;
        self.report_added(&[], taken.iter().map(in_use).collect());
        if !taken.is_empty() {
            self.retry = self.retry.min(LAST_RETRY_IN_USE);
        }
        is_done && taken.is_empty()
    }

    /// Keeps the VIPs that the last handover has to hold, and no other director holds. After the end of the handle none is wanted.
    fn retain_wanted(&self, vips: &mut BTreeMap<AddressKey, AddressConfig>) {
        let last = self.handed.borrow();
        let Some(last) = last.as_ref().filter(|_| self.handed.has_changed().is_ok()) else {
            return vips.clear();
        };
        let standby = &self.election.standings().standby;
        let standby = vips_of(standby, &self.deciding_of(last));
        vips.retain(|key, config| last.hold.get(key) == Some(config) && !standby.contains(key));
    }

    /// Adds VIPs and announces them; returns whether all were added.
    async fn add_free(&mut self, add: &BTreeMap<AddressKey, AddressConfig>) -> bool {
        if add.is_empty() {
            return true;
        }
        let steps = add.iter().map(|(key, config)| NetworkStep::AddAddress {
            key: key.clone(),
            config: *config,
        });
        let steps: Vec<NetworkStep> = steps.collect();
        fault::named("adding-vips");
        let Executed {
            done: added,
            failed: unadded,
        } = self.execute(&steps).await;
        fault::named("vips-added");
        self.held.extend(added.iter().cloned());
        self.announce_added(&added).await;
        fault::named("vips-announced");
        self.report_added(&added, unadded_states(&unadded));
        fault::named("vips-reported");
        unadded.is_empty()
    }

    /// Announces VIPs that were just added, once this machine receives packets to them.
    async fn announce_added(&mut self, added: &[AddressKey]) {
        let all = added.iter().cloned();
        let (v4, v6): (Vec<_>, Vec<_>) = all.partition(|key| key.address.is_ipv4());
        self.announcer.announce(v4).await;
        let addresses = v6.iter().map(|key| key.address).collect();
        self.socket.wait_until_local(&addresses).await;
        self.announcer.announce(v6).await;
    }

    fn report_added(&mut self, added: &[AddressKey], failed: Vec<(AddressKey, VipState)>) {
        if added.is_empty() && failed.is_empty() {
            return;
        }
        // The log comes first: `run --once` ends as soon as the report has all VIPs.
        log_vips(added, "VIP added");
        self.log_news(
            failed
                .iter()
                .filter_map(|(key, state)| Some((key, state.failure()?))),
        );
        self.report(|report| {
            for key in added {
                report.set(key, VipState::Held);
            }
            for (key, state) in failed {
                report.set(&key, state);
            }
        });
    }

    /// Edits VIPs in place; returns those that could not be edited.
    async fn edit(&mut self, steps: &[NetworkStep]) -> BTreeSet<AddressKey> {
        if steps.is_empty() {
            return BTreeSet::new();
        }
        let Executed { failed, .. } = self.execute(steps).await;
        self.report_added(&[], unadded_states(&failed));
        failed.into_iter().map(|(key, _)| key).collect()
    }

    /// Logs the failures that the report does not have yet.
    fn log_news<'f>(&self, failed: impl Iterator<Item = (&'f AddressKey, &'f str)>) {
        let report = Arc::clone(&self.report.borrow());
        let news: Vec<_> = failed
            .filter(|(key, reason)| !report.has_failed(key, reason))
            .collect();
        log_limited(
            &news,
            |(_, reason)| error!("{reason}"),
            |more| warn!("{more} more VIPs failed"),
        );
    }

    /// Removes VIPs; returns whether all are gone.
    async fn remove(&mut self, steps: &[NetworkStep]) -> bool {
        if steps.is_empty() {
            return true;
        }
        fault::named("removing-vips");
        let Executed { done: gone, failed } = self.execute(steps).await;
        fault::named("vips-removed");
        let is_done = failed.is_empty();
        log_vips(&gone, "VIP removed");
        self.log_news(failed.iter().map(|(key, reason)| (key, reason.as_str())));
        self.report(|report| {
            for key in &gone {
                report.set_released(key, Ok(()));
            }
            for (key, reason) in failed {
                report.set_released(&key, Err(reason));
            }
        });
        for key in gone {
            self.held.remove(&key);
        }
        is_done
    }

    async fn execute(&mut self, steps: &[NetworkStep]) -> Executed {
        let mut executed = Executed::default();
        for batch in steps.chunks(fault::largest_batch().min(steps.len().max(1))) {
            fault::point();
            for step in batch {
                debug!(%step, "step");
            }
            let batch: Vec<&NetworkStep> = batch.iter().collect();
            let results = self.socket.execute(&batch).await;
            for (step, result) in batch.into_iter().zip(results) {
                executed.add(step, result.map_err(|error| chain(&error)));
            }
        }
        executed
    }

    fn report(&self, change: impl FnOnce(&mut HolderReport)) {
        report::publish(&self.report, |report| {
            let mut changed = HolderReport::clone(report);
            change(&mut changed);
            changed
        });
    }

    fn retry_later(&mut self) {
        self.retry_at = Some(Instant::now() + self.retry);
        self.retry = (self.retry * 2).min(LAST_RETRY);
    }
}

/// Logs what has happened to VIPs.
fn log_vips(keys: &[AddressKey], what: &str) {
    log_limited(
        keys,
        |key| info!(vip = %key.address, interface = %key.interface, "{what}"),
        |more| info!("{what}: {more} more"),
    );
}

/// Waits until a moment; forever if there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
