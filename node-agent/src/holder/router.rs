//! One virtual router of this machine: it sends, listens, and logs what has changed.

use std::{io, net::IpAddr, time::Duration};

use lvs_kernel::{VrrpSocket, fault};
use lvs_model::RouterKey;
use lvs_runtime::error::chain;
use lvs_vrrp::{
    Action, BackupReason, Config, Event, Link, Machine, Observation, Packet, Priority, Start,
    State, Time,
};
use nix::time::{ClockId, clock_gettime};
use tracing::{debug, info, warn};

use super::{metrics::RouterMetrics, problems::Problems, rivalry::Rivalry};

mod settings;

use settings::config;
pub(super) use settings::{RouterError, Wanted, own_address};

/// How many packets an active router handles before it looks at its deadlines, so that a flood does not delay its advertisements.
const MOST_PACKETS_OF_ACTIVE: usize = 32;
/// The same for a router that is not active: all that the socket has room for. One of them may be the advertisement that it waits for.
const MOST_PACKETS_OF_BACKUP: usize = 4096;
/// How long a director keeps the VIPs that it has handed over: its successor advertises before it adds them, and meanwhile both forward.
const HAND_OVER_OVERLAP: Duration = Duration::from_millis(200);
/// For how long it reports itself as the active one after a hand-over, so that the report of its successor comes first: a controller that
/// knows of no active director would say that nothing serves.
const HAND_OVER_REPORT: Duration = Duration::from_secs(2);
/// The time before a director tries again to hand over VIPs that no other took.
const HAND_OVER_RETRY: Duration = Duration::from_secs(10);
/// The reason, in metrics, why an advertisement of a router that is none of the peers is refused.
const UNKNOWN_PEER: &str = "unknown_peer";

/// A virtual router of this machine: the state machine, its socket, and what this machine remembers of it.
pub(super) struct Router {
    machine: Machine,
    socket: VrrpSocket,
    metrics: RouterMetrics,
    /// Whether it is to be on standby.
    is_on_standby: bool,
    /// Whether it hands the VIPs over, or has done so.
    is_withdrawn: bool,
    /// Since when none of its packets could be sent.
    unsent_since: Option<Time>,
    /// Until when it is withdrawn because the others do not hear it.
    mute_until: Option<Time>,
    /// When it tries again to hand them over.
    hand_over_at: Option<Time>,
    /// Whether no other director has taken them.
    is_stranded: bool,
    /// Until when it keeps the VIPs that it has handed over.
    keeps_until: Option<Time>,
    /// Until when it is reported as active after a hand-over.
    reported_until: Option<Time>,
    /// Whether another director was heard, or this one goes on as the active one.
    is_acquainted: bool,
    rivalry: Rivalry,
    problems: Problems,
}

impl Router {
    /// Begins to take part. A router whose VIPs this machine has already goes on as the active one; if they are of an earlier process,
    /// unless another director has taken over.
    pub(super) fn start(
        key: &RouterKey,
        wanted: &Wanted,
        metrics: RouterMetrics,
    ) -> Result<Self, RouterError> {
        let config = config(key, wanted)?;
        let opened = VrrpSocket::open(&key.interface, key.family);
        let socket = opened.map_err(|source| RouterError::Socket {
            interface: key.interface.clone(),
            source,
        })?;
        let mut router = Self {
            machine: Machine::new(config)?,
            socket,
            metrics,
            is_on_standby: false,
            is_withdrawn: false,
            unsent_since: None,
            mute_until: None,
            hand_over_at: None,
            is_stranded: false,
            keeps_until: None,
            reported_until: None,
            is_acquainted: wanted.start != Start::Fresh,
            rivalry: Rivalry::default(),
            problems: Problems::default(),
        };
        router.follow_link(key, wanted.link);
        let actions = router.machine.handle(now(), Event::Start(wanted.start));
        router.act(key, actions);
        router.follow_standby(key, wanted);
        Ok(router)
    }

    /// Follows new settings. One that cannot keeps its old ones, and goes on following its link and being put on standby.
    pub(super) fn follow(&mut self, key: &RouterKey, wanted: &Wanted) -> Result<(), RouterError> {
        let configured = config(key, wanted).and_then(|config| self.configure(key, config));
        self.follow_link(key, wanted.link);
        self.follow_standby(key, wanted);
        configured
    }

    /// Ends. An active one resigns, so that another director takes over at once.
    pub(super) fn stop(mut self, key: &RouterKey) {
        let actions = self.machine.handle(now(), Event::Stop);
        self.act(key, actions);
    }

    /// Waits until a packet has arrived. Cancel-safe.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Handles some of the packets that have arrived, and then the deadlines that are due.
    pub(super) fn work(&mut self, key: &RouterKey) {
        self.receive(key);
        self.reach_deadlines(key, now());
        self.withdraw_or_take_back(key);
    }

    /// Whether it is active.
    pub(super) const fn state(&self) -> State {
        self.machine.state()
    }

    /// How often it has prevailed over another director that was active too.
    pub(super) const fn prevailed(&self) -> u32 {
        self.rivalry.prevailed()
    }

    /// Returns whether it has handed the VIPs over, and keeps them for a moment.
    pub(super) const fn keeps_vips(&self) -> bool {
        self.keeps_until.is_some()
    }

    /// Returns whether it is still reported as active after a hand-over.
    pub(super) const fn is_reported_active(&self) -> bool {
        self.reported_until.is_some()
    }

    /// Returns whether another director was heard, or this one goes on as the active one.
    pub(super) const fn is_acquainted(&self) -> bool {
        self.is_acquainted
    }

    fn configure(&mut self, key: &RouterKey, config: Config) -> Result<(), RouterError> {
        if *self.machine.config() == config {
            return Ok(());
        }
        let recipients = self.machine.config().recipients.clone();
        let actions = self.machine.configure(now(), config)?;
        if self.machine.config().recipients != recipients {
            // It may no longer hear those that it knew, and probes before it takes the VIPs over.
            self.is_acquainted = false;
        }
        self.act(key, actions);
        Ok(())
    }

    fn follow_link(&mut self, key: &RouterKey, link: Link) {
        let actions = self.machine.handle(now(), Event::Link(link));
        self.act(key, actions);
    }

    /// Is put on standby, or becomes a candidate again.
    fn follow_standby(&mut self, key: &RouterKey, wanted: &Wanted) {
        self.is_on_standby = wanted.router.candidacy.standby;
        self.withdraw_or_take_back(key);
    }

    /// When it has something to do, whatever arrives before.
    pub(super) fn deadline(&self) -> Option<Time> {
        let own = self.hand_over_at.into_iter().chain(self.keeps_until);
        let own = own.chain(self.reported_until).chain(self.mute_until);
        let own = own.chain(self.rivalry.deadline());
        let own = own.chain(self.problems.deadline());
        own.chain(self.machine.deadline()).min()
    }

    fn reach_deadlines(&mut self, key: &RouterKey, now: Time) {
        let is_due = |deadline: Option<Time>| deadline.is_some_and(|deadline| deadline <= now);
        self.problems.forget(now);
        if is_due(self.keeps_until) {
            self.keeps_until = None;
        }
        if is_due(self.reported_until) {
            self.reported_until = None;
        }
        if is_due(self.mute_until) {
            self.mute_until = None;
        }
        if is_due(self.rivalry.deadline()) {
            self.rivalry.prevail(now);
        }
        if is_due(self.hand_over_at) {
            self.hand_over_at = None;
            let actions = self.machine.handle(now, Event::HandOver);
            self.act(key, actions);
        }
        if is_due(self.machine.deadline()) {
            let actions = self.machine.handle(now, Event::Deadline);
            self.act(key, actions);
        }
    }

    /// What is wrong, for the status.
    pub(super) fn problem(&self) -> Option<String> {
        let stranded = self.is_stranded.then_some(Observation::HandOverFailed);
        let stranded = stranded.map(|observation| observation.to_string());
        stranded.or_else(|| self.problems.text())
    }

    /// Hands the VIPs over if it is to be on standby or cannot be heard, or becomes a candidate for them again.
    fn withdraw_or_take_back(&mut self, key: &RouterKey) {
        let is_withdrawn = self.is_on_standby || self.mute_until.is_some();
        if is_withdrawn == self.is_withdrawn {
            return;
        }
        self.is_withdrawn = is_withdrawn;
        self.hand_over_at = None;
        self.is_stranded = false;
        let event = if is_withdrawn {
            Event::HandOver
        } else {
            Event::TakeBack
        };
        let actions = self.machine.handle(now(), event);
        self.act(key, actions);
    }

    /// Handles packets that have arrived.
    fn receive(&mut self, key: &RouterKey) {
        let most = match self.machine.state() {
            State::Active => MOST_PACKETS_OF_ACTIVE,
            State::Backup | State::Resuming | State::Initialize => MOST_PACKETS_OF_BACKUP,
        };
        for _ in 0..most {
            let packet = match self.socket.take() {
                Ok(Some(packet)) => packet,
                Ok(None) => return,
                Err(error) => {
                    debug!(interface = %key.interface, %error, "cannot receive VRRP");
                    return;
                }
            };
            let packet = Packet {
                source: packet.source,
                destination: packet.destination,
                hop_limit: packet.hop_limit,
                payload: &packet.payload,
            };
            match packet.parse() {
                Ok(received) if received.advertisement.vrid == self.machine.key().vrid => {
                    if self.machine.hears(received.source) {
                        self.is_acquainted = true;
                    } else {
                        self.metrics.refuse(key, &UNKNOWN_PEER);
                    }
                    let actions = self.machine.handle(now(), Event::Received(received));
                    self.act(key, actions);
                }
                Ok(_of_another_router) => {}
                Err(error) => {
                    self.metrics.refuse(key, &error.kind());
                    debug!(interface = %key.interface, source = %packet.source, %error, "a VRRP packet is refused");
                }
            }
        }
    }

    /// Sends, and logs what has changed. The VIPs follow the state.
    fn act(&mut self, key: &RouterKey, actions: Vec<Action>) {
        let is_takeover = |action: &Action| matches!(action, Action::BecomeActive(_));
        if actions.iter().any(is_takeover) {
            fault::named("taking-over");
        }
        for action in actions {
            match action {
                Action::SendAdvertisement { priority, to } => {
                    let is_resignation = priority.is_none();
                    if is_resignation {
                        fault::named("resigning");
                    }
                    for destination in to {
                        self.send(key, priority, destination);
                    }
                    if is_resignation {
                        fault::named("resigned");
                    }
                }
                Action::BecomeActive(reason) => {
                    fault::named("advertised");
                    (self.keeps_until, self.reported_until) = (None, None);
                    self.hand_over_at = self.is_withdrawn.then(|| now() + HAND_OVER_RETRY);
                    self.metrics.set_active(key, true);
                    info!(interface = %key.interface, router = key.router_id, "active: {reason}");
                }
                Action::BecomeBackup(reason) => {
                    self.is_stranded = false;
                    let is_handed_over = matches!(reason, BackupReason::HandedOver { .. });
                    if is_handed_over {
                        fault::named("handed-over");
                    }
                    self.keeps_until = is_handed_over.then(|| now() + HAND_OVER_OVERLAP);
                    self.reported_until = is_handed_over.then(|| now() + HAND_OVER_REPORT);
                    self.metrics.set_active(key, false);
                    info!(interface = %key.interface, router = key.router_id, "standby: {reason}");
                }
                Action::Report(observation) => self.report(key, observation),
            }
        }
    }

    fn report(&mut self, key: &RouterKey, observation: Observation) {
        if observation == Observation::HandOverFailed {
            self.hand_over_at = Some(now() + HAND_OVER_RETRY);
            if std::mem::replace(&mut self.is_stranded, true) {
                return;
            }
        }
        let is_rival = matches!(observation, Observation::TwoActives { .. });
        if is_rival && self.machine.state() == State::Active {
            self.rivalry.meet(now());
        }
        let interval = self.machine.config().interval.duration();
        if let Some(observation) = self.problems.note(observation, now(), interval) {
            warn!(interface = %key.interface, router = key.router_id, "{observation}");
        }
    }

    fn send(&mut self, key: &RouterKey, priority: Option<Priority>, destination: IpAddr) {
        let advertisement = self.machine.advertisement(priority);
        let config = self.machine.config();
        let sent = advertisement
            .encode(config.source, destination, config.checksum)
            .map_err(|error| chain(&error))
            .and_then(|bytes| {
                let sent = self.socket.send(config.source, destination, &bytes);
                sent.map_err(|error| error.to_string())
            });
        if let Err(error) = &sent {
            debug!(interface = %key.interface, error, "cannot send VRRP");
        }
        self.note_sent(key, sent.is_ok());
    }

    /// A router that cannot send for an interval gives way to the one that will take over: its own address may be gone.
    fn note_sent(&mut self, key: &RouterKey, is_sent: bool) {
        if is_sent {
            (self.unsent_since, self.mute_until) = (None, None);
            return;
        }
        let now = now();
        let since = *self.unsent_since.get_or_insert(now);
        if now.since(since) < self.machine.config().interval.duration() {
            return;
        }
        if self.mute_until.is_none() {
            warn!(interface = %key.interface, router = key.router_id, "cannot send VRRP: gives way to another director");
        }
        self.mute_until = Some(now + HAND_OVER_RETRY);
    }
}

/// The time since the machine was started, suspended times included.
pub(super) fn now() -> Time {
    let found = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    Time::since_epoch(found.unwrap_or_default())
}
