//! Properties that hold for every desired state and every machine, also after failures and crashes.
#![expect(clippy::unwrap_used, reason = "values that the test itself writes")]

use std::{net::IpAddr, sync::Arc};

use lvs_model::{
    AddressConfig, AddressKey, Destination, DestinationKey, Extent, Family, Forwarding, FouPort,
    Interface, InterfaceAddress, InterfaceName, IpvsStep, KernelState, KernelVersion, Ledger, Link,
    LinkKind, Masquerade, NetworkStep, NextHop, NodeFacts, NodeRoute, Owner, Persistence, Plan,
    PolicyRule, Protocol, RESERVED_MARKS, Route, RouteOrigin, RuleSelector, Scheduler,
    SchedulerFlag, SchedulerName, Service, ServiceConfig, ServiceKey, Services, Stamp, Step,
    StrayMark, Strays, Sysctl, SysctlStep, Target, Timeouts, Tunnel, TunnelChecksum, TunnelKind,
    diff,
    fake::{FakeKernel, Prepared, pass, prepare},
    holding,
};
use proptest::{
    collection::{btree_set, vec},
    option,
    prelude::*,
    sample::{Index, select, subsequence},
};

#[path = "support/ipvsadm.rs"]
mod ipvsadm;
#[path = "support/order.rs"]
mod order;
#[path = "support/ownership.rs"]
mod ownership;

/// An event on a machine.
#[derive(Clone, Debug)]
enum Event {
    /// The agent makes a pass.
    Pass(Box<KernelState>, Interruption),
    /// `ipvsadm -C`.
    FlushIpvs,
    /// Another program deletes one of our addresses.
    LoseAddress(Index),
    /// Another program deletes one of our tunnel devices.
    LoseLink(Index),
    /// Another program sets one of our tunnel devices down.
    LinkDown(Index),
    /// Another program adds a service.
    ForeignService(ServiceKey, Service),
    /// Another program adds an address.
    ForeignAddress(AddressKey),
    /// Another program writes a sysctl that the agent does not own.
    ForeignSysctl(Sysctl, i64),
    /// The machine reboots.
    Reboot,
}

#[derive(Clone, Debug)]
enum Interruption {
    None,
    /// A step fails.
    Failure(Index),
    /// The agent crashes before a step: the intended ledger is stored, the outcomes are lost.
    Crash(Index),
}

fn sysctl_pool() -> Vec<(Sysctl, i64)> {
    let eth0 = Some("eth0".parse().unwrap());
    vec![
        (Sysctl::Ipv4Forward, 1),
        (Sysctl::Ipv6Forward, 1),
        (Sysctl::ArpIgnore(None), 1),
        (Sysctl::ArpAnnounce(None), 2),
        (Sysctl::RpFilter(eth0.clone()), 2),
        (Sysctl::SendRedirects(None), 0),
        (Sysctl::SendRedirects(eth0), 0),
        (Sysctl::VsConntrack, 1),
        (Sysctl::VsConnReuseMode, 0),
        (Sysctl::VsExpireNodestConn, 1),
        (Sysctl::VsSloppyTcp, 1),
    ]
}

fn vip_pool() -> Vec<IpAddr> {
    ["10.0.0.100", "10.0.0.101", "192.168.1.100", "2001:db8::100"]
        .map(|vip| vip.parse().unwrap())
        .to_vec()
}

fn address_pool() -> Vec<AddressKey> {
    let interfaces = ["lo", "eth0", "eth1"].map(|name| name.parse().unwrap());
    let on = |vip| interfaces.clone().map(|name| AddressKey::host(&name, vip));
    vip_pool().into_iter().flat_map(on).collect()
}

fn service_pool() -> Vec<ServiceKey> {
    let address = |vip: &str, protocol, port| ServiceKey::Address {
        address: vip.parse().unwrap(),
        protocol,
        port,
    };
    let fwmark = |family| ServiceKey::Fwmark {
        mark: 7.try_into().unwrap(),
        family,
    };
    vec![
        address("10.0.0.100", Protocol::Tcp, 80),
        address("10.0.0.100", Protocol::Udp, 53),
        address("10.0.0.101", Protocol::Sctp, 3868),
        address("2001:db8::100", Protocol::Tcp, 443),
        fwmark(Family::V4),
        fwmark(Family::V6),
    ]
}

fn stray_pool() -> Vec<StrayMark> {
    let mark = |service, mark: u32| StrayMark {
        service,
        mark: mark.try_into().unwrap(),
    };
    let services = service_pool().into_iter();
    let tcp = services.filter(|key| {
        matches!(
            key,
            ServiceKey::Address {
                protocol: Protocol::Tcp,
                ..
            }
        )
    });
    tcp.zip(RESERVED_MARKS)
        .map(|(service, number)| mark(service, number))
        .collect()
}

fn route_pool() -> Vec<Route> {
    let default = |table, gateway: &str, interface: &str| Route {
        table,
        next_hop: NextHop::Gateway {
            address: gateway.parse().unwrap(),
            interface: interface.parse().unwrap(),
        },
    };
    let local = |family| Route {
        table: 7_600_000,
        next_hop: NextHop::Local { family },
    };
    vec![
        default(7_600_011, "10.0.0.1", "eth0"),
        default(7_600_021, "192.168.1.1", "eth1"),
        local(Family::V4),
        local(Family::V6),
        Route::to_vip("10.0.0.100".parse().unwrap()),
        Route::to_vip("2001:db8::100".parse().unwrap()),
    ]
}

fn rule_pool() -> Vec<PolicyRule> {
    let replies = |table, port| PolicyRule {
        selector: RuleSelector::Replies {
            source: "10.0.0.10".parse().unwrap(),
            protocol: Protocol::Tcp,
            port,
        },
        table,
    };
    let fwmark = PolicyRule {
        selector: RuleSelector::Fwmark {
            family: Family::V4,
            mark: 7.try_into().unwrap(),
        },
        table: 7_600_000,
    };
    vec![replies(7_600_011, 8080), replies(7_600_021, 8081), fwmark]
}

prop_compose! {
    fn any_persistence(family: Family)(
        timeout_seconds in 1_u32..100_000,
        prefix_length in 1..=family.host_prefix(),
        engine in option::of(Just("sip".to_owned())),
    ) -> Persistence {
        Persistence { timeout_seconds, prefix_length, engine }
    }
}

prop_compose! {
    fn any_config(family: Family)(
        name in select(&SchedulerName::ALL[..]),
        flags in subsequence(vec![SchedulerFlag::Fallback, SchedulerFlag::Port], 0..=2),
        third in any::<bool>(),
        persistence in option::of(any_persistence(family)),
        one_packet in any::<bool>(),
    ) -> ServiceConfig {
        let mut scheduler = Scheduler::new(name, &flags);
        scheduler.flags |= u8::from(third) << 2;
        ServiceConfig { scheduler, persistence, one_packet }
    }
}

fn any_forwarding() -> impl Strategy<Value = Forwarding> {
    let checksum = select(vec![
        TunnelChecksum::None,
        TunnelChecksum::Outer,
        TunnelChecksum::Remote,
    ]);
    let kind = prop_oneof![
        Just(TunnelKind::Ipip),
        (1_u16..).prop_map(|port| TunnelKind::Gue { port }),
        Just(TunnelKind::Gre),
    ];
    let tunnel = (kind, checksum).prop_map(|(kind, checksum)| Tunnel {
        kind,
        checksum: if kind == TunnelKind::Ipip {
            TunnelChecksum::None
        } else {
            checksum
        },
    });
    prop_oneof![
        Just(Forwarding::Nat),
        Just(Forwarding::Dr),
        tunnel.prop_map(Forwarding::Tun),
    ]
}

prop_compose! {
    fn any_destination()(
        forwarding in any_forwarding(),
        weight in 0_u32..=65_535,
        (lower_threshold, upper_threshold) in (0_u32..100, 0_u32..100).prop_map(|(low, more)| (low, low + more)),
    ) -> Destination {
        Destination { forwarding, weight, upper_threshold, lower_threshold }
    }
}

fn any_service(family: Family) -> impl Strategy<Value = Service> {
    let real_servers: &[&str] = match family {
        Family::V4 => &["10.0.0.11", "10.0.0.12", "192.168.1.13"],
        Family::V6 => &["2001:db8::11", "2001:db8::12"],
    };
    let key = (select(real_servers), select(vec![0_u16, 80, 8080])).prop_map(|(address, port)| {
        DestinationKey {
            address: address.parse().unwrap(),
            port,
        }
    });
    (any_config(family), vec((key, any_destination()), 0..4)).prop_map(|(config, destinations)| {
        let mut service = Service {
            config,
            ..Service::default()
        };
        for (key, settings) in destinations {
            service.add(key, settings);
        }
        service
    })
}

fn any_services() -> impl Strategy<Value = Services> {
    let entry = |key: ServiceKey| (Just(key), any_service(key.family()).prop_map(Arc::new));
    subsequence(service_pool(), 0..=6)
        .prop_flat_map(move |keys| keys.into_iter().map(entry).collect::<Vec<_>>())
        .prop_map(Services::from_iter)
}

/// Generates tunnel devices, each of one of two kinds, with or without an address.
fn any_links() -> impl Strategy<Value = Vec<(&'static str, LinkKind, bool)>> {
    let (four, six) = (
        "10.0.0.10".parse().unwrap(),
        "2001:db8::10".parse().unwrap(),
    );
    let a = select(vec![
        LinkKind::Ipip { local: four },
        LinkKind::Gre { local: four },
    ]);
    let b = select(vec![
        LinkKind::Sit { local: four },
        LinkKind::Ip6Gre { local: six },
    ]);
    (
        option::of((a, any::<bool>())),
        option::of((b, any::<bool>())),
    )
        .prop_map(|(a, b)| {
            let a = a.map(|(kind, has_address)| ("lvs-a", kind, has_address));
            let b = b.map(|(kind, has_address)| ("lvs-b", kind, has_address));
            a.into_iter().chain(b).collect()
        })
}

prop_compose! {
    fn any_desired()(
        sysctls in subsequence(sysctl_pool(), 0..=11),
        fou_ports in btree_set((select(vec![Family::V4, Family::V6]), select(vec![6080_u16, 6081])), 0..3),
        links in any_links(),
        addresses in subsequence(address_pool(), 0..=5),
        routing in (subsequence(route_pool(), 0..=6), subsequence(rule_pool(), 0..=3)),
        masquerade in option::of(subsequence(service_pool(), 1..=6)),
        strays in option::of((subsequence(stray_pool(), 1..=2), subsequence(service_pool(), 0..=4))),
        timeouts in option::of((1_u32..9999, 1_u32..9999, 1_u32..9999)),
        services in any_services(),
    ) -> KernelState {
        let (routes, mut rules) = routing;
        rules.retain(|rule| routes.iter().any(|route| route.table == rule.table));
        let mut state = KernelState {
            sysctls: sysctls.into_iter().collect(),
            fou_ports: fou_ports.into_iter().map(|(family, port)| FouPort { family, port }).collect(),
            addresses: addresses.into_iter().map(|key| (key, ours())).collect(),
            routes: routes.into_iter().collect(),
            rules: rules.into_iter().collect(),
            masquerade: masquerade.map(|keys| Masquerade { services: keys.into_iter().collect() }),
            strays: strays.map(|(marks, mut local)| {
                local.retain(|key| key.vip().is_some());
                Strays { marks: marks.into_iter().collect(), local: local.into_iter().collect() }
            }),
            timeouts: timeouts.map(|(tcp_seconds, tcp_fin_seconds, udp_seconds)| Timeouts {
                tcp_seconds,
                tcp_fin_seconds,
                udp_seconds,
            }),
            services,
            ..KernelState::default()
        };
        for (name, kind, has_address) in links {
            let name: InterfaceName = name.parse().unwrap();
            state.links.insert(name.clone(), Link { kind, up: true, owner: Owner::Ours });
            if has_address {
                state.addresses.insert(AddressKey::host(&name, "169.254.76.83".parse().unwrap()), ours());
            }
            state.sysctls.insert(Sysctl::RpFilter(Some(name)), 2);
        }
        state
    }
}

const fn ours() -> AddressConfig {
    AddressConfig {
        deprecated: false,
        expires: false,
        owner: Owner::Ours,
    }
}

const fn theirs() -> AddressConfig {
    AddressConfig {
        deprecated: false,
        expires: false,
        owner: Owner::Foreign,
    }
}

fn facts(sysctls: &[i64]) -> NodeFacts {
    let interface = |name: &str, index, loopback| {
        let interface = Interface {
            index,
            up: true,
            mtu: 1500,
            loopback,
            tunnel: false,
            mac: None,
        };
        (name.parse().unwrap(), interface)
    };
    let address = |name: &str, network: &str| InterfaceAddress {
        interface: name.parse().unwrap(),
        network: network.parse().unwrap(),
    };
    let connected = |name: &str, destination: &str| NodeRoute {
        destination: destination.parse().unwrap(),
        gateway: None,
        interface: name.parse().unwrap(),
        metric: 0,
        origin: RouteOrigin::Other,
    };
    let eth0 = Some("eth0".parse().unwrap());
    let keys = sysctl_pool()
        .into_iter()
        .map(|(key, _)| key)
        .chain([Sysctl::AcceptRedirects(None), Sysctl::Forwarding(eth0)]);
    NodeFacts {
        interfaces: [
            interface("lo", 1, true),
            interface("eth0", 2, false),
            interface("eth1", 3, false),
        ]
        .into(),
        addresses: vec![
            address("eth0", "10.0.0.10/24"),
            address("eth1", "192.168.1.10/24"),
        ],
        routes: vec![
            connected("eth0", "10.0.0.0/24"),
            connected("eth1", "192.168.1.0/24"),
        ],
        sysctls: keys.zip(sysctls.iter().copied()).collect(),
        // The oldest kernel, for which the agent sets the most sysctls.
        kernel: Some(KernelVersion::new(4, 18)),
        ..NodeFacts::default()
    }
}

/// Generates a machine before the agent runs: with any sysctls, and with foreign objects on keys that can be desired.
fn any_machine() -> impl Strategy<Value = FakeKernel> {
    let foreign_link = option::weighted(0.2, select(vec!["lvs-a", "lvs-b"]));
    let addresses = subsequence(address_pool(), 0..=3);
    let services = any_services().prop_map(|mut services| {
        while services.len() > 2 {
            services.pop_last();
        }
        services
    });
    (vec(0_i64..=1, 12), addresses, services, foreign_link).prop_map(
        |(sysctls, addresses, services, link)| {
            let mut kernel = FakeKernel::boot(facts(&sysctls));
            kernel
                .state
                .addresses
                .extend(addresses.into_iter().map(|key| (key, theirs())));
            kernel.state.services = services;
            if let Some(name) = link {
                let link = Link {
                    kind: LinkKind::Foreign,
                    up: true,
                    owner: Owner::Foreign,
                };
                kernel.state.links.insert(name.parse().unwrap(), link);
            }
            kernel
        },
    )
}

fn any_event() -> impl Strategy<Value = Event> {
    let interruption = prop_oneof![
        2 => Just(Interruption::None),
        1 => any::<Index>().prop_map(Interruption::Failure),
        1 => any::<Index>().prop_map(Interruption::Crash),
    ];
    let foreign_service = select(service_pool()).prop_flat_map(|key| {
        any_service(key.family()).prop_map(move |service| Event::ForeignService(key, service))
    });
    let settings = select(sysctl_pool()).prop_flat_map(|(key, _)| (Just(key), 0_i64..=2));
    prop_oneof![
        8 => (any_desired(), interruption).prop_map(|(desired, how)| Event::Pass(Box::new(desired), how)),
        1 => Just(Event::FlushIpvs),
        1 => any::<Index>().prop_map(Event::LoseAddress),
        1 => any::<Index>().prop_map(Event::LoseLink),
        1 => any::<Index>().prop_map(Event::LinkDown),
        1 => foreign_service,
        1 => select(address_pool()).prop_map(Event::ForeignAddress),
        1 => settings.prop_map(|(key, value)| Event::ForeignSysctl(key, value)),
        1 => Just(Event::Reboot),
    ]
}

/// A machine with the agent, and its twin without the agent, which gets the same events.
struct Machine {
    boot: FakeKernel,
    kernel: FakeKernel,
    twin: FakeKernel,
    ledger: Ledger,
}

impl Machine {
    fn new(boot: FakeKernel) -> Self {
        Self {
            kernel: boot.clone(),
            twin: boot.clone(),
            ledger: Ledger::default(),
            boot,
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Pass(desired, Interruption::None) => {
                pass(&mut self.kernel, &desired, &mut self.ledger);
            }
            Event::Pass(desired, Interruption::Failure(index)) => {
                self.kernel.fails_after = Some(index.index(12));
                pass(&mut self.kernel, &desired, &mut self.ledger);
                self.kernel.fails_after = None;
            }
            Event::Pass(desired, Interruption::Crash(index)) => {
                let Prepared { steps, ledger, .. } = prepare(&self.kernel, &desired, &self.ledger);
                self.ledger = ledger;
                for step in steps.iter().take(index.index(steps.len() + 1)) {
                    self.kernel.step(step).unwrap();
                }
            }
            Event::FlushIpvs => {
                self.kernel.state.services.clear();
                self.twin.state.services.clear();
            }
            Event::LoseAddress(index) => self.lose_address(&index),
            Event::LoseLink(index) => {
                let owned = self.owned_links();
                if !owned.is_empty() {
                    let step = NetworkStep::RemoveLink(index.get(&owned).clone());
                    self.kernel.step(&step.into()).unwrap();
                }
            }
            Event::LinkDown(index) => {
                let owned = self.owned_links();
                if !owned.is_empty()
                    && let Some(link) = self.kernel.state.links.get_mut(index.get(&owned))
                {
                    link.up = false;
                }
            }
            Event::ForeignService(key, service) => self.add_foreign_service(key, service),
            Event::ForeignAddress(key) => self.add_foreign_address(key),
            Event::ForeignSysctl(key, value) => self.set_foreign_sysctl(key, value),
            Event::Reboot => *self = Self::new(FakeKernel::boot(self.boot.facts.clone())),
        }
    }

    fn add_foreign_service(&mut self, key: ServiceKey, service: Service) {
        if !self.ledger.owns(&Target::Service(key)) {
            let service = Arc::new(service);
            self.kernel.state.services.insert(key, Arc::clone(&service));
            self.twin.state.services.insert(key, service);
        }
    }

    fn add_foreign_address(&mut self, key: AddressKey) {
        if !self.ledger.owns(&Target::Address(key.clone())) {
            self.kernel.state.addresses.insert(key.clone(), theirs());
            self.twin.state.addresses.insert(key, theirs());
        }
    }

    fn set_foreign_sysctl(&mut self, key: Sysctl, value: i64) {
        let follows = matches!(key, Sysctl::Ipv4Forward);
        if !follows && !self.ledger.sysctls.contains_key(&key) {
            self.kernel.state.sysctls.insert(key.clone(), value);
            self.twin.state.sysctls.insert(key, value);
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "one kind of target is looked for"
    )]
    fn lose_address(&mut self, index: &Index) {
        let owned = self.owned(|target| match target {
            Target::Address(key) => Some(key.clone()),
            _ => None,
        });
        if !owned.is_empty() {
            self.kernel.state.addresses.remove(index.get(&owned));
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "one kind of target is looked for"
    )]
    fn owned_links(&self) -> Vec<InterfaceName> {
        self.owned(|target| match target {
            Target::Link(name) => Some(name.clone()),
            _ => None,
        })
    }

    fn owned<T>(&self, of: impl Fn(&Target) -> Option<T>) -> Vec<T> {
        self.ledger.made.iter().filter_map(of).collect()
    }

    /// Makes passes until there is nothing to do, and checks the order rules on each plan.
    fn converge(&mut self, desired: &KernelState) -> Result<(), TestCaseError> {
        for _ in 0..3 {
            let prepared = prepare(&self.kernel, desired, &self.ledger);
            let plan = prepared.difference.plan;
            prop_assert_eq!(order::check(&plan, desired), Ok(()), "in\n{}", plan);
            let outcomes = pass(&mut self.kernel, desired, &mut self.ledger);
            prop_assert!(outcomes.is_complete(), "{:?}\nin\n{}", outcomes, plan);
            if prepared.steps.is_empty() {
                return Ok(());
            }
        }
        let steps = prepare(&self.kernel, desired, &self.ledger).steps;
        prop_assert!(steps.is_empty(), "does not converge:\n{}", Plan { steps });
        Ok(())
    }

    /// Returns what the kernel must hold: what the twin holds, and what is desired on keys that nothing foreign
    /// occupies.
    fn expected(&self, desired: &KernelState) -> KernelState {
        let mut expected = self.twin.clone();
        let is_taken =
            |name: Option<&_>| name.is_some_and(|name| self.twin.state.links.contains_key(name));
        let state = &mut expected.state;
        for (name, link) in desired
            .links
            .iter()
            .filter(|(name, _)| !is_taken(Some(name)))
        {
            state.links.insert(name.clone(), *link);
            state
                .sysctls
                .insert(Sysctl::RpFilter(Some(name.clone())), 1);
        }
        for (key, config) in desired
            .addresses
            .iter()
            .filter(|(key, _)| !is_taken(Some(&key.interface)))
        {
            state.addresses.entry(key.clone()).or_insert(*config);
        }
        for (key, service) in &desired.services {
            state
                .services
                .entry(*key)
                .or_insert_with(|| service.clone());
        }
        state.fou_ports.clone_from(&desired.fou_ports);
        state.routes.clone_from(&desired.routes);
        state.rules.clone_from(&desired.rules);
        state.masquerade.clone_from(&desired.masquerade);
        state.strays.clone_from(&desired.strays);
        state.timeouts = desired.timeouts.or(state.timeouts);
        for (sysctl, value) in desired
            .sysctls
            .iter()
            .filter(|(sysctl, _)| !is_taken(sysctl.interface()))
        {
            let (sysctl, value) = (sysctl.clone(), *value);
            let step = SysctlStep::Restore { sysctl, value };
            expected.step(&step.into()).unwrap();
        }
        expected.state
    }

    fn check_ownership(&self) -> Result<(), TestCaseError> {
        let check = ownership::check(&self.kernel.state, &self.twin.state, &self.ledger);
        prop_assert_eq!(check, Ok(()));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(1024),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn after_any_events_passes_reach_desired_and_cleanup_restores_the_machine(
        machine in any_machine(),
        events in vec(any_event(), 0..8),
        desired in any_desired(),
    ) {
        let mut machine = Machine::new(machine);
        for event in events {
            machine.apply(event);
            machine.check_ownership()?;
        }

        machine.converge(&desired)?;
        machine.check_ownership()?;
        prop_assert_eq!(&machine.kernel.state, &machine.expected(&desired));

        let nothing = KernelState::default();
        machine.converge(&nothing)?;
        prop_assert_eq!(&machine.kernel.state, &machine.twin.state);
        prop_assert!(machine.ledger.is_empty(), "{:?}", machine.ledger);
    }

    #[test]
    fn each_foreign_object_on_a_desired_key_is_a_problem(machine in any_machine(), desired in any_desired()) {
        let taken_services = desired.services.keys().filter(|key| machine.state.services.contains_key(key)).count();
        let taken_links = desired.links.keys().filter(|name| machine.state.links.contains_key(name)).count();
        let problems = diff(&desired, &machine.state, &Ledger::default(), &Extent::ALL).problems;
        prop_assert_eq!(problems.len(), taken_services + taken_links);
    }

    #[test]
    fn equal_states_need_no_steps(desired in any_desired()) {
        let services = desired.services.keys().copied().map(Target::Service);
        let addresses = desired.addresses.keys().cloned().map(Target::Address);
        let links = desired.links.keys().cloned().map(Target::Link);
        let ledger = Ledger {
            made: services.chain(addresses).chain(links).collect(),
            ..Ledger::default()
        };
        for state in [&desired, &KernelState::default()] {
            prop_assert!(diff(state, state, &ledger, &Extent::ALL).plan.is_empty());
            prop_assert_eq!(holding(state, state, &ledger).changes(&state.addresses), []);
        }
    }

    #[test]
    fn every_step_prints_a_command_and_ipvsadm_lines_parse_back(machine in any_machine(), desired in any_desired()) {
        let mut machine = Machine::new(machine);
        let mut steps = prepare(&machine.kernel, &desired, &machine.ledger).steps;
        machine.converge(&desired)?;
        steps.extend(prepare(&machine.kernel, &KernelState::default(), &machine.ledger).steps);
        for step in &steps {
            let line = step.to_string();
            let program = line.split(' ').next().unwrap_or_default();
            prop_assert!(["ipvsadm", "ip", "sysctl", "nft"].contains(&program), "{}", line);
            prop_assert_eq!(line.trim(), &line);
            prop_assert!(!line.contains("  ") && !line.contains('\n'), "{}", line);
            if let Step::Ipvs(step) = step {
                prop_assert_eq!(ipvsadm::parse(&line), Ok(without_history(step)), "{}", line);
            }
        }
    }

    #[test]
    fn a_ledger_parses_back_from_json(machine in any_machine(), desired in vec(any_desired(), 1..3)) {
        let mut machine = Machine::new(machine);
        machine.ledger = Ledger::new(Stamp { boot: "3f0c".to_owned(), namespace: 4_026_531_840 });
        for desired in &desired {
            pass(&mut machine.kernel, desired, &mut machine.ledger);
        }
        let json = serde_json::to_string(&machine.ledger).unwrap();
        prop_assert_eq!(serde_json::from_str::<Ledger>(&json).unwrap(), machine.ledger);
    }
}

/// Returns a step without the values found before, which its command line does not contain.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other steps are complete in their commands"
)]
fn without_history(step: &IpvsStep) -> IpvsStep {
    match step {
        IpvsStep::SetTimeouts { timeouts, .. } | IpvsStep::RestoreTimeouts(timeouts) => {
            IpvsStep::SetTimeouts {
                timeouts: *timeouts,
                previous: None,
            }
        }
        other => other.clone(),
    }
}
