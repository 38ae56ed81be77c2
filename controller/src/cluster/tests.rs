//! What the controller works out, whatever the order and history of what it sees.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{core::v1::Node, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use lvs_crd::{
    DirectorGroup, Facts, InterfaceAddress, LvsNodeStatus, ServedStatus, VirtualService,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A controller with the API server that it writes to.
#[derive(Default)]
struct World {
    cluster: Cluster,
    bindings: BTreeMap<ObjectName, DirectorBindingSpec>,
    nodes: BTreeMap<String, (Vec<GroupMembership>, Vec<ServedService>)>,
    statuses: BTreeMap<ObjectName, (VirtualServiceStatus, Vec<Verdict>)>,
}

impl World {
    fn of(changes: &[Change]) -> Self {
        let mut world = Self::default();
        for change in changes {
            world.cluster.observe(change.clone());
        }
        world.settle();
        world
    }

    fn see(&mut self, change: Change) {
        self.cluster.observe(change);
        self.settle();
    }

    /// Writes, and sees what it has written, until there is nothing to write.
    fn settle(&mut self) {
        for _round in 0..20 {
            let writes = self.cluster.settle();
            if writes.is_empty() {
                return;
            }
            for write in writes {
                self.write(write);
            }
        }
        panic!("the controller does not come to rest");
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::ApplyBinding { name, spec, .. } => {
                let mut object = DirectorBinding::new(name.name(), spec.as_ref().clone());
                object.metadata.namespace = Some(name.namespace().to_owned());
                self.bindings.insert(name.clone(), *spec);
                let change = Change::DirectorBinding(name, Some(Arc::new(object)));
                self.cluster.observe(change);
            }
            Write::DeleteBinding(name) => {
                self.bindings.remove(&name);
                self.cluster.observe(Change::DirectorBinding(name, None));
            }
            Write::ApplyNode {
                name,
                groups,
                serves,
                ..
            } => {
                let known = self.cluster.objects().lvs_nodes.get(&name);
                let mut object = known.map_or_else(
                    || LvsNode::new(&name, Default::default()),
                    |known| known.as_ref().clone(),
                );
                object.spec.groups.clone_from(&groups);
                object.spec.serves.clone_from(&serves);
                self.nodes.insert(name.clone(), (groups, serves));
                self.cluster
                    .observe(Change::LvsNode(name, Some(Arc::new(object))));
            }
            Write::ServiceStatus {
                name,
                status,
                verdicts,
            } => {
                self.store_status(&name, &status, &verdicts);
                self.statuses.insert(name, (*status, verdicts));
            }
            Write::GroupStatus {
                name,
                mut status,
                verdicts,
            } => {
                let Some(known) = self.cluster.objects().groups.get(&name) else {
                    return;
                };
                let mut object = known.as_ref().clone();
                status.conditions = lvs_crd::condition::conditions(
                    verdicts,
                    &[],
                    object.metadata.generation,
                    Timestamp::UNIX_EPOCH,
                );
                object.status = Some(status);
                self.cluster
                    .observe(Change::DirectorGroup(name, Some(Arc::new(object))));
            }
        }
    }

    fn store_status(
        &mut self,
        name: &ObjectName,
        status: &VirtualServiceStatus,
        verdicts: &[Verdict],
    ) {
        let Some(known) = self.cluster.objects().services.get(name) else {
            return;
        };
        let mut object = known.as_ref().clone();
        let mut status = status.clone();
        let generation = object.metadata.generation;
        status.conditions = lvs_crd::condition::conditions(
            verdicts.to_vec(),
            &[],
            generation,
            Timestamp::UNIX_EPOCH,
        );
        object.status = Some(status);
        self.cluster
            .observe(Change::VirtualService(name.clone(), Some(Arc::new(object))));
    }

    fn reason(&self, name: &str, kind: &str) -> Option<String> {
        let (_, verdicts) = self.statuses.get(&mk_name(name))?;
        let verdict = verdicts.iter().find(|verdict| verdict.kind == kind)?;
        Some(format!("{} {}", verdict.status.as_str(), verdict.reason))
    }

    fn weights(&self, binding: &str) -> Vec<i64> {
        let endpoints = &self.bindings[&mk_name(binding)].service.backends.endpoints;
        endpoints.iter().map(|endpoint| endpoint.weight).collect()
    }
}

#[test]
fn a_service_without_addresses_gets_one_of_its_group_and_keeps_it() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_service("auto", 1, &json!({"addresses": []})),
    ]);
    let granted = |world: &World| world.statuses[&mk_name("auto")].0.addresses.clone();
    assert_eq!(granted(&world), ["10.9.0.1"]);
    assert_eq!(
        world.bindings[&mk_name("auto.lvs1")].service.addresses,
        ["10.9.0.1"]
    );

    world.see(mk_service("other", 0, &json!({"addresses": []})));
    assert_eq!(world.statuses[&mk_name("other")].0.addresses, ["10.9.0.2"]);
    assert_eq!(granted(&world), ["10.9.0.1"]);

    // A new controller knows it from the status.
    let objects = world.cluster.objects().services.clone();
    let mut later: Vec<Change> = vec![mk_group("lvs1")];
    later.extend(
        objects
            .into_iter()
            .rev()
            .map(|(name, object)| Change::VirtualService(name, Some(object))),
    );
    let again = World::of(&later);
    assert_eq!(
        again.bindings[&mk_name("auto.lvs1")].service.addresses,
        ["10.9.0.1"]
    );
}

#[test]
fn pools_that_are_used_up_stall_and_an_address_that_becomes_free_is_given() {
    let auto = |name, created| mk_service(name, created, &json!({"addresses": []}));
    let mut world = World::of(&[mk_group("lvs1"), auto("a", 1), auto("b", 2), auto("c", 3)]);
    assert_eq!(
        world.reason("c", "Stalled").as_deref(),
        Some("True NoFreeAddress")
    );

    world.see(Change::VirtualService(mk_name("a"), None));

    assert_eq!(world.reason("c", "Stalled"), None);
    assert!(world.bindings.contains_key(&mk_name("c.lvs1")));
}

#[test]
fn the_older_of_two_on_one_key_keeps_it_and_the_younger_follows_when_it_goes() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_service("young", 2, &json!({})),
        mk_service("old", 1, &json!({})),
    ]);
    assert_eq!(
        world.reason("young", "Stalled").as_deref(),
        Some("True Conflict")
    );
    assert_eq!(
        world.reason("old", "Accepted").as_deref(),
        Some("True Accepted")
    );
    assert_eq!(
        world
            .bindings
            .keys()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["shop/old.lvs1"]
    );

    world.see(Change::VirtualService(mk_name("old"), None));

    assert_eq!(world.reason("young", "Stalled"), None);
    assert_eq!(
        world
            .bindings
            .keys()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["shop/young.lvs1"]
    );
}

#[test]
fn an_invalid_edit_is_refused_and_what_was_programmed_stays() {
    let mut world = World::of(&[mk_group("lvs1"), mk_service("web", 1, &json!({}))]);
    let before = world.bindings.clone();

    world.see(mk_service(
        "web",
        1,
        &json!({"ports": [{"port": 80, "targetPort": 81}]}),
    ));

    assert_eq!(
        world.reason("web", "Accepted").as_deref(),
        Some("False Invalid")
    );
    assert_eq!(world.bindings, before);
}

#[test]
fn a_managed_real_server_of_direct_routing_gets_weight_when_it_says_that_it_can_answer() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_lvs_node("rs1", "10.0.0.11", None),
        mk_service("web", 1, &json!({})),
    ]);
    assert_eq!(world.weights("web.lvs1"), [0, 1]);
    assert_eq!(world.nodes["rs1"].1[0].endpoints.len(), 1);
    assert_eq!(world.nodes["rs1"].1[0].endpoints[0].address, "10.0.0.11");
    assert_eq!(world.statuses[&mk_name("web")].0.real_servers, "1/2");

    let mut ready = mk_lvs_node("rs1", "10.0.0.11", Some(true));
    keep_spec(&mut ready, &world);
    world.see(ready);

    assert_eq!(world.weights("web.lvs1"), [1, 1]);
    assert_eq!(world.statuses[&mk_name("web")].0.real_servers, "2/2");
}

#[test]
fn a_vip_that_is_a_real_servers_or_another_machines_is_refused() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_service("web", 1, &json!({"addresses": ["10.0.0.100"]})),
    ]);
    assert_eq!(world.reason("web", "Stalled"), None);

    world.see(mk_lvs_node("other", "10.0.0.100", None));
    assert_eq!(
        world.reason("web", "Stalled").as_deref(),
        Some("True Conflict")
    );
    world.see(Change::LvsNode("other".to_owned(), None));
    assert_eq!(world.reason("web", "Stalled"), None);

    world.see(mk_service(
        "api",
        2,
        &json!({
            "addresses": ["10.0.0.101"], "backends": {"endpoints": [{"address": "10.0.0.100"}]},
        }),
    ));
    assert_eq!(
        world.reason("web", "Stalled").as_deref(),
        Some("True Conflict")
    );
}

#[test]
fn a_group_of_several_is_refused_and_one_that_is_missing_is_waited_for() {
    let mut world = World::of(&[mk_service("web", 1, &json!({}))]);
    assert_eq!(
        world.reason("web", "ResolvedRefs").as_deref(),
        Some("False DirectorGroupNotFound")
    );
    assert_eq!(world.reason("web", "Stalled"), None);

    world.see(mk_selecting_group());
    assert_eq!(
        world.reason("web", "ResolvedRefs").as_deref(),
        Some("False NoDirector")
    );
    world.see(mk_node("n1"));
    assert_eq!(
        world
            .bindings
            .keys()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["shop/web.n1"]
    );
    world.see(mk_node("n2"));
    assert_eq!(
        world.reason("web", "Stalled").as_deref(),
        Some("True SeveralDirectors")
    );
}

#[test]
fn pods_are_taken_by_masqueraded_nat_only() {
    let spec = |spec: Value| {
        let mut all = json!({"backends": {"service": {"name": "web"}}});
        all.as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        mk_service("web", 1, &all)
    };
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_slice(true),
        Change::Service(mk_name("web"), true),
        spec(json!({})),
    ]);
    assert_eq!(
        world.reason("web", "Accepted").as_deref(),
        Some("False PodsNeedNat")
    );
    world.see(spec(json!({"forwarding": "NAT"})));
    assert_eq!(
        world.reason("web", "Accepted").as_deref(),
        Some("False PodsNeedMasquerade")
    );
    world.see(spec(
        json!({"forwarding": "NAT", "nat": {"returnPath": "Masquerade"}}),
    ));
    assert_eq!(
        world.reason("web", "Accepted").as_deref(),
        Some("True Accepted")
    );
    assert_eq!(world.weights("web.lvs1"), [1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The work that a change causes is bounded by indices; what is worked out is as if all objects were seen at once.
    #[test]
    fn any_history_leads_to_what_a_fresh_controller_works_out(history in prop::collection::vec(any_change(), 1..40)) {
        let mut world = World::default();
        let mut last: BTreeMap<String, Change> = BTreeMap::new();
        for change in history {
            last.insert(key(&change), change.clone());
            world.see(change);
        }
        let fresh = World::of(&last.into_values().collect::<Vec<_>>());
        prop_assert_eq!(&world.bindings, &fresh.bindings);
        let served = |world: &World| -> Vec<(String, Vec<ServedService>)> {
            let nodes = world.cluster.objects().lvs_nodes.iter();
            nodes.map(|(name, node)| (name.clone(), node.spec.serves.clone())).collect()
        };
        prop_assert_eq!(served(&world), served(&fresh));
        prop_assert_eq!(&world.cluster.index, &fresh.cluster.index);
        prop_assert_eq!(&world.cluster.claims, &fresh.cluster.claims);
    }
}

/// Fixed VIPs and valid specs: which of equal claims for an allocated address wins is decided by history on purpose,
/// and so is what stays of a service that turns invalid.
fn any_change() -> impl Strategy<Value = Change> {
    let service = (0..4_usize, 0..3_u8, 0..3_u8, 80..82_u16, any::<bool>()).prop_map(
        |(name, vip, server, port, exists)| {
            let name = ["a", "b", "c", "d"][name];
            let spec = json!({
                "addresses": [format!("10.0.0.{}", 100 + vip)],
                "forwarding": "NAT",
                "ports": [{"port": port}],
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
            Change::LvsNode(name.to_owned(), None)
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

fn mk_name(name: &str) -> ObjectName {
    ObjectName::new("shop", name).unwrap()
}

/// A DR service with two real servers; `changes` stand in place of its fields.
fn mk_service(name: &str, created: i64, changes: &Value) -> Change {
    let mut spec = json!({
        "addresses": ["10.0.0.100"],
        "ports": [{"port": 80}],
        "backends": {"endpoints": [{"address": "10.0.0.11"}, {"address": "10.0.0.12"}]},
    });
    spec.as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    let mut object = VirtualService::new(name, serde_json::from_value(spec).unwrap());
    object.metadata.namespace = Some("shop".to_owned());
    object.metadata.creation_timestamp = Some(Time(Timestamp::from_second(created).unwrap()));
    Change::VirtualService(mk_name(name), Some(Arc::new(object)))
}

fn mk_group(node: &str) -> Change {
    let spec = json!({
        "nodes": {"names": [node]},
        "pools": [{"name": "public", "addresses": ["10.9.0.1-10.9.0.2"]}],
    });
    let object = DirectorGroup::new("default", serde_json::from_value(spec).unwrap());
    Change::DirectorGroup("default".to_owned(), Some(Arc::new(object)))
}

fn mk_selecting_group() -> Change {
    let spec = json!({"nodes": {"selector": {"matchLabels": {"edge": "yes"}}}});
    let object = DirectorGroup::new("default", serde_json::from_value(spec).unwrap());
    Change::DirectorGroup("default".to_owned(), Some(Arc::new(object)))
}

fn mk_node(name: &str) -> Change {
    let node = Node {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([("edge".to_owned(), "yes".to_owned())])),
            ..ObjectMeta::default()
        },
        ..Node::default()
    };
    Change::Node(name.to_owned(), Some(Arc::new(node)))
}

/// A machine with an agent, which says whether it can answer for `shop/web`.
fn mk_lvs_node(name: &str, address: &str, ready: Option<bool>) -> Change {
    let mut object = LvsNode::new(name, Default::default());
    object.status = Some(LvsNodeStatus {
        facts: Some(Facts {
            addresses: vec![InterfaceAddress {
                interface: "eth0".to_owned(),
                address: format!("{address}/24"),
            }],
            ..Facts::default()
        }),
        serves: ready
            .map(|ready| ServedStatus {
                namespace: "shop".to_owned(),
                name: "web".to_owned(),
                ready,
                message: String::new(),
            })
            .into_iter()
            .collect(),
        ..LvsNodeStatus::default()
    });
    Change::LvsNode(name.to_owned(), Some(Arc::new(object)))
}

/// Gives a machine the spec that the controller has written.
fn keep_spec(change: &mut Change, world: &World) {
    let Change::LvsNode(name, Some(object)) = change else {
        return;
    };
    let known = &world.cluster.objects().lvs_nodes[name.as_str()];
    Arc::make_mut(object).spec = known.spec.clone();
}

fn mk_slice(is_pod: bool) -> Change {
    let kind = if is_pod { "Pod" } else { "Node" };
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"port": 80}],
        "endpoints": [{"addresses": ["10.0.0.13"], "targetRef": {"kind": kind}}],
    }))
    .unwrap();
    Change::EndpointSlice(mk_name("web-1"), Some(Arc::new(slice)))
}
