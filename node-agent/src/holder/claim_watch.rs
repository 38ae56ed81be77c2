//! Listens on the interfaces with VIPs for other machines that say they have an address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use futures::future::select_all;
use lvs_kernel::announce::{self, ClaimSocket};
use lvs_model::{AddressKey, Family, InterfaceName, MacAddr};
use lvs_runtime::error::chain;
use tokio::time::sleep_until;
use tracing::debug;

/// The pause after packets were read, so that a flood of them costs little. The kernel drops what it has no room for.
const PAUSE: Duration = Duration::from_millis(10);

/// The sockets on the interfaces with VIPs.
#[derive(Default)]
pub(super) struct ClaimWatch {
    /// `None`: neighbours cannot resolve addresses on the interface.
    sockets: BTreeMap<(InterfaceName, Family), Option<ClaimSocket>>,
    /// The MAC addresses of this machine.
    own: BTreeSet<MacAddr>,
    not_before: Option<Instant>,
}

/// An address that a machine says it has on an interface.
pub(super) type SeenClaim = (InterfaceName, (IpAddr, MacAddr));

impl ClaimWatch {
    /// Listens where this machine has VIPs. `links_changed`: an interface may have been made anew.
    pub(super) fn follow(&mut self, held: &BTreeSet<AddressKey>, links_changed: bool) {
        let places = held.iter();
        let places: BTreeSet<(&InterfaceName, Family)> = places
            .map(|key| (&key.interface, Family::of(key.address)))
            .collect();
        self.sockets.retain(|(interface, family), _| {
            !links_changed && places.contains(&(interface, *family))
        });
        if self.sockets.len() == places.len() {
            return;
        }
        match announce::macs() {
            Ok(macs) => self.own = macs.into_values().collect(),
            Err(error) => debug!(error = chain(&error), "cannot list interfaces"),
        }
        for (interface, family) in places {
            let place = (interface.clone(), family);
            if self.sockets.contains_key(&place) {
                continue;
            }
            match ClaimSocket::open(interface, family) {
                Ok(socket) => drop(self.sockets.insert(place, socket)),
                Err(error) => debug!(error = chain(&error), "cannot listen for claims of VIPs"),
            }
        }
    }

    /// Waits for claims of other machines, and returns some. Cancel-safe.
    pub(super) async fn next(&mut self) -> Vec<SeenClaim> {
        if self.sockets.values().flatten().next().is_none() {
            return std::future::pending().await;
        }
        if let Some(moment) = self.not_before {
            sleep_until(moment.into()).await;
        }
        let sockets = self.sockets.values().flatten();
        let _ = select_all(sockets.map(|socket| Box::pin(socket.readable()))).await;
        self.not_before = Some(Instant::now() + PAUSE);
        let mut claims = Vec::new();
        let own = &self.own;
        self.sockets.retain(|(interface, _), socket| {
            let Some(socket) = socket else { return true };
            let taken = socket.take();
            let taken = taken.inspect_err(|error| debug!(%interface, %error, "cannot listen"));
            let Ok(taken) = taken else { return false };
            let others = taken.into_iter().filter(|(_, mac)| !own.contains(mac));
            claims.extend(others.map(|claim| (interface.clone(), claim)));
            true
        });
        claims
    }
}
