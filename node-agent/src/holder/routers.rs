//! The virtual routers of this machine: with each, the directors of a group agree who holds some VIPs.
//!
//! They run on a thread of their own, see `election`. The holder adds the VIPs of those that are active, and removes the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::Duration,
};

use futures::future::select_all;
use lvs_kernel::{VrrpSocket, fault};
use lvs_model::{
    AddressConfig, AddressKey, Family, InterfaceName, Owner, RouterKey, VirtualRouter,
};
use lvs_runtime::error::chain;
use lvs_vrrp::{
    Action, Addresses, AddressesError, BackupReason, Config, ConfigError, Event, Interval,
    IntervalError, Ipv4Checksum, Link, Machine, Observation, Packet, Preemption, Priority,
    PriorityError, Recipients, Start, State, Time, Vrid, VridError,
};
use nix::time::{ClockId, clock_gettime};
use tracing::{debug, info, warn};

use super::{metrics::RouterMetrics, problems::Problems, rivalry::Rivalry};

/// How many packets an active router handles before it looks at its deadlines, so that a flood does not delay its advertisements.
const MOST_PACKETS_OF_ACTIVE: usize = 32;
/// The same for a backup: all that the socket has room for. One of them may be the advertisement that it waits for.
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

/// Why a virtual router cannot take part.
#[derive(Debug, thiserror::Error)]
pub(super) enum RouterError {
    /// The interface has no address to send from.
    #[error("{0} has no address of its own to send VRRP advertisements from")]
    NoSource(InterfaceName),
    /// The group gives this machine no address to send from.
    #[error(
        "`spec.failover.unicast` of the DirectorGroup must give this machine an {0} address, since the group has {0} VIPs"
    )]
    NotListed(Family),
    /// The interface does not have the address that the group gives.
    #[error(
        "{interface} does not have {address}, the address of this machine in `spec.failover.unicast` of the DirectorGroup"
    )]
    NotOwn {
        /// The interface.
        interface: InterfaceName,
        /// The address.
        address: IpAddr,
    },
    /// The socket cannot be opened.
    #[error("opening a socket for VRRP on {interface}")]
    Socket {
        /// The interface.
        interface: InterfaceName,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The id is 0.
    #[error(transparent)]
    Vrid(#[from] VridError),
    /// The priority is 0.
    #[error(transparent)]
    Priority(#[from] PriorityError),
    /// The interval cannot be advertised.
    #[error(transparent)]
    Interval(#[from] IntervalError),
    /// The VIPs cannot be advertised.
    #[error(transparent)]
    Addresses(#[from] AddressesError),
    /// The settings do not go together.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// What the thread of the virtual routers is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Instructions {
    /// The virtual routers to take part in.
    pub wanted: BTreeMap<RouterKey, Wanted>,
    /// Those that have ended because this machine is the only director left and keeps the VIPs.
    pub kept: BTreeSet<RouterKey>,
}

/// A virtual router, and what is known about this machine at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The router.
    pub router: VirtualRouter,
    /// The address that it sends from. `None`: the interface has none, or not the one that the group gives.
    pub source: Option<IpAddr>,
    /// Whether this machine has its VIPs already: an earlier process was active.
    pub is_held: bool,
    /// The state of the interface.
    pub link: Link,
}

/// What this machine is in each of its virtual routers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standings {
    /// Where it is active.
    pub active: BTreeSet<RouterKey>,
    /// Where it is active and has not heard any other director: one that does not take part may have the VIPs.
    pub alone: BTreeSet<RouterKey>,
    /// Where it is on standby.
    pub standby: BTreeSet<RouterKey>,
    /// Where it is on standby since a moment ago and keeps the VIPs until its successor has surely added them.
    pub handed_over: BTreeSet<RouterKey>,
    /// Where it is on standby and is still to be reported as active.
    pub reported_active: BTreeSet<RouterKey>,
    /// How often it has prevailed over another director that was active too, where it is active.
    pub prevailed: BTreeMap<RouterKey, u32>,
    /// Where it cannot take part, and why.
    pub failed: BTreeMap<RouterKey, String>,
    /// What is wrong where it takes part.
    pub problems: BTreeMap<RouterKey, String>,
}

/// The virtual routers of this machine.
pub(super) struct Routers {
    metrics: RouterMetrics,
    routers: BTreeMap<RouterKey, Router>,
    /// Those that cannot take part, and why.
    failed: BTreeMap<RouterKey, String>,
}

struct Router {
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

impl Routers {
    /// None yet.
    pub(super) const fn new(metrics: RouterMetrics) -> Self {
        Self {
            metrics,
            routers: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Starts, configures and stops routers. One whose VIPs this machine keeps ends without a word: to resign would make a director
    /// that has not yet learnt that it is none any more take them over.
    pub(super) fn follow(&mut self, Instructions { wanted, kept }: &Instructions) {
        let gone = |key: &RouterKey, _: &mut Router| !wanted.contains_key(key);
        for (key, mut router) in self.routers.extract_if(.., gone) {
            if kept.contains(&key) {
                info!(interface = %key.interface, router = key.router_id, "the only director left: the VIPs stay");
                self.metrics.remove(&key);
                continue;
            }
            let actions = router.machine.handle(now(), Event::Stop);
            router.act(&key, actions);
            self.metrics.remove(&key);
        }
        let known = std::mem::take(&mut self.failed);
        for (key, wanted) in wanted {
            if let Err(error) = self.follow_one(key, wanted) {
                let error = chain(&error);
                // If it does not run, its VIPs fail, which is logged.
                if self.routers.contains_key(key) && known.get(key) != Some(&error) {
                    warn!(interface = %key.interface, router = key.router_id, error, "keeps its earlier settings");
                }
                self.failed.insert(key.clone(), error);
            }
        }
    }

    /// A router whose VIPs this machine has already goes on as the active one. One that cannot follow new settings keeps its old ones,
    /// and goes on following its link and being put on standby.
    fn follow_one(&mut self, key: &RouterKey, wanted: &Wanted) -> Result<(), RouterError> {
        let config = config(key, wanted);
        if let Some(router) = self.routers.get_mut(key) {
            let configured = config.and_then(|config| router.configure(key, config));
            router.follow_link(key, wanted.link);
            router.follow_standby(key, wanted);
            return configured;
        }
        let config = config?;
        let opened = VrrpSocket::open(&key.interface, key.family);
        let socket = opened.map_err(|source| RouterError::Socket {
            interface: key.interface.clone(),
            source,
        })?;
        let mut router = Router {
            machine: Machine::new(config)?,
            socket,
            metrics: self.metrics.clone(),
            is_on_standby: false,
            is_withdrawn: false,
            unsent_since: None,
            mute_until: None,
            hand_over_at: None,
            is_stranded: false,
            keeps_until: None,
            reported_until: None,
            is_acquainted: wanted.is_held,
            rivalry: Rivalry::default(),
            problems: Problems::default(),
        };
        let start = if wanted.is_held {
            Start::Resume
        } else {
            Start::Fresh
        };
        router.follow_link(key, wanted.link);
        let actions = router.machine.handle(now(), Event::Start(start));
        router.act(key, actions);
        router.follow_standby(key, wanted);
        self.routers.insert(key.clone(), router);
        Ok(())
    }

    /// Waits until a router has something to do. Cancel-safe.
    pub(super) async fn wait(&self) {
        if self.routers.is_empty() {
            return std::future::pending().await;
        }
        let deadlines = self.routers.values();
        let deadline = deadlines.filter_map(Router::deadline).min();
        let until_deadline = async {
            match deadline {
                Some(deadline) => tokio::time::sleep(deadline.since(now())).await,
                None => std::future::pending().await,
            }
        };
        let readable = self.routers.values();
        let readable = readable.map(|router| Box::pin(router.socket.readable()));
        tokio::select! {
            () = until_deadline => {}
            _ = select_all(readable) => {}
        }
    }

    /// Handles some of the packets that have arrived, and then the deadlines that are due.
    pub(super) fn work(&mut self) {
        for (key, router) in &mut self.routers {
            router.receive(key);
            router.reach_deadlines(key, now());
            router.withdraw_or_take_back(key);
        }
    }

    /// What this machine is in each of them.
    pub(super) fn standings(&self) -> Standings {
        let mut standings = Standings {
            failed: self.failed.clone(),
            ..Standings::default()
        };
        for (key, router) in &self.routers {
            let set = match router.machine.state() {
                State::Active => &mut standings.active,
                State::Backup | State::Initialize => &mut standings.standby,
            };
            set.insert(key.clone());
            if router.machine.state() == State::Active {
                let prevailed = router.rivalry.prevailed();
                standings.prevailed.insert(key.clone(), prevailed);
            }
            if router.keeps_until.is_some() {
                standings.handed_over.insert(key.clone());
            }
            if router.reported_until.is_some() {
                standings.reported_active.insert(key.clone());
            }
            let problem = router.problem().map(|problem| (key.clone(), problem));
            standings.problems.extend(problem);
            if router.machine.state() == State::Active && !router.is_acquainted {
                standings.alone.insert(key.clone());
            }
        }
        standings
    }
}

impl Router {
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
    fn deadline(&self) -> Option<Time> {
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
    fn problem(&self) -> Option<String> {
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
            State::Backup | State::Initialize => MOST_PACKETS_OF_BACKUP,
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

fn config(key: &RouterKey, wanted: &Wanted) -> Result<Config, RouterError> {
    let source = source(key, wanted)?;
    let candidacy = &wanted.router.candidacy;
    let vrid = Vrid::new(candidacy.router_id)?;
    // VIPs on other interfaces are not advertised.
    let vips = wanted.router.vips.iter();
    let vips = vips.filter(|vip| vip.interface == key.interface);
    let mut addresses: Vec<IpAddr> = vips.map(|vip| vip.address).collect();
    if source.is_ipv6() {
        // An advertisement for IPv6 begins with a link-local address.
        addresses.insert(0, vrid.link_local().into());
    }
    // More do not fit into an advertisement. All VIPs of a router move together, so the first ones stand for all.
    addresses.truncate(usize::from(u8::MAX));
    Ok(Config {
        vrid,
        addresses: Addresses::new(&addresses)?,
        source,
        priority: Priority::new(candidacy.priority)?,
        interval: Interval::from_centiseconds(candidacy.interval)?,
        preemption: candidacy
            .preempt_after
            .map_or(Preemption::Never, |seconds| {
                Preemption::After(Duration::from_secs(seconds.into()))
            }),
        recipients: candidacy
            .unicast
            .as_ref()
            .map_or(Recipients::Group, |unicast| {
                Recipients::Peers(unicast.peers_of(key.family))
            }),
        checksum: Ipv4Checksum::PseudoHeader,
    })
}

fn source(key: &RouterKey, wanted: &Wanted) -> Result<IpAddr, RouterError> {
    let interface = || key.interface.clone();
    let missing = || match &wanted.router.candidacy.unicast {
        None => RouterError::NoSource(interface()),
        Some(unicast) => match unicast.own_of(key.family) {
            None => RouterError::NotListed(key.family),
            Some(address) => RouterError::NotOwn {
                interface: interface(),
                address,
            },
        },
    };
    wanted.source.ok_or_else(missing)
}

/// The address of the interface from which advertisements are sent: the one that the group gives, or one that is not a VIP, for IPv6 a
/// link-local one. One that expires, as VIPs do and those of DHCP, comes last.
pub(super) fn own_address(
    key: &RouterKey,
    router: &VirtualRouter,
    observed: &BTreeMap<AddressKey, AddressConfig>,
) -> Option<IpAddr> {
    let own = observed.iter().filter(|(found, config)| {
        let is_own = match (&router.candidacy.unicast, found.address) {
            (Some(unicast), address) => unicast.own.contains(&address),
            (None, IpAddr::V4(_)) => found.prefix < 32,
            (None, IpAddr::V6(v6)) => v6.is_unicast_link_local(),
        };
        found.interface == key.interface
            && Family::of(found.address) == key.family
            && is_own
            && config.owner != Owner::Ours
            && !router.vips.contains(*found)
    });
    let own = own.min_by_key(|(_, config)| config.expires);
    own.map(|(found, _)| found.address)
}

/// The time since the machine was started, suspended times included.
fn now() -> Time {
    let found = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    Time::since_epoch(found.unwrap_or_default())
}

#[cfg(test)]
mod tests;
