//! Telling the neighbours of an interface which addresses are here, and asking whether they are anywhere else.
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

use self::port::{FrameSocket, Port};
pub use self::{error::AnnounceError, mac::MacAddr};

/// A neighbour may lose a frame, and a switch be slow to forward on a port that has just come up.
const REPEATS: u32 = 2;
const REPEAT_INTERVAL: Duration = Duration::from_secs(1);

/// How long answers to a question are waited for, and how often it is asked.
const QUESTIONS: u32 = 2;
const QUESTION_INTERVAL: Duration = Duration::from_millis(150);

/// An announcement that has been made once.
#[must_use = "it is made once only, unless it is repeated"]
pub struct Announcement {
    interface: InterfaceName,
    frames: Vec<Vec<u8>>,
    socket: Option<FrameSocket>,
}

/// Tells all neighbours at once that addresses are here. Where neighbours cannot ask, on a loopback or an interface without
/// ARP, there is nothing to tell.
pub async fn announce(
    interface: &InterfaceName,
    addresses: &[IpAddr],
) -> Result<Announcement, AnnounceError> {
    let mut announcement = Announcement {
        interface: interface.clone(),
        frames: Vec::new(),
        socket: None,
    };
    let Some(port) = Port::find(interface)? else {
        return Ok(announcement);
    };
    let frames = addresses
        .iter()
        .flat_map(|address| frame::announcements(port.mac, *address));
    announcement.frames = frames.collect();
    announcement.socket = Some(port.open_to_send().map_err(not_opened(interface))?);
    announcement.send().await?;
    Ok(announcement)
}

impl Announcement {
    /// Makes it twice more, with a second between. To be spawned, and aborted when the addresses are given up: who repeats it
    /// then takes them away from their new holder.
    pub async fn repeat(self) -> Result<(), AnnounceError> {
        for _ in 0..REPEATS {
            if self.socket.is_some() {
                tokio::time::sleep(REPEAT_INTERVAL).await;
            }
            self.send().await?;
        }
        Ok(())
    }

    async fn send(&self) -> Result<(), AnnounceError> {
        match &self.socket {
            Some(socket) => socket
                .send(&self.frames)
                .await
                .map_err(not_sent(&self.interface)),
            None => Ok(()),
        }
    }
}

/// Asks who has the addresses, without claiming them, and returns those that somebody else has or is about to take. Takes
/// 300 ms at most; less if all are taken.
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
