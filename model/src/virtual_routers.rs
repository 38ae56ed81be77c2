//! How a group with several virtual routers spreads its VIPs over its directors.

use std::{collections::BTreeMap, hash::Hasher, net::IpAddr, ops::RangeInclusive};

use fnv::FnvHasher;

use crate::NodeName;

/// The most virtual routers of a group.
pub const MOST_ROUTERS: u8 = 16;

/// The lowest and the highest priority of a director.
const PRIORITIES: RangeInclusive<u8> = 1..=254;

/// Returns which of a group's `routers` virtual routers a VIP belongs to, from 0 on.
///
/// All directors and the controller must find the same, so this may not change between versions. Each router gets a number for the VIP, and
/// the router with the highest one has it (rendezvous hashing). So of N VIPs, raising the number of routers from r to r + 1 moves about
/// N / (r + 1), all of them to the new router.
///
/// The number is the 64-bit FNV-1a hash of the octets of the address, 4 or 16, followed by one octet with the router, mixed by the finalizer
/// of MurmurHash3 (`fmix64`), since the last octet of FNV-1a changes little. Of equal numbers, the first router counts.
#[must_use]
pub fn router_of_vip(vip: IpAddr, routers: u8) -> u8 {
    let number = |router: &u8| {
        let mut hasher = FnvHasher::default();
        match vip {
            IpAddr::V4(v4) => hasher.write(&v4.octets()),
            IpAddr::V6(v6) => hasher.write(&v6.octets()),
        }
        hasher.write(&[*router]);
        mixed(hasher.finish())
    };
    let best = (0..routers).rev().max_by_key(number);
    best.unwrap_or(0)
}

const fn mixed(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Returns the priority of each director in each of a group's `routers` virtual routers. `priorities` are those that the group gives, or the
/// default ones, 1 to 254.
///
/// 1. With one router, they are as they are.
/// 2. With several, directors are ranked by priority, the highest first, and by name. Each rank gets a priority lower than the rank before: that of
///    its director, or one less than that of the rank before if that is less. So 100, 100 and 100 become 100, 99 and 98.
/// 3. In router i, the director with rank k has the priority of rank k - i; that of the last rank follows on that of the first. So each director is
///    preferred in one router of as many as there are directors.
/// 4. No priority is below 1: where there is not enough room, all are raised.
#[must_use]
pub fn router_priorities(
    priorities: &BTreeMap<NodeName, u8>,
    routers: u8,
) -> BTreeMap<NodeName, Vec<u8>> {
    if routers <= 1 {
        let same = priorities.iter();
        return same
            .map(|(name, priority)| (name.clone(), vec![*priority]))
            .collect();
    }
    let mut ranked: Vec<(&NodeName, u8)> = priorities
        .iter()
        .map(|(name, given)| (name, *given))
        .collect();
    ranked.sort_by_key(|(name, given)| (u8::MAX - given, *name));
    let values = falling(ranked.iter().map(|(_, given)| *given));
    let of_rank = |(rank, (name, _)): (usize, &(&NodeName, u8))| {
        let turns = (0..usize::from(routers)).map(|router| router % values.len());
        let places = turns.map(|turn| (rank + values.len() - turn) % values.len());
        let own = places.filter_map(|place| values.get(place).copied());
        ((*name).clone(), own.collect())
    };
    ranked.iter().enumerate().map(of_rank).collect()
}

/// Makes each priority lower than the one before it.
fn falling(given: impl DoubleEndedIterator<Item = u8> + ExactSizeIterator) -> Vec<u8> {
    let (lowest, highest) = (*PRIORITIES.start(), *PRIORITIES.end());
    let mut below = u8::try_from(given.len()).unwrap_or(highest);
    let mut before = highest + 1;
    let falling = given.map(|given| {
        below = below.saturating_sub(1);
        let value = given.max(lowest.saturating_add(below)).min(before - 1);
        before = value.max(lowest);
        before
    });
    falling.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vips(count: u32) -> impl Iterator<Item = IpAddr> {
        let first = u32::from_be_bytes([192, 0, 2, 0]);
        (0..count).map(move |number| IpAddr::from((first + number).to_be_bytes()))
    }

    /// The name and the priorities of each director.
    fn priorities(given: &[(&str, u8)], routers: u8) -> Vec<(String, Vec<u8>)> {
        let given = given.iter();
        let given = given.map(|(name, priority)| (name.parse().unwrap(), *priority));
        let all = router_priorities(&given.collect(), routers).into_iter();
        all.map(|(name, all)| (name.to_string(), all)).collect()
    }

    #[test]
    fn a_vip_has_the_same_router_on_every_machine_and_in_every_version() {
        let routers = ["192.0.2.1", "192.0.2.2", "10.0.0.100", "2001:db8::1"].map(|vip| {
            let vip: IpAddr = vip.parse().unwrap();
            [1, 2, 3, 16].map(|routers| router_of_vip(vip, routers))
        });
        assert_eq!(
            routers,
            [[0, 0, 0, 4], [0, 1, 2, 6], [0, 1, 1, 14], [0, 1, 1, 1]]
        );
    }

    #[test]
    fn routers_get_equal_shares_of_many_vips() {
        for routers in [2_u8, 3, 16] {
            let mut counts = vec![0_u32; routers.into()];
            for vip in vips(4800) {
                counts[usize::from(router_of_vip(vip, routers))] += 1;
            }
            let mean = 4800 / u32::from(routers);
            let is_near = |count: &u32| count.abs_diff(mean) < mean / 4;
            assert!(counts.iter().all(is_near), "{counts:?}");
        }
    }

    #[test]
    fn one_router_more_moves_vips_to_the_new_one_only() {
        for routers in 1..MOST_ROUTERS {
            let moved = vips(1000).filter(|vip| {
                let (before, now) = (
                    router_of_vip(*vip, routers),
                    router_of_vip(*vip, routers + 1),
                );
                assert!(now == before || now == routers, "{vip}: {before} {now}");
                now != before
            });
            let moved = moved.count();
            let share = 1000 / (usize::from(routers) + 1);
            assert!(moved < share + share / 2 + 10, "{routers}: {moved}");
        }
    }

    #[test]
    fn each_director_is_preferred_in_one_router_and_the_next_one_succeeds_it() {
        let directors = [("lvs1", 100), ("lvs2", 100), ("lvs3", 100)];
        let of = |name: &str, all: [u8; 4]| (name.to_owned(), all.to_vec());
        assert_eq!(
            priorities(&directors, 4),
            [
                of("lvs1", [100, 98, 99, 100]),
                of("lvs2", [99, 100, 98, 99]),
                of("lvs3", [98, 99, 100, 98]),
            ]
        );
    }

    #[test]
    fn given_priorities_are_ranked_and_equal_ones_fall() {
        let directors = [("lvs1", 100), ("lvs2", 150), ("lvs3", 100), ("lvs4", 20)];
        let first: Vec<u8> = priorities(&directors, 2)
            .iter()
            .map(|(_, all)| all[0])
            .collect();
        assert_eq!(first, [100, 150, 99, 20]);
        let second: Vec<u8> = priorities(&directors, 2)
            .iter()
            .map(|(_, all)| all[1])
            .collect();
        assert_eq!(second, [150, 20, 100, 99]);
    }

    #[test]
    fn there_is_room_for_all_priorities() {
        let lowest = [("a", 1), ("b", 1), ("c", 1)];
        let first = |given: &[(&str, u8)]| -> Vec<u8> {
            priorities(given, 2).iter().map(|(_, all)| all[0]).collect()
        };
        assert_eq!(first(&lowest), [3, 2, 1]);
        assert_eq!(first(&[("a", 254), ("b", 254), ("c", 2)]), [254, 253, 2]);
        assert_eq!(first(&[("a", 2), ("b", 1), ("c", 1)]), [3, 2, 1]);
    }

    #[test]
    fn one_router_has_the_priorities_that_are_given() {
        let directors = [("lvs1", 100), ("lvs2", 100)];
        let same = |name: &str| (name.to_owned(), vec![100]);
        assert_eq!(priorities(&directors, 1), [same("lvs1"), same("lvs2")]);
    }
}
