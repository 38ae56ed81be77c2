//! The virtual routers of this machine: with each, the directors of a group agree who holds some VIPs.
//!
//! A router takes over at once when it becomes active: it asks no disk and no pass. Its VIPs expire by themselves, so they are
//! renewed as long as it is active.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::Duration,
};

use futures::future::select_all;
use lvs_kernel::VrrpSocket;
use lvs_model::{AddressConfig, AddressKey, Family, RouterKey, VirtualRouter};
use lvs_runtime::error::chain;
use lvs_vrrp::{
    Action, Addresses, AddressesError, Config, ConfigError, Counters, Event, Interval,
    IntervalError, Ipv4Checksum, Machine, Packet, Preemption, Priority, PriorityError, Recipients,
    Start, State, Time, Vrid, VridError,
};
use nix::time::{ClockId, clock_gettime};
use tracing::{debug, info, warn};

/// Why a virtual router cannot take part.
#[derive(Debug, thiserror::Error)]
pub(super) enum RouterError {
    /// The interface has no address to send from.
    #[error("{0} has no address of its own to send VRRP advertisements from")]
    NoSource(lvs_model::InterfaceName),
    /// The socket cannot be opened.
    #[error("opening a socket for VRRP on {interface}")]
    Socket {
        /// The interface.
        interface: lvs_model::InterfaceName,
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

/// The virtual routers of this machine.
#[derive(Default)]
pub(super) struct Routers {
    routers: BTreeMap<RouterKey, Router>,
}

struct Router {
    machine: Machine,
    socket: VrrpSocket,
    vips: BTreeSet<AddressKey>,
    refused: Counters,
}

impl Routers {
    /// Starts, configures and stops routers. Returns those that cannot take part, with the reasons.
    ///
    /// A router whose VIPs this machine has already goes on as the active one: an earlier process held them.
    pub(super) fn follow(
        &mut self,
        wanted: &BTreeMap<RouterKey, VirtualRouter>,
        observed: &BTreeMap<AddressKey, AddressConfig>,
    ) -> BTreeMap<RouterKey, RouterError> {
        let gone = |key: &RouterKey, _: &mut Router| !wanted.contains_key(key);
        for (key, mut router) in self.routers.extract_if(.., gone) {
            let actions = router.machine.handle(now(), Event::Stop);
            router.act(&key, actions);
        }
        let mut failed = BTreeMap::new();
        for (key, wanted) in wanted {
            if let Err(error) = self.follow_one(key, wanted, observed) {
                failed.insert(key.clone(), error);
            }
        }
        failed
    }

    fn follow_one(
        &mut self,
        key: &RouterKey,
        wanted: &VirtualRouter,
        observed: &BTreeMap<AddressKey, AddressConfig>,
    ) -> Result<(), RouterError> {
        let known = self.routers.get_mut(key);
        let source = known.as_ref().map(|known| known.machine.config().source);
        let source = source
            .or_else(|| own_address(key, observed))
            .ok_or_else(|| RouterError::NoSource(key.interface.clone()))?;
        let config = config(wanted, source)?;
        if let Some(router) = known {
            router.vips.clone_from(&wanted.vips);
            if *router.machine.config() != config {
                let actions = router.machine.configure(now(), config)?;
                router.act(key, actions);
            }
            return Ok(());
        }
        let opened = VrrpSocket::open(&key.interface, source);
        let socket = opened.map_err(|source| RouterError::Socket {
            interface: key.interface.clone(),
            source,
        })?;
        let mut router = Router {
            machine: Machine::new(config)?,
            socket,
            vips: wanted.vips.clone(),
            refused: Counters::default(),
        };
        let is_held = wanted.vips.iter().any(|vip| observed.contains_key(vip));
        let start = if is_held { Start::Resume } else { Start::Fresh };
        let actions = router.machine.handle(now(), Event::Start(start));
        router.act(key, actions);
        self.routers.insert(key.clone(), router);
        Ok(())
    }

    /// Waits until a router has something to do. Cancel-safe.
    pub(super) async fn wait(&self) {
        if self.routers.is_empty() {
            return std::future::pending().await;
        }
        let deadlines = self.routers.values();
        let deadline = deadlines
            .filter_map(|router| router.machine.deadline())
            .min();
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

    /// Handles the packets that have arrived, and then the deadlines that are due. Returns whether a router has become active or
    /// backup.
    pub(super) fn work(&mut self) -> bool {
        let mut has_changed = false;
        for (key, router) in &mut self.routers {
            let before = router.machine.state();
            router.receive(key);
            let now = now();
            if router
                .machine
                .deadline()
                .is_some_and(|deadline| deadline <= now)
            {
                let actions = router.machine.handle(now, Event::Deadline);
                router.act(key, actions);
            }
            has_changed |= router.machine.state() != before;
        }
        has_changed
    }

    /// The VIPs that another director holds, or may hold.
    pub(super) fn on_standby(&self) -> BTreeSet<&AddressKey> {
        let standby = self.routers.values();
        let standby = standby.filter(|router| router.machine.state() != State::Active);
        standby.flat_map(|router| &router.vips).collect()
    }

    /// The VIPs that this machine holds.
    pub(super) fn active(&self) -> impl Iterator<Item = &AddressKey> {
        let active = self.routers.values();
        let active = active.filter(|router| router.machine.state() == State::Active);
        active.flat_map(|router| &router.vips)
    }
}

impl Router {
    /// Handles every packet that has arrived.
    fn receive(&mut self, key: &RouterKey) {
        loop {
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
                    let actions = self.machine.handle(now(), Event::Received(received));
                    self.act(key, actions);
                }
                Ok(_of_another_router) => {}
                Err(error) => {
                    self.refused.count(&error);
                    debug!(interface = %key.interface, source = %packet.source, %error, "a VRRP packet is refused");
                }
            }
        }
    }

    /// Sends, and logs what has changed. The VIPs follow the state.
    fn act(&mut self, key: &RouterKey, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::SendAdvertisement { priority, to } => {
                    for destination in to {
                        self.send(key, priority, destination);
                    }
                }
                Action::BecomeActive(reason) => {
                    info!(interface = %key.interface, router = key.router_id, "active: {reason}");
                }
                Action::BecomeBackup(reason) => {
                    info!(interface = %key.interface, router = key.router_id, "standby: {reason}");
                }
                Action::Report(observation) => {
                    warn!(interface = %key.interface, router = key.router_id, ?observation, "VRRP");
                }
            }
        }
    }

    fn send(&self, key: &RouterKey, priority: Option<Priority>, destination: IpAddr) {
        let advertisement = self.machine.advertisement(priority);
        let config = self.machine.config();
        let sent = advertisement
            .encode(config.source, destination, config.checksum)
            .map_err(|error| chain(&error))
            .and_then(|bytes| {
                let sent = self.socket.send(destination, &bytes);
                sent.map_err(|error| error.to_string())
            });
        if let Err(error) = sent {
            debug!(interface = %key.interface, error, "cannot send VRRP");
        }
    }
}

fn config(wanted: &VirtualRouter, source: IpAddr) -> Result<Config, RouterError> {
    let candidacy = wanted.candidacy;
    let vrid = Vrid::new(candidacy.router_id)?;
    let mut addresses: Vec<IpAddr> = wanted.vips.iter().map(|vip| vip.address).collect();
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
        recipients: Recipients::Group,
        checksum: Ipv4Checksum::PseudoHeader,
    })
}

/// An address of the interface that is not a VIP: for IPv6, a link-local one.
fn own_address(key: &RouterKey, observed: &BTreeMap<AddressKey, AddressConfig>) -> Option<IpAddr> {
    let own = observed.iter().filter(|(found, config)| {
        let is_own = match found.address {
            IpAddr::V4(_) => found.prefix < 32,
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        found.interface == key.interface
            && Family::of(found.address) == key.family
            && is_own
            && !config.expires
    });
    own.map(|(found, _)| found.address).next()
}

/// The time since the machine was started, suspended times included.
fn now() -> Time {
    let found = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    Time::since_epoch(found.unwrap_or_default())
}
