//! The order of the real servers in bindings, which is that in which directors add them to their kernels.

use std::collections::BTreeMap;

use k8s_openapi::{Resource as _, api::core::v1::Node};
use lvs_crd::BoundServer;
use serde_json::json;

use super::{
    objects::{
        mk_changed_group, mk_kube_service, mk_lvs_node, mk_name, mk_numbered_slice, mk_service,
    },
    world::World,
};
use crate::{cluster::Change, write::Write};

/// The group `default` with these directors.
fn mk_directors(names: &[&str]) -> Change {
    mk_changed_group(&json!({"nodes": {"names": names}, "failover": {}}))
}

/// The endpoints 10.0.0.NUMBER of the Service `web`.
fn mk_endpoints(numbers: &[u8]) -> Change {
    let addresses: Vec<String> = numbers.iter().map(|n| format!("10.0.0.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    mk_numbered_slice("web", 1, Node::KIND, &addresses)
}

/// The virtual service `web`, whose connections are kept, by the directors lvs1 and lvs2. Its real servers are the endpoints 11, 12 and
/// 13.
fn mk_site() -> World {
    let spec = json!({"scheduler": {"name": "mh"}, "backends": [{"service": {"name": "web"}}]});
    let mut world = World::of(&[
        mk_directors(&["lvs1", "lvs2"]),
        mk_lvs_node("lvs1", "10.0.0.1"),
        mk_lvs_node("lvs2", "10.0.0.2"),
        mk_lvs_node("lvs3", "10.0.0.3"),
        mk_lvs_node("rs2", "10.0.0.12"),
        mk_kube_service(),
        mk_endpoints(&[13, 12, 11]),
        mk_service("web", 1, &spec),
    ]);
    world.report_served("web.rs2", true);
    world.report_all();
    world.tick(1000);
    world
}

fn numbers(servers: &[BoundServer]) -> Vec<u8> {
    let servers = servers.iter();
    let last = servers.map(|server| server.address.rsplit('.').next());
    last.map(|last| last.unwrap().parse().unwrap()).collect()
}

/// The last numbers of the real servers' addresses in each binding.
fn orders(world: &World) -> BTreeMap<&str, Vec<u8>> {
    let bindings = world.bindings.iter();
    bindings
        .map(|(name, spec)| (name.name(), numbers(&spec.real_servers)))
        .collect()
}

/// How often each DirectorBinding was written.
fn generations(world: &World) -> Vec<Option<i64>> {
    let bindings = world.cluster.objects.bindings.values();
    bindings
        .map(|binding| binding.metadata.generation)
        .collect()
}

#[test]
fn a_real_server_that_replaces_another_stands_last_in_all_bindings() {
    let mut world = mk_site();
    let of_both = |order: &[u8]| {
        let orders = ["web.lvs1", "web.lvs2"].map(|name| (name, order.to_vec()));
        BTreeMap::from(orders)
    };
    assert_eq!(orders(&world), of_both(&[11, 12, 13]));
    world.see(mk_endpoints(&[9, 11, 13]));
    world.report_all();
    assert_eq!(orders(&world), of_both(&[11, 13, 9]));
    world.see(mk_endpoints(&[8, 9, 10, 13]));
    world.report_all();
    assert_eq!(orders(&world), of_both(&[13, 9, 8, 10]));
}

#[test]
fn a_restart_keeps_the_order_and_writes_nothing() {
    let mut world = mk_site();
    world.see(mk_endpoints(&[9, 11, 13]));
    world.report_all();
    let others = [mk_kube_service(), mk_endpoints(&[9, 11, 13])];
    let mut again = world.restart(&others);
    assert_eq!(orders(&again), orders(&world));
    assert_eq!(generations(&again), generations(&world));
    assert!(again.writes_of_all().is_empty());
    for world in [&mut world, &mut again] {
        world.see(mk_endpoints(&[9, 10, 13]));
        assert_eq!(orders(world)["web.lvs1"], [13, 9, 10]);
    }
}

#[test]
fn a_director_that_joins_gets_the_order() {
    let mut world = mk_site();
    world.see(mk_endpoints(&[9, 11, 13]));
    world.report_all();
    world.see(mk_directors(&["lvs1", "lvs2", "lvs3"]));
    world.report_all();
    assert_eq!(orders(&world)["web.lvs3"], [11, 13, 9]);
}

#[test]
fn the_real_servers_before_a_change_have_the_order_that_directors_had() {
    let mut world = mk_site();
    world.see(mk_endpoints(&[9, 12, 13]));
    world.report_all();
    world.tick(1100);
    world.see(mk_endpoints(&[9, 12]));
    world.report_all();
    let previous = |world: &World| {
        let previous = world.served[&mk_name("web.rs2")].previous.as_ref();
        previous.map(|previous| numbers(&previous.real_servers))
    };
    assert_eq!(previous(&world), Some(vec![12, 13, 9]));
    let again = world.restart(&[mk_kube_service(), mk_endpoints(&[9, 12])]);
    assert_eq!(previous(&again), Some(vec![12, 13, 9]));
}

/// Directors wait for the RealServerBindings, which are not written.
#[test]
fn a_real_server_that_leaves_and_returns_before_directors_learn_of_it_keeps_its_place() {
    let mut world = mk_site();
    for endpoints in [&[12, 13][..], &[10, 11, 12, 13]] {
        world.cluster.observe(mk_endpoints(endpoints));
        let writes = world.cluster.reconcile(|| {});
        let gives_directors = |write: &Write| matches!(write, Write::ApplyBinding { .. });
        assert!(!writes.iter().any(gives_directors));
    }
    world.tick(1005);
    assert_eq!(orders(&world)["web.lvs1"], [11, 12, 13, 10]);
}
