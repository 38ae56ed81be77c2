//! Any history of changes leads to the same as a restart.

use std::collections::BTreeMap;

use lvs_model::ObjectName;
use proptest::{prelude::*, sample::subsequence};
use serde_json::{Value, json};

use super::{
    objects::{mk_group, mk_kube_service, mk_lvs_node, mk_machine, mk_name, mk_service, mk_slice},
    world::World,
};
use crate::cluster::{Change, Reconciled};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A controller that starts with the objects as they are has nothing to write, in whatever order they are listed: all that
    /// is remembered follows from them.
    #[test]
    fn any_history_leads_to_the_result_of_a_restart(history in prop::collection::vec(any_change(), 1..40)) {
        let mut world = World::default();
        let mut others: BTreeMap<String, Change> = BTreeMap::new();
        for change in history {
            if matches!(change, Change::Service(..) | Change::EndpointSlice(..) | Change::Node(..)) {
                others.insert(key(&change), change.clone());
            }
            world.see(change);
        }
        world.report_all();
        let mut fresh = world.restart(&others.into_values().collect::<Vec<_>>());
        // From here on, the addresses of a machine whose LvsNode is missing are not remembered.
        world.see(Change::AgentsKnown);
        fresh.see(Change::AgentsKnown);
        prop_assert_eq!(&world.bindings, &fresh.bindings);
        prop_assert_eq!(&world.statuses, &fresh.statuses);
        let services = |world: &World| -> BTreeMap<ObjectName, Reconciled> { world.cluster.services.clone() };
        prop_assert_eq!(services(&world), services(&fresh));
        prop_assert_eq!(&world.served, &fresh.served);
        let machines = |world: &World| world.cluster.index.machines_of_group("default");
        prop_assert_eq!(machines(&world), machines(&fresh));
        let index = |world: &World| world.cluster.index.clone().without_members();
        prop_assert_eq!(index(&world), index(&fresh));
        prop_assert_eq!(&world.cluster.claims, &fresh.cluster.claims);
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    let service = (0..4_usize, 0..3_u8, 0..3_u8, subsequence(vec![80, 81, 82], 1..3), any::<bool>()).prop_map(
        |(name, vip, server, ports, exists)| {
            let name = ["a", "b", "c", "d"][name];
            let spec = json!({
                "addresses": [format!("10.0.0.{}", 100 + vip)],
                "forwarding": "NAT",
                "ports": ports.iter().map(|port| json!({"port": port})).collect::<Vec<Value>>(),
                "backends": [
                    {"service": {"name": "web"}},
                    {"address": format!("10.0.0.{}", if server == vip + 1 { 98 } else { 99 + server })},
                ],
            });
            if exists {
                let created = i64::from(name.as_bytes()[0] % 3);
                mk_service(name, created, &spec)
            } else {
                Change::VirtualService(mk_name(name), None)
            }
        },
    );
    let node = (0..2_usize, 98..102_u8, any::<bool>()).prop_map(|(name, address, exists)| {
        let name = ["lvs1", "rs1"][name];
        if exists {
            mk_lvs_node(name, &format!("10.0.0.{address}"))
        } else {
            Change::LvsNode(mk_machine(name), None)
        }
    });
    prop_oneof![
        4 => service,
        2 => node,
        1 => Just(mk_group("lvs1")),
        1 => Just(mk_slice(false)),
        1 => Just(Change::EndpointSlice(mk_name("web-1"), None)),
        1 => Just(mk_kube_service()),
        1 => Just(Change::Service(mk_name("web"), None)),
    ]
}

fn key(change: &Change) -> String {
    match change {
        Change::VirtualService(name, _) | Change::UnreadableService(name) => {
            format!("service {name}")
        }
        Change::DirectorGroup(name, _) => format!("group {name}"),
        Change::AddressPool(name, _) => format!("pool {name}"),
        Change::Namespace(name, _) => format!("namespace {name}"),
        Change::Service(name, _) => format!("kube service {name}"),
        Change::EndpointSlice(name, _) | Change::UnreadableSlice(name, _) => {
            format!("slice {name}")
        }
        Change::Node(name, _) => format!("node {name}"),
        Change::Cordoned(name, _) => format!("cordon of {name}"),
        Change::LvsNode(name, _) => format!("lvs node {name}"),
        Change::DirectorBinding(name, _) => format!("binding {name}"),
        Change::Agent(name, _) => format!("agent {name}"),
        Change::AgentsKnown => "agents".to_owned(),
        Change::RealServerBinding(name, _) => format!("real server binding {name}"),
    }
}
