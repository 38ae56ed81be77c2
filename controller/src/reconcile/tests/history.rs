//! Any history of changes leads to the same as a fresh start.

use std::collections::BTreeMap;

use lvs_crd::ServedService;
use lvs_model::{NodeName, ObjectName};
use proptest::{prelude::*, sample::subsequence};
use serde_json::{Value, json};

use super::{
    objects::{mk_group, mk_lvs_node, mk_machine, mk_name, mk_service, mk_slice},
    world::World,
};
use crate::cluster::{Change, Reconciled};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Only what depends on a change is reconciled. The result is the same as if all objects were observed at once.
    #[test]
    fn any_history_leads_to_the_result_of_a_fresh_start(history in prop::collection::vec(any_change(), 1..40)) {
        let mut world = World::default();
        let mut last: BTreeMap<String, Change> = BTreeMap::new();
        for change in history {
            last.insert(key(&change), change.clone());
            world.see(change);
        }
        world.report_all();
        let mut fresh = World::of(&last.into_values().collect::<Vec<_>>());
        fresh.report_all();
        prop_assert_eq!(&world.bindings, &fresh.bindings);
        let served = |world: &World| -> Vec<(NodeName, Vec<ServedService>)> {
            let nodes = world.cluster.objects.lvs_nodes.iter();
            nodes.map(|(name, node)| (name.clone(), node.spec.serves.clone())).collect()
        };
        let services = |world: &World| -> BTreeMap<ObjectName, Reconciled> { world.cluster.services.clone() };
        prop_assert_eq!(services(&world), services(&fresh));
        prop_assert_eq!(served(&world), served(&fresh));
        prop_assert_eq!(&world.cluster.index, &fresh.cluster.index);
        prop_assert_eq!(&world.cluster.claims, &fresh.cluster.claims);
    }
}

/// Fixed VIPs and valid specs only: which service has which allocated address depends on history on purpose, and so does the
/// version that is kept of a service that becomes invalid.
fn any_change() -> impl Strategy<Value = Change> {
    let service = (0..4_usize, 0..3_u8, 0..3_u8, subsequence(vec![80, 81, 82], 1..3), any::<bool>()).prop_map(
        |(name, vip, server, ports, exists)| {
            let name = ["a", "b", "c", "d"][name];
            let spec = json!({
                "addresses": [format!("10.0.0.{}", 100 + vip)],
                "forwarding": "NAT",
                "ports": ports.iter().map(|port| json!({"port": port})).collect::<Vec<Value>>(),
                "backends": {
                    "service": {"name": "web"},
                    "endpoints": [{"address": format!("10.0.0.{}", if server == vip + 1 { 98 } else { 99 + server })}],
                },
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
            mk_lvs_node(name, &format!("10.0.0.{address}"), None)
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
        1 => any::<bool>().prop_map(|exists| Change::Service(mk_name("web"), exists)),
    ]
}

fn key(change: &Change) -> String {
    match change {
        Change::VirtualService(name, _) => format!("service {name}"),
        Change::DirectorGroup(name, _) => format!("group {name}"),
        Change::Service(name, _) => format!("kube service {name}"),
        Change::EndpointSlice(name, _) => format!("slice {name}"),
        Change::Node(name, _) => format!("node {name}"),
        Change::LvsNode(name, _) => format!("lvs node {name}"),
        Change::DirectorBinding(name, _) => format!("binding {name}"),
    }
}
