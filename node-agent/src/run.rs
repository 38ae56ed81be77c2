//! The loop: wait for one event, make one pass, report.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use lvs_kernel::{
    announce::{self, Announcement},
    events,
};
use lvs_model::{InterfaceName, Outcome, Step};
use lvs_runtime::error::chain;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::AbortHandle,
};
use tracing::{debug, error, info, warn};

use crate::{
    pass::{Agent, Applied, Extent, PassError, Timing},
    probes::Probes,
    report,
    source::{Snapshot, Source, SourceError},
};

mod log;

use log::{Report, log, log_steps, milliseconds, rejections};

/// The shortest time between two checks of the IPVS table.
const SHORTEST_CHECK: Duration = Duration::from_secs(5);
/// The longest.
const LONGEST_CHECK: Duration = Duration::from_secs(600);
/// A check may take this part of the time.
const CHECK_SHARE: u32 = 200;
/// How long to wait before another try after a failure, at first and at most.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// Notices of the network that come this close together are one.
const QUIET: Duration = Duration::from_millis(20);

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// There is no configuration.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A pass could not be made.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// Changes cannot be noticed.
    #[error("watching for changes")]
    Watch(#[source] io::Error),
    /// Changes of the network cannot be noticed.
    #[error("watching for changes of addresses and links")]
    Monitor(#[source] events::MonitorError),
}

/// Makes one pass. Returns whether everything that was asked for is done.
pub(crate) async fn once(agent: &mut Agent, source: &mut Source) -> Result<bool, RunError> {
    let started = Instant::now();
    source.list().await?;
    let snapshot = source.read(agent.state())?;
    debug!(
        read_ms = milliseconds(started.elapsed()),
        "the configuration is read"
    );
    let applied = agent.pass(&snapshot.view, Extent::Whole).await?;
    log(&applied, &snapshot, None);
    // Once: whoever wants the repeats runs without --once.
    drop(announce(&applied, true).await);
    Ok(report::is_complete(
        &applied,
        &rejections(&applied, &snapshot),
    ))
}

/// Runs until SIGTERM or SIGINT. The kernel goes on forwarding afterwards.
pub(crate) async fn run(
    agent: &mut Agent,
    source: &mut Source,
    probes: Arc<Probes>,
) -> Result<(), RunError> {
    source.watch()?;
    let mut network = events::watch().map_err(RunError::Monitor)?;
    let mut stop = signal(SignalKind::terminate()).map_err(RunError::Watch)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Watch)?;
    let mut reload = signal(SignalKind::hangup()).map_err(RunError::Watch)?;
    let mut keeper = Keeper::new(probes);
    let mut extent = Extent::Whole;
    loop {
        keeper.keep(agent, source, extent).await;
        extent = tokio::select! {
            _ = stop.recv() => break,
            _ = interrupt.recv() => break,
            _ = reload.recv() => Extent::Whole,
            () = source.changed() => {
                let quiet = source.quiet();
                while within(quiet, source.changed()).await.is_some() {}
                Extent::Wanted
            }
            change = network.next() => {
                while within(QUIET, network.next()).await.is_some_and(|more| more.is_some()) {}
                debug!(?change, "the network changed");
                if change.is_none() {
                    network = events::watch().map_err(RunError::Monitor)?;
                }
                Extent::Network
            }
            () = tokio::time::sleep_until(keeper.next_check.into()) => Extent::Whole,
        };
    }
    keeper.stop_announcing();
    notify(&[sd_notify::NotifyState::Stopping]);
    source.finish().await;
    info!("stopped; the kernel goes on forwarding");
    Ok(())
}

/// What comes right after a notice; `None` when all is quiet.
async fn within<T>(quiet: Duration, notice: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(quiet, notice).await.ok()
}

/// What is kept between passes by the loop: what was last logged, and when to look again.
struct Keeper {
    probes: Arc<Probes>,
    /// When the whole of the kernel is looked at, whatever happens before.
    next_check: Instant,
    ready: bool,
    last_snapshot: Option<Snapshot>,
    last_report: Option<Report>,
    retry: Duration,
    announcing: Vec<AbortHandle>,
}

impl Keeper {
    fn new(probes: Arc<Probes>) -> Self {
        Self {
            probes,
            next_check: Instant::now(),
            ready: false,
            last_snapshot: None,
            last_report: None,
            retry: FIRST_RETRY,
            announcing: Vec::new(),
        }
    }

    /// Makes a pass and sets the time of the next check.
    async fn keep(&mut self, agent: &mut Agent, source: &mut Source, extent: Extent) {
        let started = Instant::now();
        // A check that is due is not put off by notices that keep coming.
        let extent = if started >= self.next_check {
            Extent::Whole
        } else {
            extent
        };
        if extent == Extent::Wanted && self.keep_part(agent, source).await {
            return;
        }
        match source.read(agent.state()) {
            Ok(snapshot) => self.last_snapshot = Some(snapshot),
            Err(error) if error.is_waiting() => info!("{error}"),
            Err(error) => {
                error!(
                    error = chain(&error),
                    "the configuration cannot be read; what was wanted stays wanted"
                );
            }
        }
        let Some(snapshot) = self.last_snapshot.take() else {
            return self.retry_later();
        };
        self.probes.begin(Instant::now());
        let result = agent.pass(&snapshot.view, extent).await;
        let is_complete = result
            .as_ref()
            .is_ok_and(|applied| applied.outcomes.is_complete());
        self.probes.end(Instant::now(), is_complete);
        source.report(result.as_ref());
        match result {
            Ok(applied) => self.finish(&applied, &snapshot, extent).await,
            Err(error) => {
                error!(error = chain(&error), "the pass was not finished");
                self.retry_later();
            }
        }
        self.last_snapshot = Some(snapshot);
    }

    /// Makes a pass over what has changed alone, where nothing else follows from it; returns whether it is done.
    async fn keep_part(&mut self, agent: &mut Agent, source: &mut Source) -> bool {
        let (Some(snapshot), Some(changed)) = (&mut self.last_snapshot, source.read_part()) else {
            return false;
        };
        if changed.is_empty() {
            return true;
        }
        self.probes.begin(Instant::now());
        let result = agent.pass_part(&changed).await;
        snapshot.view.services.extend(changed);
        match result {
            Ok(Some(applied)) => {
                self.probes.end(Instant::now(), true);
                source.report_part(&applied);
                log_steps(&applied);
                true
            }
            Ok(None) => false,
            Err(error) => {
                debug!(
                    error = chain(&error),
                    "a pass over what has changed was not finished"
                );
                false
            }
        }
    }

    async fn finish(&mut self, applied: &Applied, snapshot: &Snapshot, extent: Extent) {
        self.last_report = Some(log(applied, snapshot, self.last_report.as_ref()));
        if applied
            .prepared
            .plan
            .steps
            .iter()
            .any(|step| matches!(step, Step::RemoveAddress(_)))
        {
            self.stop_announcing();
        }
        let announcements = announce(applied, !self.ready).await;
        self.announcing.retain(|task| !task.is_finished());
        self.announcing
            .extend(announcements.into_iter().map(|announcement| {
                let repeated = tokio::spawn(async move {
                    if let Err(error) = announcement.repeat().await {
                        debug!(error = chain(&error), "an announcement was not repeated");
                    }
                });
                repeated.abort_handle()
            }));
        self.become_ready();
        if !applied.outcomes.is_complete() {
            return self.retry_later();
        }
        self.retry = FIRST_RETRY;
        if extent == Extent::Whole {
            self.next_check = Instant::now() + pause_after(applied.timing);
        }
    }

    /// Nobody announces what was given up.
    fn stop_announcing(&mut self) {
        self.announcing.drain(..).for_each(|task| task.abort());
    }

    fn retry_later(&mut self) {
        self.next_check = Instant::now() + self.retry;
        self.retry = (self.retry * 2).min(LAST_RETRY);
    }

    fn become_ready(&mut self) {
        if !self.ready {
            self.ready = true;
            self.probes.become_ready();
            notify(&[sd_notify::NotifyState::Ready]);
            info!("ready");
        }
    }
}

/// How long to wait after a pass before the next check: by what looking costs, not by what there was to do.
fn pause_after(timing: Timing) -> Duration {
    (timing.prepare * CHECK_SHARE).clamp(SHORTEST_CHECK, LONGEST_CHECK)
}

/// Tells systemd, where it started us.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "systemd was not told");
    }
}

/// Announces the VIPs that were just added; at the start all of them, since an earlier agent may have died before it did.
async fn announce(applied: &Applied, all: bool) -> Vec<Announcement> {
    let prepared = &applied.prepared;
    let mut by_interface: BTreeMap<&InterfaceName, Vec<IpAddr>> = BTreeMap::new();
    for (index, step) in prepared.plan.steps.iter().enumerate() {
        if let Step::AddAddress {
            key,
            announce: true,
            ..
        } = step
            && *applied.outcomes.of(index) == Outcome::Done
        {
            by_interface
                .entry(&key.interface)
                .or_default()
                .push(key.address);
        }
    }
    let present = prepared.desired.addresses.keys().filter(|key| {
        all && key.interface.as_str() != "lo"
            && !prepared.desired.links.contains_key(&key.interface)
            && prepared.observed.addresses.contains_key(key)
    });
    for key in present {
        by_interface
            .entry(&key.interface)
            .or_default()
            .push(key.address);
    }
    let mut announcements = Vec::new();
    for (interface, addresses) in by_interface {
        match announce::announce(interface, &addresses).await {
            Ok(announcement) => announcements.push(announcement),
            Err(error) => warn!(%interface, error = chain(&error), "cannot announce VIPs"),
        }
    }
    announcements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_before_a_check_follows_the_cost_of_looking_and_not_that_of_programming() {
        let timing = Timing {
            prepare: Duration::from_millis(100),
            ledger: Duration::from_secs(10),
            execute: Duration::from_secs(10),
        };
        assert_eq!(pause_after(timing), Duration::from_secs(20));
        assert_eq!(pause_after(Timing::default()), SHORTEST_CHECK);
    }
}
