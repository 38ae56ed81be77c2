//! The holder of the VIPs that the network sees: a separate thread with its own sockets.
//!
//! A pass hands it the VIPs to hold and to release, all of which are in the ledger already. It probes for the missing ones,
//! adds them, announces them to the neighbours, restores those that another program removes, and removes the released
//! ones. A pass waits for it in one case only, and for a second at most: until it has removed VIPs whose services go too.

use std::{io, sync::Arc, thread, time::Duration};

use lvs_kernel::VipSocket;
use lvs_model::{AddressKey, Holding, SavedRouter};
use lvs_runtime::error::chain;
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use crate::pass::HoldVips;

mod announcer;
mod claim_watch;
mod conflicts;
mod contested;
mod decide;
mod elected;
mod election;
mod executed;
mod metrics;
mod moves;
mod problems;
mod removals;
mod report;
mod rivalry;
mod router;
mod routers;
mod worker;

pub(crate) use metrics::RouterMetrics;
pub(crate) use report::HolderReport;
#[cfg(feature = "kube")]
pub(crate) use report::{StandingState, VipState};
use worker::Worker;

/// How long `settled` waits: longer than a probe and an addition take on a slow kernel.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long a pass waits for the removal of VIPs before it removes their services.
const LONGEST_RELEASE: Duration = Duration::from_secs(1);

/// The thread could not be started, or it ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HolderError {
    /// The thread could not be created.
    #[error("starting the thread that holds VIPs")]
    Thread(#[source] io::Error),
    /// The thread ended before it was ready.
    #[error("the thread that holds VIPs did not start: {0}")]
    Start(String),
    /// The thread ended while it was needed.
    #[error("the thread that holds VIPs has ended")]
    Ended,
}

/// The handle to the thread. Dropping it ends the thread; the VIPs stay.
pub(crate) struct Holder {
    handed: watch::Sender<Option<Arc<Holding>>>,
    report: watch::Sender<Arc<HolderReport>>,
    /// Whether what was handed to it is what it went on with at the start.
    is_resumed: bool,
}

impl Holder {
    /// Starts the thread. It changes nothing before the first `hand_over`.
    pub(crate) async fn start(metrics: RouterMetrics) -> Result<Self, HolderError> {
        let (handed, to_hold) = watch::channel(None);
        let report = watch::Sender::new(Arc::default());
        let (started, starting) = oneshot::channel();
        let worker_report = report.clone();
        thread::Builder::new()
            .name("vip-holder".to_owned())
            .spawn(move || Worker::run(to_hold, worker_report, metrics, started))
            .map_err(HolderError::Thread)?;
        match starting.await {
            Ok(Ok(())) => Ok(Self {
                handed,
                report,
                is_resumed: false,
            }),
            Ok(Err(reason)) => Err(HolderError::Start(reason)),
            Err(_) => Err(HolderError::Start("it ended".to_owned())),
        }
    }

    /// Goes on with the VIPs that an agent held until now, before the first `hand_over`.
    pub(crate) async fn resume(&mut self, saved: Vec<SavedRouter>, is_on_standby: bool) {
        if saved.is_empty() {
            return;
        }
        let observed = async { VipSocket::connect()?.addresses().await };
        let observed = match observed.await {
            Ok(observed) => observed,
            Err(error) => {
                let error = chain(&error);
                return warn!(
                    error,
                    "cannot read addresses; VIPs may expire before the configuration is read"
                );
            }
        };
        let mut resumed = Holding::resumed(saved, &observed);
        if resumed.routers.is_empty() {
            return;
        }
        if is_on_standby {
            resumed.put_on_standby();
        }
        info!("holding VIPs as before this start, until the configuration is read");
        self.hand_over(resumed);
        self.is_resumed = true;
    }

    /// Subscribes to the holder's report.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<HolderReport>> {
        self.report.subscribe()
    }

    /// Waits until every VIP that was handed over is held, is released or has failed, and returns the report. The wait is
    /// limited: what is not settled then counts as failed.
    pub(crate) async fn settled(&self) -> Arc<HolderReport> {
        self.wait(LONGEST_WAIT, HolderReport::is_settled).await
    }

    /// Waits until the thread ends, which it does only by a fault.
    pub(crate) async fn ended(&self) -> HolderError {
        self.handed.closed().await;
        HolderError::Ended
    }

    async fn wait(
        &self,
        limit: Duration,
        is_reached: impl Fn(&HolderReport) -> bool,
    ) -> Arc<HolderReport> {
        let mut report = self.report.subscribe();
        let reached = report.wait_for(|report| is_reached(report));
        let _ = tokio::time::timeout(limit, reached).await;
        Arc::clone(&report.borrow())
    }
}

impl HoldVips for Holder {
    async fn release(&mut self, first: Holding) {
        self.is_resumed = false;
        report::publish(&self.report, |report| report.releasing(&first));
        self.handed.send_replace(Some(Arc::new(first)));
        self.wait(LONGEST_RELEASE, HolderReport::has_released).await;
    }

    fn hand_over(&mut self, holding: Holding) {
        self.is_resumed = false;
        report::publish(&self.report, |report| report.handed(&holding));
        self.handed.send_replace(Some(Arc::new(holding)));
    }

    fn give_way(&mut self) {
        if !self.is_resumed {
            return;
        }
        let resumed = self.handed.borrow().clone();
        if let Some(resumed) = resumed {
            info!("on standby: no configuration is in force");
            let mut standby = Arc::unwrap_or_clone(resumed);
            standby.put_on_standby();
            self.hand_over(standby);
        }
    }

    fn failed(&self) -> Vec<AddressKey> {
        self.report.borrow().failed().cloned().collect()
    }
}
