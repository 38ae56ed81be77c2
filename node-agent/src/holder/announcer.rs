//! Announces VIPs to the neighbours: once immediately and twice more, since a frame may be lost, and a switch may not yet
//! forward on a port that has just come up.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use lvs_kernel::announce;
use lvs_model::{AddressKey, InterfaceName};
use lvs_runtime::error::chain;
use tracing::{debug, warn};

/// How often an announcement is repeated, and the time between repeats.
const REPEATS: u32 = 2;
const REPEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Sends announcements and schedules their repeats.
#[derive(Default)]
pub(super) struct Announcer {
    repeats: Vec<Repeat>,
}

struct Repeat {
    at: Instant,
    left: u32,
    keys: Vec<AddressKey>,
}

impl Announcer {
    /// Announces VIPs that were just added, and schedules the repeats.
    pub(super) async fn announce(&mut self, keys: Vec<AddressKey>) {
        if keys.is_empty() {
            return;
        }
        send(&keys).await;
        self.repeat(keys, REPEATS);
    }

    /// When the next repeat is due, if any.
    pub(super) fn next(&self) -> Option<Instant> {
        self.repeats.iter().map(|repeat| repeat.at).min()
    }

    /// Sends the repeats that are due. VIPs that are no longer held are left out, since announcing them would divert traffic
    /// from the machine that holds them.
    pub(super) async fn repeat_due(&mut self, held: &BTreeSet<AddressKey>) {
        let now = Instant::now();
        let all = std::mem::take(&mut self.repeats).into_iter();
        let (due, later): (Vec<_>, _) = all.partition(|repeat| repeat.at <= now);
        self.repeats = later;
        for mut repeat in due {
            repeat.keys.retain(|key| held.contains(key));
            send(&repeat.keys).await;
            self.repeat(repeat.keys, repeat.left - 1);
        }
    }

    fn repeat(&mut self, keys: Vec<AddressKey>, left: u32) {
        if left > 0 && !keys.is_empty() {
            let at = Instant::now() + REPEAT_INTERVAL;
            self.repeats.push(Repeat { at, left, keys });
        }
    }
}

async fn send(keys: &[AddressKey]) {
    let mut by_interface: BTreeMap<&InterfaceName, Vec<IpAddr>> = BTreeMap::new();
    for key in keys {
        let addresses = by_interface.entry(&key.interface).or_default();
        addresses.push(key.address);
    }
    for (interface, addresses) in by_interface {
        match announce::announce(interface, &addresses).await {
            Ok(()) => debug!(%interface, vips = addresses.len(), "announced VIPs"),
            Err(error) => {
                warn!(%interface, error = chain(&error), "cannot announce VIPs");
            }
        }
    }
}
