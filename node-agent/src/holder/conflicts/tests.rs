//! Tests of what is noted of other machines.

use super::*;

const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

fn vip() -> AddressKey {
    AddressKey::host(&eth0(), "192.0.2.100".parse().unwrap())
}

fn eth0() -> InterfaceName {
    "eth0".parse().unwrap()
}

/// Conflicts of a machine that has held the VIP since the start, and the start.
fn mk_conflicts() -> (Conflicts, Instant) {
    let (mut conflicts, start) = (Conflicts::default(), Instant::now());
    conflicts.follow(&[vip()].into(), start);
    (conflicts, start)
}

fn hears(conflicts: &mut Conflicts, at: Instant) -> bool {
    let announced = conflicts.note(&eth0(), (vip().address, OTHER), at);
    assert!(announced.as_ref().is_none_or(|key| *key == vip()));
    announced.is_some()
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn another_machine_that_goes_on_answering_is_a_problem_until_it_stops() {
    let (mut conflicts, start) = mk_conflicts();
    assert!(hears(&mut conflicts, start + s(10)));
    assert_eq!(conflicts.problems(), []);
    assert_eq!(conflicts.deadline(), Some(start + s(15)));
    assert_eq!(conflicts.due(start + s(15)), [vip()]);
    assert!(hears(&mut conflicts, start + s(15)));
    let [(key, text)] = conflicts.problems().try_into().unwrap();
    assert_eq!(key, vip());
    assert_eq!(
        text,
        "VIP 192.0.2.100: 02:00:00:00:00:09 on eth0 answers for it too; remove it there, or set arp_ignore on a real server"
    );
    for second in [20, 25, 30] {
        assert_eq!(conflicts.due(start + s(second)), [vip()]);
        assert_eq!(conflicts.problems().len(), 1);
    }
    assert_eq!(conflicts.due(start + s(35)), []);
    assert_eq!((conflicts.problems(), conflicts.deadline()), (vec![], None));
}

#[test]
fn the_director_before_may_answer_for_a_moment() {
    let (mut conflicts, start) = mk_conflicts();
    assert!(!hears(&mut conflicts, start + s(4)));
    assert_eq!(conflicts.deadline(), None);
    // One packet alone is no problem, such as after a split of the network.
    assert!(hears(&mut conflicts, start + s(6)));
    assert_eq!(conflicts.due(start + s(11)), [vip()]);
    assert_eq!(conflicts.problems(), []);
}

#[test]
fn a_flood_lets_the_vip_be_announced_only_now_and_then_and_cannot_fill_the_memory() {
    let (mut conflicts, start) = mk_conflicts();
    let times = (0..100).map(|tenth| start + s(10) + Duration::from_millis(100 * tenth));
    let announced = times.filter(|time| hears(&mut conflicts, *time));
    assert_eq!(announced.count(), 4);
    for last in 10..=255 {
        let mac = MacAddr([2, 0, 0, 0, 0, last]);
        conflicts.note(&eth0(), (vip().address, mac), start + s(20));
    }
    assert_eq!(conflicts.seen.len(), MOST);
}

#[test]
fn only_vips_that_this_machine_has_count() {
    let (mut conflicts, start) = mk_conflicts();
    let foreign = "192.0.2.101".parse().unwrap();
    assert_eq!(
        conflicts.note(&eth0(), (foreign, OTHER), start + s(10)),
        None
    );
    assert!(hears(&mut conflicts, start + s(10)));
    conflicts.follow(&BTreeSet::new(), start + s(11));
    assert_eq!(conflicts.due(start + s(15)), []);
    assert!(!hears(&mut conflicts, start + s(16)));
    // It has the VIP anew, and waits anew.
    conflicts.follow(&[vip()].into(), start + s(20));
    assert!(!hears(&mut conflicts, start + s(24)));
    assert!(hears(&mut conflicts, start + s(25)));
}
