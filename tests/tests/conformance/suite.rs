//! Claims about every implementation of the agent's trait `Kernel`: the fake one and the real one.
//!
//! A claim gets the kernel of a machine with `lo` and `eth0`, which has 10.66.0.1/24. The kernel contains no object
//! of ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{Context, Result, ensure};
use lvs_agent::kernel::Kernel;
use lvs_model::{
    AddressConfig, AddressKey, Destination, DestinationKey, Family, Forwarding, FouPort, FouStep,
    InterfaceName, IpvsStep, KernelState, LinkKind, Needs, NetworkStep, NextHop, NodeFacts,
    Observation, Outcome, Outcomes, Owner, Plan, PolicyRule, Protocol, Route, RuleSelector,
    Scheduler, SchedulerName, ServiceConfig, ServiceExtent, ServiceKey, Services, Step, Sysctl,
    SysctlStep, Tables, Timeouts,
};

const VIP: &str = "10.66.0.100";

fn interface(name: &str) -> InterfaceName {
    name.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn service(port: u16) -> ServiceKey {
    ServiceKey::Address {
        address: address(VIP),
        protocol: Protocol::Tcp,
        port,
    }
}

fn config(scheduler: SchedulerName) -> Box<ServiceConfig> {
    Box::new(ServiceConfig {
        scheduler: Scheduler::new(scheduler, &[]),
        ..ServiceConfig::default()
    })
}

fn server(text: &str) -> DestinationKey {
    DestinationKey {
        address: address(text),
        port: 80,
    }
}

fn dr(weight: u32) -> Destination {
    Destination {
        forwarding: Forwarding::Dr,
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
    }
}

fn add_service(port: u16) -> Step {
    Step::Ipvs(IpvsStep::AddService {
        key: service(port),
        config: config(SchedulerName::Rr),
    })
}

fn add_server(port: u16, text: &str, destination: Destination) -> Step {
    Step::Ipvs(IpvsStep::AddDestination {
        service: service(port),
        key: server(text),
        destination,
    })
}

fn add_address(interface: &InterfaceName, text: &str) -> Step {
    Step::Network(NetworkStep::AddAddress {
        key: AddressKey::host(interface, address(text)),
        config: ours(),
    })
}

fn ours() -> AddressConfig {
    AddressConfig {
        deprecated: false,
        expires: false,
        owner: Owner::Ours,
    }
}

fn tunnel() -> (InterfaceName, LinkKind) {
    let local = "10.66.0.1".parse().unwrap();
    (interface("lvs-ipip-1"), LinkKind::Ipip { local })
}

fn add_link() -> Step {
    let (name, kind) = tunnel();
    Step::Network(NetworkStep::AddLink { name, kind })
}

async fn execute(kernel: &mut impl Kernel, steps: Vec<Step>) -> Outcomes {
    kernel.execute(&Plan { steps }).await
}

async fn done(kernel: &mut impl Kernel, steps: Vec<Step>) -> Result<()> {
    let outcomes = execute(kernel, steps).await;
    ensure!(outcomes.is_complete(), "{outcomes:?}");
    Ok(())
}

/// Executes the steps and returns the outcome of each: `done`, `failed` or `skipped`.
async fn outcomes_of(kernel: &mut impl Kernel, steps: Vec<Step>) -> Vec<&'static str> {
    let count = steps.len();
    let outcomes = execute(kernel, steps).await;
    let outcome = |index| match outcomes.of(index) {
        Outcome::Done => "done",
        Outcome::Failed(_) => "failed",
        Outcome::Skipped { .. } => "skipped",
    };
    (0..count).map(outcome).collect()
}

/// Returns everything that a pass may observe. IPVS services are read twice: known services must not change the result.
async fn observe(kernel: &mut impl Kernel) -> Result<(KernelState, NodeFacts)> {
    kernel.load_ipvs().await?;
    let network = kernel.observe_network(&Tables::All).await?;
    let needs = Needs {
        ipvs: true,
        masquerade: false,
        fou_ports: true,
        listeners: false,
        strays: false,
    };
    let Observation {
        mut state,
        mut facts,
        unread,
    } = kernel.observe(network, needs).await?;
    ensure!(unread.is_empty(), "{unread:?}");
    let all = ServiceExtent::All;
    state.services = kernel.observe_services(&all, &Services::new()).await?;
    let again = kernel.observe_services(&all, &state.services).await?;
    ensure!(again == state.services, "{again:?}");
    let asked = ["10.66.0.1", "10.66.0.9", "203.0.113.1", "2001:db8::1"].map(address);
    facts.add_routes(kernel.routes_to(&asked.into()).await?);
    ensure!(facts.routes_to.len() == asked.len());
    Ok((state, facts))
}

pub(crate) async fn interfaces_addresses_and_routes_are_observed(
    kernel: &mut impl Kernel,
) -> Result<()> {
    let (state, facts) = observe(kernel).await?;
    let lo = facts.interfaces.get(&interface("lo")).context("no lo")?;
    let eth0 = facts
        .interfaces
        .get(&interface("eth0"))
        .context("no eth0")?;
    ensure!(lo.loopback && !eth0.loopback);
    let own = facts
        .find_address(address("10.66.0.1"))
        .context("no address")?;
    ensure!(own.interface == interface("eth0") && own.network.prefix_len() == 24);
    let route = facts.route_to(address("10.66.0.9")).context("no route")?;
    ensure!(route.gateway.is_none() && route.interface == interface("eth0"));
    let destination = route.destination.to_string();
    ensure!(destination == "10.66.0.0/24", "{destination}");
    for none in ["10.66.0.1", "203.0.113.1", "2001:db8::1"] {
        ensure!(facts.route_to(address(none)).is_none(), "{none}");
    }
    ensure!(facts.default_route(Family::V4).is_none());
    let foreign = state.addresses.values();
    ensure!(foreign.filter(|config| config.owner == Owner::Ours).count() == 0);
    ensure!(state.links.is_empty() && state.routes.is_empty() && state.rules.is_empty());
    Ok(())
}

pub(crate) async fn the_objects_of_a_plan_are_observed_as_planned(
    kernel: &mut impl Kernel,
) -> Result<()> {
    let (name, kind) = tunnel();
    let route = Route {
        table: 7_600_011,
        next_hop: NextHop::Gateway {
            address: address("10.66.0.254"),
            interface: interface("eth0"),
        },
    };
    let rule = PolicyRule {
        table: 7_600_011,
        selector: RuleSelector::Replies {
            source: address("10.66.0.1"),
            protocol: Protocol::Tcp,
            port: 8080,
        },
    };
    let port = FouPort {
        family: Family::V4,
        port: 6080,
    };
    let sysctl = Sysctl::ArpIgnore(None);
    let steps = vec![
        Step::Sysctl(SysctlStep::Set {
            sysctl: sysctl.clone(),
            value: 1,
            previous: Some(0),
        }),
        Step::Fou(FouStep::AddPort(port)),
        add_link(),
        add_address(&interface("lo"), VIP),
        Step::Network(NetworkStep::AddRoute(route.clone())),
        Step::Network(NetworkStep::AddRule(rule)),
    ];
    done(kernel, steps).await?;

    let (after, _) = observe(kernel).await?;

    let found = after.sysctls.get(&sysctl);
    ensure!(found == Some(&1), "{:?}", after.sysctls);
    ensure!(after.fou_ports == [port].into(), "{:?}", after.fou_ports);
    let link = after.links.get(&name).context("no link")?;
    let is_ours = link.up && link.owner == Owner::Ours;
    ensure!(link.kind == kind && is_ours, "{link:?}");
    let vip = AddressKey::host(&interface("lo"), address(VIP));
    ensure!(after.addresses.contains_key(&vip), "{:?}", after.addresses);
    ensure!(after.routes == [route].into(), "{:?}", after.routes);
    ensure!(after.rules == [rule].into(), "{:?}", after.rules);
    // The rule names the table.
    let none = Tables::Only(BTreeSet::new());
    let network = kernel.observe_network(&none).await?;
    ensure!(network.routes == after.routes, "{:?}", network.routes);
    Ok(())
}

pub(crate) async fn the_ipvs_services_of_a_plan_are_observed_as_planned(
    kernel: &mut impl Kernel,
) -> Result<()> {
    let (before, _) = observe(kernel).await?;
    let timeouts = Timeouts {
        tcp_seconds: 600,
        tcp_fin_seconds: 60,
        udp_seconds: 30,
    };
    let weighted = dr(3);
    let steps = vec![
        Step::Ipvs(IpvsStep::SetTimeouts {
            timeouts,
            previous: before.timeouts,
        }),
        add_service(80),
        add_server(80, "10.66.0.11", weighted),
    ];
    done(kernel, steps).await?;

    let (after, _) = observe(kernel).await?;

    ensure!(after.timeouts == Some(timeouts), "{:?}", after.timeouts);
    let found = after.services.get(&service(80)).context("no service")?;
    ensure!(found.config == *config(SchedulerName::Rr), "{found:?}");
    let destinations = BTreeMap::from([(server("10.66.0.11"), weighted)]);
    ensure!(found.destinations == destinations, "{found:?}");
    Ok(())
}

pub(crate) async fn an_equal_object_may_be_created_again(kernel: &mut impl Kernel) -> Result<()> {
    let port = FouPort {
        family: Family::V4,
        port: 6080,
    };
    let steps = || {
        vec![
            Step::Fou(FouStep::AddPort(port)),
            add_link(),
            add_address(&interface("lo"), VIP),
        ]
    };
    done(kernel, steps()).await?;
    let (before, _) = observe(kernel).await?;
    done(kernel, steps()).await?;
    let (after, _) = observe(kernel).await?;
    ensure!(before == after, "{after:?}");
    Ok(())
}

/// A dump can miss a destination: adding it again changes it as desired.
pub(crate) async fn a_destination_that_exists_becomes_as_desired(
    kernel: &mut impl Kernel,
) -> Result<()> {
    done(
        kernel,
        vec![add_service(80), add_server(80, "10.66.0.11", dr(1))],
    )
    .await?;
    let again = vec![
        add_server(80, "10.66.0.12", dr(3)),
        add_server(80, "10.66.0.11", dr(2)),
    ];
    done(kernel, again).await?;
    let (state, _) = observe(kernel).await?;
    let destinations = state.services.get(&service(80)).into_iter();
    let found: Vec<u32> = destinations
        .flat_map(|service| service.destinations.values())
        .map(|found| found.weight)
        .collect();
    ensure!(found == [2, 3], "{found:?}");
    Ok(())
}

pub(crate) async fn an_existing_service_is_refused_and_kept(
    kernel: &mut impl Kernel,
) -> Result<()> {
    done(
        kernel,
        vec![add_service(80), add_server(80, "10.66.0.11", dr(1))],
    )
    .await?;
    let again = Step::Ipvs(IpvsStep::AddService {
        key: service(80),
        config: config(SchedulerName::Wlc),
    });
    ensure!(outcomes_of(kernel, vec![again]).await == ["failed"]);
    let (after, _) = observe(kernel).await?;
    let found = after.services.get(&service(80)).context("no service")?;
    ensure!(found.config == *config(SchedulerName::Rr) && found.destinations.len() == 1);
    Ok(())
}

pub(crate) async fn a_missing_object_may_be_removed_again(kernel: &mut impl Kernel) -> Result<()> {
    let (name, _) = tunnel();
    let lo = AddressKey::host(&interface("lo"), address(VIP));
    let gone = AddressKey::host(&interface("gone0"), address(VIP));
    let service_80 = service(80);
    done(
        kernel,
        vec![
            Step::Ipvs(IpvsStep::RemoveDestination {
                service: service_80,
                key: server("10.66.0.11"),
            }),
            Step::Ipvs(IpvsStep::RemoveService(service_80)),
            Step::Network(NetworkStep::RemoveAddress(lo)),
            Step::Network(NetworkStep::RemoveAddress(gone)),
            Step::Network(NetworkStep::RemoveLink(name)),
            Step::Fou(FouStep::RemovePort(FouPort {
                family: Family::V4,
                port: 6080,
            })),
        ],
    )
    .await
}

pub(crate) async fn an_edit_is_in_place_and_a_missing_object_cannot_be_edited(
    kernel: &mut impl Kernel,
) -> Result<()> {
    let edit_service = |port, scheduler| {
        Step::Ipvs(IpvsStep::EditService {
            key: service(port),
            config: config(scheduler),
        })
    };
    let edit_server = |text, weight| {
        Step::Ipvs(IpvsStep::EditDestination {
            service: service(80),
            key: server(text),
            destination: dr(weight),
        })
    };
    done(
        kernel,
        vec![add_service(80), add_server(80, "10.66.0.11", dr(1))],
    )
    .await?;
    let steps = vec![
        edit_service(80, SchedulerName::Wlc),
        edit_server("10.66.0.11", 7),
        edit_service(81, SchedulerName::Wlc),
        edit_server("10.66.0.12", 7),
    ];
    let fates = outcomes_of(kernel, steps).await;
    ensure!(fates == ["done", "done", "failed", "failed"], "{fates:?}");
    let (after, _) = observe(kernel).await?;
    let found = after.services.get(&service(80)).context("no service")?;
    ensure!(found.config == *config(SchedulerName::Wlc), "{found:?}");
    ensure!(found.destinations == BTreeMap::from([(server("10.66.0.11"), dr(7))]));
    Ok(())
}

pub(crate) async fn steps_that_depend_on_a_failed_step_are_skipped_and_the_rest_is_done(
    kernel: &mut impl Kernel,
) -> Result<()> {
    done(kernel, vec![add_service(80)]).await?;
    let steps = vec![
        add_service(80),
        add_server(80, "10.66.0.11", dr(1)),
        add_service(81),
        add_server(81, "10.66.0.11", dr(1)),
    ];
    let fates = outcomes_of(kernel, steps).await;
    ensure!(fates == ["failed", "skipped", "done", "done"], "{fates:?}");
    Ok(())
}

pub(crate) async fn real_servers_that_cannot_work_are_refused(
    kernel: &mut impl Kernel,
) -> Result<()> {
    done(kernel, vec![add_service(80)]).await?;
    let thresholds = Destination {
        upper_threshold: 5,
        lower_threshold: 6,
        ..dr(1)
    };
    let steps = vec![
        add_server(80, "2001:db8::11", dr(1)),
        add_server(80, "10.66.0.11", thresholds),
        add_server(81, "10.66.0.11", dr(1)),
        add_server(80, "10.66.0.12", dr(1)),
    ];
    let fates = outcomes_of(kernel, steps).await;
    let expected = ["failed", "failed", "failed", "done"];
    ensure!(fates == expected, "{fates:?}");
    Ok(())
}

pub(crate) async fn an_unknown_scheduler_is_refused(kernel: &mut impl Kernel) -> Result<()> {
    let unknown = Scheduler {
        name: "nosuch".into(),
        flags: 0,
    };
    let step = Step::Ipvs(IpvsStep::AddService {
        key: service(80),
        config: Box::new(ServiceConfig {
            scheduler: unknown,
            ..ServiceConfig::default()
        }),
    });
    ensure!(outcomes_of(kernel, vec![step]).await == ["failed"]);
    ensure!(observe(kernel).await?.0.services.is_empty());
    Ok(())
}

pub(crate) async fn only_the_requested_services_are_read(kernel: &mut impl Kernel) -> Result<()> {
    done(kernel, (80..84).map(add_service).collect()).await?;
    let keys = [service(81), service(83), service(99)].into();
    let only = ServiceExtent::Only(keys);
    let found = kernel.observe_services(&only, &Services::new()).await?;
    let found: Vec<ServiceKey> = found.into_keys().collect();
    ensure!(found == [service(81), service(83)], "{found:?}");
    Ok(())
}

pub(crate) async fn removing_a_device_removes_its_addresses_and_sysctls(
    kernel: &mut impl Kernel,
) -> Result<()> {
    let (name, _) = tunnel();
    let sysctl = Sysctl::RpFilter(Some(name.clone()));
    done(
        kernel,
        vec![
            add_link(),
            Step::Sysctl(SysctlStep::Set {
                sysctl: sysctl.clone(),
                value: 2,
                previous: None,
            }),
            add_address(&name, "169.254.76.83"),
        ],
    )
    .await?;
    let (with, _) = observe(kernel).await?;
    ensure!(with.sysctls.get(&sysctl) == Some(&2));
    done(
        kernel,
        vec![Step::Network(NetworkStep::RemoveLink(name.clone()))],
    )
    .await?;
    let (without, _) = observe(kernel).await?;
    ensure!(!without.sysctls.contains_key(&sysctl));
    let mut addresses = without.addresses.keys();
    ensure!(!addresses.any(|key| key.interface == name));
    Ok(())
}

pub(crate) async fn a_second_device_with_the_same_end_is_refused(
    kernel: &mut impl Kernel,
) -> Result<()> {
    let (_, kind) = tunnel();
    let second = Step::Network(NetworkStep::AddLink {
        name: interface("lvs-ipip-2"),
        kind,
    });
    let fates = outcomes_of(kernel, vec![add_link(), second]).await;
    ensure!(fates == ["done", "failed"], "{fates:?}");
    Ok(())
}

pub(crate) async fn nothing_is_added_to_a_missing_interface(
    kernel: &mut impl Kernel,
) -> Result<()> {
    let steps = vec![
        add_address(&interface("gone0"), VIP),
        Step::Sysctl(SysctlStep::Set {
            sysctl: Sysctl::RpFilter(Some(interface("gone0"))),
            value: 2,
            previous: None,
        }),
    ];
    let fates = outcomes_of(kernel, steps).await;
    ensure!(fates == ["failed", "failed"], "{fates:?}");
    Ok(())
}

pub(crate) async fn our_routes_are_observed_in_the_tables_that_are_asked_for(
    kernel: &mut impl Kernel,
) -> Result<()> {
    let route = |table| Route {
        table,
        next_hop: NextHop::Local { family: Family::V4 },
    };
    let steps = [7_600_013, 7_600_014].map(|table| {
        let route = route(table);
        Step::Network(NetworkStep::AddRoute(route))
    });
    done(kernel, steps.into()).await?;
    for (tables, expected) in [
        (Tables::All, vec![7_600_013, 7_600_014]),
        (Tables::Only([7_600_014, 7_600_015].into()), vec![7_600_014]),
        (Tables::Only(BTreeSet::new()), vec![]),
    ] {
        let network = kernel.observe_network(&tables).await?;
        let expected = expected.into_iter().map(route).collect();
        ensure!(
            network.routes == expected,
            "{tables:?}: {:?}",
            network.routes
        );
    }
    Ok(())
}

/// Beside the route that the kernel adds for an address of an interface, and several in one table.
pub(crate) async fn a_vip_gets_a_local_route_of_its_own(kernel: &mut impl Kernel) -> Result<()> {
    let routes = [VIP, "10.66.0.101", "2001:db8::100"].map(|vip| Route::to_vip(address(vip)));
    let add = routes.clone().map(NetworkStep::AddRoute).map(Step::Network);
    let tables = Tables::Only([Route::LOCAL_TABLE].into());
    for _ in 0..2 {
        done(kernel, add.to_vec()).await?;
        let found = kernel.observe_network(&tables).await?.routes;
        ensure!(found == routes.clone().into(), "{found:?}");
    }
    done(kernel, vec![add_address(&interface("eth0"), VIP)]).await?;
    let [first, others @ ..] = routes;
    let remove = vec![Step::Network(NetworkStep::RemoveRoute(first))];
    for _ in 0..2 {
        done(kernel, remove.clone()).await?;
        let network = kernel.observe_network(&tables).await?;
        ensure!(
            network.routes == others.clone().into(),
            "{:?}",
            network.routes
        );
        let key = AddressKey::host(&interface("eth0"), address(VIP));
        ensure!(network.addresses.contains_key(&key));
    }
    Ok(())
}

pub(crate) async fn a_route_via_an_unreachable_gateway_is_refused(
    kernel: &mut impl Kernel,
) -> Result<()> {
    let route = |gateway| {
        Step::Network(NetworkStep::AddRoute(Route {
            table: 7_600_012,
            next_hop: NextHop::Gateway {
                address: address(gateway),
                interface: interface("eth0"),
            },
        }))
    };
    let fates = outcomes_of(kernel, vec![route("203.0.113.1"), route("10.66.0.254")]).await;
    ensure!(fates == ["failed", "done"], "{fates:?}");
    Ok(())
}

pub(crate) async fn setting_ip_forward_changes_other_sysctls(
    kernel: &mut impl Kernel,
) -> Result<()> {
    let (before, _) = observe(kernel).await?;
    let redirects = Sysctl::AcceptRedirects(None);
    let eth0 = Sysctl::Forwarding(Some(interface("eth0")));
    ensure!(before.sysctls.get(&Sysctl::Ipv4Forward) == Some(&0));
    let write = |value| {
        Step::Sysctl(SysctlStep::Restore {
            sysctl: Sysctl::Ipv4Forward,
            value,
        })
    };
    for (value, redirected) in [(1, 0), (0, 1)] {
        done(kernel, vec![write(value)]).await?;
        let (after, _) = observe(kernel).await?;
        ensure!(
            after.sysctls.get(&eth0) == Some(&value),
            "{:?}",
            after.sysctls
        );
        ensure!(after.sysctls.get(&redirects) == Some(&redirected));
    }
    Ok(())
}
