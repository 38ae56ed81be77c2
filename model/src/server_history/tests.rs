//! Which version is the previous one after changes, and for how long.

use super::*;
use crate::sample::{dr_server, hashed_service};

const KEEP_SECONDS: u32 = 300;

/// A version with these real servers: the last number of the address of each, and its weight.
fn version(servers: &[(u8, u32)]) -> Arc<VirtualService> {
    let servers = servers.iter();
    let servers = servers.map(|(number, weight)| dr_server(&format!("192.0.2.{number}"), *weight));
    Arc::new(hashed_service(servers.collect()))
}

/// The history after each change at its time.
fn history_after(changes: &[(u64, &[(u8, u32)])]) -> ServerHistory {
    let history = changes.iter().fold(None, |known, (now, servers)| {
        let present = version(servers);
        Some(ServerHistory::follow(known, present, KEEP_SECONDS, *now))
    });
    history.unwrap()
}

/// The real servers with their weights of the version that leads, and since when it is a previous one.
fn previous_after(changes: &[(u64, &[(u8, u32)])]) -> Option<(Vec<(u8, u32)>, u64)> {
    let history = history_after(changes);
    let previous = history.leading()?;
    let servers = previous.service.real_servers.iter();
    let numbers = servers.map(|server| match server.address {
        IpAddr::V4(address) => (address.octets()[3], server.weight),
        IpAddr::V6(_) => unreachable!(),
    });
    Some((numbers.collect(), previous.since))
}

#[test]
fn the_version_before_a_change_counts_until_its_time_is_over() {
    let (before, after): (&[_], &[_]) = (&[(1, 1), (4, 1)], &[(1, 1), (5, 1)]);
    assert_eq!(previous_after(&[(1000, before)]), None);
    let changes = [(1000, before), (2000, after), (2299, after)];
    assert_eq!(previous_after(&changes), Some((vec![(1, 1), (4, 1)], 2000)));
    assert_eq!(
        previous_after(&[(1000, before), (2000, after), (2300, after)]),
        None
    );
    // A weight is a change too.
    let reweighted = previous_after(&[(1000, before), (2000, &[(1, 1), (4, 2)])]);
    assert_eq!(reweighted, Some((vec![(1, 1), (4, 1)], 2000)));
}

#[test]
fn changes_that_follow_at_once_are_one_change() {
    // Server 5 replaces 4, and has weight once it is ready.
    let changes: [(u64, &[(u8, u32)]); 4] = [
        (1000, &[(1, 1), (4, 1)]),
        (2000, &[(1, 1), (5, 0)]),
        (2001, &[(1, 1), (5, 1)]),
        (2009, &[(1, 1), (5, 1), (6, 1)]),
    ];
    assert_eq!(previous_after(&changes), Some((vec![(1, 1), (4, 1)], 2000)));
}

#[test]
fn a_later_change_leads_by_another_version_and_the_one_before_counts_for_its_time() {
    let changes: [(u64, &[(u8, u32)]); 5] = [
        (1000, &[(1, 1)]),
        (2000, &[(2, 1)]),
        (2010, &[(3, 1)]),
        (2300, &[(3, 1)]),
        (2310, &[(3, 1)]),
    ];
    for (count, since) in [(3, &[2010, 2000][..]), (4, &[2010]), (5, &[])] {
        let history = history_after(&changes[..count]);
        let counted = history.previous.iter().map(|version| version.since);
        assert!(counted.eq(since.iter().copied()), "{history:?}");
    }
    assert_eq!(previous_after(&changes[..4]), Some((vec![(2, 1)], 2010)));
}

#[test]
fn while_real_servers_are_only_added_the_oldest_version_leads() {
    let changes: [(u64, &[(u8, u32)]); 5] = [
        (1000, &[(1, 1)]),
        (2000, &[(1, 1), (2, 1)]),
        (2100, &[(1, 1), (2, 1), (3, 1)]),
        (2300, &[(1, 1), (2, 1), (3, 1)]),
        (2310, &[(2, 1), (3, 1)]),
    ];
    assert_eq!(
        previous_after(&changes[..3]),
        Some((vec![(1, 1)], 2000)),
        "it finds connections from before both changes"
    );
    let second = Some((vec![(1, 1), (2, 1)], 2100));
    assert_eq!(previous_after(&changes[..4]), second);
    // One has gone: only the newest leads to all.
    let newest = Some((vec![(1, 1), (2, 1), (3, 1)], 2310));
    assert_eq!(previous_after(&changes), newest);
}

#[test]
fn a_version_that_is_in_force_again_leads_nowhere() {
    let changes: [(u64, &[(u8, u32)]); 3] = [
        (1000, &[(1, 1)]),
        (2000, &[(1, 1), (2, 1)]),
        (2100, &[(1, 1)]),
    ];
    assert_eq!(previous_after(&changes), Some((vec![(1, 1), (2, 1)], 2100)));
}

#[test]
fn the_newest_version_from_which_a_real_server_has_gone_leads() {
    let changes: [(u64, &[(u8, u32)]); 3] = [
        (1000, &[(1, 1), (2, 1)]),
        (2000, &[(1, 1)]),
        (2060, &[(1, 1), (3, 1)]),
    ];
    assert_eq!(previous_after(&changes), Some((vec![(1, 1), (2, 1)], 2000)));
}

/// Since when connections from before an earlier change are not all found.
#[test]
fn a_version_is_passed_over_if_the_leading_one_and_the_present_one_are_others() {
    let passed_over = |changes: &[(u64, &[(u8, u32)])]| {
        let history = history_after(changes);
        history.passed_over().map(|version| version.since)
    };
    let replaced: [(u64, &[(u8, u32)]); 4] = [
        (1000, &[(1, 1)]),
        (1100, &[(2, 1)]),
        (1200, &[(3, 1)]),
        (1300, &[(4, 1)]),
    ];
    assert_eq!(passed_over(&replaced[..2]), None);
    assert_eq!(passed_over(&replaced[..3]), Some(1100));
    assert_eq!(passed_over(&replaced), Some(1200));
    // One is not ready for a minute.
    let unready: [(u64, &[(u8, u32)]); 3] = [
        (1000, &[(1, 1), (2, 1)]),
        (1100, &[(1, 1), (2, 0)]),
        (1160, &[(1, 1), (2, 1)]),
    ];
    assert_eq!(passed_over(&unready), None);
}

#[test]
fn a_limited_number_of_versions_is_remembered() {
    let servers: Vec<[(u8, u32); 1]> = (1..100).map(|number| [(number, 1)]).collect();
    let changes = (1000..).step_by(10).zip(&servers);
    let changes: Vec<(u64, &[(u8, u32)])> = changes.map(|(now, set)| (now, &set[..])).collect();
    let history = history_after(&changes);
    assert_eq!(history.previous.len(), MOST_REPLACED);
    assert_eq!(history.previous[0].since, 1980);
}

#[test]
fn real_servers_without_weight_leave_the_previous_version() {
    let drained: [(u64, &[(u8, u32)]); 3] = [
        (1000, &[(1, 1), (4, 1)]),
        (2000, &[(1, 1), (4, 0)]),
        (2200, &[(1, 1)]),
    ];
    assert_eq!(previous_after(&drained), Some((vec![(1, 1), (4, 1)], 2200)));
    // It has the role of one for a while, and nothing is led differently.
    let drained_before = history_after(&[(1000, &[(1, 1), (4, 0)]), (2000, &[(1, 1)])]);
    assert_eq!(drained_before.previous.len(), 1);
    assert_eq!(drained_before.leading(), None);
}

#[test]
fn another_order_is_no_change_and_counts_for_the_next_one() {
    let changes: [(u64, &[(u8, u32)]); 3] = [
        (1000, &[(4, 1), (1, 1)]),
        (2000, &[(1, 1), (4, 1)]),
        (3000, &[(1, 1), (5, 1)]),
    ];
    assert_eq!(previous_after(&changes[..2]), None);
    assert_eq!(previous_after(&changes), Some((vec![(1, 1), (4, 1)], 3000)));
}

#[test]
fn a_version_without_connections_replaces_nothing() {
    let unready: [(u64, &[(u8, u32)]); 3] = [
        (1000, &[(1, 1), (2, 1)]),
        (2000, &[(1, 0), (2, 0)]),
        (2100, &[(1, 1), (3, 1)]),
    ];
    assert_eq!(previous_after(&unready), Some((vec![(1, 1), (2, 1)], 2000)));
    let empty: [(u64, &[(u8, u32)]); 2] = [(1000, &[]), (2000, &[(1, 1)])];
    assert_eq!(previous_after(&empty), None);
}

#[test]
fn a_clock_that_is_set_back_does_not_prolong_a_previous_version() {
    let changes: [(u64, &[(u8, u32)]); 3] = [(9000, &[(1, 1)]), (9000, &[(2, 1)]), (50, &[(2, 1)])];
    assert_eq!(previous_after(&changes), Some((vec![(1, 1)], 50)));
}

#[test]
fn a_real_server_that_is_added_later_leaves_the_version_of_one_that_has_gone() {
    // Server 4 is added with weight 0 first.
    let changes: [(u64, &[(u8, u32)]); 4] = [
        (1000, &[(1, 1), (2, 1)]),
        (2000, &[(1, 1), (3, 1)]),
        (2100, &[(1, 1), (3, 1), (4, 0)]),
        (2101, &[(1, 1), (3, 1), (4, 1)]),
    ];
    let before = Some((vec![(1, 1), (2, 1)], 2000));
    assert_eq!(previous_after(&changes), before);
    assert_eq!(history_after(&changes).previous.len(), 2);
}
