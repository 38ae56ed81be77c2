//! The loop: wait for one event, read what is wanted, make one pass, report.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use lvs_kernel::events;
use lvs_model::NodeName;
use lvs_runtime::error::chain;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{debug, error, info};

use crate::{
    holder::Holder,
    kernel::Kernel,
    pass::{Agent, Applied, HoldVips, PassError, Scope, Timing},
    probes::Probes,
    report,
    source::{Changes, Source, SourceError},
};

mod log;
mod publish;

use log::{Report, log, milliseconds, rejections};
use publish::Publishing;

/// The shortest time between two checks of the IPVS table.
const SHORTEST_CHECK: Duration = Duration::from_secs(5);
/// The longest.
const LONGEST_CHECK: Duration = Duration::from_secs(600);
/// A check may take this part of the time.
const CHECK_SHARE: u32 = 200;
/// How long to wait before another try after a failure, at first and at most.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// Changes of the network that come this close together are one.
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
    /// Signals cannot be noticed.
    #[error("watching for signals")]
    Signals(#[source] io::Error),
    /// Changes of the network cannot be noticed.
    #[error("watching for changes of addresses and links")]
    Network(#[source] events::EventError),
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
        "the configuration is read"
    );
    let Some(snapshot) = source.snapshot() else {
        return Ok(false);
    };
    let mut applied = agent.pass(node, &snapshot.view, Scope::Everything).await?;
    log(&applied, snapshot, None);
    let mut vips = agent.holder().settled().await;
    if applied.prepared.waits_for_holder {
        applied = agent.pass(node, &snapshot.view, Scope::Network).await?;
        log(&applied, snapshot, None);
        vips = agent.holder().settled().await;
    }
    let is_done = report::is_complete(&applied, &rejections(&applied, snapshot));
    Ok(is_done && vips.failures().next().is_none())
}

/// Runs until SIGTERM or SIGINT. The kernel goes on forwarding afterwards.
pub(crate) async fn run(
    node: &NodeName,
    agent: &mut Agent<impl Kernel, Holder>,
    source: &mut Source,
    probes: Arc<Probes>,
) -> Result<(), RunError> {
    let publishing = Publishing::start(source, agent.holder())?;
    let mut network = events::watch().map_err(RunError::Network)?;
    let mut stop = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let mut reload = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
    let mut vips = agent.holder().subscribe();
    let mut keeper = Keeper::new(node, publishing, probes);
    let mut scope = Scope::Everything;
    loop {
        keeper.reconcile(agent, source, scope).await;
        scope = tokio::select! {
            Ok(_) = vips.wait_for(|vips| vips.is_settled()), if keeper.is_unready() => {
                keeper.become_ready();
                Scope::default()
            }
            _ = stop.recv() => break,
            _ = interrupt.recv() => break,
            _ = reload.recv() => Scope::Everything,
            () = source.changed() => {
                let quiet = source.quiet();
                while within(quiet, source.changed()).await.is_some() {}
                Scope::default()
            }
            change = network.next() => {
                while within(QUIET, network.next()).await.is_some_and(|more| more.is_some()) {}
                debug!(?change, "the network changed");
                if change.is_none() {
                    network = events::watch().map_err(RunError::Network)?;
                }
                Scope::Network
            }
            () = tokio::time::sleep_until(keeper.next_check.into()) => Scope::Everything,
        };
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    source.finish().await;
    info!("stopped; the kernel goes on forwarding");
    Ok(())
}

/// What comes right after an event; `None` when all is quiet.
async fn within<T>(quiet: Duration, event: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(quiet, event).await.ok()
}

/// What the loop keeps between passes: what was logged last, and when to look again.
struct Keeper<'a> {
    node: &'a NodeName,
    publishing: Publishing,
    probes: Arc<Probes>,
    /// When the whole kernel is looked at, whatever happens before.
    next_check: Instant,
    /// Whether a pass was made; the agent is ready once the VIPs of the first one are held, or cannot be.
    has_passed: bool,
    is_ready: bool,
    last_report: Option<Report>,
    retry: Duration,
}

impl<'a> Keeper<'a> {
    fn new(node: &'a NodeName, publishing: Publishing, probes: Arc<Probes>) -> Self {
        Self {
            node,
            publishing,
            probes,
            next_check: Instant::now(),
            has_passed: false,
            is_ready: false,
            last_report: None,
            retry: FIRST_RETRY,
        }
    }

    /// Reads what is wanted, makes a pass, reports, and sets the time of the next check.
    async fn reconcile<H: HoldVips>(
        &mut self,
        agent: &mut Agent<impl Kernel, H>,
        source: &mut Source,
        scope: Scope,
    ) {
        let scope = self.widen(scope).and(read(agent, source));
        let Some(snapshot) = source.snapshot() else {
            return self.retry_later();
        };
        if scope.is_empty() {
            return;
        }
        self.probes.begin(Instant::now());
        let result = agent.pass(self.node, &snapshot.view, scope).await;
        let is_complete = result
            .as_ref()
            .is_ok_and(|applied| applied.outcomes.is_complete());
        self.probes.end(Instant::now(), is_complete);
        self.publishing.publish(source, result.as_ref());
        match result {
            Ok(applied) => self.finish(&applied, source),
            Err(error) => {
                error!(error = chain(&error), "the pass was not finished");
                self.retry_later();
            }
        }
    }

    /// A check that is due is not put off by events that keep coming.
    fn widen(&self, scope: Scope) -> Scope {
        if Instant::now() >= self.next_check {
            Scope::Everything
        } else {
            scope
        }
    }

    fn finish(&mut self, applied: &Applied, source: &Source) {
        let Some(snapshot) = source.snapshot() else {
            return;
        };
        self.last_report = Some(log(applied, snapshot, self.last_report));
        self.has_passed = true;
        if !applied.outcomes.is_complete() {
            return self.retry_later();
        }
        self.retry = FIRST_RETRY;
        if applied.prepared.scope == Scope::Everything {
            self.next_check = Instant::now() + pause_after(applied.timing);
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

/// Reads what is wanted; returns the scope of what has changed. What cannot be read has not changed.
fn read<H: HoldVips>(agent: &Agent<impl Kernel, H>, source: &mut Source) -> Scope {
    match source.read(agent.state()) {
        Ok(Changes::Services(names)) => Scope::Services(names),
        Ok(Changes::Anything) => Scope::Objects,
        Err(error) if error.is_waiting() => {
            info!("{error}");
            Scope::default()
        }
        Err(error) => {
            error!(
                error = chain(&error),
                "the configuration cannot be read; what was wanted stays wanted"
            );
            Scope::default()
        }
    }
}

/// How long to wait after a pass before the next check: by what looking costs, not by what there was to do.
fn pause_after(timing: Timing) -> Duration {
    (timing.prepare * CHECK_SHARE).clamp(SHORTEST_CHECK, LONGEST_CHECK)
}

/// Notifies systemd, where it started the agent.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "systemd was not notified");
    }
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
