//! Measures how long a pass takes to decide: 10,000 services with 10 real servers each.
#![expect(clippy::unwrap_used, reason = "values that the test itself writes")]

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use lvs_model::{
    ClusterView, Extent, Forwarding, Frontend, Interface, InterfaceAddress, KernelState, Ledger,
    Nat, NodeFacts, NodeRoute, ObjectName, Port, Protocol, RealServer, RouteOrigin, Scheduler,
    SchedulerName, VirtualService, assign, desired, diff,
    fake::{FakeKernel, pass},
};

const SERVICES: u16 = 10_000;
const REAL_SERVERS: u8 = 10;

/// The limit for assign, desired, diff and intend together, with room for a busy machine.
const LIMIT: Duration = Duration::from_millis(150);

#[test]
#[ignore = "measures: cargo test --release -p lvs-model --test scale -- --ignored --nocapture"]
fn ten_thousand_services_are_decided_within_the_limit() {
    for (what, vips) in [("one VIP", 1), ("100 VIPs", 100), ("10,000 VIPs", SERVICES)] {
        let view = view(vips);
        let facts = facts();
        let node = facts.node("lvs1".parse().unwrap(), &Ledger::default());
        let best = (0..5)
            .map(|_| measure(&view, &facts, &node))
            .min_by_key(|times| times.iter().sum::<Duration>())
            .unwrap();
        let total: Duration = best.iter().sum();
        let [assigned, wanted, first, intended] = best;
        println!(
            "{what}: assign {assigned:.1?}, desired {wanted:.1?}, diff {first:.1?}, intend {intended:.1?}; {total:.1?}"
        );
        second_pass(&view, &facts, &node);
        assert!(total < LIMIT, "{what}: {total:.1?}");
    }
}

fn measure(view: &ClusterView, facts: &NodeFacts, node: &lvs_model::Node) -> [Duration; 4] {
    let kernel = FakeKernel::boot(facts.clone());
    let start = Instant::now();
    let assignment = assign(view, node);
    let assigned = start.elapsed();
    let wanted = desired(&assignment.spec, facts);
    let desired_after = start.elapsed();
    let difference = diff(
        &wanted.state,
        &kernel.state,
        &Ledger::default(),
        &Extent::ALL,
    );
    let diff_after = start.elapsed();
    let mut ledger = Ledger::default();
    ledger.intend(&difference.plan, &kernel.state);
    let intend_after = start.elapsed();
    assert!(ledger.made.len() >= usize::from(SERVICES));
    [
        assigned,
        desired_after - assigned,
        diff_after - desired_after,
        intend_after - diff_after,
    ]
}

/// Measures a pass with nothing to do, and a plan that removes everything.
fn second_pass(view: &ClusterView, facts: &NodeFacts, node: &lvs_model::Node) {
    let wanted = desired(&assign(view, node).spec, facts);
    let mut kernel = FakeKernel::boot(facts.clone());
    let mut ledger = Ledger::default();
    pass(&mut kernel, &wanted.state, &mut ledger);
    let start = Instant::now();
    let clean = kernel.observe_facts().without_ours(&kernel.state, &ledger);
    let wanted = desired(&assign(view, node).spec, &clean);
    let plan = diff(&wanted.state, &kernel.state, &ledger, &Extent::ALL).plan;
    println!("  nothing to do: {:.1?}", start.elapsed());
    assert!(plan.is_empty());
    let start = Instant::now();
    let plan = diff(
        &KernelState::default(),
        &kernel.state,
        &ledger,
        &Extent::ALL,
    )
    .plan;
    println!(
        "  everything to remove: {:.1?}, {} steps",
        start.elapsed(),
        plan.steps.len()
    );
}

fn view(vips: u16) -> ClusterView {
    let mut view = ClusterView::default();
    for index in 0..SERVICES {
        let vip = Ipv4Addr::from_bits(0x0a00_4000 + u32::from(index % vips));
        let port = Port {
            protocol: Protocol::Tcp,
            port: 1000 + index,
        };
        let real_server = |number| RealServer {
            address: Ipv4Addr::from_bits(
                0x0a00_8000 + u32::from(index % 1000) * 16 + u32::from(number),
            )
            .into(),
            ports: vec![1000 + index].into(),
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
            forwarding: Forwarding::Dr,
            service: None,
        };
        let service = VirtualService {
            created: None,
            group: "default".parse().unwrap(),
            frontend: Frontend::Addresses {
                vips: vec![vip.into()],
                ports: vec![port],
            },
            forwarding: Forwarding::Dr,
            nat: Nat::default(),
            scheduler: Scheduler::new(SchedulerName::Wlc, &[]),
            persistence: None,
            one_packet: false,
            alone: false,
            previous: Vec::new(),
            real_servers: (0..REAL_SERVERS).map(real_server).collect(),
        };
        view.services.insert(
            ObjectName::new("bench", &format!("web-{index}")).unwrap(),
            service.into(),
        );
    }
    view
}

fn facts() -> NodeFacts {
    let eth0: lvs_model::InterfaceName = "eth0".parse().unwrap();
    let route = NodeRoute {
        destination: "10.0.0.0/8".parse().unwrap(),
        gateway: None,
        interface: eth0.clone(),
        metric: 0,
        origin: RouteOrigin::Other,
    };
    NodeFacts {
        interfaces: [(
            eth0.clone(),
            Interface {
                index: 2,
                up: true,
                mtu: 1500,
                loopback: false,
                tunnel: false,
                mac: None,
            },
        )]
        .into(),
        addresses: vec![InterfaceAddress {
            interface: eth0,
            network: "10.0.0.10/8".parse().unwrap(),
        }],
        routes: vec![route],
        ..NodeFacts::default()
    }
}
