//! VIPs that another program removes again and again.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use lvs_kernel::events::{NetworkChange, program_of};
use lvs_model::{AddressKey, Family, InterfaceName};
use tracing::warn;

/// So many removals within [`WINDOW`] are too many.
const TOO_MANY: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);

/// What other programs have removed of the VIPs of this machine:
///
/// 1. Each time, the holder adds the VIP again at once.
/// 2. After the fifth time within a minute, the machine hands its VIPs over to another director, if there is one that can have them.
/// 3. A minute after the last removal, it is a candidate for them again.
#[derive(Default)]
pub(super) struct Removals {
    seen: BTreeMap<AddressKey, Removed>,
    /// The netlink ports of the programs that have removed addresses since the last comparison.
    ports: BTreeMap<IpAddr, u32>,
}

#[derive(Default)]
struct Removed {
    /// The last removals, at most [`TOO_MANY`].
    times: VecDeque<Instant>,
    /// The program that removed it last, if that was too often and the program is known.
    program: Option<String>,
}

impl Removed {
    fn is_over(&self, now: Instant) -> bool {
        self.times.back().is_none_or(|last| *last + WINDOW <= now)
    }

    /// Returns whether the removals that are remembered were within the window.
    fn is_too_often(&self) -> bool {
        let ends = self.times.front().zip(self.times.back());
        self.times.len() >= TOO_MANY && ends.is_some_and(|(first, last)| *last - *first <= WINDOW)
    }
}

impl Removals {
    /// Notes which program has removed an address, if the change is that.
    pub(super) fn note_change(&mut self, change: NetworkChange) {
        if let NetworkChange::AddressRemoved { address, port } = change {
            self.ports.insert(address, port);
        }
    }

    /// Notes that VIPs are gone that this machine had and is to have, and logs what is new.
    pub(super) fn follow<'k>(
        &mut self,
        gone: impl IntoIterator<Item = &'k AddressKey>,
        now: Instant,
    ) {
        let known = self.problems();
        self.note(gone.into_iter().cloned(), now);
        let problems = self.problems();
        for (_, text) in problems.iter().filter(|(vip, _)| !known.contains_key(*vip)) {
            warn!("{text}");
        }
    }

    fn note(&mut self, gone: impl IntoIterator<Item = AddressKey>, now: Instant) {
        self.forget(now);
        let mut programs = BTreeMap::new();
        for key in gone {
            let port = self.ports.get(&key.address).copied();
            let seen = self.seen.entry(key).or_default();
            if seen.times.len() >= TOO_MANY {
                seen.times.pop_front();
            }
            seen.times.push_back(now);
            // Looked for at once, and once for all: a process may end soon, or remove thousands.
            seen.program = port.filter(|_| seen.is_too_often()).and_then(|port| {
                let program = programs.entry(port).or_insert_with(|| program_of(port));
                program.clone()
            });
        }
        self.ports.clear();
    }

    /// Forgets the VIPs that have not been removed for a while.
    pub(super) fn forget(&mut self, now: Instant) {
        self.seen.retain(|_, seen| !seen.is_over(now));
    }

    /// Returns whether a VIP is removed too often.
    pub(super) fn are_too_many(&self, vip: &AddressKey) -> bool {
        self.seen.get(vip).is_some_and(Removed::is_too_often)
    }

    /// When [`forget`](Self::forget) must be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let last = self.seen.values().filter_map(|seen| seen.times.back());
        last.min().map(|last| *last + WINDOW)
    }

    /// Adds its problems to others of the same VIPs.
    pub(super) fn problems_beside(
        &self,
        others: &BTreeMap<AddressKey, String>,
    ) -> BTreeMap<AddressKey, String> {
        let mut problems = others.clone();
        for (vip, text) in self.problems() {
            let known = problems.entry(vip).or_default();
            if !known.is_empty() {
                known.push_str("; ");
            }
            known.push_str(&text);
        }
        problems
    }

    /// The VIPs that are removed too often, with the text of the problem: of each interface and family, the first one for all.
    fn problems(&self) -> BTreeMap<AddressKey, String> {
        let mut firsts: BTreeMap<(&InterfaceName, Family), (&AddressKey, &Removed, usize)> =
            BTreeMap::new();
        for (key, seen) in self.seen.iter().filter(|(_, seen)| seen.is_too_often()) {
            let place = (&key.interface, Family::of(key.address));
            let (.., count) = firsts.entry(place).or_insert((key, seen, 0));
            *count += 1;
        }
        let firsts = firsts.into_values();
        firsts
            .map(|(key, seen, count)| (key.clone(), text(key, seen, count - 1)))
            .collect()
    }
}

fn text(key: &AddressKey, seen: &Removed, more: usize) -> String {
    let AddressKey {
        address, interface, ..
    } = key;
    let program = seen.program.as_ref().map_or_else(
        || "another program".to_owned(),
        |program| format!("another program, perhaps {program},"),
    );
    let more = if more == 0 {
        String::new()
    } else {
        format!(", and {more} more VIPs")
    };
    format!(
        "{program} removes VIP {address}{more} from {interface} again and again; configure it to leave addresses alone that are not \
         its own"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip(address: &str) -> AddressKey {
        AddressKey::host(&"eth0".parse().unwrap(), address.parse().unwrap())
    }

    /// The seconds after which a VIP counts as removed too often, of those at which it is removed.
    fn too_often(seconds: &[u64]) -> Vec<u64> {
        let start = Instant::now();
        let mut removals = Removals::default();
        let after = |second: &u64| {
            let now = start + Duration::from_secs(*second);
            removals.note([vip("192.0.2.1")], now);
            removals.are_too_many(&vip("192.0.2.1"))
        };
        let mut after = after;
        seconds.iter().copied().filter(|s| after(s)).collect()
    }

    #[test]
    fn the_fifth_removal_within_a_minute_is_one_too_many() {
        assert_eq!(too_often(&[0, 1, 2, 3]), [0; 0]);
        assert_eq!(too_often(&[0, 1, 2, 3, 4, 50]), [4, 50]);
        assert_eq!(too_often(&[0, 20, 40, 60, 80, 100, 101]), [0; 0]);
        assert_eq!(too_often(&[0, 20, 40, 60, 61, 62, 63]), [62, 63]);
    }

    #[test]
    fn it_is_over_a_minute_after_the_last_one() {
        let start = Instant::now();
        let mut removals = Removals::default();
        assert_eq!(removals.deadline(), None);
        for second in 0..5 {
            removals.note([vip("192.0.2.1")], start + Duration::from_secs(second));
        }
        let over = start + Duration::from_secs(64);
        assert_eq!(removals.deadline(), Some(over));
        removals.forget(over - Duration::from_millis(1));
        assert!(removals.are_too_many(&vip("192.0.2.1")));

        removals.forget(over);

        assert!(!removals.are_too_many(&vip("192.0.2.1")));
        assert_eq!(removals.deadline(), None);
    }

    #[test]
    fn the_text_names_one_vip_of_each_family_and_the_program_where_it_is_known() {
        let mut removals = Removals::default();
        let all = ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(vip);
        for _ in 0..5 {
            removals.note_change(NetworkChange::AddressRemoved {
                address: all[0].address,
                port: std::process::id(),
            });
            removals.note(all.clone(), Instant::now());
        }
        let problems = removals.problems();
        let texts: Vec<&str> = problems.values().map(String::as_str).collect();
        let own = program_of(std::process::id()).unwrap();
        let begins = [
            format!(
                "another program, perhaps {own}, removes VIP 192.0.2.1, and 1 more VIPs from eth0 again"
            ),
            "another program removes VIP 2001:db8::1 from eth0 again".to_owned(),
        ];
        assert_eq!(texts.len(), 2);
        for (text, begin) in texts.iter().zip(&begins) {
            assert!(text.starts_with(begin), "{text}");
        }
    }
}
