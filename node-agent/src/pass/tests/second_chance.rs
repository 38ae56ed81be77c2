//! Second chances on a real server: what follows from a changed set, and what stays if something is missing.

use lvs_model::{Failover, Severity};

use super::*;

/// A real server at 192.0.2.10 of a service that keeps its connections.
fn real_server() -> Machine {
    let mut machine = Machine::new(&[("web", hashed(&["192.0.2.10", "192.0.2.11"]))]);
    for group in machine.view.groups.values_mut() {
        group.nodes = vec!["director".parse().unwrap(), "standby".parse().unwrap()];
        group.failover = Some(Failover {
            router_id: 51,
            routers: 1,
            interval: 100,
            preempt_after: None,
            router_priorities: Default::default(),
            standby: Default::default(),
            unicast: None,
            keep_seconds: Some(300),
        });
    }
    machine
}

fn hashed(servers: &[&str]) -> Arc<VirtualService> {
    let mut hashed = VirtualService::clone(&service("192.0.2.100", "192.0.2.10"));
    hashed.scheduler = Scheduler::new(SchedulerName::Mh, &[]);
    let server = hashed.real_servers[0].clone();
    let servers = servers.iter().map(|address| RealServer {
        address: address.parse().unwrap(),
        ..server.clone()
    });
    hashed.real_servers = servers.collect();
    hashed.into()
}

impl Machine {
    async fn change_servers(&mut self, servers: &[&str]) -> Applied {
        self.view.services.insert(name("web"), hashed(servers));
        self.pass(Scope::Objects).await
    }

    /// Returns whether stray packets are led anywhere.
    fn has_second_chances(&self) -> bool {
        let state = &self.kernel.get().state;
        assert!(state.strays.is_none() || !state.services.is_empty());
        state.strays.is_some()
    }

    fn has_second_services(&self) -> bool {
        !self.kernel.get().state.services.is_empty()
    }
}

#[tokio::test]
async fn a_changed_set_gives_second_chances_that_a_restart_keeps() {
    let mut machine = real_server();
    machine.settle().await;
    assert!(!machine.has_second_chances());

    let applied = machine.change_servers(&["192.0.2.10", "192.0.2.12"]).await;

    assert!(machine.has_second_chances());
    let ends = applied.prepared.next_pass.unwrap();
    assert!(ends > Duration::from_secs(290) && ends <= Duration::from_secs(301));
    let Machine {
        kernel,
        agent,
        view,
        directory,
    } = machine;
    drop(agent);
    let agent = super::agent(&kernel, &directory);
    let mut machine = Machine {
        kernel,
        agent,
        view,
        directory,
    };
    let applied = machine.pass(Scope::Everything).await;
    assert_eq!(steps(&applied), [""; 0]);
    assert!(machine.has_second_chances());

    machine.view.services.clear();
    machine.pass(Scope::Everything).await;
    assert!(!machine.has_second_chances());
    assert_eq!(machine.agent.ledger.server_sets, []);
}

#[tokio::test]
async fn a_previous_set_whose_time_is_over_stays_while_it_has_connections() {
    let mut machine = real_server();
    machine.settle().await;
    machine.change_servers(&["192.0.2.10", "192.0.2.12"]).await;
    let second = *machine.kernel.get().state.services.keys().next().unwrap();
    machine.agent.ledger.server_sets[0].replaced[0].since = 0;

    machine.kernel.get_mut().in_use.insert(second);
    let applied = machine.pass(Scope::Everything).await;
    assert_eq!(
        steps(&applied),
        ["nft delete table inet lvs-operator-strays"]
    );
    let look = applied.prepared.next_pass.unwrap();
    assert!(look <= Duration::from_secs(16), "{look:?}");
    let applied = machine.pass(Scope::Everything).await;
    assert_eq!(steps(&applied), [""; 0]);
    assert!(machine.has_second_services());

    machine.kernel.get_mut().in_use.clear();
    machine.pass(Scope::Everything).await;
    assert!(!machine.has_second_services());
}

#[tokio::test]
async fn a_previous_set_stays_while_its_connections_cannot_be_read() {
    let mut machine = real_server();
    machine.settle().await;
    machine.change_servers(&["192.0.2.10", "192.0.2.12"]).await;
    machine.agent.ledger.server_sets[0].replaced[0].since = 0;
    machine.kernel.get_mut().is_ipvs_unreadable = true;

    let node = node();
    let pass = machine.agent.pass(&node, &machine.view, Scope::Everything);
    assert!(pass.await.is_err());

    let set = &machine.agent.ledger.server_sets[0];
    assert_eq!(set.replaced.len(), 1, "{set:?}");
}

#[tokio::test]
async fn without_ipvs_a_real_server_serves_and_warns() {
    let mut machine = real_server();
    machine.settle().await;
    machine.kernel.get_mut().ipvs = FakeIpvs::Missing;

    let applied = machine.change_servers(&["192.0.2.10", "192.0.2.12"]).await;

    assert!(applied.is_complete() && !machine.has_second_chances());
    let mut problems = applied.prepared.problems.iter();
    let problem = problems.find(|problem| problem.message.contains("this kernel has no IPVS"));
    assert_eq!(problem.unwrap().severity, Severity::Warning);
}

#[tokio::test]
async fn rules_that_cannot_be_read_stay_and_the_virtual_service_has_a_problem() {
    let mut machine = real_server();
    machine.settle().await;
    machine.change_servers(&["192.0.2.10", "192.0.2.12"]).await;
    let rules = machine.kernel.get().state.strays.clone();
    machine.kernel.get_mut().unread.insert(Part::Strays);

    let applied = machine.pass(Scope::Everything).await;

    assert!(!applied.is_complete());
    let subject = Subject::Service(name("web"));
    let problem = Problem::warning(subject, "injected failure; what is there stays");
    assert!(applied.prepared.problems.contains(&problem));
    assert_eq!(machine.kernel.get().state.strays, rules);
}
