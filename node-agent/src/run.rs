//! The main loop: wait for an event, read the configuration, make one pass, report.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use lvs_kernel::events::{EventError, NetworkChange, Notifications};
use lvs_model::NodeName;
use lvs_runtime::error::chain;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};
use tracing::{debug, error, info};

use crate::{
    file_watch::watch,
    holder::{Holder, HolderError},
    kernel::Kernel,
    log_limit::OngoingFault,
    pass::{Agent, Applied, HoldVips, PassError, RoutesUsed, Scope, Timing},
    probes::Probes,
    report,
    source::{Changes, Source, SourceError},
};

mod log;
mod publish;

use log::{Report, log, milliseconds, rejections};
use publish::Publishing;

/// The shortest and the longest pause before a drift check.
const SHORTEST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// The pause before a drift check, as a multiple of the time that the last pass took to read and decide.
const PAUSE_FACTOR: u32 = 200;
/// The first and the longest delay before a retry.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// Network changes that follow each other this closely cause one pass.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// How long changes are gathered at most, however closely they follow each other.
const LONGEST_GATHERING: Duration = Duration::from_millis(200);

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The configuration could not be read or watched.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A pass failed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// Signals cannot be watched.
    #[error("watching for signals")]
    Signals(#[source] io::Error),
    /// The request to be on standby cannot be watched.
    #[error("watching the state directory")]
    Standby(#[source] io::Error),
    /// Network changes cannot be watched.
    #[error("watching for changes of addresses and links")]
    Network(#[source] EventError),
    /// VIPs are no longer held.
    #[error(transparent)]
    Holder(#[from] HolderError),
}

/// Makes one pass. Returns whether everything that was asked for is done.
pub(crate) async fn once(
    node: &NodeName,
    agent: &mut Agent<impl Kernel, Holder>,
    source: &mut Source,
) -> Result<bool, RunError> {
    let started = Instant::now();
    source.list().await?;
    source.read(agent.state())?;
    debug!(
        read_ms = milliseconds(started.elapsed()),
        "read the configuration"
    );
    let Some(snapshot) = source.snapshot() else {
        return Ok(false);
    };
    let mut applied = agent.pass(node, &snapshot.view, Scope::Everything).await?;
    log(&applied, snapshot, &Report::default(), || false);
    let mut vips = agent.holder().settled().await;
    if applied.prepared.waits_for_holder {
        applied = agent.pass(node, &snapshot.view, Scope::Network).await?;
        log(&applied, snapshot, &Report::default(), || false);
        vips = agent.holder().settled().await;
    }
    agent.forget_failed().map_err(PassError::from)?;
    let is_done = report::is_complete(&applied, &rejections(&applied, snapshot));
    Ok(is_done && vips.failures().next().is_none())
}

/// Runs until SIGTERM or SIGINT. The kernel keeps forwarding afterwards.
pub(crate) async fn run(
    node: &NodeName,
    agent: &mut Agent<impl Kernel, Holder>,
    source: &mut Source,
    probes: Arc<Probes>,
) -> Result<(), RunError> {
    let publishing = Publishing::start(source, agent.holder())?;
    let mut network = NetworkChanges::watch()?;
    let mut standby = watch(&[agent.state().standby_request()]).map_err(RunError::Standby)?;
    let mut end = EndSignals::watch()?;
    let mut reload = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
    let mut vips = agent.holder().subscribe();
    let mut reconciler = Reconciler::new(node, publishing, probes);
    reconciler.reconcile(agent, source, Scope::Everything).await;
    reconciler.publishing.watch(source);
    loop {
        network.follow(agent);
        let event = async {
            Ok(tokio::select! {
                Ok(_) = vips.wait_for(|vips| vips.is_settled()), if reconciler.is_unready() => {
                    reconciler.become_ready();
                    Scope::default()
                }
                ended = agent.holder().ended() => return Err(RunError::from(ended)),
                _ = reload.recv() => Scope::Everything,
                () = source.changed() => {
                    gather(source.debounce(), async || source.changed().await).await;
                    Scope::default()
                }
                Some(_) = standby.next() => Scope::Network,
                change = network.next() => {
                    gather(DEBOUNCE, async || {
                        network.next().await;
                    })
                    .await;
                    debug!(?change, "the network changed");
                    Scope::Network
                }
                // The drift check. IPVS and sysctls send no notifications, so a pass over everything looks for drift.
                () = tokio::time::sleep_until(reconciler.next_check.into()) => Scope::Everything,
            })
        };
        let Some(scope) = unless(end.recv(), event).await else {
            break;
        };
        reconciler.reconcile(agent, source, scope?).await;
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    agent.forget_failed().map_err(PassError::from)?;
    source.finish().await;
    info!("stopped; the kernel goes on forwarding");
    Ok(())
}

/// The changes of the network that concern the agent.
struct NetworkChanges {
    network: Notifications,
    /// Watched only while the agent has nft tables, since it makes the kernel load nftables.
    masquerade: Option<Notifications>,
    /// The addresses whose routes the last pass has used.
    routes_used: RoutesUsed,
}

impl NetworkChanges {
    fn watch() -> Result<Self, RunError> {
        Ok(Self {
            network: Notifications::of_network().map_err(RunError::Network)?,
            masquerade: None,
            routes_used: RoutesUsed::default(),
        })
    }

    /// Watches what concerns the agent after a pass.
    fn follow(&mut self, agent: &Agent<impl Kernel, impl HoldVips>) {
        self.routes_used = agent.routes_used();
        if !agent.has_nft_tables() {
            self.masquerade = None;
        } else if self.masquerade.is_none() {
            let opened = Notifications::of_masquerade();
            self.masquerade = opened
                .inspect_err(|error| debug!(error = chain(error), "nftables are not watched"))
                .ok();
        }
    }

    /// Returns the next change that concerns the agent.
    async fn next(&mut self) -> NetworkChange {
        loop {
            let masquerade = async {
                match &mut self.masquerade {
                    Some(changes) => changes.next().await,
                    None => std::future::pending().await,
                }
            };
            let change = tokio::select! {
                change = self.network.next() => change,
                change = masquerade => change,
            };
            if self.routes_used.needs_pass(change) {
                return change;
            }
        }
    }
}

/// The signals that end the agent.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    fn watch() -> Result<Self, RunError> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(RunError::Signals)?,
            interrupt: signal(SignalKind::interrupt()).map_err(RunError::Signals)?,
        })
    }

    /// Waits for one of them. Cancel-safe.
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for an event. Returns `None` as soon as the end comes, before the event or at the same time.
async fn unless<T>(end: impl Future<Output = ()>, event: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = end => None,
        event = event => Some(event),
    }
}

/// Waits until no further event has come for `pause`, for a limited time.
async fn gather(pause: Duration, mut next: impl AsyncFnMut()) {
    let all = async { while timeout(pause, next()).await.is_ok() {} };
    let _ = timeout(LONGEST_GATHERING, all).await;
}

/// Reads the configuration and makes passes; keeps what the loop needs between passes.
struct Reconciler<'a> {
    node: &'a NodeName,
    publishing: Publishing,
    probes: Arc<Probes>,
    /// When the next pass over everything is due, whatever happens before.
    next_check: Instant,
    /// Whether a pass was made. The agent is ready once the VIPs of the first one are held or have failed.
    has_passed: bool,
    is_ready: bool,
    last_report: Report,
    /// Why passes fail.
    fault: OngoingFault,
    /// Why the configuration cannot be read.
    unread: OngoingFault,
    retry: Duration,
}

impl<'a> Reconciler<'a> {
    fn new(node: &'a NodeName, publishing: Publishing, probes: Arc<Probes>) -> Self {
        Self {
            node,
            publishing,
            probes,
            next_check: Instant::now(),
            has_passed: false,
            is_ready: false,
            last_report: Report::default(),
            fault: OngoingFault::default(),
            unread: OngoingFault::default(),
            retry: FIRST_RETRY,
        }
    }

    /// Reads the configuration, makes a pass, reports, and schedules the next check.
    async fn reconcile<H: HoldVips>(
        &mut self,
        agent: &mut Agent<impl Kernel, H>,
        source: &mut Source,
        scope: Scope,
    ) {
        let scope = self.widen(scope).and(self.read(agent, source));
        self.probes.set_unfit(source.unfit());
        let Some(snapshot) = source.snapshot() else {
            agent.holder().give_way();
            return self.retry_later();
        };
        if scope.is_empty() {
            return;
        }
        self.probes.begin(Instant::now());
        let result = agent.pass(self.node, &snapshot.view, scope).await;
        let is_complete = result.as_ref().is_ok_and(Applied::is_complete);
        self.probes.end(Instant::now(), is_complete);
        self.publishing.publish(source, result.as_ref());
        match result {
            Ok(applied) => self.finish(&applied, source, || !agent.holder().failed().is_empty()),
            Err(error) => {
                let error = chain(&error);
                if self.fault.begins(&error) {
                    error!(
                        error,
                        "the pass failed; it is retried, and the kernel stays as it is"
                    );
                }
                agent.holder().give_way();
                self.retry_later();
            }
        }
    }

    /// Reads the configuration; returns the scope of the changes, which is empty if it cannot be read.
    fn read<H: HoldVips>(&mut self, agent: &Agent<impl Kernel, H>, source: &mut Source) -> Scope {
        let changes = match source.read(agent.state()) {
            Ok(changes) => changes,
            Err(error) => {
                let is_waiting = error.is_waiting();
                let error = chain(&error);
                match (self.unread.begins(&error), is_waiting) {
                    (false, _) => {}
                    (true, true) => info!("{error}"),
                    (true, false) => error!(
                        error,
                        "the configuration cannot be read; the last one stays in force"
                    ),
                }
                return Scope::default();
            }
        };
        if self.unread.ends() {
            info!("the configuration is read again");
        }
        match changes {
            Changes::Services(names) => Scope::Services(names),
            Changes::Anything => Scope::Objects,
        }
    }

    /// Widens the scope to everything once a check is due, so that frequent events cannot postpone it.
    fn widen(&self, scope: Scope) -> Scope {
        if Instant::now() >= self.next_check {
            Scope::Everything
        } else {
            scope
        }
    }

    fn finish(&mut self, applied: &Applied, source: &Source, vips_failed: impl FnOnce() -> bool) {
        let Some(snapshot) = source.snapshot() else {
            return;
        };
        if self.fault.ends() {
            info!("the pass succeeded again");
        }
        self.last_report = log(applied, snapshot, &self.last_report, vips_failed);
        self.has_passed = true;
        if applied.is_complete() {
            self.retry = FIRST_RETRY;
            if applied.prepared.scope == Scope::Everything {
                self.next_check = Instant::now() + pause_after(applied.timing);
            }
        } else {
            self.retry_later();
        }
        if let Some(next) = applied.prepared.next_pass {
            self.next_check = self.next_check.min(Instant::now() + next);
        }
    }

    fn retry_later(&mut self) {
        self.next_check = Instant::now() + self.retry;
        self.retry = (self.retry * 2).min(LAST_RETRY);
    }

    const fn is_unready(&self) -> bool {
        self.has_passed && !self.is_ready
    }

    fn become_ready(&mut self) {
        self.is_ready = true;
        self.probes.become_ready();
        notify(&[sd_notify::NotifyState::Ready]);
        info!("ready");
    }
}

/// How long to wait after a pass before the next check. It follows the cost of reading and deciding, not of programming.
fn pause_after(timing: Timing) -> Duration {
    (timing.prepare * PAUSE_FACTOR).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// Notifies systemd, if it started the agent.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "systemd was not notified");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_before_a_check_follows_the_cost_of_reading_not_of_programming() {
        let timing = Timing {
            prepare: Duration::from_millis(100),
            ledger: Duration::from_secs(10),
            execute: Duration::from_secs(10),
        };
        assert_eq!(pause_after(timing), Duration::from_secs(20));
        assert_eq!(pause_after(Timing::default()), SHORTEST_PAUSE);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn the_end_is_noticed_while_changes_are_gathered() {
        const EARLY: Duration = Duration::from_millis(50);
        let start = tokio::time::Instant::now();
        let endless = || gather(DEBOUNCE, async || tokio::time::sleep(DEBOUNCE / 2).await);
        assert_eq!(unless(tokio::time::sleep(EARLY), endless()).await, None);
        assert_eq!(start.elapsed(), EARLY);

        assert_eq!(unless(std::future::pending(), endless()).await, Some(()));
        assert_eq!(start.elapsed(), EARLY + LONGEST_GATHERING);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_end_comes_before_an_event_of_the_same_moment() {
        for _ in 0..100 {
            let both = unless(async {}, async {});
            assert_eq!(both.await, None);
        }
    }
}
