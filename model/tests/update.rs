//! An update of some virtual services leads to the same state as a pass over everything.
#![expect(clippy::unwrap_used, reason = "values that the test itself writes")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use lvs_model::{
    Baseline, ClusterView, DirectorGroup, Forwarding, Frontend, Interface, InterfaceAddress, Nat,
    NodeFacts, NodeRoute, ObjectName, Port, Problem, Protocol, RealServer, ReturnPath, RouteOrigin,
    Scheduler, SchedulerName, Sysctl, Tunnel, TunnelChecksum, TunnelKind, VirtualService, assign,
    desired,
};
use proptest::{
    collection::{btree_map, vec},
    prelude::*,
    sample::select,
};

/// Addresses of all kinds: own, on-link, behind a router, without a route, VIPs of other services, IPv6.
const SERVERS: [&str; 9] = [
    "10.0.0.1",
    "10.0.0.11",
    "10.0.0.12",
    "10.0.0.13",
    "192.168.9.1",
    "172.16.0.1",
    "10.0.0.101",
    "10.0.0.102",
    "2001:db8::11",
];
const VIPS: [&str; 4] = ["10.0.0.100", "10.0.0.101", "10.0.0.102", "10.0.0.1"];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn facts() -> NodeFacts {
    let eth0 = || "eth0".parse().unwrap();
    let route = |destination: &str, gateway: Option<&str>| NodeRoute {
        destination: destination.parse().unwrap(),
        gateway: gateway.map(address),
        interface: eth0(),
        metric: 0,
        origin: RouteOrigin::Other,
    };
    let interface = Interface {
        index: 2,
        up: true,
        mtu: 1500,
        loopback: false,
        tunnel: false,
        mac: None,
    };
    NodeFacts {
        interfaces: BTreeMap::from([(eth0(), interface)]),
        addresses: vec![InterfaceAddress {
            interface: eth0(),
            network: "10.0.0.1/24".parse().unwrap(),
        }],
        routes: vec![
            route("10.0.0.0/24", None),
            route("192.168.9.0/24", Some("10.0.0.254")),
        ],
        sysctls: BTreeMap::from([(Sysctl::Ipv4Forward, 0)]),
        ..NodeFacts::default()
    }
}

/// Real servers without ports and without their forwarding methods, which their services decide.
fn any_servers() -> impl Strategy<Value = Vec<RealServer>> {
    let server = (select(SERVERS.to_vec()), 0..3_u32);
    vec(server, 0..4).prop_map(|servers| {
        let by_address: BTreeMap<IpAddr, u32> = servers
            .into_iter()
            .map(|(text, weight)| (address(text), weight))
            .collect();
        let servers = by_address.into_iter().map(|(address, weight)| RealServer {
            address,
            ports: Vec::new().into(),
            weight,
            upper_threshold: 0,
            lower_threshold: 0,
            forwarding: Forwarding::Dr,
            service: None,
        });
        servers.collect()
    })
}

prop_compose! {
    fn any_service()(
        vip in select(VIPS.to_vec()),
        port in 80..84_u16,
        mode in 0..4_u8,
        real_servers in any_servers(),
    ) -> VirtualService {
        let tunnel = Tunnel { kind: TunnelKind::Ipip, checksum: TunnelChecksum::None };
        let (forwarding, return_path) = match mode {
            0 => (Forwarding::Nat, ReturnPath::DefaultGateway),
            1 => (Forwarding::Nat, ReturnPath::Masquerade),
            2 => (Forwarding::Dr, ReturnPath::DefaultGateway),
            _ => (Forwarding::Tun(tunnel), ReturnPath::DefaultGateway),
        };
        VirtualService {
            created: None,
            group: "default".parse().unwrap(),
            frontend: Frontend::Addresses {
                vips: vec![address(vip)],
                ports: vec![Port { protocol: Protocol::Tcp, port}],
            },
            forwarding,
            nat: Nat { return_path, gateways: Vec::new() },
            scheduler: Scheduler::new(SchedulerName::Rr, &[]),
            persistence: None,
            one_packet: false,
            alone: false,
            previous: Vec::new(),
            real_servers: complete(real_servers, port, forwarding),
        }
    }
}

/// Gives real servers the port and the forwarding method of their service.
fn complete(mut servers: Vec<RealServer>, port: u16, forwarding: Forwarding) -> Vec<RealServer> {
    for server in &mut servers {
        server.ports = vec![port].into();
        server.forwarding = forwarding;
    }
    servers
}

fn name(index: usize) -> ObjectName {
    ObjectName::new("shop", &format!("s{index}")).unwrap()
}

/// Returns the result of a pass over everything, with its problems. `None` if an object is rejected.
fn settled(view: &ClusterView) -> Option<(Baseline, Vec<Problem>)> {
    let facts = facts();
    let node = facts.node("lvs1".parse().unwrap(), &lvs_model::Ledger::default());
    let assignment = assign(view, &node);
    let wanted = desired(&assignment.spec, &facts);
    let problems = [assignment.problems, wanted.problems].concat();
    let settled = Baseline {
        spec: assignment.spec.into(),
        state: wanted.state.into(),
    };
    assignment
        .rejections
        .is_empty()
        .then_some((settled, problems))
}

/// Builds a view with a group that names the machine, or without any group.
fn view(services: &BTreeMap<usize, VirtualService>, is_named: bool) -> ClusterView {
    let group = DirectorGroup {
        nodes: vec!["lvs1".parse().unwrap()],
        ..DirectorGroup::default()
    };
    ClusterView {
        services: services
            .iter()
            .map(|(index, service)| (name(*index), Arc::new(service.clone())))
            .collect(),
        groups: is_named
            .then(|| ("default".parse().unwrap(), group))
            .into_iter()
            .collect(),
        pools: Default::default(),
        unreadable_objects: BTreeSet::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10000))]

    #[test]
    fn an_update_gives_the_same_state_as_a_pass_over_everything(
        services in btree_map(0..4_usize, any_service(), 1..4),
        changes in btree_map(0..4_usize, any_servers(), 1..3),
        is_named in any::<bool>(),
    ) {
        let Some((mut before, problems)) = settled(&view(&services, is_named)) else { return Ok(()) };
        let mut later = services;
        for (index, servers) in changes {
            if let Some(service) = later.get_mut(&index) {
                let port = service.frontend.ports()[0].port;
                service.real_servers = complete(servers, port, service.forwarding);
            }
        }
        let later = view(&later, is_named);
        let changed: BTreeMap<_, _> = later.services.iter()
            .filter(|(name, service)| before.spec.directs.get(*name).is_none_or(|known| known.service != **service))
            .map(|(name, service)| (name.clone(), Arc::clone(service)))
            .collect();

        if let Some(update) = before.update(&changed, &facts()) {
            before.apply(&update.spec, &update.desired.state);
            prop_assert_eq!(Some((before, problems)), settled(&later));
        }
    }
}

#[test]
fn a_changed_real_server_is_an_update_and_a_changed_port_is_not() {
    let mut service = VirtualService {
        created: None,
        group: "default".parse().unwrap(),
        frontend: Frontend::Addresses {
            vips: vec![address("10.0.0.100")],
            ports: vec![Port {
                protocol: Protocol::Tcp,
                port: 80,
            }],
        },
        forwarding: Forwarding::Dr,
        nat: Nat::default(),
        scheduler: Scheduler::default(),
        persistence: None,
        one_packet: false,
        alone: false,
        previous: Vec::new(),
        real_servers: vec![RealServer {
            address: address("10.0.0.11"),
            ports: vec![80].into(),
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
            forwarding: Forwarding::Dr,
            service: None,
        }],
    };
    let (before, _) = settled(&view(&BTreeMap::from([(0, service.clone())]), true)).unwrap();
    let update_of = |service: &VirtualService| {
        let changed = BTreeMap::from([(name(0), Arc::new(service.clone()))]);
        before.update(&changed, &facts())
    };
    service.real_servers[0].address = address("10.0.0.12");
    let update = update_of(&service).unwrap();
    let changed = update.desired.state.services.values().next().unwrap();
    assert_eq!(
        changed.destinations.keys().next().unwrap().address,
        address("10.0.0.12")
    );

    service.real_servers[0].address = address("192.168.9.1");
    assert_eq!(
        update_of(&service),
        None,
        "DR cannot reach this real server"
    );
    service.real_servers[0].address = address("10.0.0.12");
    service.frontend = Frontend::Addresses {
        vips: vec![address("10.0.0.100")],
        ports: vec![Port {
            protocol: Protocol::Tcp,
            port: 81,
        }],
    };
    assert_eq!(update_of(&service), None);
}
