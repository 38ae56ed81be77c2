//! What the controller works out, whatever the order and history of what it sees.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{core::v1::Node, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
    jiff::Timestamp,
};
use lvs_crd::condition::{ConditionType, Reason, Status};
use lvs_crd::{
    DirectorBindingStatus, DirectorGroup, Facts, InterfaceAddress, LvsNodeStatus, ServedStatus,
    VirtualService,
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
            Write::ApplyBinding {
                name,
                owner_uid,
                spec,
            } => {
                let mut object = DirectorBinding::new(name.name(), spec.as_ref().clone());
                object.metadata.namespace = Some(name.namespace().to_owned());
                object.metadata.owner_references =
                    Some(vec![mk_owner("VirtualService", &owner_uid)]);
                let known = self.cluster.objects().bindings.get(&name);
                let generation = known.and_then(|known| known.metadata.generation);
                object.metadata.generation = Some(generation.unwrap_or(0) + 1);
                object.status = known.and_then(|known| known.status.clone());
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
                uid,
                owner_uid,
                groups,
                serves,
            } => {
                let found = self.cluster.objects().lvs_nodes.get(&name);
                assert_eq!(uid, found.and_then(|found| found.metadata.uid.clone()));
                let known = self.cluster.objects().lvs_nodes.get(&name);
                let mut object = known.map_or_else(
                    || LvsNode::new(&name, Default::default()),
                    |known| known.as_ref().clone(),
                );
                object.spec.groups.clone_from(&groups);
                object.spec.serves.clone_from(&serves);
                object.metadata.owner_references =
                    owner_uid.map(|uid| vec![mk_owner("Node", &uid)]);
                self.nodes.insert(name.clone(), (groups, serves));
                self.cluster
                    .observe(Change::LvsNode(name, Some(Arc::new(object))));
            }
            Write::DeleteNode { name, .. } => {
                self.nodes.remove(&name);
                self.cluster.observe(Change::LvsNode(name, None));
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

    fn reason(&self, name: &str, kind: ConditionType) -> Option<String> {
        let (_, verdicts) = self.statuses.get(&mk_name(name))?;
        let verdict = verdicts.iter().find(|verdict| verdict.kind == kind)?;
        let (status, reason) = (verdict.status.as_str(), verdict.reason.as_str());
        Some(format!("{status} {reason}"))
    }

    /// Its director's agent says that a binding is in its kernel, or why not.
    fn report(&mut self, binding: &str, status: Status, message: &str) {
        let name = mk_name(binding);
        let known = &self.cluster.objects().bindings[&name];
        let mut object = known.as_ref().clone();
        let generation = object.metadata.generation;
        let reason = match status {
            Status::True => Reason::Programmed,
            Status::False | Status::Unknown => Reason::ProgrammingFailed,
        };
        let verdict = Verdict::new(ConditionType::Programmed, status, reason, message);
        let time = Timestamp::UNIX_EPOCH;
        object.status = Some(DirectorBindingStatus {
            observed_generation: generation,
            conditions: lvs_crd::condition::conditions(vec![verdict], &[], generation, time),
        });
        self.see(Change::DirectorBinding(name, Some(Arc::new(object))));
    }

    /// Every director says that it has done what is wanted.
    fn report_all(&mut self) {
        let bindings: Vec<ObjectName> = self.bindings.keys().cloned().collect();
        for binding in bindings {
            self.report(binding.name(), Status::True, "");
        }
    }

    fn addresses(&self, name: &str) -> Vec<&str> {
        let status = &self.statuses[&mk_name(name)].0;
        status.addresses.iter().map(String::as_str).collect()
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
        world.reason("c", ConditionType::Stalled).as_deref(),
        Some("True NoFreeAddress")
    );

    world.see(Change::VirtualService(mk_name("a"), None));

    assert_eq!(world.reason("c", ConditionType::Stalled), None);
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
        world.reason("young", ConditionType::Stalled).as_deref(),
        Some("True Conflict")
    );
    assert_eq!(
        world.reason("old", ConditionType::Accepted).as_deref(),
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

    assert_eq!(world.reason("young", ConditionType::Stalled), None);
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
        world.reason("web", ConditionType::Accepted).as_deref(),
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
fn a_real_server_that_worked_without_an_agent_keeps_its_weight_until_its_first_agent_says_otherwise()
 {
    let mut world = World::of(&[mk_group("lvs1"), mk_service("web", 1, &json!({}))]);
    assert_eq!(world.weights("web.lvs1"), [1, 1]);

    world.see(mk_lvs_node("rs1", "10.0.0.11", None));
    assert_eq!(world.nodes["rs1"].1.len(), 1, "it is told to serve");
    assert_eq!(world.weights("web.lvs1"), [1, 1]);
    assert_eq!(world.statuses[&mk_name("web")].0.real_servers, "2/2");

    for (is_ready, weights) in [(true, [1, 1]), (false, [0, 1])] {
        let mut told = mk_lvs_node("rs1", "10.0.0.11", Some(is_ready));
        keep_spec(&mut told, &world);
        world.see(told);
        assert_eq!(world.weights("web.lvs1"), weights);
    }
}

#[test]
fn a_real_server_that_is_taken_out_goes_on_serving_until_its_director_has_let_go_of_it() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_lvs_node("rs1", "10.0.0.11", None),
        mk_service("web", 1, &json!({})),
    ]);
    world.report("web.lvs1", Status::True, "");
    let served = world.nodes["rs1"].1.clone();
    assert_eq!(served.len(), 1);

    let without = json!({"backends": {"endpoints": [{"address": "10.0.0.12"}]}});
    world.see(mk_service("web", 1, &without));
    assert_eq!(world.weights("web.lvs1"), [1]);
    assert_eq!(world.nodes["rs1"].1, served, "nobody has said anything yet");
    world.report("web.lvs1", Status::False, "failed: ipvsadm -d");
    assert_eq!(
        world.nodes["rs1"].1, served,
        "the director may still have it"
    );
    world.report("web.lvs1", Status::True, "");
    assert_eq!(world.nodes["rs1"].1, []);
}

#[test]
fn a_real_server_of_a_deleted_service_is_let_go_when_the_binding_is_gone() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_lvs_node("rs1", "10.0.0.11", None),
        mk_service("web", 1, &json!({})),
    ]);
    world
        .cluster
        .observe(Change::VirtualService(mk_name("web"), None));
    let writes = world.cluster.settle();
    assert_eq!(writes, [Write::DeleteBinding(mk_name("web.lvs1"))]);
    assert_eq!(world.nodes["rs1"].1.len(), 1);
    writes.into_iter().for_each(|write| world.write(write));
    world.settle();
    assert_eq!(world.nodes["rs1"].1, []);
}

#[test]
fn a_vip_that_is_a_real_servers_or_another_machines_is_refused() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_service("web", 1, &json!({"addresses": ["10.0.0.100"]})),
    ]);
    assert_eq!(world.reason("web", ConditionType::Stalled), None);

    world.see(mk_lvs_node("other", "10.0.0.100", None));
    assert_eq!(
        world.reason("web", ConditionType::Stalled).as_deref(),
        Some("True Conflict")
    );
    world.see(Change::LvsNode("other".to_owned(), None));
    assert_eq!(world.reason("web", ConditionType::Stalled), None);

    world.see(mk_service(
        "api",
        2,
        &json!({
            "addresses": ["10.0.0.101"], "backends": {"endpoints": [{"address": "10.0.0.100"}]},
        }),
    ));
    assert_eq!(
        world.reason("web", ConditionType::Stalled).as_deref(),
        Some("True Conflict")
    );
}

#[test]
fn a_group_of_several_is_refused_and_one_that_is_missing_is_waited_for() {
    let mut world = World::of(&[mk_service("web", 1, &json!({}))]);
    assert_eq!(
        world.reason("web", ConditionType::ResolvedRefs).as_deref(),
        Some("False DirectorGroupNotFound")
    );
    assert_eq!(world.reason("web", ConditionType::Stalled), None);

    world.see(mk_selecting_group());
    assert_eq!(
        world.reason("web", ConditionType::ResolvedRefs).as_deref(),
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
        world.reason("web", ConditionType::Stalled).as_deref(),
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
        world.reason("web", ConditionType::Accepted).as_deref(),
        Some("False PodsNeedNat")
    );
    world.see(spec(json!({"forwarding": "NAT"})));
    assert_eq!(
        world.reason("web", ConditionType::Accepted).as_deref(),
        Some("False PodsNeedMasquerade")
    );
    world.see(spec(
        json!({"forwarding": "NAT", "nat": {"returnPath": "Masquerade"}}),
    ));
    assert_eq!(
        world.reason("web", ConditionType::Accepted).as_deref(),
        Some("True Accepted")
    );
    assert_eq!(world.weights("web.lvs1"), [1]);
}

#[test]
fn what_loses_in_the_same_round_is_never_written() {
    let mut cluster = Cluster::default();
    cluster.observe(mk_group("lvs1"));
    cluster.observe(mk_service("a-young", 2, &json!({})));
    cluster.observe(mk_service("b-old", 1, &json!({})));

    let writes = cluster.settle();

    let of_young = writes.iter().filter(
        |write| matches!(write, Write::ApplyBinding { name, .. } if name.name() == "a-young.lvs1"),
    );
    assert_eq!(of_young.count(), 0);
    let statuses = writes
        .iter()
        .filter(|write| matches!(write, Write::ServiceStatus { .. }));
    assert_eq!(statuses.count(), 2);
}

#[test]
fn a_new_generation_is_programmed_when_its_director_says_so_and_not_before() {
    let edited = |port: u16| json!({"ports": [{"port": port}]});
    let mut world = World::of(&[mk_group("lvs1"), mk_generation(1, &edited(80))]);
    let programmed = |world: &World| world.reason("web", ConditionType::Programmed).unwrap();
    assert_eq!(programmed(&world), "False Pending");
    world.report("web.lvs1", Status::True, "");
    assert_eq!(programmed(&world), "True Programmed");
    assert_eq!(
        world.reason("web", ConditionType::Ready).as_deref(),
        Some("True Ready")
    );

    world.cluster.observe(mk_generation(2, &edited(81)));
    let first = world.cluster.settle();
    assert_eq!(told_of_programming(&first), Some(Status::False));
    for write in first {
        world.write(write);
    }
    world.settle();
    assert_eq!(programmed(&world), "False Pending");

    world.report("web.lvs1", Status::True, "");
    assert_eq!(programmed(&world), "True Programmed");
}

#[test]
fn real_servers_come_and_go_and_ready_stays_until_a_director_says_otherwise() {
    let spec = json!({"forwarding": "NAT", "backends": {"service": {"name": "web"}}});
    let mut world = World::of(&[
        mk_group("lvs1"),
        Change::Service(mk_name("web"), true),
        mk_generation(1, &spec),
    ]);
    world.report("web.lvs1", Status::True, "");
    assert_eq!(
        world.reason("web", ConditionType::Ready).as_deref(),
        Some("True Ready")
    );

    world.see(mk_slice(false));
    assert_eq!(world.weights("web.lvs1"), [1]);
    assert_eq!(
        world.reason("web", ConditionType::Ready).as_deref(),
        Some("True Ready")
    );

    world.report("web.lvs1", Status::False, "no");
    let failed = Some("False ProgrammingFailed");
    assert_eq!(world.reason("web", ConditionType::Ready).as_deref(), failed);
    world.see(Change::EndpointSlice(mk_name("web-1"), None));
    assert_eq!(world.reason("web", ConditionType::Ready).as_deref(), failed);
}

#[test]
fn a_director_that_is_replaced_says_nothing_for_its_successor() {
    let mut world = World::of(&[mk_group("lvs1"), mk_generation(1, &json!({}))]);
    world.report("web.lvs1", Status::True, "");
    world.cluster.observe(mk_group("lvs2"));
    let writes = world.cluster.settle();
    assert_eq!(told_of_programming(&writes), Some(Status::False));
}

/// What the first status among writes says of Programmed.
fn told_of_programming(writes: &[Write]) -> Option<Status> {
    let told = writes.iter().find_map(|write| {
        if let Write::ServiceStatus { verdicts, .. } = write {
            Some(verdicts)
        } else {
            None
        }
    });
    let told = told?
        .iter()
        .find(|verdict| verdict.kind == ConditionType::Programmed);
    told.map(|verdict| verdict.status)
}

#[test]
fn a_service_that_is_made_anew_gets_bindings_of_its_own() {
    let with_uid = |uid: &str| {
        let change = mk_service("web", 1, &json!({}));
        let Change::VirtualService(name, Some(mut object)) = change else {
            unreachable!()
        };
        Arc::make_mut(&mut object).metadata.uid = Some(uid.to_owned());
        Change::VirtualService(name, Some(object))
    };
    let mut world = World::of(&[mk_group("lvs1"), with_uid("first")]);
    world.see(with_uid("second"));
    let binding = &world.cluster.objects().bindings[&mk_name("web.lvs1")];
    let owner = binding.metadata.owner_references.as_ref().unwrap();
    assert_eq!(owner[0].uid, "second");
}

#[test]
fn a_service_that_waits_for_its_finalizers_is_taken_back() {
    let mut world = World::of(&[mk_group("lvs1"), mk_service("web", 1, &json!({}))]);
    let Change::VirtualService(name, Some(mut object)) = mk_service("web", 1, &json!({})) else {
        unreachable!()
    };
    Arc::make_mut(&mut object).metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    world.see(Change::VirtualService(name, Some(object)));
    assert_eq!(world.bindings.len(), 0);
}

#[test]
fn the_lvs_node_of_a_node_goes_with_it_and_a_machines_own_stays() {
    let mut world = World::of(&[
        mk_selecting_group(),
        mk_uid_node("n1"),
        mk_lvs_node("rs1", "10.0.0.11", None),
    ]);
    assert!(world.cluster.objects().lvs_nodes.contains_key("n1"));

    world.see(Change::Node("n1".to_owned(), None));

    let left: Vec<&String> = world.cluster.objects().lvs_nodes.keys().collect();
    assert_eq!(left, ["rs1"]);
}

#[test]
fn a_group_that_comes_back_finds_its_services_with_the_addresses_that_they_had() {
    let auto = |name| mk_service(name, 1, &json!({"addresses": []}));
    let mut world = World::of(&[mk_group("lvs1"), auto("a"), auto("b")]);
    assert_eq!(world.addresses("a"), ["10.9.0.1"]);
    let bindings = world.bindings.clone();

    world.see(Change::DirectorGroup("default".to_owned(), None));
    assert_eq!(world.addresses("a"), ["10.9.0.1"]);
    assert_eq!(world.bindings, bindings);

    world.see(mk_group("lvs1"));
    assert_eq!(world.addresses("a"), ["10.9.0.1"]);
    assert_eq!(world.addresses("b"), ["10.9.0.2"]);
    assert_eq!(world.bindings, bindings);
}

#[test]
fn an_allocated_address_that_an_older_service_names_is_replaced_by_a_free_one() {
    let mut world = World::of(&[
        mk_group("lvs1"),
        mk_service("auto", 2, &json!({"addresses": []})),
    ]);
    assert_eq!(world.addresses("auto"), ["10.9.0.1"]);

    world.see(mk_service("fixed", 1, &json!({"addresses": ["10.9.0.1"]})));

    assert_eq!(
        world.reason("fixed", ConditionType::Accepted).as_deref(),
        Some("True Accepted")
    );
    assert_eq!(
        world.reason("auto", ConditionType::Accepted).as_deref(),
        Some("True Accepted")
    );
    assert_eq!(world.addresses("auto"), ["10.9.0.2"]);
    world.see(mk_service("third", 1, &json!({"addresses": ["10.9.0.2"]})));
    assert_eq!(
        world.reason("auto", ConditionType::Stalled).as_deref(),
        Some("True NoFreeAddress")
    );
}

#[test]
fn an_invalid_edit_leaves_the_generation_that_is_programmed() {
    let mut world = World::of(&[mk_group("lvs1"), mk_generation(1, &json!({}))]);
    world.see(mk_generation(
        2,
        &json!({"ports": [{"port": 80, "targetPort": 81}]}),
    ));
    assert_eq!(world.bindings[&mk_name("web.lvs1")].generation, 1);
    let status = &world.statuses[&mk_name("web")].0;
    assert_eq!(status.directors, "0/1");
    assert_eq!(
        world.reason("web", ConditionType::Programmed).as_deref(),
        Some("False Invalid")
    );
}

#[test]
fn an_invalid_edit_keeps_the_address_that_was_allocated_whatever_is_programmed() {
    let empty_group = |group: Change| {
        let Change::DirectorGroup(name, Some(mut object)) = group else {
            unreachable!()
        };
        Arc::make_mut(&mut object).spec.nodes.names.clear();
        Arc::make_mut(&mut object).spec.nodes.selector = Some(Default::default());
        Change::DirectorGroup(name, Some(object))
    };
    let allocated = json!({"addresses": []});
    let twice = json!({
        "addresses": [],
        "backends": {"endpoints": [{"address": "10.0.0.11"}, {"address": "10.0.0.11"}]},
    });
    let group = empty_group(mk_group("lvs1"));
    let mut world = World::of(&[group.clone(), mk_service("web", 2, &allocated)]);
    assert_eq!(world.addresses("web"), ["10.9.0.1"]);
    world.see(mk_service("web", 2, &twice));
    assert_eq!(
        world.reason("web", ConditionType::Stalled).as_deref(),
        Some("True Invalid")
    );
    assert_eq!(world.addresses("web"), ["10.9.0.1"]);
    world.see(mk_service("another", 1, &allocated));
    assert_eq!(world.addresses("another"), ["10.9.0.2"]);

    // Another controller knows no more than the statuses.
    let services = world.cluster.objects().services.clone().into_iter();
    let services = services.map(|(name, object)| Change::VirtualService(name, Some(object)));
    let mut world = World::of(&[vec![group], services.collect()].concat());
    world.see(mk_service("web", 2, &allocated));
    assert_eq!(world.addresses("web"), ["10.9.0.1"]);
}

#[test]
fn a_group_of_a_name_that_no_node_has_is_refused() {
    let world = World::of(&[mk_group("LVS_1"), mk_service("web", 1, &json!({}))]);
    assert_eq!(
        world.reason("web", ConditionType::Stalled).as_deref(),
        Some("True Invalid")
    );
    assert_eq!(world.bindings.len(), 0);
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
        world.report_all();
        let mut fresh = World::of(&last.into_values().collect::<Vec<_>>());
        fresh.report_all();
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

fn mk_owner(kind: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        kind: kind.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
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

/// `shop/web` as it is after some edits.
fn mk_generation(generation: i64, changes: &Value) -> Change {
    let Change::VirtualService(name, Some(mut object)) = mk_service("web", 1, changes) else {
        unreachable!()
    };
    Arc::make_mut(&mut object).metadata.generation = Some(generation);
    Change::VirtualService(name, Some(object))
}

fn mk_uid_node(name: &str) -> Change {
    let Change::Node(name, Some(mut node)) = mk_node(name) else {
        unreachable!()
    };
    Arc::make_mut(&mut node).metadata.uid = Some(format!("uid of {name}"));
    Change::Node(name, Some(node))
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
