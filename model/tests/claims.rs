//! Claims of VIPs, ports and marks: the rules one by one, and any history of them against their definition.
#![expect(clippy::unwrap_used, reason = "values that the test itself writes")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lvs_model::{
    Claim, ClaimState, Claims, Conflict, Frontend, GroupName, NodeName, ObjectName, Port, Protocol,
    check_machines,
};
use proptest::{collection::vec, prelude::*, sample::select};

#[test]
fn the_older_of_two_claims_on_one_key_is_granted_and_the_younger_follows_when_it_goes() {
    let mut claims = Claims::default();
    assert_eq!(
        replaced(&mut claims, "young", mk_claim(2, "edge", 100, 80)),
        [""; 0]
    );
    assert_eq!(
        replaced(&mut claims, "old", mk_claim(1, "edge", 100, 80)),
        ["young"]
    );
    assert_eq!(
        reason(&claims, "young", 100, 80),
        "`spec.ports[0].port` must not be in use: TCP 10.0.0.100:80 belongs to VirtualService shop/old"
    );
    assert_eq!(withdrawn(&mut claims, "old"), ["young"]);
    assert!(claims.is_granted(&mk_name("young")));
}

#[test]
fn of_equally_old_claims_the_first_by_name_is_granted_and_files_come_last() {
    let mut claims = Claims::default();
    let of_file = Claim {
        created: None,
        ..mk_claim(0, "edge", 100, 80)
    };
    replaced(&mut claims, "a-file", of_file);
    replaced(&mut claims, "c", mk_claim(9, "edge", 100, 80));
    replaced(&mut claims, "b", mk_claim(9, "edge", 100, 80));
    assert_eq!(granted(&claims), ["b"]);
}

#[test]
fn a_vip_is_shared_within_a_group_by_other_ports_only() {
    let mut claims = Claims::default();
    replaced(&mut claims, "a", mk_claim(1, "edge", 100, 80));
    replaced(&mut claims, "b", mk_claim(2, "edge", 100, 81));
    replaced(&mut claims, "c", mk_claim(3, "core", 100, 82));
    assert_eq!(granted(&claims), ["a", "b"]);
    assert_eq!(
        reason(&claims, "c", 100, 82),
        "`spec.addresses[0]` must not be a VIP of another group: '10.0.0.100' is held by DirectorGroup edge for \
         VirtualService shop/a"
    );
    assert_eq!(
        withdrawn(&mut claims, "a"),
        ["c"],
        "another one holds the VIP"
    );
    assert_eq!(withdrawn(&mut claims, "b"), ["c"]);
    assert_eq!(granted(&claims), ["c"]);
}

#[test]
fn a_claim_that_is_not_granted_blocks_no_other() {
    let mut claims = Claims::default();
    let both_ports = Claim {
        frontend: mk_frontend(100, &[80, 81]),
        ..mk_claim(2, "edge", 100, 80)
    };
    replaced(&mut claims, "a-oldest", mk_claim(1, "edge", 100, 80));
    replaced(&mut claims, "b-waiting", both_ports);
    replaced(&mut claims, "c-youngest", mk_claim(3, "edge", 100, 81));
    assert_eq!(granted(&claims), ["a-oldest", "c-youngest"]);

    // A granted key is refused to the other.
    assert_eq!(
        withdrawn(&mut claims, "a-oldest"),
        ["b-waiting", "c-youngest"]
    );
    assert_eq!(granted(&claims), ["b-waiting"]);

    let refused = Claim {
        is_refused: true,
        ..mk_claim(2, "edge", 100, 80)
    };
    assert_eq!(replaced(&mut claims, "b-waiting", refused), ["c-youngest"]);
    assert_eq!(granted(&claims), ["c-youngest"]);
    assert!(claims.is_claimed(mk_address(100)));
}

#[test]
fn a_vip_must_not_be_the_address_of_a_real_server() {
    let mut claims = Claims::default();
    replaced(&mut claims, "a", mk_claim(1, "edge", 100, 80));
    let with_server = Claim {
        servers: [mk_address(100)].into(),
        ..mk_claim(2, "edge", 101, 80)
    };
    assert_eq!(replaced(&mut claims, "b", with_server), ["a"]);
    assert_eq!(
        reason(&claims, "a", 100, 80),
        "`spec.addresses[0]` must not be the address of a real server: '10.0.0.100' is one of VirtualService shop/b"
    );
    let users: Vec<String> = claims
        .users_of(mk_address(100))
        .map(ToString::to_string)
        .collect();
    assert_eq!(users, ["shop/a", "shop/b"]);
    assert_eq!(withdrawn(&mut claims, "b"), ["a"]);
    assert_eq!(granted(&claims), ["a"]);
}

#[test]
fn a_mark_is_claimed_in_both_families() {
    let mut claims = Claims::default();
    let marked = |created| Claim {
        frontend: Frontend::Fwmark(7.try_into().unwrap()),
        ..mk_claim(created, "edge", 100, 80)
    };
    replaced(&mut claims, "a", marked(1));
    replaced(&mut claims, "b", marked(2));
    let conflict = claims.check(&mk_name("b")).unwrap_err();
    assert_eq!(
        conflict
            .rejection(&mk_name("b"), &marked(2).frontend)
            .to_string(),
        "VirtualService shop/b: `spec.fwmark` must not be in use: fwmark 7 IPv4 belongs to VirtualService shop/a"
    );
}

#[test]
fn a_vip_must_not_be_the_address_of_a_machine_other_than_its_director() {
    let machine = |name: &str| name.parse::<NodeName>().unwrap();
    let machines = BTreeMap::from([(mk_address(100), [machine("lvs1"), machine("rs1")].into())]);
    let check = |directors: &[&str], host| {
        let directors: Vec<NodeName> = directors.iter().map(|name| machine(name)).collect();
        check_machines(&[mk_address(host)], &directors, &machines)
    };
    assert_eq!(check(&[], 101), Ok(()));
    assert_eq!(check(&["lvs1", "rs1"], 100), Ok(()));
    let conflict = check(&["lvs1"], 100).unwrap_err();
    assert_eq!(
        conflict
            .rejection(&mk_name("a"), &mk_frontend(100, &[80]))
            .to_string(),
        "VirtualService shop/a: `spec.addresses[0]` must not be the address of a machine that does not direct it: \
         '10.0.0.100' is one of rs1"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Exactly the services whose claims have changed are returned as changed.
    #[test]
    fn any_history_leads_to_the_claims_that_are_granted_by_age(
        history in vec((any_name(), prop::option::weighted(0.8, any_claim())), 1..24)
    ) {
        let mut claims = Claims::default();
        let mut last: BTreeMap<ObjectName, Claim> = BTreeMap::new();
        for (name, claim) in history {
            let before = states(&claims, &last);
            let changed = claims.replace(&name, claim.clone());
            match claim {
                Some(claim) => last.insert(name.clone(), claim),
                None => last.remove(&name),
            };
            let now = states(&claims, &last);
            prop_assert_eq!(&now, &by_definition(&last));
            let differing = last.keys().filter(|other| **other != name && before.get(other) != now.get(other));
            prop_assert_eq!(changed, differing.cloned().collect::<BTreeSet<_>>());
        }
        let mut fresh = Claims::default();
        for (name, claim) in last.iter().rev() {
            fresh.replace(name, Some(claim.clone()));
        }
        prop_assert_eq!(&claims, &fresh);
    }
}

/// The rules as `Claims` states them, from the oldest claim to the youngest.
fn by_definition(claims: &BTreeMap<ObjectName, Claim>) -> BTreeMap<ObjectName, ClaimState> {
    let mut oldest_first: Vec<(&ObjectName, &Claim)> = claims.iter().collect();
    oldest_first.sort_by_key(|(name, claim)| (claim.created.is_none(), claim.created, *name));
    let mut holders: Vec<(&ObjectName, &Claim)> = Vec::new();
    let mut states = BTreeMap::new();
    for (name, claim) in oldest_first {
        let state = match (claim.is_refused, conflict(claim, claims, &holders)) {
            (true, _) => ClaimState::Refused,
            (false, Some(conflict)) => ClaimState::Waiting(conflict),
            (false, None) => ClaimState::Granted,
        };
        if state == ClaimState::Granted {
            holders.push((name, claim));
        }
        states.insert(name.clone(), state);
    }
    states
}

fn conflict(
    claim: &Claim,
    claims: &BTreeMap<ObjectName, Claim>,
    holders: &[(&ObjectName, &Claim)],
) -> Option<Conflict> {
    let vips = claim.frontend.vips();
    for vip in vips {
        let mut users = claims
            .iter()
            .filter(|(_, other)| other.servers.contains(vip));
        if let Some((user, _)) = users.next() {
            let (vip, user) = (*vip, user.clone());
            return Some(Conflict::RealServer { vip, user });
        }
    }
    for vip in vips {
        let mut others = holders
            .iter()
            .filter(|(_, other)| other.group != claim.group);
        if let Some((holder, other)) = others.find(|(_, other)| other.frontend.vips().contains(vip))
        {
            return Some(Conflict::Group {
                vip: *vip,
                group: other.group.clone(),
                holder: (*holder).clone(),
            });
        }
    }
    claim.frontend.keys().find_map(|key| {
        let mut others = holders.iter();
        let (holder, _) = others.find(|(_, other)| other.frontend.keys().any(|own| own == key))?;
        let holder = (*holder).clone();
        Some(Conflict::Key { key, holder })
    })
}

fn states(
    claims: &Claims,
    names: &BTreeMap<ObjectName, Claim>,
) -> BTreeMap<ObjectName, ClaimState> {
    let states = names
        .keys()
        .filter_map(|name| Some((name.clone(), claims.state(name)?.clone())));
    states.collect()
}

fn any_name() -> impl Strategy<Value = ObjectName> {
    select(["a", "b", "c", "d", "e", "f"].map(mk_name).to_vec())
}

fn any_claim() -> impl Strategy<Value = Claim> {
    let frontend = prop_oneof![
        6 => (100..103_u8, prop::sample::subsequence(vec![80, 81, 82], 1..3))
            .prop_map(|(host, ports)| mk_frontend(host, &ports)),
        1 => Just(Frontend::Fwmark(7.try_into().unwrap())),
    ];
    let servers = vec(prop_oneof![4 => 10..20_u8, 1 => 100..103_u8], 0..3);
    let created = prop::option::weighted(0.8, 0..4_i64);
    let is_refused = prop::bool::weighted(0.1);
    (
        created,
        select(vec!["edge", "edge", "core"]),
        frontend,
        servers,
        is_refused,
    )
        .prop_map(|(created, group, frontend, servers, is_refused)| Claim {
            created,
            group: group.parse().unwrap(),
            frontend,
            servers: servers.into_iter().map(mk_address).collect(),
            is_refused,
        })
}

fn replaced(claims: &mut Claims, name: &str, claim: Claim) -> Vec<String> {
    names(&claims.replace(&mk_name(name), Some(claim)))
}

fn withdrawn(claims: &mut Claims, name: &str) -> Vec<String> {
    names(&claims.replace(&mk_name(name), None))
}

fn names(names: &BTreeSet<ObjectName>) -> Vec<String> {
    names.iter().map(|name| name.name().to_owned()).collect()
}

fn granted(claims: &Claims) -> Vec<&'static str> {
    let names = [
        "a",
        "b",
        "c",
        "a-file",
        "a-oldest",
        "b-waiting",
        "c-youngest",
    ];
    names
        .into_iter()
        .filter(|name| claims.is_granted(&mk_name(name)))
        .collect()
}

fn reason(claims: &Claims, name: &str, host: u8, port: u16) -> String {
    let name = mk_name(name);
    let conflict = claims.check(&name).unwrap_err();
    let rejection = conflict.rejection(&name, &mk_frontend(host, &[port]));
    format!("`{}` {}", rejection.field, rejection.reason)
}

fn mk_name(name: &str) -> ObjectName {
    ObjectName::new("shop", name).unwrap()
}

fn mk_address(host: u8) -> IpAddr {
    [10, 0, 0, host].into()
}

fn mk_frontend(host: u8, ports: &[u16]) -> Frontend {
    let port = |port: &u16| Port {
        protocol: Protocol::Tcp,
        port: *port,
        target_port: 8080,
    };
    Frontend::Addresses {
        vips: vec![mk_address(host)],
        ports: ports.iter().map(port).collect(),
    }
}

fn mk_claim(created: i64, group: &str, host: u8, port: u16) -> Claim {
    Claim {
        created: Some(created),
        group: group.parse::<GroupName>().unwrap(),
        frontend: mk_frontend(host, &[port]),
        servers: BTreeSet::new(),
        is_refused: false,
    }
}
