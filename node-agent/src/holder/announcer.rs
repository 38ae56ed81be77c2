//! Announces VIPs to the neighbours:
//!
//! - when they are added: immediately and three times more, since a frame may be lost, and a switch may not yet forward on a port
//!   that has just come up;
//! - when their interface gets a carrier or another MAC address, for the same reason;
//! - again and again, for neighbours that have learnt another machine's address in the meantime.
//!
//! It also asks now and then whether another machine answers for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Bound,
    time::{Duration, Instant},
};

use lvs_kernel::announce::{self, BURST, PAUSE};
use lvs_model::{AddressKey, InterfaceName, MacAddr};
use lvs_runtime::error::chain;
use tokio::time::sleep;
use tracing::{debug, warn};

/// How long after an announcement its repeats follow. The first one is for neighbours that asked during a hand-over: the
/// predecessor, which has the VIPs for 0.2 seconds more, may have answered them last.
const REPEATS: [Duration; 3] = [
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(2),
];
/// Every VIP is announced again after this time.
const ROUND: Duration = Duration::from_secs(45);
/// A round has at most this many parts, of one VIP or more.
const MOST_PARTS: usize = 45;
/// When the first VIPs are asked for, and how many at most at once: the whole network receives these packets.
const FIRST_ASK: Duration = Duration::from_secs(6);
const MOST_ASKED: usize = 20;

/// Sends announcements and schedules their repeats.
#[derive(Default)]
pub(super) struct Announcer {
    repeats: Vec<Repeat>,
    round: Round,
    asking: Round,
    /// The MAC address of each interface with VIPs; `None` without a carrier.
    macs: BTreeMap<InterfaceName, Option<MacAddr>>,
}

struct Repeat {
    at: Instant,
    keys: Vec<AddressKey>,
}

/// Something that is done with all VIPs again and again, in parts.
#[derive(Default)]
struct Round {
    /// When the next part is due.
    at: Option<Instant>,
    /// The last VIP of the part before; `None` at the start of a round.
    last: Option<AddressKey>,
}

impl Announcer {
    /// Announces VIPs that were just added, and schedules the repeats.
    pub(super) async fn announce(&mut self, keys: Vec<AddressKey>) {
        if keys.is_empty() {
            return;
        }
        send(&keys).await;
        if keys
            .iter()
            .any(|key| !self.macs.contains_key(&key.interface))
        {
            self.macs.extend(macs_of(&keys));
        }
        let now = Instant::now();
        self.round.at.get_or_insert(now + ROUND);
        self.asking.at.get_or_insert(now + FIRST_ASK);
        let repeats = REPEATS.into_iter().map(|after| Repeat {
            at: now + after,
            keys: keys.clone(),
        });
        self.repeats.extend(repeats);
    }

    /// Announces the VIPs of the interfaces that have a carrier or another MAC address since the last look.
    pub(super) async fn follow_links(&mut self, held: &BTreeSet<AddressKey>) {
        let now = macs_of(held);
        let is_new = |key: &&AddressKey| {
            let before = self.macs.get(&key.interface);
            let now = now.get(&key.interface);
            now.is_some_and(|mac| mac.is_some() && before.is_some_and(|before| before != mac))
        };
        let keys: Vec<AddressKey> = held.iter().filter(is_new).cloned().collect();
        self.macs = now;
        self.announce(keys).await;
    }

    /// When something is due, if anything.
    pub(super) fn next(&self) -> Option<Instant> {
        let repeats = self.repeats.iter().map(|repeat| repeat.at);
        let rounds = self.round.at.into_iter().chain(self.asking.at);
        repeats.chain(rounds).min()
    }

    /// Sends what is due. VIPs that are no longer held are left out, since announcing them would divert traffic from the machine
    /// that holds them.
    pub(super) async fn send_due(&mut self, held: &BTreeSet<AddressKey>) {
        let now = Instant::now();
        let all = std::mem::take(&mut self.repeats).into_iter();
        let (due, later): (Vec<_>, _) = all.partition(|repeat| repeat.at <= now);
        self.repeats = later;
        for mut repeat in due {
            repeat.keys.retain(|key| held.contains(key));
            send(&repeat.keys).await;
        }
        if self.round.at.is_some_and(|at| at <= now) {
            send(&self.round.next_part(held, now, usize::MAX)).await;
        }
        if self.asking.at.is_some_and(|at| at <= now) {
            ask(&self.asking.next_part(held, now, MOST_ASKED)).await;
        }
    }
}

impl Round {
    /// Returns the VIPs of the part that is due, at most so many, and schedules the next one.
    fn next_part(
        &mut self,
        held: &BTreeSet<AddressKey>,
        now: Instant,
        most: usize,
    ) -> Vec<AddressKey> {
        let parts = held.len().clamp(1, MOST_PARTS);
        let count = held.len().div_ceil(parts).min(most);
        let pause = ROUND / u32::try_from(parts).unwrap_or(1);
        let start = self.last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let rest = held.range((start, Bound::Unbounded));
        let part: Vec<AddressKey> = rest.take(count).cloned().collect();
        self.last = part
            .last()
            .filter(|last| held.last() != Some(last))
            .cloned();
        self.at = (!held.is_empty()).then(|| now + pause);
        part
    }
}

/// The MAC addresses of the interfaces of VIPs. All are without one if the interfaces cannot be listed.
fn macs_of<'k>(
    keys: impl IntoIterator<Item = &'k AddressKey>,
) -> BTreeMap<InterfaceName, Option<MacAddr>> {
    let all = announce::macs().unwrap_or_else(|error| {
        warn!(error = chain(&error), "cannot list interfaces");
        BTreeMap::new()
    });
    let interfaces: BTreeSet<&InterfaceName> = keys.into_iter().map(|key| &key.interface).collect();
    let interfaces = interfaces.into_iter();
    interfaces
        .map(|interface| (interface.clone(), all.get(interface).copied()))
        .collect()
}

/// Asks whether other machines have VIPs. The answers are received elsewhere.
pub(super) async fn ask(keys: &[AddressKey]) {
    in_bursts(keys, async |interface, addresses| {
        let sent = announce::ask(interface, addresses).await;
        sent.inspect_err(|error| warn!(%interface, error = chain(error), "cannot ask for VIPs"))
            .is_ok()
    })
    .await;
}

async fn send(keys: &[AddressKey]) {
    in_bursts(keys, async |interface, addresses| {
        let sent = announce::announce(interface, addresses).await;
        debug!(%interface, vips = addresses.len(), "announced VIPs");
        sent.inspect_err(|error| warn!(%interface, error = chain(error), "cannot announce VIPs"))
            .is_ok()
    })
    .await;
}

/// Sends VIPs in bursts, with pauses. After a burst that failed, the rest of its interface is left out.
async fn in_bursts(
    keys: &[AddressKey],
    mut send: impl AsyncFnMut(&InterfaceName, &[IpAddr]) -> bool,
) {
    let mut by_interface: BTreeMap<&InterfaceName, Vec<IpAddr>> = BTreeMap::new();
    for key in keys {
        let addresses = by_interface.entry(&key.interface).or_default();
        addresses.push(key.address);
    }
    for (interface, addresses) in by_interface {
        for (index, burst) in addresses.chunks(BURST).enumerate() {
            if index > 0 {
                sleep(PAUSE).await;
            }
            if !send(interface, burst).await {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests;
