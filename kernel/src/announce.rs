//! Announces addresses to the neighbours of an interface, and probes whether a neighbour has them.
//!
//! The kernel does neither for an address that is added to an interface (with `nodad`, for IPv6).

mod error;
mod frame;
mod mac;
mod port;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::Duration,
};

use lvs_model::{Family, InterfaceName};
use tokio::time::{Instant, timeout_at};

use self::port::Port;
pub use self::{error::AnnounceError, mac::MacAddr};

/// How long answers to a question are waited for, and how often it is asked.
const QUESTIONS: u32 = 2;
const QUESTION_INTERVAL: Duration = Duration::from_millis(150);

/// Announces addresses to the neighbours of an interface, once: by gratuitous ARP or unsolicited neighbour advertisement.
///
/// Where neighbours cannot ask, on a loopback or an interface without ARP, there is nothing to announce.
///
/// # Errors
/// When the interface is gone, there is no socket (it takes `CAP_NET_RAW`), or it does not take the frames.
pub async fn announce(
    interface: &InterfaceName,
    addresses: &[IpAddr],
) -> Result<(), AnnounceError> {
    let Some(port) = Port::find(interface)? else {
        return Ok(());
    };
    let frames: Vec<_> = addresses
        .iter()
        .flat_map(|address| frame::announcements(port.mac, *address))
        .collect();
    let socket = port.open_to_send().map_err(not_opened(interface))?;
    socket.send(&frames).await.map_err(not_sent(interface))
}

/// Probes for addresses, without claiming them (RFC 5227): returns those that another machine has or is about to take,
/// with its MAC address. Takes 300 ms at most; less if all are taken.
///
/// # Errors
/// When the interface is gone or down, or there is no socket (it takes `CAP_NET_RAW`).
pub async fn probe(
    interface: &InterfaceName,
    addresses: &[IpAddr],
) -> Result<BTreeMap<IpAddr, MacAddr>, AnnounceError> {
    let Some(port) = Port::find(interface)? else {
        return Ok(BTreeMap::new());
    };
    let of = |family| {
        addresses
            .iter()
            .copied()
            .filter(move |a| Family::of(*a) == family)
            .collect()
    };
    let (mut taken, six) = tokio::try_join!(
        probe_family(interface, &port, Family::V4, of(Family::V4)),
        probe_family(interface, &port, Family::V6, of(Family::V6)),
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
    let (mut open, mut taken) = (addresses, BTreeMap::new());
    if open.is_empty() {
        return Ok(taken);
    }
    let socket = port.open_to_ask(family).map_err(not_opened(interface))?;
    for _ in 0..QUESTIONS {
        let deadline = Instant::now() + QUESTION_INTERVAL;
        let questions: Vec<_> = open
            .iter()
            .filter_map(|address| frame::question(port.mac, *address))
            .collect();
        socket.send(&questions).await.map_err(not_sent(interface))?;
        while !open.is_empty() {
            let Ok(received) = timeout_at(deadline, socket.receive()).await else {
                break;
            };
            let received = received.map_err(not_received(interface))?;
            let claim = frame::claim(&received).filter(|(_, mac)| *mac != port.mac);
            if let Some((address, mac)) = claim.filter(|(address, _)| open.remove(address)) {
                taken.insert(address, mac);
            }
        }
    }
    Ok(taken)
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
