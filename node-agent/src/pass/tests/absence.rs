//! Addresses and routes that are missing at the moment.

use super::*;

fn vip() -> AddressKey {
    AddressKey::host(&"eth0".parse().unwrap(), "192.0.2.100".parse().unwrap())
}

fn own() -> AddressKey {
    AddressKey {
        interface: "eth0".parse().unwrap(),
        address: "192.0.2.10".parse().unwrap(),
        prefix: 24,
    }
}

fn foreign() -> AddressConfig {
    AddressConfig {
        deprecated: false,
        expires: false,
        owner: Owner::Foreign,
    }
}

impl Machine {
    /// Removes all addresses and routes of eth0, as `ip addr flush dev eth0` does.
    fn flush(&self) {
        let mut kernel = self.kernel.get_mut();
        let stays = |key: &AddressKey| key.interface.as_str() != "eth0";
        kernel.state.addresses.retain(|key, _| stays(key));
        kernel.facts.routes.clear();
    }

    /// Restores the machine's own address and its route.
    fn restore(&self) {
        self.add_address(&own(), foreign());
        self.kernel.get_mut().facts.routes = facts().routes;
    }

    /// The interfaces that have the VIP.
    fn places(&self) -> Vec<String> {
        let kernel = self.kernel.get();
        let keys = kernel.state.addresses.keys();
        let keys = keys.filter(|key| key.address == vip().address);
        keys.map(|key| key.interface.to_string()).collect()
    }
}

fn messages(applied: &Applied) -> Vec<&str> {
    let problems = applied.prepared.problems.iter();
    problems.map(|problem| problem.message.as_str()).collect()
}

#[tokio::test]
async fn what_is_programmed_stays_while_the_directors_network_is_missing() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    machine.settle().await;
    let before = machine.kernel.get().state.clone();
    for scope in [Scope::Network, Scope::Everything] {
        machine.flush();

        let applied = machine.pass(scope.clone()).await;

        assert_eq!(steps(&applied), [""; 0]);
        assert_eq!(machine.servers("192.0.2.100"), ["192.0.2.11"]);
        assert!(machine.kernel.get().state.addresses.contains_key(&vip()));
        assert_eq!(
            messages(&applied),
            [
                "not on any network of this machine at the moment: VIP 192.0.2.100, real server 192.0.2.11; what is programmed \
                 for them stays, and works as soon as the network is back"
            ]
        );
        machine.restore();
        let applied = machine.pass(scope).await;
        assert_eq!(messages(&applied), [""; 0]);
        assert_eq!(machine.kernel.get().state, before);
    }
}

#[tokio::test]
async fn a_service_can_be_deleted_and_changed_while_its_network_is_missing() {
    let mut machine = Machine::new(&[
        ("api", service("192.0.2.101", "192.0.2.11")),
        ("web", service("192.0.2.100", "192.0.2.11")),
    ]);
    machine.settle().await;
    machine.flush();
    machine.pass(Scope::Network).await;

    // The new real server is on no network, and was never in the service: it is not added.
    machine
        .view
        .services
        .insert(name("web"), service("192.0.2.100", "192.0.2.12"));
    machine.view.services.remove(&name("api"));
    machine.pass(Scope::Objects).await;

    assert_eq!(machine.servers("192.0.2.100"), [""; 0]);
    let kernel = machine.kernel.get();
    assert_eq!(kernel.state.services.len(), 1);
    let addresses: Vec<_> = kernel.state.addresses.keys().collect();
    assert_eq!(addresses, [&vip()]);
}

#[tokio::test]
async fn a_vip_stays_on_its_interface_until_another_has_its_network() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    machine.settle().await;
    let eth1 = |metric| NodeRoute {
        destination: "192.0.2.0/24".parse().unwrap(),
        gateway: None,
        interface: "eth1".parse().unwrap(),
        metric,
        origin: RouteOrigin::Other,
    };
    let interface = machine.kernel.get().facts.interfaces[&"eth0".parse().unwrap()].clone();
    let interfaces = &mut machine.kernel.get_mut().facts.interfaces.clone();
    interfaces.insert("eth1".parse().unwrap(), interface);
    machine.kernel.get_mut().facts.interfaces = interfaces.clone();
    // A better route elsewhere is no reason to move.
    machine.kernel.get_mut().facts.routes.push(eth1(0));
    machine.kernel.get_mut().facts.routes[0].metric = 9;
    machine.pass(Scope::Network).await;
    assert_eq!(machine.places(), ["eth0"]);
    // Neither is a default route.
    machine.kernel.get_mut().facts.routes = vec![NodeRoute {
        destination: "0.0.0.0/0".parse().unwrap(),
        gateway: Some("198.51.100.1".parse().unwrap()),
        ..eth1(0)
    }];
    machine.pass(Scope::Network).await;
    assert_eq!(machine.places(), ["eth0"]);
    // The network is on another interface: a bridge was made of the first, for example.
    machine.kernel.get_mut().state.addresses.remove(&own());
    machine.kernel.get_mut().facts.routes = vec![eth1(0)];
    machine.pass(Scope::Network).await;
    machine.pass(Scope::Network).await;
    assert_eq!(machine.places(), ["eth1"]);
}

#[tokio::test]
async fn a_vip_stays_on_the_network_that_a_route_has_within_an_own_network() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    {
        let mut kernel = machine.kernel.get_mut();
        let second = Interface {
            index: 3,
            ..kernel.facts.interfaces[&"eth0".parse().unwrap()].clone()
        };
        let within = NodeRoute {
            destination: "192.0.2.96/27".parse().unwrap(),
            interface: "eth1".parse().unwrap(),
            ..kernel.facts.routes[0].clone()
        };
        kernel
            .facts
            .interfaces
            .insert(within.interface.clone(), second);
        kernel.facts.routes.push(within);
    }
    for pass in 1..4 {
        machine.pass(Scope::Everything).await;

        assert_eq!(machine.places(), ["eth1"], "pass {pass}");
    }
}

#[tokio::test]
async fn a_vip_on_no_network_is_not_added_by_a_default_route() {
    let mut machine = Machine::new(&[("web", service("198.51.100.100", "192.0.2.11"))]);
    machine.kernel.get_mut().facts.routes.push(NodeRoute {
        destination: "0.0.0.0/0".parse().unwrap(),
        gateway: Some("192.0.2.1".parse().unwrap()),
        interface: "eth0".parse().unwrap(),
        metric: 0,
        origin: RouteOrigin::Other,
    });

    let applied = machine.pass(Scope::Everything).await;

    let error = "no interface of this machine has a subnet for VIP 198.51.100.100; name one in the DirectorGroup's \
                 `spec.interface`";
    assert_eq!(messages(&applied), [error]);
    assert_eq!(machine.servers("198.51.100.100"), ["192.0.2.11"]);
    assert_eq!(machine.kernel.get().state.addresses.len(), 1);
}

#[tokio::test]
async fn a_vip_on_lo_of_a_director_is_added_where_the_network_sees_it() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    let on_lo = AddressKey::host(&"lo".parse().unwrap(), vip().address);
    machine.add_address(&on_lo, foreign());

    machine.settle().await;

    let kernel = machine.kernel.get();
    assert_eq!(kernel.state.addresses[&vip()].owner, Owner::Ours);
    assert_eq!(kernel.state.addresses[&on_lo], foreign());
}

#[tokio::test]
async fn a_real_server_keeps_what_it_has_while_its_address_is_missing() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.10"))]);
    machine.view.groups.values_mut().next().unwrap().nodes = vec!["other".parse().unwrap()];
    machine.settle().await;
    let before = machine.kernel.get().state.clone();
    let on_lo = AddressKey::host(&"lo".parse().unwrap(), vip().address);
    assert!(before.addresses.contains_key(&on_lo));
    machine.flush();

    let applied = machine.pass(Scope::Network).await;

    assert_eq!(steps(&applied), [""; 0]);
    let message = "this real server's address 192.0.2.10 is missing at the moment; what is programmed for it stays";
    assert!(messages(&applied).contains(&message), "{applied:?}");
    // A restart changes nothing about that.
    machine.restart();
    assert_eq!(steps(&machine.pass(Scope::Everything).await), [""; 0]);
    machine.restore();
    assert_eq!(steps(&machine.pass(Scope::Network).await), [""; 0]);
    assert_eq!(machine.kernel.get().state, before);
    // Without the virtual service nothing is kept.
    machine.view.services.clear();
    machine.flush();
    machine.settle().await;
    assert!(!machine.kernel.get().state.addresses.contains_key(&on_lo));
}

#[tokio::test]
async fn without_a_group_a_machine_has_no_role_before_it_is_on_a_network_of_the_configuration() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    let mut unnamed = VirtualService::clone(&service("192.0.2.100", "192.0.2.11"));
    unnamed.group = "default".parse().unwrap();
    machine.view.services.insert(name("web"), unnamed.into());
    machine.view.groups.clear();
    machine.flush();
    let management = AddressKey {
        address: "10.0.0.10".parse().unwrap(),
        ..own()
    };
    machine.add_address(&management, foreign());

    let applied = machine.pass(Scope::Everything).await;

    assert!(applied.prepared.spec.directs.is_empty());
    assert_eq!(messages(&applied).len(), 1);
    // The address comes, and the machine directs. It still does when the address is missing again.
    machine.restore();
    machine.settle().await;
    machine.flush();
    machine.pass(Scope::Network).await;
    assert_eq!(machine.servers("192.0.2.100"), ["192.0.2.11"]);
}
