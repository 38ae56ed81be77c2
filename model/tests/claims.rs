//! Claims of VIPs, ports and marks: the rules one by one, and any history of them against their definition.
#![expect(clippy::unwrap_used, reason = "values that the test itself writes")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lvs_model::{
    Claim, ClaimState, Claims, Conflict, Frontend, GroupName, NodeName, ObjectName, Port, Protocol,
    Sharing, Stage, check_machines,
};
use proptest::{
    collection::{btree_map, vec},
    prelude::*,
    sample::select,
};

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
fn an_address_is_a_vip_or_a_real_server_by_age() {
    let mut claims = Claims::default();
    let with_server = |created, host| Claim {
        servers: [mk_address(host)].into(),
        ..mk_claim(created, "edge", 101, 80)
    };
    replaced(&mut claims, "b", mk_claim(2, "edge", 100, 80));
    assert_eq!(replaced(&mut claims, "c", with_server(3, 100)), [""; 0]);
    assert_eq!(
        reason(&claims, "c", 101, 80),
        "`spec.backends` must not hold the VIP of another virtual service: '10.0.0.100' is held by VirtualService shop/b"
    );
    assert_eq!(replaced(&mut claims, "a", with_server(1, 100)), ["b", "c"]);
    assert_eq!(
        reason(&claims, "b", 100, 80),
        "`spec.addresses[0]` must not be the address of a real server: '10.0.0.100' is one of VirtualService shop/a"
    );
    let users = claims.users_of(mk_address(100)).into_iter();
    let users: Vec<String> = users.map(ToString::to_string).collect();
    assert_eq!(users, ["shop/a", "shop/b", "shop/c"]);
    assert_eq!(withdrawn(&mut claims, "a"), ["b", "c"]);
    assert_eq!(granted(&claims), ["b"]);
}

#[test]
fn a_newcomer_displaces_nobody_however_old_it_is() {
    let mut claims = Claims::default();
    replaced(&mut claims, "b", mk_claim(2, "edge", 100, 80));
    assert_eq!(claims.commit(), [].into());
    replaced(&mut claims, "a", mk_claim(1, "edge", 100, 80));
    assert_eq!(granted(&claims), ["b"]);

    // The real servers of another one do not displace it either.
    let with_server = Claim {
        servers: [mk_address(100)].into(),
        ..mk_claim(1, "edge", 101, 80)
    };
    assert_eq!(replaced(&mut claims, "a", with_server), [""; 0]);
    assert_eq!(granted(&claims), ["b"]);

    // What it holds may be edited.
    let moved = Claim {
        frontend: mk_frontend(100, &[80, 81]),
        ..mk_claim(2, "edge", 100, 80)
    };
    replaced(&mut claims, "b", moved);
    assert_eq!(granted(&claims), ["b"]);
}

#[test]
fn what_the_objects_show_to_be_held_is_held_after_a_restart() {
    let mut claims = Claims::default();
    claims.set_stored(&mk_name("b"), vec![mk_claim(2, "edge", 100, 80)]);
    replaced(&mut claims, "a", mk_claim(1, "edge", 100, 80));
    assert_eq!(granted(&claims), [""; 0], "before its object is claimed");
    replaced(&mut claims, "b", mk_claim(2, "edge", 100, 80));
    assert_eq!(granted(&claims), ["b"]);

    // It holds what it had until its objects show that it has given it up.
    claims.commit();
    replaced(&mut claims, "b", mk_claim(2, "edge", 102, 80));
    assert_eq!(claims.commit(), [].into());
    assert_eq!(granted(&claims), ["b"]);
    let changed = claims.set_stored(&mk_name("b"), vec![mk_claim(2, "edge", 102, 80)]);
    assert_eq!(names(&changed), ["a"]);
    assert_eq!(granted(&claims), ["a", "b"]);
}

#[test]
fn namespaces_share_a_vip_in_files_only() {
    let other = ObjectName::new("blog", "web").unwrap();
    let mut files = Claims::new(Sharing::AcrossNamespaces);
    let mut cluster = Claims::new(Sharing::WithinNamespace);
    for claims in [&mut files, &mut cluster] {
        claims.replace(&mk_name("a"), Some(mk_claim(1, "edge", 100, 80)));
        claims.replace(&mk_name("b"), Some(mk_claim(2, "edge", 100, 81)));
        claims.replace(&other, Some(mk_claim(3, "edge", 100, 82)));
    }
    assert!(files.is_granted(&other));
    assert_eq!(granted(&cluster), ["a", "b"]);
    let conflict = cluster.check(&other).unwrap_err();
    assert_eq!(
        conflict
            .rejection(&other, &mk_frontend(100, &[82]))
            .to_string(),
        "VirtualService blog/web: `spec.addresses[0]` must not be a VIP of another namespace: '10.0.0.100' is held by \
         VirtualService shop/a"
    );
}

#[test]
fn what_a_service_turns_out_to_hold_decides_its_own_claim_again() {
    let mut claims = Claims::default();
    claims.set_stored(&mk_name("a"), vec![mk_claim(2, "edge", 101, 82)]);
    let with_server = Claim {
        servers: [mk_address(101)].into(),
        ..mk_claim(1, "edge", 100, 81)
    };
    replaced(&mut claims, "b", with_server.clone());
    assert!(!claims.is_granted(&mk_name("b")));
    let changed = claims.set_stored(&mk_name("b"), vec![with_server]);
    assert_eq!(changed, [mk_name("b")].into());
    assert!(claims.is_granted(&mk_name("b")));
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
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Exactly the services whose claims have changed are returned as changed.
    #[test]
    fn any_history_leads_to_the_claims_that_are_granted_by_definition(history in vec(any_event(), 1..24)) {
        let mut claims = Claims::new(Sharing::WithinNamespace);
        let mut world = Objects::default();
        for event in history {
            let before = states(&claims, &world.claimed);
            let (changed, own) = match event {
                Event::Claim(name, claim) => {
                    let changed = claims.replace(&name, claim.clone());
                    match claim {
                        Some(claim) => world.claimed.insert(name.clone(), claim),
                        None => world.claimed.remove(&name),
                    };
                    (changed, Some(name))
                }
                Event::Store(name, stored) => {
                    let changed = claims.set_stored(&name, stored.clone());
                    world.stored.insert(name, stored);
                    (changed, None)
                }
                Event::Commit => {
                    let granted = world.claimed.iter().filter(|(name, _)| claims.is_granted(name));
                    world.committed = granted.map(|(name, claim)| (name.clone(), claim.clone())).collect();
                    (claims.commit(), None)
                }
            };
            let now = states(&claims, &world.claimed);
            prop_assert_eq!(&now, &by_definition(&world));
            let others = world.claimed.keys().filter(|other| Some(*other) != own.as_ref());
            let differing = others.filter(|other| before.get(other) != now.get(other));
            prop_assert_eq!(changed, differing.cloned().collect::<BTreeSet<_>>());
        }
    }

    /// The order in which objects are listed at a start does not matter.
    #[test]
    fn any_order_leads_to_the_same_claims(
        claimed in btree_map(any_name(), any_claim(), 1..6),
        stored in btree_map(any_name(), vec(any_stored(), 1..3), 0..6),
    ) {
        let mut one = Claims::new(Sharing::WithinNamespace);
        for (name, claims) in &stored {
            one.set_stored(name, claims.clone());
        }
        for (name, claim) in &claimed {
            one.replace(name, Some(claim.clone()));
        }
        let mut other = Claims::new(Sharing::WithinNamespace);
        for (name, claim) in claimed.iter().rev() {
            other.replace(name, Some(claim.clone()));
        }
        for (name, claims) in stored.iter().rev() {
            other.set_stored(name, claims.clone());
        }
        prop_assert_eq!(states(&one, &claimed), states(&other, &claimed));
        one.commit();
        other.commit();
        one.take_touched();
        other.take_touched();
        prop_assert_eq!(one, other);
    }
}

#[derive(Clone, Debug)]
enum Event {
    Claim(ObjectName, Option<Claim>),
    Store(ObjectName, Vec<Claim>),
    Commit,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (any_name(), prop::option::weighted(0.8, any_claim()))
            .prop_map(|(name, claim)| Event::Claim(name, claim)),
        3 => (any_name(), vec(any_stored(), 0..3)).prop_map(|(name, claims)| Event::Store(name, claims)),
        2 => Just(Event::Commit),
    ]
}

/// What is claimed and held.
#[derive(Default)]
struct Objects {
    claimed: BTreeMap<ObjectName, Claim>,
    stored: BTreeMap<ObjectName, Vec<Claim>>,
    committed: BTreeMap<ObjectName, Claim>,
}

impl Objects {
    /// What a virtual service holds.
    fn held(&self, name: &ObjectName) -> impl Iterator<Item = &Claim> {
        let stored = self.stored.get(name).into_iter().flatten();
        stored.chain(self.committed.get(name))
    }

    /// The virtual services that hold something, each with its claim.
    fn holders(&self) -> impl Iterator<Item = (&ObjectName, &Claim)> {
        let names: BTreeSet<&ObjectName> =
            self.stored.keys().chain(self.committed.keys()).collect();
        let names = names.into_iter();
        names.flat_map(|name| self.held(name).map(move |claim| (name, claim)))
    }
}

/// The order of claims.
fn age<'n>(name: &'n ObjectName, claim: &Claim) -> (bool, bool, Option<i64>, &'n ObjectName) {
    let is_unprogrammed = claim.stage != Stage::Programmed;
    (
        is_unprogrammed,
        claim.created.is_none(),
        claim.created,
        name,
    )
}

/// The rules as `Claims` states them, from the oldest claim to the youngest.
fn by_definition(world: &Objects) -> BTreeMap<ObjectName, ClaimState> {
    let mut oldest_first: Vec<(&ObjectName, &Claim)> = world.claimed.iter().collect();
    oldest_first.sort_by_key(|(name, claim)| age(name, claim));
    let mut granted: Vec<(&ObjectName, &Claim)> = Vec::new();
    let mut states = BTreeMap::new();
    for (name, claim) in oldest_first {
        let state = match (claim.is_refused, conflict(name, claim, world, &granted)) {
            (true, _) => ClaimState::Refused,
            (false, Some(conflict)) => ClaimState::Waiting(conflict),
            (false, None) => ClaimState::Granted,
        };
        if state == ClaimState::Granted {
            granted.push((name, claim));
        }
        states.insert(name.clone(), state);
    }
    states
}

/// What may be in the way of a claim.
struct Rivals<'a> {
    name: &'a ObjectName,
    world: &'a Objects,
    granted: &'a [(&'a ObjectName, &'a Claim)],
}

impl<'a> Rivals<'a> {
    /// The oldest one that is in the way, for a thing that `is_same` recognizes and that `has` says is held.
    fn blocker(
        &self,
        has: &dyn Fn(&Claim) -> bool,
        is_same: &dyn Fn(&ObjectName, &Claim) -> bool,
    ) -> Option<(&'a ObjectName, &'a Claim)> {
        let own = self.world.held(self.name).filter(|held| has(held));
        let own = own.map(|held| age(self.name, held)).min();
        let held = self.world.holders();
        let held = held.filter(|(other, held)| *other != self.name && is_same(other, held));
        let held = held.filter(|(other, held)| own.is_none_or(|own| age(other, held) < own));
        let granted = self.granted.iter().copied();
        let older = granted.filter(|(other, of_other)| is_same(other, of_other));
        let found = held.min_by_key(|(other, held)| age(other, held));
        found.or_else(|| {
            older
                .filter(|_| own.is_none())
                .min_by_key(|(other, of_other)| age(other, of_other))
        })
    }
}

fn conflict(
    name: &ObjectName,
    claim: &Claim,
    world: &Objects,
    granted: &[(&ObjectName, &Claim)],
) -> Option<Conflict> {
    let rivals = Rivals {
        name,
        world,
        granted,
    };
    let blocker = |has: &dyn Fn(&Claim) -> bool, is_same: &dyn Fn(&ObjectName, &Claim) -> bool| {
        rivals.blocker(has, is_same)
    };
    let vips = claim.frontend.vips();
    let has_vip = |vip: IpAddr| move |other: &Claim| other.frontend.vips().contains(&vip);
    for &vip in vips {
        if let Some((user, _)) = blocker(&has_vip(vip), &|_, other| other.servers.contains(&vip)) {
            let user = user.clone();
            return Some(Conflict::RealServer { vip, user });
        }
    }
    for &vip in vips {
        for group in ["core", "edge"].map(|name| name.parse::<GroupName>().unwrap()) {
            let has = |other: &Claim| other.group == claim.group && has_vip(vip)(other);
            let is_same = |_: &ObjectName, other: &Claim| {
                group != claim.group && other.group == group && has_vip(vip)(other)
            };
            if let Some((holder, _)) = blocker(&has, &is_same) {
                let holder = holder.clone();
                return Some(Conflict::Group { vip, group, holder });
            }
        }
    }
    for &vip in vips {
        let is_same = |other: &ObjectName, of_other: &Claim| {
            other.namespace() != name.namespace() && has_vip(vip)(of_other)
        };
        if let Some((holder, _)) = blocker(&has_vip(vip), &is_same) {
            let holder = holder.clone();
            return Some(Conflict::Namespace { vip, holder });
        }
    }
    for key in claim.frontend.keys() {
        let has = |other: &Claim| other.frontend.keys().any(|own| own == key);
        if let Some((holder, _)) = blocker(&has, &|_, other| has(other)) {
            let holder = holder.clone();
            return Some(Conflict::Key { key, holder });
        }
    }
    for &server in &claim.servers {
        let has = |other: &Claim| other.servers.contains(&server);
        if let Some((holder, _)) = blocker(&has, &|_, other| has_vip(server)(other)) {
            let holder = holder.clone();
            return Some(Conflict::Vip { server, holder });
        }
    }
    None
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
    let of_shop = ["a", "b", "c", "d", "e"].map(mk_name);
    let other = ObjectName::new("blog", "f").unwrap();
    select([&of_shop[..], &[other]].concat())
}

fn any_stored() -> impl Strategy<Value = Claim> {
    (any_claim(), any::<bool>()).prop_map(|(claim, is_programmed)| Claim {
        stage: if is_programmed {
            Stage::Programmed
        } else {
            Stage::Asked
        },
        ..claim
    })
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
            stage: Stage::Asked,
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
        stage: Stage::Asked,
        is_refused: false,
    }
}
