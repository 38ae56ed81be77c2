//! The real servers before a change: which RealServerBindings have them, and for how long.

use std::sync::Arc;

use lvs_crd::{
    RealServerBindingSpec,
    condition::{self, ConditionType},
};
use serde_json::{Value, json};

use super::{
    objects::{mk_changed_group, mk_lvs_node, mk_name, mk_service},
    world::World,
};
use crate::{cluster::Change, write::Write};

/// The group `default` with two directors, and settings for failover.
fn mk_directors(failover: &Value) -> Change {
    mk_changed_group(&json!({"nodes": {"names": ["lvs1", "lvs2"]}, "failover": failover}))
}

/// The virtual service `web`, whose connections are kept, with real servers 10.0.0.NUMBER.
fn mk_web(servers: &[u32]) -> Change {
    let servers = servers.iter();
    let servers = servers.map(|number| json!({"address": format!("10.0.0.{number}")}));
    let spec = json!({"scheduler": {"name": "mh"}, "backends": servers.collect::<Value>()});
    mk_service("web", 1, &spec)
}

/// The real servers rs1 and rs2 of `web` are ready; rs3 is no real server yet. It is the time 1000.
fn mk_site(failover: &Value) -> World {
    let mut world = World::of(&[
        mk_directors(failover),
        mk_lvs_node("lvs1", "10.0.0.1"),
        mk_lvs_node("lvs2", "10.0.0.2"),
        mk_lvs_node("rs1", "10.0.0.11"),
        mk_lvs_node("rs2", "10.0.0.12"),
        mk_lvs_node("rs3", "10.0.0.13"),
        mk_web(&[11, 12]),
    ]);
    world.report_served("web.rs1", true);
    world.report_served("web.rs2", true);
    world.report_all();
    assert_eq!(world.weights("web.lvs1"), [1, 1]);
    world.tick(970);
    assert_eq!(before(&world), ["web.rs1 11", "web.rs2 12"]);
    world.tick(1000);
    world
}

/// What each machine is given, as `BINDING OWN < REAL SERVERS BEFORE`, with the last number of each address.
fn before(world: &World) -> Vec<String> {
    let last = |address: &String| address.rsplit('.').next().unwrap().to_owned();
    let served = world.served.iter().map(|(name, spec)| {
        let RealServerBindingSpec {
            real_servers,
            previous,
            ..
        } = spec;
        let own = real_servers.iter().map(|server| last(&server.address));
        let own = own.collect::<Vec<_>>().join(",");
        let previous = previous.as_ref().map(|previous| {
            let servers = previous.real_servers.iter();
            let servers = servers.map(|server| match server.weight {
                1 => last(&server.address),
                weight => format!("{}:{weight}", last(&server.address)),
            });
            let since = previous.since.0.as_second();
            format!(" < {} since {since}", servers.collect::<Vec<_>>().join(","))
        });
        format!("{} {own}{}", name.name(), previous.unwrap_or_default())
    });
    served.collect()
}

#[test]
fn real_servers_know_those_before_a_change_until_the_time_is_over() {
    let mut world = mk_site(&json!({}));
    world.see(mk_web(&[11, 13]));
    world.tick(1001);
    world.report_served("web.rs3", true);
    assert_eq!(world.weights("web.lvs1"), [1, 1]);
    world.report_all();
    let during = [
        "web.rs1 11 < 11,12 since 1000",
        "web.rs2  < 11,12 since 1000",
        "web.rs3 13 < 11,12 since 1000",
    ];
    assert_eq!(before(&world), during);
    let mut again = world.restart(&[]);
    for world in [&mut world, &mut again] {
        world.tick(1299);
        assert_eq!(before(world), during);
        world.tick(1300);
        world.report_all();
        assert_eq!(before(world), ["web.rs1 11", "web.rs3 13"]);
        assert_eq!(world.cluster.deadlines.first(), None);
    }
}

/// The site after 10.0.0.13 has replaced 10.0.0.12, and what its machines are given.
fn mk_replaced() -> (World, Vec<String>) {
    let mut world = mk_site(&json!({}));
    world.see(mk_web(&[11, 13]));
    world.tick(1001);
    world.report_served("web.rs3", true);
    world.report_all();
    let during = before(&world);
    assert_eq!(during[1], "web.rs2  < 11,12 since 1000");
    (world, during)
}

#[test]
fn what_is_remembered_outlives_the_loss_of_the_second_director() {
    let (mut world, during) = mk_replaced();
    world.see(mk_changed_group(&json!({"nodes": {"names": ["lvs1"]}})));
    world.report_all();
    for (now, expected) in [(1299, &during[..]), (1300, &[])] {
        let mut again = world.restart(&[]);
        for world in [&mut world, &mut again] {
            world.tick(now);
            world.report_all();
            let found = before(world);
            let found = found.iter().filter(|line| line.contains('<'));
            assert!(found.eq(expected), "{now}: {:?}", before(world));
        }
    }
    // A change is not remembered now.
    world.see(mk_web(&[11, 12]));
    world.report_all();
    assert!(!before(&world).iter().any(|line| line.contains('<')));
}

#[test]
fn a_former_real_server_serves_for_its_time_whatever_changes_then() {
    let (mut world, _) = mk_replaced();
    world.tick(1100);
    world.see(mk_lvs_node("rs4", "10.0.0.14"));
    world.see(mk_web(&[14, 13]));
    world.report_all();
    world.report_served("web.rs4", true);
    world.report_all();
    let during = [
        "web.rs1  < 11,13 since 1100",
        "web.rs2  < 11,12 since 1000",
        "web.rs3 13 < 11,13 since 1100",
        "web.rs4 14 < 11,13 since 1100",
    ];
    assert_eq!(before(&world), during);
    let accepted = |world: &World| {
        let web = &world.cluster.objects.services[&mk_name("web")];
        let conditions = &web.status.as_ref().unwrap().conditions;
        let accepted = condition::find(conditions, ConditionType::Accepted).unwrap();
        format!("{} {}", accepted.reason, accepted.message)
    };
    let at_risk = "ChangedAgain the real servers have changed again within keepSeconds: connections from before 1970-01-01T00:16:40Z can \
                   be lost if the active director changes";
    let mut again = world.restart(&[]);
    for world in [&mut world, &mut again] {
        world.tick(1299);
        assert_eq!(before(world), during);
        assert_eq!(accepted(world), at_risk);
        // Nobody reports the addresses for a moment: each keeps what it has.
        world.see(mk_lvs_node("rs1", "10.0.0.91"));
        world.see(mk_lvs_node("rs2", "10.0.0.92"));
        world.report_all();
        assert_eq!(before(world), during);
        world.see(mk_lvs_node("rs1", "10.0.0.11"));
        world.see(mk_lvs_node("rs2", "10.0.0.12"));
        world.tick(1300);
        world.report_all();
        assert_eq!(before(world), [during[0], during[2], during[3]]);
        assert_eq!(accepted(world), "Accepted ");
        world.tick(1400);
        world.report_all();
        assert_eq!(before(world), ["web.rs3 13", "web.rs4 14"]);
    }
}

#[test]
fn while_real_servers_are_only_added_all_lead_by_the_version_before_the_first() {
    let mut world = mk_site(&json!({}));
    world.see(mk_lvs_node("rs4", "10.0.0.14"));
    for (now, servers, added) in [
        (1000, &[11, 12, 13][..], "web.rs3"),
        (1100, &[11, 12, 13, 14], "web.rs4"),
    ] {
        world.tick(now);
        world.see(mk_web(servers));
        world.report_all();
        world.report_served(added, true);
        world.report_all();
    }
    assert_eq!(world.weights("web.lvs1"), [1, 1, 1, 1]);
    let accepted = world.condition("web", ConditionType::Accepted);
    assert_eq!(accepted.as_deref(), Some("True Accepted"));
    for (now, expected) in [
        (1299, " < 11,12,13:0 since 1000"),
        (1300, " < 11,12,13,14:0 since 1100"),
        (1400, ""),
    ] {
        world.tick(now);
        world.report_all();
        let servers = ["web.rs1 11", "web.rs2 12", "web.rs3 13", "web.rs4 14"];
        let expected = servers.map(|server| format!("{server}{expected}"));
        assert_eq!(before(&world), expected, "{now}");
    }
}

#[test]
fn a_former_real_server_stays_one_while_nobody_reports_its_address() {
    let (mut world, during) = mk_replaced();
    world.see(mk_lvs_node("rs2", "10.0.0.99"));
    world.report_all();
    assert_eq!(before(&world), during);
    // Another machine has it now.
    world.see(mk_lvs_node("rs4", "10.0.0.12"));
    world.report_all();
    assert_eq!(before(&world), [&during[..1], &during[2..]].concat());
}

#[test]
fn a_real_server_that_is_not_ready_is_a_change_and_keeps_weight_0() {
    let mut world = mk_site(&json!({"keepSeconds": 60}));
    world.report_served("web.rs2", false);
    assert_eq!(world.weights("web.lvs1"), [1, 0]);
    let changed = [
        "web.rs1 11 < 11,12 since 1000",
        "web.rs2 12 < 11,12 since 1000",
    ];
    assert_eq!(before(&world), changed);
    // The reports were about the RealServerBindings before.
    world.report_served("web.rs1", true);
    assert_eq!(world.weights("web.lvs1"), [1, 0]);

    world.tick(1030);
    world.report_served("web.rs2", true);
    assert_eq!(world.weights("web.lvs1"), [1, 1]);
    let ready = [
        "web.rs1 11 < 11,12:0 since 1030",
        "web.rs2 12 < 11,12:0 since 1030",
    ];
    assert_eq!(before(&world), ready);
    world.tick(1090);
    assert_eq!(before(&world), ["web.rs1 11", "web.rs2 12"]);
}

/// A round of writes: the names of the bindings that are written. Those of the RealServerBinding `failing` fail.
fn round(world: &mut World, failing: &str) -> Vec<String> {
    let mut written = Vec::new();
    for write in world.cluster.reconcile(|| {}) {
        match &write {
            Write::ApplyBinding { name, .. } => written.push(format!("director {}", name.name())),
            Write::ApplyServed { name, .. } if name.name() == failing => continue,
            Write::ApplyServed { name, .. } => {
                written.push(format!("real server {}", name.name()));
            }
            Write::DeleteBinding { .. }
            | Write::DeleteServed { .. }
            | Write::ApplyNode { .. }
            | Write::DeleteNode { .. }
            | Write::Silence { .. }
            | Write::ServiceStatus { .. }
            | Write::PoolStatus { .. }
            | Write::GroupStatus { .. } => {}
        }
        world.write(write);
    }
    written
}

/// Edits the virtual service: 10.0.0.13 replaces 10.0.0.12.
fn replace_server(world: &mut World) {
    let Change::VirtualService(name, Some(edited)) = mk_web(&[11, 13]) else {
        unreachable!()
    };
    let mut object = world.cluster.objects.services[&name].as_ref().clone();
    object.spec = edited.spec.clone();
    let change = Change::VirtualService(name, Some(Arc::new(object)));
    world.cluster.observe(change);
}

const DIRECTORS: [&str; 2] = ["director web.lvs1", "director web.lvs2"];

#[test]
fn directors_get_a_change_once_real_servers_know_what_was_before() {
    let mut world = mk_site(&json!({}));
    replace_server(&mut world);
    let real_servers = ["rs1", "rs2", "rs3"].map(|name| format!("real server web.{name}"));
    assert_eq!(round(&mut world, ""), real_servers);
    assert_eq!(round(&mut world, ""), DIRECTORS);
}

#[test]
fn directors_do_not_wait_for_a_real_server_that_is_refused_or_for_long() {
    let mk_failing = || {
        let mut world = mk_site(&json!({}));
        replace_server(&mut world);
        let others = ["real server web.rs2", "real server web.rs3"];
        assert_eq!(round(&mut world, "web.rs1"), others);
        assert_eq!(round(&mut world, "web.rs1"), [""; 0]);
        world
    };
    let mut refused = mk_failing();
    let served = Write::ApplyServed {
        name: mk_name("web.rs1"),
        owner_uid: String::new(),
        spec: Box::new(refused.served[&mk_name("web.rs1")].clone()),
    };
    refused.cluster.complete(&served, Some(&"no".to_owned()));
    assert_eq!(round(&mut refused, "web.rs1"), DIRECTORS);

    let mut late = mk_failing();
    late.cluster.tick(1004);
    assert_eq!(round(&mut late, "web.rs1"), [""; 0]);
    late.cluster.tick(1005);
    assert_eq!(round(&mut late, "web.rs1"), DIRECTORS);
}

#[test]
fn nothing_is_remembered_where_connections_are_not_kept() {
    let mut dropping = mk_site(&json!({"connections": "Drop"}));
    dropping.see(mk_web(&[11, 13]));
    dropping.report_all();
    assert_eq!(before(&dropping), ["web.rs1 11", "web.rs3 13"]);

    // The group has one director.
    let mut alone = mk_site(&json!({}));
    alone.see(mk_changed_group(&json!({"nodes": {"names": ["lvs1"]}})));
    alone.report_all();
    alone.see(mk_web(&[11, 13]));
    alone.report_all();
    assert_eq!(before(&alone), ["web.rs1 11", "web.rs3 13"]);

    // The scheduler is another one now: the sets before that count as long as they would have.
    let mut other = mk_site(&json!({}));
    other.see(mk_web(&[11, 13]));
    let spec = json!({"scheduler": {"name": "wlc"}, "backends": [{"address": "10.0.0.11"}]});
    other.see(mk_service("web", 1, &spec));
    other.report_all();
    assert_eq!(before(&other)[0], "web.rs1 11 < 11,12 since 1000");
    other.tick(1300);
    other.report_all();
    assert_eq!(before(&other), ["web.rs1 11"]);
}

#[test]
fn more_than_100_real_servers_are_not_remembered_and_the_status_says_so() {
    let mut world = mk_site(&json!({}));
    let many: Vec<u32> = (101..202).collect();
    let accepted = |world: &World| world.condition("web", ConditionType::Accepted);
    world.see(mk_web(&many));
    assert_eq!(accepted(&world).as_deref(), Some("True TooManyRealServers"));
    for servers in [&many[1..], &many[..]] {
        world.see(mk_web(servers));
        assert!(!before(&world).iter().any(|line| line.contains('<')));
    }
    world.see(mk_web(&many[1..]));
    assert_eq!(accepted(&world).as_deref(), Some("True Accepted"));
}

#[test]
fn a_virtual_service_that_is_deleted_and_made_anew_has_no_past() {
    let mut world = mk_site(&json!({}));
    world.see(mk_web(&[11, 13]));
    world.see(Change::VirtualService(mk_name("web"), None));
    assert_eq!(before(&world), [""; 0]);
    assert_eq!(world.cluster.deadlines.first(), None);
    assert!(world.cluster.histories.is_empty());
}
