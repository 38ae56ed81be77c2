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
    super::remember(sets, kept, in_use, now, |_| false)
}

/// The addresses of the previous set of the only set.
fn previous(sets: &[ServerSet]) -> Option<Vec<String>> {
    let previous = sets.first()?.previous.as_ref()?;
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
    set.previous.as_ref().unwrap().service_key(&set.key)
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

#[test]
fn a_second_change_replaces_the_previous_set_and_keeps_its_mark() {
    let mut sets = Vec::new();
    for (server, now) in [("192.0.2.11", 1), ("192.0.2.12", 2), ("192.0.2.13", 100)] {
        remember(&mut sets, &web(&[server]), &NONE, now);
    }
    assert_eq!(previous(&sets), Some(vec!["192.0.2.12".to_owned()]));
    let previous = sets[0].previous.as_ref().unwrap();
    assert_eq!(previous.mark.get(), *SECOND_MARKS.start());
    assert_eq!(previous.since, 100);
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
        let previous = sets.iter().filter_map(|set| set.previous.as_ref());
        previous.map(|previous| previous.mark.get()).collect()
    };
    assert_eq!(marks(&sets).len(), 2);
    remember(&mut sets, &web(&["192.0.2.12"]), &NONE, 3);
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
    let mut kept = kept("web", service.clone());
    for kept in kept.values_mut() {
        kept.keep_seconds = None;
    }
    let mut spec = NodeSpec {
        kept,
        ..NodeSpec::default()
    };
    if !servers.is_empty() {
        let role = RealServerRole {
            vips: service.frontend.vips().to_vec(),
            nat: Nat::default(),
            own: BTreeMap::new(),
            is_former: false,
        };
        spec.serves = [(ObjectName::new("shop", "web").unwrap(), role)].into();
    }
    remember(sets, &spec.kept, in_use, now);
    let own: IpAddr = "192.0.2.11".parse().unwrap();
    let look = recall(&mut spec, sets, |address| *address == own, now);
    let expected = sets
        .iter()
        .any(|set| in_use.contains(&second_service_of(set)));
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
    let mark = chance.mark;
    let remembered = sets.clone();
    let spec = given(&["192.0.2.11"], &before, &mut sets, 1_000_000);
    assert_eq!(spec.second_chances[0].mark, mark);
    assert_eq!(sets, remembered);

    let spec = given(&["192.0.2.11"], &["192.0.2.13"], &mut sets, 1_000_001);
    assert_eq!(spec.second_chances[0].mark, mark);
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
    assert_eq!(spec.second_chances, before.second_chances);
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
        super::remember(sets, &kept, &NONE, now, own)
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
