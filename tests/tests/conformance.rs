//! The conformance suite on the fake kernel, so that unit tests with it are valid for the real
//! kernel.
#![expect(clippy::unwrap_used, reason = "values that the test itself writes")]

use lvs_agent::kernel::SharedFake;
use lvs_model::{
    Interface, InterfaceAddress, NodeFacts, NodeRoute, RouteOrigin, Sysctl, fake::FakeKernel,
};

#[macro_use]
#[path = "conformance/claims.rs"]
mod claims;
#[path = "conformance/suite.rs"]
mod suite;

fn facts() -> NodeFacts {
    let eth0 = || "eth0".parse().unwrap();
    let interface = |index, loopback| Interface {
        index,
        up: true,
        mtu: 1500,
        loopback,
        tunnel: false,
        mac: None,
    };
    let address = |interface: &str, network: &str| InterfaceAddress {
        interface: interface.parse().unwrap(),
        network: network.parse().unwrap(),
    };
    NodeFacts {
        interfaces: [
            ("lo".parse().unwrap(), interface(1, true)),
            (eth0(), interface(2, false)),
        ]
        .into(),
        addresses: vec![
            address("lo", "127.0.0.1/8"),
            address("eth0", "10.66.0.1/24"),
        ],
        routes: vec![NodeRoute {
            destination: "10.66.0.0/24".parse().unwrap(),
            gateway: None,
            interface: eth0(),
            metric: 0,
            origin: RouteOrigin::Other,
        }],
        sysctls: [
            (Sysctl::Ipv4Forward, 0),
            (Sysctl::Forwarding(Some(eth0())), 0),
            (Sysctl::AcceptRedirects(None), 1),
            (Sysctl::ArpIgnore(None), 0),
        ]
        .into(),
        ..NodeFacts::default()
    }
}

/// Runs a claim on a fake kernel of its own.
fn on(claim: impl AsyncFnOnce(&mut SharedFake) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut kernel = SharedFake::new(FakeKernel::boot_without_ipvs(facts()));
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(claim(&mut kernel))
}

test_every_claim!();
