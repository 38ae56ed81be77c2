//! Bindings with more real servers than one object may have.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use k8s_openapi::{Resource as _, api::core::v1::Node};
use lvs_crd::condition::Status;
use lvs_model::ObjectName;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    objects::{mk_group, mk_kube_service, mk_name, mk_numbered_slice, mk_service},
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

/// The API server with writes that are queued, in flight, or not observed yet.
#[derive(Default)]
struct SlowApi {
    /// For each object, the newest write that is not executed yet.
    queued: BTreeMap<ObjectName, Write>,
    /// Executed, in this order, and not observed yet.
    unobserved: VecDeque<Write>,
    /// How many bindings and slices were written.
    written: usize,
}

impl SlowApi {
    fn queue(&mut self, world: &mut World) {
        for write in world.cluster.reconcile(|| {}) {
            if let Write::ApplyBinding { name, .. } | Write::DeleteBinding { name, .. } = &write {
                self.queued.insert(name.clone(), write);
            } else {
                world.write(write);
            }
        }
    }

    /// Executes one of the writes, or shows the oldest one that was executed. Returns whether there was one.
    fn advance(&mut self, world: &mut World, choice: usize) -> bool {
        let count = self.queued.len() + usize::from(!self.unobserved.is_empty());
        if count == 0 {
            return false;
        }
        match self.queued.keys().nth(choice % count).cloned() {
            Some(name) => {
                self.unobserved.extend(self.queued.remove(&name));
                self.written += 1;
            }
            None => self
                .unobserved
                .pop_front()
                .into_iter()
                .for_each(|write| world.write(write)),
        }
        self.queue(world);
        true
    }
}

/// A slice of a Service with a hundred endpoints.
fn with_endpoints(slice: usize) -> Change {
    with_newer_endpoints(slice, 0)
}

/// The same slice, in which the first endpoints were replaced.
fn with_newer_endpoints(slice: usize, replaced: usize) -> Change {
    let addresses = (1..=100).map(|number| format!("10.2.{slice}.{}", number + replaced));
    let addresses: Vec<String> = addresses.collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    mk_numbered_slice("web", slice, Node::KIND, &addresses)
}

#[test]
fn a_binding_is_written_while_its_endpoints_change_all_the_time() {
    let backends = json!({"forwarding": "NAT", "backends": [{"service": {"name": "web"}}]});
    let service = mk_service("web", 1, &backends);
    let mut changes = vec![mk_group("lvs1"), mk_kube_service(), service];
    changes.extend((0..12).map(with_endpoints));
    let mut world = World::of(&changes);
    let mut api = SlowApi::default();
    let mut versions = BTreeSet::new();
    for round in 0..60 {
        world
            .cluster
            .observe(with_newer_endpoints(round % 12, round / 12 + 1));
        api.queue(&mut world);
        api.advance(&mut world, round);
        versions.insert(world.bindings[&mk_name("web.lvs1")].slices.clone());
    }
    assert!(versions.len() > 2, "{} versions", versions.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 0, ..ProptestConfig::default() })]

    /// Endpoints arrive one slice after the other, while what was written for earlier ones is in flight or not observed yet. What
    /// is written does not depend on what is observed, so it comes to rest.
    #[test]
    fn slices_come_to_rest_whenever_they_are_observed(
        order in Just((0..25).collect::<Vec<usize>>()).prop_shuffle(),
        choices in prop::collection::vec((any::<usize>(), 0..4_usize), 25),
        last in prop::collection::vec(any::<usize>(), 300),
    ) {
        let backends = json!({"forwarding": "NAT", "backends": [{"service": {"name": "web"}}]});
        let mut world = World::of(&[mk_group("lvs1"), mk_kube_service(), mk_service("web", 1, &backends)]);
        let mut api = SlowApi::default();
        for (slice, (choice, steps)) in order.into_iter().zip(choices) {
            world.cluster.observe(with_endpoints(slice));
            api.queue(&mut world);
            for _step in 0..steps {
                api.advance(&mut world, choice);
            }
        }
        let mut last = last.into_iter();
        for choice in last.by_ref() {
            if !api.advance(&mut world, choice) {
                break;
            }
        }
        prop_assert!(last.next().is_some(), "{} writes do not come to rest", api.written);
        let binding = &world.bindings[&mk_name("web.lvs1")];
        prop_assert_eq!(binding.slices.len(), 5);
        prop_assert_eq!(&world.statuses[&mk_name("web")].0.real_servers_column, "2500/2500");
    }
}
