//! Bindings with more real servers than one object may have.

use lvs_crd::condition::Status;
use lvs_model::ObjectName;
use serde_json::{Value, json};

use super::{
    objects::{mk_group, mk_name, mk_service},
    world::World,
};
use crate::{cluster::Change, write::Write};

/// A NAT service with this many real servers.
fn with_servers(count: usize) -> Change {
    let servers: Vec<Value> = (0..count)
        .map(|number| json!({"address": format!("10.2.{}.{}", number / 250, number % 250 + 1)}))
        .collect();
    let spec = json!({"forwarding": "NAT", "backends": servers});
    mk_service("web", 1, &spec)
}

/// The names of the bindings that are written and deleted.
fn written(writes: &[Write]) -> Vec<String> {
    let names = writes.iter().filter_map(|write| match write {
        Write::ApplyBinding { name, .. } => Some(kind_of(name).to_owned()),
        Write::DeleteBinding { name, .. } => Some(format!("delete {}", kind_of(name))),
        Write::ApplyServed { .. }
        | Write::DeleteServed { .. }
        | Write::ApplyNode { .. }
        | Write::DeleteNode { .. }
        | Write::Silence { .. }
        | Write::ServiceStatus { .. }
        | Write::GroupStatus { .. }
        | Write::PoolStatus { .. } => None,
    });
    names.collect()
}

fn kind_of(name: &ObjectName) -> &'static str {
    if name.name() == "web.lvs1" {
        "binding"
    } else {
        "slice"
    }
}

/// Executes the writes of rounds, and returns the bindings that each has written.
fn rounds(world: &mut World) -> Vec<Vec<String>> {
    let mut rounds = Vec::new();
    loop {
        let writes = world.cluster.reconcile(|| {});
        if writes.is_empty() {
            return rounds;
        }
        rounds.push(written(&writes));
        writes.into_iter().for_each(|write| world.write(write));
    }
}

#[test]
fn a_binding_is_written_after_its_slices_and_they_are_deleted_after_it() {
    let mut world = World::of(&[mk_group("lvs1"), with_servers(1)]);
    world.report_all();

    world.cluster.observe(with_servers(1000));
    let all: Vec<String> = rounds(&mut world).concat();
    assert_eq!(all, ["slice", "slice", "binding"]);
    let binding = &world.bindings[&mk_name("web.lvs1")];
    assert_eq!((binding.real_servers.len(), binding.slices.len()), (0, 2));
    assert_eq!(
        world.statuses[&mk_name("web")].0.real_servers_column,
        "1000/1000"
    );

    world.cluster.observe(with_servers(10));
    assert_eq!(rounds(&mut world).concat(), ["binding"]);
    assert_eq!(
        world.bindings.len(),
        3,
        "the director may still read the slices"
    );
    world.cluster.observe(with_servers(10));
    world.report("web.lvs1", Status::True, "");
    assert_eq!(world.binding_names(), ["shop/web.lvs1"]);
}

#[test]
fn a_change_of_one_real_server_writes_one_slice_and_the_binding() {
    let mut world = World::of(&[mk_group("lvs1"), with_servers(999)]);
    world.report_all();
    world.cluster.observe(with_servers(1000));
    assert_eq!(rounds(&mut world).concat(), ["slice", "binding"]);
}

#[test]
fn a_deleted_service_leaves_no_slice() {
    let mut world = World::of(&[mk_group("lvs1"), with_servers(1000)]);
    world.see(Change::VirtualService(mk_name("web"), None));
    assert_eq!(world.binding_names(), [""; 0]);
}

#[test]
fn a_kept_version_has_all_its_real_servers() {
    let mut world = World::of(&[mk_group("lvs1"), with_servers(1000)]);
    world.report_all();
    let before = world.bindings.clone();
    let invalid = json!({"forwarding": "NAT", "ports": []});
    world.see(mk_service("web", 1, &invalid));
    assert_eq!(world.bindings, before);
    assert_eq!(
        world.statuses[&mk_name("web")].0.real_servers_column,
        "1000/1000"
    );
}
