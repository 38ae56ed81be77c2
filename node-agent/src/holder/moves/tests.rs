//! Tests of VIPs that move between virtual routers.

use lvs_model::{Candidacy, Family, MacAddr};

use super::*;

const VIP: &str = "192.0.2.1";
const OTHER: &str = "192.0.2.2";
/// How long a stage is with an interval of a second.
const STAGE: Duration = Duration::from_secs(9);

fn key(router_id: u8) -> RouterKey {
    RouterKey {
        interface: "eth0".parse().unwrap(),
        family: Family::V4,
        router_id,
    }
}

fn vip(address: &str) -> AddressKey {
    AddressKey::host(&"eth0".parse().unwrap(), address.parse().unwrap())
}

fn held() -> BTreeSet<AddressKey> {
    [vip(OTHER)].into()
}

/// Virtual routers of a group, each with its VIPs.
fn routers_of(group: &str, routers: &[(u8, &[&str])]) -> BTreeMap<RouterKey, VirtualRouter> {
    let count = u8::try_from(routers.len()).unwrap();
    let routers = routers.iter().map(|(id, vips)| {
        let router = VirtualRouter {
            candidacy: Candidacy {
                router_id: 51,
                routers: count,
                interval: 100,
                preempt_after: None,
                priorities: Vec::new(),
                standby: false,
                unicast: None,
            },
            groups: [group.parse().unwrap()].into(),
            vips: vips.iter().map(|address| vip(address)).collect(),
        };
        (key(*id), router)
    });
    routers.collect()
}

fn routers(routers: &[(u8, &[&str])]) -> BTreeMap<RouterKey, VirtualRouter> {
    routers_of("edge", routers)
}

/// The ids of routers with their VIPs.
fn shown(routers: &BTreeMap<RouterKey, VirtualRouter>) -> Vec<(u8, Vec<String>)> {
    let routers = routers.iter().map(|(key, router)| {
        let vips = router.vips.iter().map(|vip| vip.address.to_string());
        (key.router_id, vips.collect())
    });
    routers.collect()
}

fn expected(routers: &[(u8, &[&str])]) -> Vec<(u8, Vec<String>)> {
    shown(&self::routers(routers))
}

fn claim(address: &str) -> Vec<SeenClaim> {
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    vec![("eth0".parse().unwrap(), (address.parse().unwrap(), mac))]
}

/// Two VIPs in one router, the second of which moves to another one at the time that is returned too.
fn split() -> (Moves, Instant) {
    let (mut moves, start) = (Moves::default(), Instant::now());
    assert!(
        moves
            .follow(&routers(&[(51, &[VIP, OTHER])]), start)
            .is_none()
    );
    let shape = moves.follow(&routers(&[(51, &[VIP]), (52, &[OTHER])]), start);
    assert!(shape.is_some());
    (moves, start)
}

fn after(moves: &mut Moves, moment: Instant) -> Option<RoutersDuringMoves> {
    let known = moves.known.clone();
    moves.follow(&known, moment)
}

#[test]
fn the_former_router_decides_first_then_the_present_one_and_then_the_move_is_over() {
    let (mut moves, start) = split();
    let both: &[(u8, &[&str])] = &[(51, &[VIP, OTHER]), (52, &[OTHER])];
    let shape = after(&mut moves, start + STAGE - Duration::from_millis(1)).unwrap();
    assert_eq!(shown(&shape.candidates), expected(both));
    assert_eq!(
        shown(&shape.deciding),
        expected(&[(51, &[VIP, OTHER]), (52, &[])])
    );
    assert!(moves.unannounced().is_empty());
    assert_eq!(moves.deadline(), Some(start + STAGE));

    let shape = after(&mut moves, start + STAGE).unwrap();
    assert_eq!(shown(&shape.candidates), expected(both));
    assert_eq!(
        shown(&shape.deciding),
        expected(&[(51, &[VIP]), (52, &[OTHER])])
    );
    assert_eq!(moves.unannounced(), [&vip(OTHER)].into());

    assert!(after(&mut moves, start + 2 * STAGE).is_none());
    assert_eq!(moves.deadline(), None);
}

#[test]
fn a_router_that_the_group_does_not_have_any_more_goes_on_for_a_while() {
    let (mut moves, start) = (Moves::default(), Instant::now());
    moves.follow(&routers(&[(51, &[VIP]), (52, &[OTHER])]), start);
    let mut merged = routers(&[(51, &[VIP, OTHER])]);
    for router in merged.values_mut() {
        router.candidacy.standby = true;
    }
    let shape = moves.follow(&merged, start).unwrap();
    assert_eq!(
        shown(&shape.deciding),
        expected(&[(51, &[VIP]), (52, &[OTHER])])
    );
    // It follows what puts the machine on standby.
    assert!(shape.candidates[&key(52)].candidacy.standby);
    assert!(moves.is_renamed(&vip(OTHER)));
    assert!(!moves.has_new_id(&vip(OTHER)));
    assert!(after(&mut moves, start + 2 * STAGE).is_none());
}

#[test]
fn the_only_router_of_a_group_may_get_another_id() {
    let (mut moves, start) = (Moves::default(), Instant::now());
    moves.follow(&routers(&[(51, &[VIP])]), start);
    moves.follow(&routers(&[(60, &[VIP])]), start);
    assert!(moves.has_new_id(&vip(VIP)));
    let (split, _) = split();
    assert!(!split.has_new_id(&vip(OTHER)));
}

#[test]
fn a_vip_is_kept_until_the_director_that_takes_it_over_announces_it() {
    for moment in [Duration::ZERO, STAGE] {
        let (mut moves, start) = split();
        after(&mut moves, start + moment);
        // What others say of a VIP that does not move is left to others.
        let mut claims = claim(VIP);
        assert!(!moves.note_claims(&mut claims, &[key(51)].into(), &held()));
        assert_eq!(claims, claim(VIP));

        let mut claims = claim(OTHER);
        assert!(moves.note_claims(&mut claims, &[key(51)].into(), &held()));
        assert!(claims.is_empty());
        assert!(!moves.note_claims(&mut claim(OTHER), &[key(51)].into(), &held()));
        let shape = after(&mut moves, start + moment).unwrap();
        assert_eq!(
            shown(&shape.deciding),
            expected(&[(51, &[VIP]), (52, &[OTHER])])
        );
        assert!(moves.unannounced().is_empty());
        // The former router goes on all the same.
        let last = start + 2 * STAGE - Duration::from_millis(1);
        assert_eq!(
            shown(&after(&mut moves, last).unwrap().candidates)[0]
                .1
                .len(),
            2
        );
        assert!(after(&mut moves, start + 2 * STAGE).is_none());
    }
}

#[test]
fn a_director_without_a_vip_may_take_it_over_by_the_former_router_after_an_announcement() {
    let (mut moves, start) = split();
    assert!(!moves.note_claims(&mut claim(OTHER), &[key(51)].into(), &BTreeSet::new()));
    let routers = after(&mut moves, start).unwrap();
    let both = &[(51, &[VIP, OTHER][..]), (52, &[])];
    assert_eq!(shown(&routers.deciding), expected(both));
}

#[test]
fn the_director_that_the_present_router_chooses_ignores_the_other_one() {
    let (mut moves, start) = split();
    after(&mut moves, start + STAGE);
    let mut claims = claim(OTHER);
    assert!(!moves.note_claims(&mut claims, &[key(52)].into(), &held()));
    assert!(claims.is_empty());
    assert_eq!(moves.unannounced(), [&vip(OTHER)].into());
}

#[test]
fn a_vip_that_goes_back_before_it_has_moved_does_not_move() {
    let (mut moves, start) = split();
    assert!(
        moves
            .follow(&routers(&[(51, &[VIP, OTHER])]), start)
            .is_none()
    );

    // One that has moved already moves back.
    let (mut moves, start) = split();
    after(&mut moves, start + STAGE);
    let back = routers(&[(51, &[VIP, OTHER])]);
    let shape = moves.follow(&back, start + STAGE).unwrap();
    assert_eq!(
        shown(&shape.deciding),
        expected(&[(51, &[VIP]), (52, &[OTHER])])
    );
}

#[test]
fn a_vip_that_changes_its_group_does_not_move_in_stages() {
    let (mut moves, start) = (Moves::default(), Instant::now());
    moves.follow(&routers(&[(51, &[VIP])]), start);
    assert!(
        moves
            .follow(&routers_of("core", &[(61, &[VIP])]), start)
            .is_none()
    );
}

#[test]
fn the_director_with_a_vip_that_moves_is_shown_as_the_active_one() {
    let (mut moves, start) = split();
    let standings = |active: &[u8], standby: &[u8]| Standings {
        active: active.iter().map(|id| key(*id)).collect(),
        standby: standby.iter().map(|id| key(*id)).collect(),
        ..Standings::default()
    };
    let is_active = |shown: &Standings| {
        let key = key(52);
        shown.active.contains(&key) || shown.reported_active.contains(&key)
    };
    let none = BTreeSet::new();
    let has = BTreeSet::from([vip(OTHER)]);
    let former = standings(&[51], &[52]);
    let chosen = standings(&[52], &[51]);
    assert!(is_active(&moves.reported(&former, &has)));
    assert!(!is_active(&moves.reported(&chosen, &none)));

    after(&mut moves, start + STAGE);
    assert!(is_active(&moves.reported(&former, &has)));
    assert!(is_active(&moves.reported(&chosen, &none)));
    moves.note_claims(&mut claim(OTHER), &[key(51)].into(), &held());
    assert!(!is_active(&moves.reported(&former, &has)));
}
