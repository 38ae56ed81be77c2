//! Machines: real servers and their LvsNodes.

use std::sync::Arc;

use lvs_crd::{InterfaceAddress, LvsNode, condition::Status};
use lvs_model::NodeName;
use serde_json::json;

use super::{
    objects::{
        mk_group, mk_lvs_node, mk_machine, mk_name, mk_selecting_group, mk_service, mk_uid_node,
    },
    world::World,
};
use crate::{cluster::Change, write::Write};

#[test]
fn a_managed_dr_real_server_gets_weight_when_it_is_ready() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_lvs_node("rs1", "10.0.0.11"),
        mk_service("web", 1, &json!({})),
    ]);
    assert_eq!(world.weights("web.lvs1"), [0, 1]);
    assert_eq!(world.serving(), ["web.rs1 10.0.0.11"]);
    assert_eq!(world.statuses[&mk_name("web")].0.real_servers_column, "1/2");

    world.report_served("web.rs1", true);

    assert_eq!(world.weights("web.lvs1"), [1, 1]);
    assert_eq!(world.statuses[&mk_name("web")].0.real_servers_column, "2/2");
}

#[test]
fn a_real_server_keeps_its_weight_until_its_first_agent_reports() {
    let mut world = World::of(&[mk_group("lvs1"), mk_service("web", 1, &json!({}))]);
    assert_eq!(world.weights("web.lvs1"), [1, 1]);

    world.see(mk_lvs_node("rs1", "10.0.0.11"));
    assert_eq!(world.serving(), ["web.rs1 10.0.0.11"], "it serves at once");
    assert_eq!(world.weights("web.lvs1"), [1, 1]);
    assert_eq!(world.statuses[&mk_name("web")].0.real_servers_column, "2/2");

    for (is_ready, weights) in [(true, [1, 1]), (false, [0, 1])] {
        world.report_served("web.rs1", is_ready);
        assert_eq!(world.weights("web.lvs1"), weights);
    }
}

#[test]
fn a_removed_real_server_serves_until_its_director_has_removed_it() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_lvs_node("rs1", "10.0.0.11"),
        mk_service("web", 1, &json!({})),
    ]);
    world.report("web.lvs1", Status::True, "");
    let served = ["web.rs1 10.0.0.11"];
    assert_eq!(world.serving(), served);

    let without = json!({"backends": [{"address": "10.0.0.12"}]});
    world.see(mk_service("web", 1, &without));
    assert_eq!(world.weights("web.lvs1"), [1]);
    assert_eq!(world.serving(), served, "its director has not reported yet");
    world.report("web.lvs1", Status::False, "failed: ipvsadm -d");
    assert_eq!(world.serving(), served, "the director may still have it");
    world.report("web.lvs1", Status::True, "");
    assert_eq!(world.serving(), [""; 0]);
}

#[test]
fn a_real_server_of_a_deleted_service_serves_until_the_binding_is_deleted() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_lvs_node("rs1", "10.0.0.11"),
        mk_service("web", 1, &json!({})),
    ]);
    world
        .cluster
        .observe(Change::VirtualService(mk_name("web"), None));
    let writes = world.cluster.reconcile(|| {});
    let [Write::DeleteBinding { name, .. }] = writes.as_slice() else {
        panic!("{writes:?}")
    };
    assert_eq!(*name, mk_name("web.lvs1"));
    assert_eq!(world.serving(), ["web.rs1 10.0.0.11"]);
    writes.into_iter().for_each(|write| world.write(write));
    world.settle();
    assert_eq!(world.serving(), [""; 0]);
}

#[test]
fn the_lvs_node_of_a_node_is_deleted_with_it_and_a_machines_own_stays() {
    let mut world = World::of(&[
        mk_selecting_group(),
        mk_uid_node("n1"),
        mk_lvs_node("rs1", "10.0.0.11"),
    ]);
    assert!(
        world
            .cluster
            .objects
            .lvs_nodes
            .contains_key(&mk_machine("n1"))
    );

    world.see(Change::Node(mk_machine("n1"), None));

    let left: Vec<&NodeName> = world.cluster.objects.lvs_nodes.keys().collect();
    assert_eq!(left, [&mk_machine("rs1")]);
}

#[test]
fn a_machine_serves_with_any_number_of_addresses_and_any_number_of_services() {
    let addresses: Vec<String> = (1..=250).map(|last| format!("10.0.1.{last}")).collect();
    let mut machine = mk_lvs_node("rs1", "10.0.0.11");
    let Change::LvsNode(_, Some(object)) = &mut machine else {
        unreachable!()
    };
    let status = Arc::make_mut(object).status.as_mut().unwrap();
    status.facts.as_mut().unwrap().addresses = addresses
        .iter()
        .map(|address| InterfaceAddress {
            interface: "eth0".to_owned(),
            address: format!("{address}/16"),
        })
        .collect();
    let own: Vec<_> = addresses
        .iter()
        .map(|address| json!({"address": address}))
        .collect();
    let services = (0..1001_u16).map(|number| {
        let vip = format!("10.0.{}.{}", 10 + number / 250, number % 250 + 1);
        let servers = if number == 0 {
            own.clone()
        } else {
            own[..17].to_vec()
        };
        let spec = json!({"addresses": [vip], "backends": servers});
        mk_service(&format!("s{number}"), 1, &spec)
    });
    let mut world = World::of(&[vec![mk_group("lvs1"), machine], services.collect()].concat());
    assert_eq!(world.served.len(), 1001);
    assert_eq!(world.served[&mk_name("s0.rs1")].real_servers.len(), 250);
    world.report_served("s1000.rs1", true);
    assert_eq!(world.weights("s1000.lvs1"), [1; 17]);
    assert_eq!(world.weights("s999.lvs1"), [0; 17]);
}

#[test]
fn a_machine_whose_lvs_node_is_deleted_or_made_anew_goes_on_serving() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_lvs_node("rs1", "10.0.0.11"),
        mk_service("web", 1, &json!({})),
    ]);
    world.report_served("web.rs1", true);
    world.report_all();
    let before = (world.serving(), world.bindings.clone());

    world.see(Change::LvsNode(mk_machine("rs1"), None));
    assert_eq!((world.serving(), world.bindings.clone()), before);
    let anew = LvsNode::new("rs1", Default::default());
    world.see(Change::LvsNode(mk_machine("rs1"), Some(Arc::new(anew))));
    assert_eq!((world.serving(), world.bindings.clone()), before);

    // The agent does not report the address, or two machines report it: that may be so for a moment only.
    world.see(mk_lvs_node("rs1", "10.0.0.99"));
    assert_eq!(world.serving(), ["web.rs1 10.0.0.11"]);
    world.see(mk_lvs_node("rs1", "10.0.0.11"));
    world.see(mk_lvs_node("rs2", "10.0.0.11"));
    assert_eq!(world.serving(), ["web.rs1 10.0.0.11"]);

    // Another machine has it alone.
    world.see(mk_lvs_node("rs1", "10.0.0.99"));
    world.report_all();
    assert_eq!(world.serving(), ["web.rs2 10.0.0.11"]);
}

#[test]
fn a_machine_stops_serving_without_a_director_when_another_has_its_address() {
    let mut world = World::of(&[
        mk_lvs_node("rs1", "10.0.0.11"),
        mk_service("web", 1, &json!({})),
    ]);
    assert_eq!(world.serving(), ["web.rs1 10.0.0.11"]);
    world.see(Change::LvsNode(mk_machine("rs1"), None));
    assert_eq!(world.serving(), ["web.rs1 10.0.0.11"]);
    world.see(mk_lvs_node("rs2", "10.0.0.11"));
    assert_eq!(world.serving(), ["web.rs2 10.0.0.11"]);
}

#[test]
fn an_old_report_of_a_real_server_does_not_count_for_a_new_vip() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_lvs_node("rs1", "10.0.0.11"),
        mk_service("web", 1, &json!({})),
    ]);
    world.report_served("web.rs1", false);
    assert_eq!(world.weights("web.lvs1"), [0, 1]);
    let failures = |world: &World| world.statuses[&mk_name("web")].0.failures.len();
    assert_eq!(failures(&world), 1);
    world.see(mk_service("web", 1, &json!({"ports": [{"port": 81}]})));
    assert_eq!(failures(&world), 0);
    assert_eq!(world.weights("web.lvs1"), [0, 1]);
}
