//! When a previous set counts, with which mark, and which virtual services can be kept.

use std::sync::Arc;

use super::*;
use crate::{
    Persistence, PersistenceByFamily, Port, RealServer, Scheduler,
    sample::{dr_server, hashed_service},
};

const KEEP_SECONDS: u32 = 300;

/// No second service with connections.
const NONE: BTreeSet<ServiceKey> = BTreeSet::new();

fn server(address: &str) -> RealServer {
    dr_server(address, 1)
}

fn service(servers: &[&str]) -> VirtualService {
    hashed_service(servers.iter().map(|address| server(address)).collect())
}

fn kept(name: &str, service: VirtualService) -> BTreeMap<ObjectName, KeptService> {
    let kept = KeptService {
        service: Arc::new(service),
        keep_seconds: Some(KEEP_SECONDS),
        is_directed: false,
    };
    [(ObjectName::new("shop", name).unwrap(), kept)].into()
}

fn web(servers: &[&str]) -> BTreeMap<ObjectName, KeptService> {
    kept("web", service(servers))
}

/// Remembers the sets of a machine that directs nothing.
fn remember(
    sets: &mut Vec<ServerSet>,
    kept: &BTreeMap<ObjectName, KeptService>,
    in_use: &BTreeSet<ServiceKey>,
    now: u64,
) -> bool {
    let has_learned = super::remember(sets, kept, now, |_| false);
    forget(sets, kept, in_use, now, |_| false) || has_learned
}

/// The addresses of the newest replaced set of the only set.
fn previous(sets: &[ServerSet]) -> Option<Vec<String>> {
    let previous = sets.first()?.replaced.first()?;
    Some(in_order(&previous.servers))
}

/// The addresses of a set in the order in which they are added.
fn in_order(set: &Service) -> Vec<String> {
    let servers = set.in_order().map(|(server, _)| server.address);
    servers.map(|address| address.to_string()).collect()
}

#[test]
fn the_set_before_a_change_counts_until_its_time_is_over() {
    let mut sets = Vec::new();
    assert!(remember(&mut sets, &web(&["192.0.2.11"]), &NONE, 1000));
    assert_eq!(previous(&sets), None, "nothing was in force before");
    assert!(remember(&mut sets, &web(&["192.0.2.12"]), &NONE, 2000));
    let first = Some(vec!["192.0.2.11".to_owned()]);
    for now in [2000, 2299] {
        remember(&mut sets, &web(&["192.0.2.12"]), &NONE, now);
        assert_eq!(previous(&sets), first);
    }
    assert!(remember(&mut sets, &web(&["192.0.2.12"]), &NONE, 2300));
    assert_eq!(previous(&sets), None);
    assert!(!remember(&mut sets, &web(&["192.0.2.12"]), &NONE, 2301));
}

#[test]
fn another_order_is_no_change_and_each_set_has_the_last_one_of_its_list() {
    let (one, two, three) = ("192.0.2.11", "192.0.2.12", "192.0.2.13");
    let mut sets = Vec::new();
    remember(&mut sets, &web(&[one, three, two]), &NONE, 1000);
    assert!(
        remember(&mut sets, &web(&[three, one, two]), &NONE, 2000),
        "it is to be stored"
    );
    assert_eq!(previous(&sets), None);
    assert!(!remember(&mut sets, &web(&[three, one, two]), &NONE, 2001));
    remember(&mut sets, &web(&[three, two]), &NONE, 3000);
    for list in [&[two, three], &[three, two]] {
        remember(&mut sets, &web(list), &NONE, 3001);
        assert_eq!(previous(&sets).unwrap(), [three, one, two]);
        assert_eq!(in_order(&sets[0].present), *list);
    }
}

fn second_service_of(set: &ServerSet) -> ServiceKey {
    set.replaced[0].service_key(&set.key)
}

#[test]
fn a_set_whose_time_is_over_counts_as_long_as_it_has_connections() {
    let mut sets = Vec::new();
    remember(&mut sets, &web(&["192.0.2.11"]), &NONE, 1000);
    remember(&mut sets, &web(&["192.0.2.12"]), &NONE, 2000);
    let now = web(&["192.0.2.12"]);
    assert_eq!(ending(&sets, &now, 2299), NONE);
    let ends = BTreeSet::from([second_service_of(&sets[0])]);
    assert_eq!(ending(&sets, &now, 2300), ends);

    assert!(!remember(&mut sets, &now, &ends, 2300));
    assert_eq!(previous(&sets), Some(vec!["192.0.2.11".to_owned()]));
    assert_eq!(ending(&sets, &now, 2360), ends);
    assert!(remember(&mut sets, &now, &NONE, 2360));
    assert_eq!(previous(&sets), None);
}

/// The real servers of the set that stray packets are led by.
fn led_by(
    sets: &[ServerSet],
    kept: &BTreeMap<ObjectName, KeptService>,
    now: u64,
) -> Option<Vec<String>> {
    let leading = leading(kept.values().next()?, sets.first()?, now)?;
    Some(in_order(&leading.servers))
}

#[test]
fn a_later_change_leads_by_another_set_and_the_one_before_stays_for_its_time() {
    let mut sets = Vec::new();
    for (server, now) in [("192.0.2.11", 1), ("192.0.2.12", 2), ("192.0.2.13", 100)] {
        remember(&mut sets, &web(&[server]), &NONE, now);
    }
    let now = web(&["192.0.2.13"]);
    assert_eq!(led_by(&sets, &now, 100).unwrap(), ["192.0.2.12"]);
    let replaced = sets[0].replaced.iter();
    let replaced: Vec<_> = replaced.map(|set| (set.mark.get(), set.since)).collect();
    let first = *SECOND_MARKS.start();
    assert_eq!(replaced, [(first + 1, 100), (first, 2)]);

    remember(&mut sets, &now, &NONE, 302);
    assert_eq!(sets[0].replaced.len(), 1);
    assert_eq!(led_by(&sets, &now, 302).unwrap(), ["192.0.2.12"]);
}

/// Nothing that the older set leads to has gone, and it finds connections from before both changes.
#[test]
fn while_real_servers_are_only_added_the_oldest_set_leads() {
    let (one, two, three) = ("192.0.2.11", "192.0.2.12", "192.0.2.13");
    let mut sets = Vec::new();
    remember(&mut sets, &web(&[one]), &NONE, 1);
    remember(&mut sets, &web(&[one, two]), &NONE, 100);
    remember(&mut sets, &web(&[one, two, three]), &NONE, 200);
    let all = web(&[one, two, three]);
    assert_eq!(led_by(&sets, &all, 399).unwrap(), [one]);
    assert_eq!(led_by(&sets, &all, 400).unwrap(), [one, two]);
    assert_eq!(led_by(&sets, &all, 500), None);

    let fewer = web(&[two, three]);
    remember(&mut sets, &fewer, &NONE, 210);
    assert_eq!(led_by(&sets, &fewer, 210).unwrap(), [one, two, three]);
}

#[test]
fn the_newest_set_from_which_a_real_server_has_gone_leads() {
    let (one, two, three) = ("192.0.2.11", "192.0.2.12", "192.0.2.13");
    let mut sets = Vec::new();
    remember(&mut sets, &web(&[one, two]), &NONE, 1);
    remember(&mut sets, &web(&[one]), &NONE, 100);
    remember(&mut sets, &web(&[one, three]), &NONE, 160);
    let now = web(&[one, three]);
    assert_eq!(led_by(&sets, &now, 160).unwrap(), [one, two]);
    assert_eq!(led_by(&sets, &now, 400).unwrap(), [one]);
}

#[test]
fn a_set_with_the_weights_of_the_present_one_leads_nowhere() {
    let (one, two) = ("192.0.2.11", "192.0.2.12");
    let mut drained = service(&[one, two]);
    drained.real_servers[0].weight = 0;
    let mut sets = Vec::new();
    remember(&mut sets, &web(&[one, two]), &NONE, 1);
    remember(&mut sets, &kept("web", drained), &NONE, 100);
    let now = web(&[two]);
    remember(&mut sets, &now, &NONE, 130);
    assert_eq!(led_by(&sets, &now, 130).unwrap(), [one, two]);
}

#[test]
fn a_set_that_is_in_force_again_leads_nowhere() {
    let (one, two) = ("192.0.2.11", "192.0.2.12");
    let mut sets = Vec::new();
    for (servers, now) in [(&[one][..], 1), (&[one, two], 2), (&[one], 3)] {
        remember(&mut sets, &web(servers), &NONE, now);
    }
    assert_eq!(led_by(&sets, &web(&[one]), 3).unwrap(), [one, two]);
    // Each has one mark for all times.
    for (servers, now) in [(&[one, two][..], 4), (&[one], 5), (&[one, two], 6)] {
        remember(&mut sets, &web(servers), &NONE, now);
        assert_eq!(sets[0].replaced.len(), 2);
    }
    assert_eq!(led_by(&sets, &web(&[one, two]), 6).unwrap(), [one]);
}

#[test]
fn a_machine_remembers_a_limited_number_of_sets() {
    let mut sets = Vec::new();
    for number in 1..100 {
        let server = format!("192.0.2.{number}");
        remember(&mut sets, &web(&[&server]), &NONE, number);
    }
    assert_eq!(sets[0].replaced.len(), MOST_REPLACED);
    assert_eq!(previous(&sets).unwrap(), ["192.0.2.98"]);

    // One that is in use stays.
    let used = sets[0].replaced.last().unwrap().service_key(&sets[0].key);
    let in_use = BTreeSet::from([used]);
    for number in 101..200 {
        let server = format!("192.0.2.{number}");
        remember(&mut sets, &web(&[&server]), &in_use, number);
    }
    assert_eq!(sets[0].replaced.len(), MOST_REPLACED + 1);
    let last = sets[0].replaced.last().unwrap();
    assert_eq!(last.service_key(&sets[0].key), used);
}

/// It is a real server all the time, and has one connection that does not end.
#[test]
fn a_connection_keeps_its_own_set_alone() {
    let (own, other) = ("192.0.2.11", "192.0.2.12");
    let mut sets = Vec::new();
    roles(&[own, other], &mut sets, (&NONE, 1));
    let spec = roles(&[own], &mut sets, (&NONE, 2));
    let in_use = BTreeSet::from([spec.second_chances[0].service_key()]);
    for number in 20..50 {
        let server = format!("192.0.2.{number}");
        let now = number * 1000;
        roles(&[own, &server], &mut sets, (&in_use, now));
        assert!(sets[0].replaced.len() <= 2, "{:?}", sets[0].replaced);
    }
}

/// The roles of the machine 192.0.2.11 after a look at a file.
fn roles(
    servers: &[&str],
    sets: &mut Vec<ServerSet>,
    (in_use, now): (&BTreeSet<ServiceKey>, u64),
) -> NodeSpec {
    let own = |address: &IpAddr| *address == "192.0.2.11".parse::<IpAddr>().unwrap();
    let kept = web(servers);
    let mut spec = NodeSpec {
        kept,
        ..NodeSpec::default()
    };
    if servers.contains(&"192.0.2.11") {
        spec.serves = [(ObjectName::new("shop", "web").unwrap(), serving())].into();
    }
    super::remember(sets, &spec.kept, now, own);
    forget(sets, &spec.kept, in_use, now, own);
    recall(&mut spec, sets, in_use, now, own);
    spec
}

fn serving() -> RealServerRole {
    RealServerRole {
        vips: service(&[]).frontend.vips().to_vec(),
        nat: Nat::default(),
        own: BTreeMap::new(),
        is_former: false,
    }
}

/// A director that takes over sends them to the real server that it chooses, that one to this machine, and this one to theirs.
#[test]
fn connections_by_way_of_a_machine_stay_when_it_is_no_real_server_any_more() {
    let (own, two, three) = ("192.0.2.11", "192.0.2.12", "192.0.2.13");
    let mut sets = Vec::new();
    roles(&[two, three], &mut sets, (&NONE, 1));
    let spec = roles(&[own, two], &mut sets, (&NONE, 1000));
    let [chance] = spec.second_chances.as_slice() else {
        panic!("{spec:?}")
    };
    assert!(chance.takes_strays);
    let used = BTreeSet::from([chance.service_key()]);
    let is_former = |spec: &NodeSpec| spec.serves.values().all(|role| role.is_former);

    let kept = web(&[two]);
    assert_eq!(ending(&sets, &kept, 1299), NONE);
    for now in [1010, 1300, 9000] {
        let spec = roles(&[two], &mut sets, (&used, now));
        let [chance] = spec.second_chances.as_slice() else {
            panic!("{now}: {spec:?}")
        };
        assert!(!chance.takes_strays && used.contains(&chance.service_key()));
        assert!(
            is_former(&spec) && spec.serves.len() == 1,
            "{now}: {spec:?}"
        );
    }
    assert!(ending(&sets, &kept, 9000).is_superset(&used));
    let spec = roles(&[two], &mut sets, (&NONE, 9001));
    assert!(spec.second_chances.is_empty() && spec.serves.is_empty());
}

/// The set by which it has led the connections is the newest, and takes the strays of others.
#[test]
fn connections_stay_when_the_real_servers_come_back_and_this_machine_leaves() {
    let (own, two, three) = ("192.0.2.11", "192.0.2.12", "192.0.2.13");
    let mut sets = Vec::new();
    roles(&[own, two], &mut sets, (&NONE, 1));
    let spec = roles(&[own, three], &mut sets, (&NONE, 100));
    let used = BTreeSet::from([spec.second_chances[0].service_key()]);
    roles(&[own, two], &mut sets, (&used, 200));
    let spec = roles(&[two, three], &mut sets, (&used, 210));
    let mut chances = spec.second_chances.iter();
    assert!(chances.any(|chance| used.contains(&chance.service_key())));
}

#[test]
fn a_former_real_server_serves_for_its_time_whatever_changes_then() {
    let (own, two, three) = ("192.0.2.11", "192.0.2.12", "192.0.2.13");
    let mut sets = Vec::new();
    for (servers, now, is_former) in [
        (&[own, two][..], 1, false),
        (&[two], 100, true),
        (&[three], 200, true),
        (&[three], 399, true),
        (&[three], 400, false),
    ] {
        let spec = roles(servers, &mut sets, (&NONE, now));
        let mut roles = spec.serves.values();
        assert_eq!(roles.any(|role| role.is_former), is_former, "{now}");
    }
}

#[test]
fn a_clock_that_is_set_back_does_not_prolong_a_previous_set() {
    let mut sets = Vec::new();
    remember(&mut sets, &web(&["192.0.2.11"]), &NONE, 1_000_000);
    remember(&mut sets, &web(&["192.0.2.12"]), &NONE, 1_000_000);
    assert!(remember(&mut sets, &web(&["192.0.2.12"]), &NONE, 50));
    remember(&mut sets, &web(&["192.0.2.12"]), &NONE, 50 + 300);
    assert_eq!(previous(&sets), None);
}

#[test]
fn each_set_has_a_mark_of_its_own_and_a_forgotten_one_gives_it_back() {
    let mut both = web(&["192.0.2.11"]);
    let mut api = service(&["192.0.2.11"]);
    api.frontend = Frontend::Addresses {
        vips: vec!["2001:db8::100".parse().unwrap()],
        ports: vec![Port {
            protocol: Protocol::Tcp,
            port: 443,
        }],
    };
    api.real_servers[0] = server("2001:db8::11");
    both.extend(kept("api", api));
    let mut sets = Vec::new();
    remember(&mut sets, &both, &NONE, 1);
    for kept in both.values_mut() {
        Arc::make_mut(&mut kept.service).real_servers[0].weight = 2;
    }
    remember(&mut sets, &both, &NONE, 2);
    let marks = |sets: &[ServerSet]| -> BTreeSet<u32> {
        let replaced = sets.iter().flat_map(|set| &set.replaced);
        replaced.map(|replaced| replaced.mark.get()).collect()
    };
    let first = *SECOND_MARKS.start();
    assert_eq!(marks(&sets), [first, first + 1].into());
    both.pop_first();
    remember(&mut sets, &both, &NONE, 3);
    assert_eq!(marks(&sets).len(), 1);
}

#[test]
fn only_the_hash_of_the_client_by_dr_or_tun_can_be_kept() {
    assert!(is_keepable(&service(&["192.0.2.11"])));
    let mut others = vec![service(&[]), service(&[]), service(&[]), service(&[])];
    others[0].scheduler = Scheduler::new(SchedulerName::Wlc, &[]);
    others[1].forwarding = Forwarding::Nat;
    let client = Persistence {
        timeout_seconds: 300,
        prefix_length: 32,
        engine: None,
    };
    others[2].persistence = Some(PersistenceByFamily {
        v4: client.clone(),
        v6: client,
    });
    others[3].frontend = Frontend::Fwmark(7.try_into().unwrap());
    for other in others {
        assert!(!is_keepable(&other), "{other:?}");
    }
}

/// The roles of the machine 192.0.2.11, which has been given the set before a change. `servers` are its own real servers of the
/// present set.
fn given(servers: &[&str], previous: &[&str], sets: &mut Vec<ServerSet>, now: u64) -> NodeSpec {
    given_in_use(servers, previous, sets, (&NONE, now))
}

/// The same, with second services that have connections.
fn given_in_use(
    servers: &[&str],
    previous: &[&str],
    sets: &mut Vec<ServerSet>,
    (in_use, now): (&BTreeSet<ServiceKey>, u64),
) -> NodeSpec {
    let mut service = service(servers);
    if !previous.is_empty() {
        service.previous = server_sets(&self::service(previous));
    }
    let mut kept = kept("web", service);
    for kept in kept.values_mut() {
        kept.keep_seconds = None;
    }
    let mut spec = NodeSpec {
        kept,
        ..NodeSpec::default()
    };
    if !servers.is_empty() {
        spec.serves = [(ObjectName::new("shop", "web").unwrap(), serving())].into();
    }
    remember(sets, &spec.kept, in_use, now);
    let own: IpAddr = "192.0.2.11".parse().unwrap();
    let look = recall(&mut spec, sets, in_use, now, |address| *address == own);
    let expected = !in_use.is_empty();
    assert_eq!(look, expected.then_some(now + RECHECK_SECONDS));
    spec
}

#[test]
fn a_given_set_counts_as_long_as_it_is_given_and_keeps_its_mark() {
    let mut sets = Vec::new();
    let before = ["192.0.2.11", "192.0.2.12"];
    let spec = given(&["192.0.2.11"], &before, &mut sets, 1);
    let [chance] = spec.second_chances.as_slice() else {
        panic!("{spec:?}")
    };
    assert_eq!(chance.servers.destinations.len(), 2);
    assert!(chance.takes_strays);
    let mark = chance.mark;
    let remembered = sets.clone();
    let spec = given(&["192.0.2.11"], &before, &mut sets, 1_000_000);
    assert_eq!(spec.second_chances[0].mark, mark);
    assert_eq!(sets, remembered);

    let spec = given(&["192.0.2.11"], &["192.0.2.13"], &mut sets, 1_000_001);
    assert_eq!(sets[0].replaced.len(), 1);
    assert_ne!(spec.second_chances[0].mark, mark);
    let spec = given(&["192.0.2.11"], &[], &mut sets, 1_000_002);
    assert_eq!(spec.second_chances, []);
    assert_eq!(sets, []);
}

#[test]
fn a_given_set_has_the_order_in_which_it_is_given() {
    let mut sets = Vec::new();
    let lists = [
        ["192.0.2.13", "192.0.2.11", "192.0.2.12"],
        ["192.0.2.12", "192.0.2.13", "192.0.2.11"],
    ];
    let [first, second] = lists.map(|list| {
        let spec = given(&["192.0.2.11"], &list, &mut sets, 1);
        let [chance] = spec.second_chances.as_slice() else {
            panic!("{spec:?}")
        };
        assert_eq!(in_order(&chance.servers), list);
        chance.mark
    });
    assert_eq!(first, second);
}

#[test]
fn a_set_that_is_not_given_any_more_counts_as_long_as_it_has_connections() {
    let mut sets = Vec::new();
    let before = given(&["192.0.2.11"], &["192.0.2.12"], &mut sets, 1);
    let used = BTreeSet::from([before.second_chances[0].service_key()]);

    let spec = given_in_use(&["192.0.2.11"], &[], &mut sets, (&used, 301));
    let [chance] = spec.second_chances.as_slice() else {
        panic!("{spec:?}")
    };
    assert!(!chance.takes_strays && used.contains(&chance.service_key()));
    assert_eq!(ending(&sets, &spec.kept, 301), used);

    let spec = given(&["192.0.2.11"], &[], &mut sets, 361);
    assert_eq!(spec.second_chances, []);
}

#[test]
fn a_machine_that_is_in_the_given_set_alone_goes_on_serving() {
    let mut sets = Vec::new();
    let spec = given(&[], &["192.0.2.11", "192.0.2.12"], &mut sets, 1);
    assert_eq!(spec.second_chances, []);
    let role = spec.serves.values().next().unwrap();
    assert!(role.is_former);
    assert_eq!(role.vips, ["192.0.2.100".parse::<IpAddr>().unwrap()]);
    assert_eq!(role.own.len(), 1);

    let spec = given(&[], &["192.0.2.12"], &mut sets, 2);
    assert!(spec.serves.is_empty());
}

/// Others learn it when they become real servers.
#[test]
fn a_director_remembers_sets_while_it_is_in_them() {
    let own = |address: &IpAddr| *address == "192.0.2.11".parse::<IpAddr>().unwrap();
    let look = |sets: &mut Vec<ServerSet>, servers: &[&str], now| {
        let mut kept = web(servers);
        for kept in kept.values_mut() {
            kept.is_directed = true;
        }
        let has_learned = super::remember(sets, &kept, now, own);
        forget(sets, &kept, &NONE, now, own) || has_learned
    };
    let mut sets = Vec::new();
    assert!(!look(&mut sets, &["192.0.2.12"], 1));
    assert!(look(&mut sets, &["192.0.2.11", "192.0.2.12"], 2));
    // It has left the set, and serves its connections for a while.
    look(&mut sets, &["192.0.2.12"], 3);
    assert_eq!(previous(&sets).map(|previous| previous.len()), Some(2));
    look(&mut sets, &["192.0.2.12"], 3 + 300);
    look(&mut sets, &["192.0.2.12"], 3 + 301);
    assert_eq!(sets, []);
}
