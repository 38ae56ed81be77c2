//! Other machines that answer for VIPs that this one holds. They take packets of clients away.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use lvs_model::{AddressKey, InterfaceName, MacAddr};

/// How long a VIP must have been held, and a machine have answered for it, until that is a problem: when VIPs move, the director before
/// answers for a moment too.
const SETTLING: Duration = Duration::from_secs(5);
/// How often a machine that has answered for a VIP is asked again.
const RECHECK: Duration = Duration::from_secs(5);
/// When a machine that does not answer any more is forgotten.
const MEMORY: Duration = Duration::from_secs(16);
/// The shortest time between two announcements of a VIP because of another machine: an announcement is repeated for two seconds, and
/// forged packets must not cause more.
const PAUSE: Duration = Duration::from_secs(3);
/// How many are remembered. Forged packets can show any number.
const MOST: usize = 8;

/// The machines that answer for VIPs of this one:
///
/// 1. The first answer, and then each one after a pause, lets this machine announce the VIP again. It never gives a VIP up for that: anyone
///    on the network could take the VIPs away otherwise.
/// 2. The machine is asked again and again until it has not answered for a while.
/// 3. What lasts is a problem.
#[derive(Default)]
pub(super) struct Conflicts {
    /// The VIPs of this machine, and since when it has each.
    held: BTreeMap<AddressKey, Instant>,
    /// The VIP and the other machine.
    seen: BTreeMap<(AddressKey, MacAddr), Answers>,
    /// When VIPs were last announced because of another machine.
    announced: BTreeMap<AddressKey, Instant>,
    /// When the others are asked.
    ask_at: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Answers {
    first: Instant,
    last: Instant,
}

impl Answers {
    fn is_problem(&self) -> bool {
        self.last - self.first >= SETTLING
    }
}

impl Conflicts {
    /// Follows which VIPs this machine has.
    pub(super) fn follow(&mut self, held: &BTreeSet<AddressKey>, now: Instant) {
        self.held.retain(|key, _| held.contains(key));
        for key in held {
            if !self.held.contains_key(key) {
                self.held.insert(key.clone(), now);
            }
        }
        self.seen.retain(|(key, _), _| held.contains(key));
        self.announced
            .retain(|key, announced| held.contains(key) && now < *announced + PAUSE);
    }

    /// Notes that a machine says that it has an address. Returns the VIP to announce again, if any.
    pub(super) fn note(
        &mut self,
        interface: &InterfaceName,
        (address, mac): (IpAddr, MacAddr),
        now: Instant,
    ) -> Option<AddressKey> {
        let key = AddressKey::host(interface, address);
        let since = self.held.get(&key)?;
        if now < *since + SETTLING {
            return None;
        }
        let place = (key.clone(), mac);
        if let Some(answers) = self.seen.get_mut(&place) {
            answers.last = now;
        } else {
            self.make_room();
            let answers = Answers {
                first: now,
                last: now,
            };
            if self.seen.len() < MOST {
                self.seen.insert(place, answers);
                self.ask_at.get_or_insert(now + RECHECK);
            }
        }
        let announced = self.announced.get(&key);
        if announced.is_some_and(|announced| now < *announced + PAUSE) {
            return None;
        }
        self.announced.insert(key.clone(), now);
        Some(key)
    }

    /// If there is no room for another machine, forgets one that has answered once only, the first of them: it may be forged.
    fn make_room(&mut self) {
        if self.seen.len() < MOST {
            return;
        }
        let once = self.seen.iter().filter(|(_, seen)| seen.first == seen.last);
        let oldest = once.min_by_key(|(_, seen)| seen.first);
        if let Some(place) = oldest.map(|(place, _)| place.clone()) {
            self.seen.remove(&place);
        }
    }

    /// When [`due`](Self::due) must be called.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.ask_at
    }

    /// Forgets the machines that have not answered for a while, and returns the VIPs that the others are to be asked for.
    pub(super) fn due(&mut self, now: Instant) -> Vec<AddressKey> {
        self.seen.retain(|_, answers| now < answers.last + MEMORY);
        self.ask_at = (!self.seen.is_empty()).then(|| now + RECHECK);
        let keys: BTreeSet<&AddressKey> = self.seen.keys().map(|(key, _)| key).collect();
        keys.into_iter().cloned().collect()
    }

    /// What lasts: the VIPs, each with the text of the problem.
    pub(super) fn problems(&self) -> Vec<(AddressKey, String)> {
        let lasting = self.seen.iter().filter(|(_, seen)| seen.is_problem());
        let problems = lasting.map(|((key, mac), _)| {
            let AddressKey {
                address, interface, ..
            } = key;
            let text = format!(
                "VIP {address}: {mac} on {interface} answers for it too; remove it there, or set arp_ignore on a real server"
            );
            (key.clone(), text)
        });
        problems.collect()
    }
}

#[cfg(test)]
mod tests;
