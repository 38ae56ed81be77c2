//! Tests of the pace of announcements.

use super::*;

fn vips(count: u32) -> BTreeSet<AddressKey> {
    let first = std::net::Ipv4Addr::new(10, 0, 0, 0).to_bits();
    let address = |offset| std::net::Ipv4Addr::from_bits(first + offset);
    let interface: InterfaceName = "eth0".parse().unwrap();
    (0..count)
        .map(|offset| AddressKey::host(&interface, address(offset).into()))
        .collect()
}

/// The sizes of the parts of one round, with at most so many VIPs each, and how long it takes.
fn round(held: &BTreeSet<AddressKey>, most: usize) -> (Vec<usize>, Duration) {
    let start = Instant::now();
    let (mut round, mut now) = (Round::default(), start);
    let (mut sizes, mut seen) = (Vec::new(), BTreeSet::new());
    loop {
        let part = round.next_part(held, now, most);
        sizes.push(part.len());
        seen.extend(part);
        now = round.at.unwrap_or(now);
        if round.last.is_none() {
            break;
        }
    }
    assert_eq!(seen, *held);
    (sizes, now - start)
}

#[test]
fn a_round_announces_every_vip_once_in_even_parts() {
    assert_eq!(round(&vips(1), usize::MAX), (vec![1], ROUND));
    assert_eq!(round(&vips(3), usize::MAX), (vec![1, 1, 1], ROUND));
    let (sizes, took) = round(&vips(10_000), usize::MAX);
    assert_eq!(sizes.iter().sum::<usize>(), 10_000);
    assert!(sizes.iter().all(|size| *size <= 223));
    assert!(took <= ROUND && took > ROUND / 2);
}

#[test]
fn many_vips_are_asked_for_in_small_parts() {
    let (sizes, took) = round(&vips(10_000), MOST_ASKED);
    assert_eq!(sizes, [20; 500]);
    assert_eq!(took, Duration::from_secs(500));
}

#[test]
fn a_round_goes_on_when_its_last_vip_is_gone_and_ends_without_vips() {
    let (mut round, now) = (Round::default(), Instant::now());
    let mut held = vips(3);
    let first = round.next_part(&held, now, usize::MAX);
    held.remove(&first[0]);
    assert_eq!(round.next_part(&held, now, usize::MAX).len(), 1);
    held.clear();
    assert_eq!(round.next_part(&held, now, usize::MAX), []);
    assert_eq!(round.at, None);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn many_vips_are_announced_at_a_start_without_a_burst() {
    const COUNT: u32 = 10_000;
    const WINDOW: Duration = Duration::from_millis(100);
    let keys: Vec<AddressKey> = vips(COUNT).into_iter().collect();
    let mut sent = Vec::new();
    in_bursts(&keys, async |_, addresses| {
        sent.push((tokio::time::Instant::now(), addresses.len()));
        true
    })
    .await;
    assert_eq!(
        sent.iter().map(|(_, count)| count).sum::<usize>(),
        keys.len()
    );
    let most = BURST * usize::try_from(WINDOW.as_millis() / PAUSE.as_millis()).unwrap();
    for (start, _) in &sent {
        let within = sent
            .iter()
            .filter(|(at, _)| (*start..*start + WINDOW).contains(at));
        let count: usize = within.map(|(_, count)| count).sum();
        assert!(count <= most, "{count} announcements in {WINDOW:?}");
    }
}
