//! Announces addresses to the neighbours of an interface, and probes whether a neighbour already has them.
//!
//! The kernel does neither for an IPv4 address that is added to an interface, nor for an IPv6 one that is added with
//! `nodad`.

mod claims;
mod error;
mod frame;
mod port;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::Duration,
};

use lvs_model::{Family, InterfaceName, MacAddr};
use tokio::time::{Instant, timeout_at};

use self::port::{FrameSocket, Port};
pub use self::{claims::ClaimSocket, error::AnnounceError};

/// How many packets are sent at once, and the pause before the next ones: a switch learns addresses on its slow processor, and answers
/// must not overflow a socket.
pub const BURST: usize = 100;
/// See [`BURST`].
pub const PAUSE: Duration = Duration::from_millis(2);

/// How many probes are sent for an address.
const PROBES: u32 = 2;

/// How long to wait for answers to each probe.
const PROBE_INTERVAL: Duration = Duration::from_millis(150);

/// Announces addresses to the neighbours of an interface, once: by gratuitous ARP or unsolicited neighbour
/// advertisement.
///
/// Does nothing if the interface is down, is a loopback, is not Ethernet or does not use ARP: neighbours cannot resolve
/// addresses there.
///
/// # Errors
/// When the interface does not exist, a packet socket cannot be opened (it needs `CAP_NET_RAW`), or sending fails.
pub async fn announce(
    interface: &InterfaceName,
    addresses: &[IpAddr],
) -> Result<(), AnnounceError> {
    send(interface, addresses, frame::announcements).await
}

/// Asks the neighbours of an interface once whether one of them has these addresses, without claiming them (RFC 5227). A
/// [`ClaimSocket`] receives the answers.
///
/// # Errors
/// As [`announce`].
pub async fn ask(interface: &InterfaceName, addresses: &[IpAddr]) -> Result<(), AnnounceError> {
    let frames = |own, address| frame::probe(own, address).into_iter().collect();
    send(interface, addresses, frames).await
}

async fn send(
    interface: &InterfaceName,
    addresses: &[IpAddr],
    frames: impl Fn(MacAddr, IpAddr) -> Vec<Vec<u8>>,
) -> Result<(), AnnounceError> {
    let Some(port) = Port::find(interface)? else {
        return Ok(());
    };
    let addresses = addresses.iter();
    let frames: Vec<_> = addresses
        .flat_map(|address| frames(port.mac, *address))
        .collect();
    let socket = port.open_to_send().map_err(not_opened(interface))?;
    socket.send(&frames).await.map_err(not_sent(interface))
}

/// Returns the MAC address under which neighbours reach each interface. An interface without a carrier, or on which [`announce`]
/// does nothing, is left out.
///
/// # Errors
/// When the interfaces cannot be listed.
pub fn macs() -> Result<BTreeMap<InterfaceName, MacAddr>, AnnounceError> {
    port::macs()
}

/// Returns the interfaces that are up and have a carrier.
///
/// # Errors
/// When the interfaces cannot be listed.
pub fn running() -> Result<BTreeSet<InterfaceName>, AnnounceError> {
    port::running()
}

/// Probes for addresses without claiming them (RFC 5227). Returns those that another machine has or is about to take,
/// with its MAC address.
///
/// Takes at most 300 ms and two [`PAUSE`]s for each [`BURST`] of addresses, less if all are taken. Returns nothing for an interface on
/// which [`announce`] does nothing.
///
/// # Errors
/// When the interface does not exist, a packet socket cannot be opened (it needs `CAP_NET_RAW`), or sending or
/// receiving fails, for example because the interface goes down.
pub async fn probe(
    interface: &InterfaceName,
    addresses: &[IpAddr],
) -> Result<BTreeMap<IpAddr, MacAddr>, AnnounceError> {
    let Some(port) = Port::find(interface)? else {
        return Ok(BTreeMap::new());
    };
    let addresses_of = |family| {
        addresses
            .iter()
            .copied()
            .filter(move |a| Family::of(*a) == family)
            .collect()
    };
    let (mut taken, six) = tokio::try_join!(
        probe_family(interface, &port, Family::V4, addresses_of(Family::V4)),
        probe_family(interface, &port, Family::V6, addresses_of(Family::V6)),
    )?;
    taken.extend(six);
    Ok(taken)
}

async fn probe_family(
    interface: &InterfaceName,
    port: &Port,
    family: Family,
    addresses: BTreeSet<IpAddr>,
) -> Result<BTreeMap<IpAddr, MacAddr>, AnnounceError> {
    let (mut pending, mut taken) = (addresses, BTreeMap::new());
    if pending.is_empty() {
        return Ok(taken);
    }
    let socket = port.open_to_probe(family).map_err(not_opened(interface))?;
    for _ in 0..PROBES {
        let probes: Vec<_> = pending
            .iter()
            .filter_map(|address| frame::probe(port.mac, *address))
            .collect();
        for burst in probes.chunks(BURST) {
            socket.send(burst).await.map_err(not_sent(interface))?;
            let claims = claims(&socket, port, PAUSE, &mut pending).await;
            taken.extend(claims.map_err(not_received(interface))?);
        }
        let claims = claims(&socket, port, PROBE_INTERVAL, &mut pending).await;
        taken.extend(claims.map_err(not_received(interface))?);
    }
    Ok(taken)
}

/// Receives for some time, or until none is pending. Returns the pending addresses that other machines claim, which are no longer
/// pending then.
async fn claims(
    socket: &FrameSocket,
    port: &Port,
    time: Duration,
    pending: &mut BTreeSet<IpAddr>,
) -> io::Result<BTreeMap<IpAddr, MacAddr>> {
    let mut claims = BTreeMap::new();
    let deadline = Instant::now() + time;
    while !pending.is_empty() {
        let Ok(received) = timeout_at(deadline, socket.receive()).await else {
            break;
        };
        let claim = frame::claim(&received?).filter(|(_, mac)| *mac != port.mac);
        claims.extend(claim.filter(|(address, _)| pending.remove(address)));
    }
    Ok(claims)
}

fn not_opened(interface: &InterfaceName) -> impl FnOnce(io::Error) -> AnnounceError {
    let interface = interface.clone();
    move |error| AnnounceError::Open { interface, error }
}

fn not_sent(interface: &InterfaceName) -> impl FnOnce(io::Error) -> AnnounceError {
    let interface = interface.clone();
    move |error| AnnounceError::Send { interface, error }
}

fn not_received(interface: &InterfaceName) -> impl FnOnce(io::Error) -> AnnounceError {
    let interface = interface.clone();
    move |error| AnnounceError::Receive { interface, error }
}
