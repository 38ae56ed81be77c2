//! Every change queues what depends on it: to reconcile everything afterwards changes nothing more.

use std::sync::Arc;

use lvs_crd::{IpFamily, LvsNode, StandingState, condition::Status};
use lvs_model::ObjectName;
use proptest::{prelude::*, sample::select};
use serde_json::json;

use super::{
    objects::{
        mk_bare_node, mk_changed_group, mk_lvs_node, mk_machine, mk_name, mk_pool, mk_service,
        mk_uid_node,
    },
    world::World,
};
use crate::cluster::Change;

const MACHINES: [&str; 3] = ["n1", "n2", "n3"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_is_left_to_write_after_any_event(history in prop::collection::vec(any_event(), 1..40)) {
        let mut world = World::of(&[]);
        for event in history {
            event.happen(&mut world);
            let left = world.writes_of_all();
            prop_assert!(left.is_empty(), "after {event:?}: {left:#?}");
        }
    }
}

/// Something that happens in a cluster. A machine is named by its Node and its LvsNode.
#[derive(Clone, Debug)]
enum Event {
    /// The group has these directors, or those with a label, and so many virtual routers.
    Group(Option<Vec<&'static str>>, u8),
    NoGroup,
    /// A virtual service with the last number of its VIP, its method and the last number of its real server.
    Service(&'static str, u8, &'static str, u8),
    /// A virtual service that waits for an address of the pool or has one, with the last number of its real server.
    Allocated(&'static str, u8),
    NoService(&'static str),
    /// A pool has the addresses up to this last number, some of which machines, real servers and other virtual services have.
    Pool(u8),
    NoPool,
    /// A node has the label of the group.
    Labelled(&'static str),
    /// A node with another uid has no label.
    Unlabelled(&'static str),
    NoNode(&'static str),
    Cordoned(&'static str, bool),
    /// The Lease of an agent is renewed, or it is late.
    Alive(&'static str, bool),
    AgentsKnown,
    /// An agent reports that all bindings of its machine are in the kernel, or that none is.
    Report(&'static str, Status),
    /// An agent reports that it has seen its LvsNode, and what it is in the group's first virtual router.
    Stand(&'static str, Option<StandingState>),
    /// An agent reports the last number of its machine's address.
    Describe(&'static str, u8),
}

impl Event {
    fn happen(&self, world: &mut World) {
        let is_known = |machine: &str| {
            let nodes = &world.cluster.objects.lvs_nodes;
            nodes.contains_key(&mk_machine(machine))
        };
        match self {
            Self::Group(names, routers) => {
                let nodes = names.as_ref().map_or_else(
                    || json!({"selector": {"matchLabels": {"edge": "yes"}}}),
                    |names| json!({"names": names}),
                );
                let failover = json!({"routers": routers});
                let changes = json!({"nodes": nodes, "failover": failover});
                world.see(mk_changed_group(&changes));
            }
            Self::NoGroup => world.see(Change::DirectorGroup("default".to_owned(), None)),
            Self::Service(name, vip, forwarding, server) => {
                let changes = json!({
                    "addresses": [format!("10.0.0.{vip}")],
                    "forwarding": forwarding,
                    "backends": [{"address": format!("10.0.0.{server}")}],
                });
                world.see(mk_service(name, 1, &changes));
            }
            Self::Allocated(name, server) => {
                let backends = json!([{"address": format!("10.0.0.{server}")}]);
                let changes = json!({"addresses": [], "addressPool": "few", "backends": backends});
                world.see(mk_service(name, 1, &changes));
            }
            Self::Pool(last) => {
                let addresses = format!("10.0.0.11-10.0.0.{last}");
                world.see(mk_pool("few", &json!({"addresses": [addresses]})));
            }
            Self::NoPool => world.see(Change::AddressPool("few".parse().unwrap(), None)),
            Self::NoService(name) => world.see(Change::VirtualService(mk_name(name), None)),
            Self::Labelled(name) => world.see(mk_uid_node(name)),
            Self::Unlabelled(name) => world.see(mk_bare_node(name, "another")),
            Self::NoNode(name) => world.see(Change::Node(mk_machine(name), None)),
            Self::Cordoned(name, is) => world.see(Change::Cordoned(mk_machine(name), *is)),
            Self::Alive(name, is) => world.see(Change::Agent(mk_machine(name), *is)),
            Self::AgentsKnown => world.see(Change::AgentsKnown),
            Self::Report(machine, status) => report(world, machine, *status),
            Self::Stand(machine, state) if is_known(machine) => {
                let states = state.iter().map(|state| (IpFamily::V4, *state));
                world.stand(machine, &states.collect::<Vec<_>>());
            }
            Self::Describe(machine, last) if is_known(machine) => describe(world, machine, *last),
            Self::Stand(..) | Self::Describe(..) => {}
        }
    }
}

fn report(world: &mut World, machine: &str, status: Status) {
    let own = world.bindings.iter();
    let own = own.filter(|(_, spec)| spec.node == machine && spec.slice.is_none());
    let own: Vec<ObjectName> = own.map(|(name, _)| name.clone()).collect();
    for binding in own {
        // The report on one may cause another to be deleted.
        if world.bindings.contains_key(&binding) {
            world.report(binding.name(), status, "");
        }
    }
}

fn describe(world: &mut World, machine: &str, last: u8) {
    let name = mk_machine(machine);
    let mut object: LvsNode = world.cluster.objects.lvs_nodes[&name].as_ref().clone();
    let Change::LvsNode(_, Some(described)) = mk_lvs_node(machine, &format!("10.0.0.{last}"))
    else {
        unreachable!()
    };
    let generation = object.metadata.generation;
    let status = object.status.get_or_insert_default();
    status
        .facts
        .clone_from(&described.status.as_ref().unwrap().facts);
    status.observed_generation = generation.or(Some(1));
    world.see(Change::LvsNode(name, Some(Arc::new(object))));
}

fn any_event() -> impl Strategy<Value = Event> {
    let machine = || select(MACHINES.to_vec());
    let service = || select(vec!["a", "b"]);
    let names = select(vec![
        None,
        Some(vec!["n1"]),
        Some(vec!["n2"]),
        Some(vec!["n1", "n2"]),
    ]);
    let forwarding = select(vec!["DR", "NAT"]);
    let status = select(vec![Status::True, Status::True, Status::False]);
    let state = select(vec![StandingState::Active, StandingState::Standby]);
    let state = prop::option::weighted(0.7, state);
    prop_oneof![
        4 => (names, 1..3_u8).prop_map(|(names, routers)| Event::Group(names, routers)),
        1 => Just(Event::NoGroup),
        4 => (service(), 100..102_u8, forwarding, 11..13_u8).prop_map(
            |(name, vip, forwarding, server)| Event::Service(name, vip, forwarding, server)
        ),
        3 => (select(vec!["b", "c"]), 11..14_u8).prop_map(
            |(name, server)| Event::Allocated(name, server)
        ),
        1 => select(vec!["a", "b", "c"]).prop_map(Event::NoService),
        2 => (11..15_u8).prop_map(Event::Pool),
        1 => Just(Event::NoPool),
        4 => machine().prop_map(Event::Labelled),
        1 => machine().prop_map(Event::Unlabelled),
        1 => machine().prop_map(Event::NoNode),
        1 => (machine(), any::<bool>()).prop_map(|(name, is)| Event::Cordoned(name, is)),
        3 => (machine(), any::<bool>()).prop_map(|(name, is)| Event::Alive(name, is)),
        1 => Just(Event::AgentsKnown),
        5 => (machine(), status).prop_map(|(machine, status)| Event::Report(machine, status)),
        6 => (machine(), state).prop_map(|(machine, state)| Event::Stand(machine, state)),
        3 => (machine(), 1..14_u8).prop_map(|(machine, last)| Event::Describe(machine, last)),
    ]
}
