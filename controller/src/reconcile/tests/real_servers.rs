//! Machines: real servers and their LvsNodes.

use lvs_crd::condition::Status;
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
        mk_lvs_node("rs1", "10.0.0.11", None),
        mk_service("web", 1, &json!({})),
    ]);
    assert_eq!(world.weights("web.lvs1"), [0, 1]);
    assert_eq!(world.serves["rs1"][0].endpoints.len(), 1);
    assert_eq!(world.serves["rs1"][0].endpoints[0].address, "10.0.0.11");
    assert_eq!(world.statuses[&mk_name("web")].0.real_servers, "1/2");

    let ready = mk_lvs_node("rs1", "10.0.0.11", Some(true));
    world.see(world.with_written_spec(ready));

    assert_eq!(world.weights("web.lvs1"), [1, 1]);
    assert_eq!(world.statuses[&mk_name("web")].0.real_servers, "2/2");
}

#[test]
fn a_real_server_keeps_its_weight_until_its_first_agent_reports() {
    let mut world = World::of(&[mk_group("lvs1"), mk_service("web", 1, &json!({}))]);
    assert_eq!(world.weights("web.lvs1"), [1, 1]);

    world.see(mk_lvs_node("rs1", "10.0.0.11", None));
    assert_eq!(world.serves["rs1"].len(), 1, "it serves at once");
    assert_eq!(world.weights("web.lvs1"), [1, 1]);
    assert_eq!(world.statuses[&mk_name("web")].0.real_servers, "2/2");

    for (is_ready, weights) in [(true, [1, 1]), (false, [0, 1])] {
        let reported = mk_lvs_node("rs1", "10.0.0.11", Some(is_ready));
        world.see(world.with_written_spec(reported));
        assert_eq!(world.weights("web.lvs1"), weights);
    }
}

#[test]
fn a_removed_real_server_serves_until_its_director_has_removed_it() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_lvs_node("rs1", "10.0.0.11", None),
        mk_service("web", 1, &json!({})),
    ]);
    world.report("web.lvs1", Status::True, "");
    let served = world.serves["rs1"].clone();
    assert_eq!(served.len(), 1);

    let without = json!({"backends": {"endpoints": [{"address": "10.0.0.12"}]}});
    world.see(mk_service("web", 1, &without));
    assert_eq!(world.weights("web.lvs1"), [1]);
    assert_eq!(
        world.serves["rs1"], served,
        "its director has not reported yet"
    );
    world.report("web.lvs1", Status::False, "failed: ipvsadm -d");
    assert_eq!(
        world.serves["rs1"], served,
        "the director may still have it"
    );
    world.report("web.lvs1", Status::True, "");
    assert_eq!(world.serves["rs1"], []);
}

#[test]
fn a_real_server_of_a_deleted_service_serves_until_the_binding_is_deleted() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_lvs_node("rs1", "10.0.0.11", None),
        mk_service("web", 1, &json!({})),
    ]);
    world
        .cluster
        .observe(Change::VirtualService(mk_name("web"), None));
    let writes = world.cluster.reconcile(|| {});
    assert_eq!(writes, [Write::DeleteBinding(mk_name("web.lvs1"))]);
    assert_eq!(world.serves["rs1"].len(), 1);
    writes.into_iter().for_each(|write| world.write(write));
    world.settle();
    assert_eq!(world.serves["rs1"], []);
}

#[test]
fn the_lvs_node_of_a_node_is_deleted_with_it_and_a_machines_own_stays() {
    let mut world = World::of(&[
        mk_selecting_group(),
        mk_uid_node("n1"),
        mk_lvs_node("rs1", "10.0.0.11", None),
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
