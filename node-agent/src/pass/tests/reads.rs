//! Reads that fail or miss something: nothing owned is removed.

use lvs_kernel::events::NetworkChange;
use lvs_model::{InterfaceName, ReturnPath, Severity};

use super::*;

fn masqueraded(vip: &str, server: &str) -> Arc<VirtualService> {
    let mut service = VirtualService::clone(&service(vip, server));
    service.forwarding = Forwarding::Nat;
    service.real_servers[0].forwarding = Forwarding::Nat;
    service.nat.return_path = ReturnPath::Masquerade;
    service.into()
}

#[tokio::test]
async fn a_service_that_is_missing_from_a_dump_stays_owned_and_as_it_is() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    machine.settle().await;
    let gap = key("192.0.2.100");
    machine.kernel.get_mut().dump_gaps.insert(gap);

    let applied = machine.pass(Scope::Everything).await;

    assert_eq!(steps(&applied), [""; 0]);
    assert!(machine.agent.ledger.owns(&Target::Service(gap)));
    // It is found to remove it, too.
    machine.view.services.clear();
    machine.pass(Scope::Everything).await;
    assert!(machine.kernel.get().state.services.is_empty());
    assert!(!machine.agent.ledger.owns(&Target::Service(gap)));
}

#[tokio::test]
async fn masquerading_rules_that_cannot_be_read_stay_and_the_rest_is_done() {
    let mut machine = Machine::new(&[("web", masqueraded("192.0.2.100", "192.0.2.11"))]);
    machine.settle().await;
    let rules = machine.kernel.get().state.masquerade.clone();
    assert!(rules.is_some());
    machine.kernel.get_mut().unread.insert(Part::Masquerade);
    machine.view.services.clear();
    machine
        .view
        .services
        .insert(name("api"), service("192.0.2.101", "192.0.2.11"));

    let applied = machine.pass(Scope::Everything).await;

    assert!(applied.outcomes.is_complete() && !applied.is_complete());
    let problem = Problem::error(Subject::Machine, "injected failure; what is there stays");
    assert!(applied.prepared.problems.contains(&problem));
    assert_eq!(machine.servers("192.0.2.101"), ["192.0.2.11"]);
    assert_eq!(machine.kernel.get().state.masquerade, rules);
    assert!(machine.agent.ledger.owns(&Target::Masquerade));
    // Even a pass over objects only reads again, and removes them.
    machine.kernel.get_mut().unread.clear();
    let applied = machine.pass(Scope::Objects).await;
    assert!(applied.is_complete());
    assert_eq!(machine.kernel.get().state.masquerade, None);
}

#[tokio::test]
async fn ipvs_that_cannot_be_read_at_the_moment_is_left_as_it_is() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    machine.settle().await;
    let before = machine.kernel.get().state.clone();
    machine.kernel.get_mut().is_ipvs_unreadable = true;
    for services in [machine.view.services.clone(), Default::default()] {
        machine.view.services = services;
        let (node, view) = (node(), machine.view.clone());

        let result = machine.agent.pass(&node, &view, Scope::Everything).await;

        assert!(matches!(result, Err(PassError::Kernel(_))));
        assert_eq!(machine.kernel.get().state, before);
    }
}

#[tokio::test]
async fn after_a_ledger_that_cannot_be_parsed_nothing_is_removed_and_every_pass_reports_it() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    machine.settle().await;
    let before = machine.kernel.get().state.clone();
    let ledger = machine.directory.path().join("ledger.json");
    std::fs::write(&ledger, "[]").unwrap();
    machine.restart();
    for services in [machine.view.services.clone(), Default::default()] {
        machine.view.services = services;

        let applied = machine.pass(Scope::Everything).await;

        let problems = &applied.prepared.problems;
        let of_ledger = |problem: &&Problem| problem.message.contains("the ledger could not be");
        assert_eq!(problems.iter().filter(of_ledger).count(), 1);
        assert!(
            problems
                .iter()
                .all(|problem| problem.severity == Severity::Error)
        );
        assert_eq!(machine.kernel.get().state.services, before.services);
    }
    let aside = machine.directory.path().join("ledger.json.unreadable");
    assert_eq!(std::fs::read_to_string(aside).unwrap(), "[]");
}

#[tokio::test]
async fn routes_that_cannot_be_read_remove_nothing() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    machine.settle().await;
    let before = machine.kernel.get().state.clone();
    machine.kernel.get_mut().are_routes_unreadable = true;
    for scope in [Scope::Network, Scope::Everything] {
        let (node, view) = (node(), machine.view.clone());

        let result = machine.agent.pass(&node, &view, scope).await;

        assert!(matches!(result, Err(PassError::Kernel(_))));
        assert_eq!(machine.kernel.get().state, before);
    }
}

#[tokio::test]
async fn the_gateway_of_a_route_that_no_service_uses_is_no_vip() {
    let mut machine = Machine::new(&[("web", service("192.0.2.1", "192.0.2.11"))]);
    machine.kernel.get_mut().facts.routes.push(NodeRoute {
        destination: "10.20.0.0/16".parse().unwrap(),
        gateway: Some("192.0.2.1".parse().unwrap()),
        ..facts().routes[0].clone()
    });

    let applied = machine.pass(Scope::Everything).await;

    let error = Problem::error(
        Subject::Service(name("web")),
        "VIP 192.0.2.1 is this machine's gateway to another network; choose a free address",
    );
    assert_eq!(applied.prepared.problems, [error]);
    assert!(machine.kernel.get().state.services.is_empty());
}

#[tokio::test]
async fn an_address_that_the_machine_needs_for_itself_is_no_vip() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    let resolver = ("192.0.2.100".parse().unwrap(), "resolver".to_owned());
    machine.agent.set_essentials([resolver].into());

    let applied = machine.pass(Scope::Everything).await;

    let error = Problem::error(
        Subject::Service(name("web")),
        "VIP 192.0.2.100 is this machine's resolver; choose a free address",
    );
    assert_eq!(applied.prepared.problems, [error]);
    assert!(machine.kernel.get().state.services.is_empty());
}

#[tokio::test]
async fn a_change_of_real_servers_asks_only_for_the_routes_to_new_ones() {
    let mut machine = Machine::new(&[
        ("api", service("192.0.2.101", "192.0.2.13")),
        ("web", service("192.0.2.100", "192.0.2.11")),
    ]);
    machine.settle().await;
    assert!(machine.kernel.get().asked.len() > 2);

    machine.update("web", "192.0.2.12").await;

    assert_eq!(machine.servers("192.0.2.100"), ["192.0.2.12"]);
    let new = "192.0.2.12".parse().unwrap();
    assert_eq!(machine.kernel.get().asked, [new].into());
    assert!(
        machine
            .agent
            .routes_used()
            .needs_pass(NetworkChange::Route("192.0.2.12/32".parse().unwrap()))
    );
}

#[tokio::test]
async fn an_interface_that_was_made_anew_is_no_other_program() {
    let eth0: InterfaceName = "eth0".parse().unwrap();
    let redirects = Sysctl::SendRedirects(Some(eth0.clone()));
    let mut facts = facts();
    let found = [Sysctl::SendRedirects(None), redirects.clone()];
    facts.sysctls.extend(found.map(|sysctl| (sysctl, 1)));
    let mut nat = service("192.0.2.100", "192.0.2.11").as_ref().clone();
    nat.forwarding = Forwarding::Nat;
    nat.real_servers[0].forwarding = Forwarding::Nat;
    let mut machine = Machine::with(FakeKernel::boot(facts), &[("web", Arc::new(nat))]);
    machine.settle().await;
    let value = |machine: &Machine| machine.kernel.get().state.sysctls[&redirects];
    assert_eq!(value(&machine), 0);

    machine
        .kernel
        .get_mut()
        .state
        .sysctls
        .insert(redirects.clone(), 1);
    let applied = machine.pass(Scope::Everything).await;
    let mut problems = applied.prepared.problems.iter();
    assert!(problems.any(|problem| problem.to_string().contains("another program has set it")));
    assert_eq!(value(&machine), 1);

    let anew = |kernel: &mut FakeKernel| kernel.facts.interfaces.get_mut(&eth0).unwrap().index = 9;
    anew(&mut machine.kernel.get_mut());
    machine.pass(Scope::Everything).await;
    assert_eq!(value(&machine), 0);
}
