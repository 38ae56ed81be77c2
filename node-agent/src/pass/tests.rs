//! Passes over the fake kernel: what they program, read and remember.

use std::sync::Arc;

use lvs_model::{
    AddressConfig, DirectorGroup, Failover, Forwarding, Frontend, Interface, InterfaceAddress, Nat,
    NodeFacts, NodeRoute, ObjectName, Pool, Port, Protocol, RealServer, ReturnPath, RouteOrigin,
    Scheduler, SchedulerName, ServiceKey, Sysctl, SysctlStep, Timeouts, VirtualService,
    fake::{FakeIpvs, FakeKernel},
};
use tempfile::TempDir;

use super::*;
use crate::kernel::SharedFake;

/// A machine with an agent.
struct Machine {
    kernel: SharedFake,
    agent: Agent<SharedFake, FakeHolder>,
    view: ClusterView,
    directory: TempDir,
}

/// Holds VIPs immediately, on the fake kernel.
struct FakeHolder {
    kernel: SharedFake,
    releases: usize,
    handovers: usize,
    /// What was handed over last.
    holding: Holding,
    /// Whether it can add nothing.
    is_failing: bool,
    failed: Vec<AddressKey>,
}

impl HoldVips for FakeHolder {
    async fn release(&mut self, first: Holding) {
        self.releases += 1;
        self.kernel.get_mut().hold(&first);
    }

    fn hand_over(&mut self, holding: Holding) {
        self.handovers += 1;
        self.holding = holding.clone();
        if self.is_failing {
            self.failed = holding.hold.into_keys().collect();
        } else {
            self.kernel.get_mut().hold(&holding);
        }
    }

    fn failed(&self) -> Vec<AddressKey> {
        self.failed.clone()
    }
}

fn node() -> NodeName {
    "lvs1".parse().unwrap()
}

fn facts() -> NodeFacts {
    let interface = |index, loopback| Interface {
        index,
        up: true,
        mtu: 1500,
        loopback,
        tunnel: false,
        mac: None,
    };
    let eth0 = || "eth0".parse().unwrap();
    NodeFacts {
        interfaces: [
            ("lo".parse().unwrap(), interface(1, true)),
            (eth0(), interface(2, false)),
        ]
        .into(),
        addresses: vec![InterfaceAddress {
            interface: eth0(),
            network: "192.0.2.10/24".parse().unwrap(),
        }],
        routes: vec![NodeRoute {
            destination: "192.0.2.0/24".parse().unwrap(),
            gateway: None,
            interface: eth0(),
            metric: 0,
            origin: RouteOrigin::Other,
        }],
        sysctls: [
            (Sysctl::ArpAnnounce(None), 0),
            (Sysctl::Ipv4Forward, 0),
            (Sysctl::VsConntrack, 0),
            (Sysctl::VsConnReuseMode, 1),
            (Sysctl::VsExpireNodestConn, 0),
            (Sysctl::VsExpireQuiescentTemplate, 0),
            (Sysctl::VsSloppyTcp, 0),
            (Sysctl::VsBackupOnly, 0),
        ]
        .into(),
        ..NodeFacts::default()
    }
}

fn service(vip: &str, server: &str) -> Arc<VirtualService> {
    Arc::new(VirtualService {
        created: None,
        group: "edge".parse().unwrap(),
        frontend: Frontend::Addresses {
            vips: vec![vip.parse().unwrap()],
            ports: vec![Port {
                protocol: Protocol::Tcp,
                port: 80,
            }],
        },
        forwarding: Forwarding::Dr,
        nat: Nat::default(),
        scheduler: Scheduler::new(SchedulerName::Rr, &[]),
        persistence: None,
        one_packet: false,
        alone: false,
        previous: Vec::new(),
        real_servers: vec![RealServer {
            address: server.parse().unwrap(),
            ports: vec![80].into(),
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
            forwarding: Forwarding::Dr,
            service: None,
        }],
    })
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("shop", name).unwrap()
}

fn key(vip: &str) -> ServiceKey {
    ServiceKey::Address {
        address: vip.parse().unwrap(),
        protocol: Protocol::Tcp,
        port: 80,
    }
}

fn agent(kernel: &SharedFake, directory: &TempDir) -> Agent<SharedFake, FakeHolder> {
    let holder = FakeHolder {
        kernel: kernel.clone(),
        releases: 0,
        handovers: 0,
        holding: Holding::default(),
        is_failing: false,
        failed: Vec::new(),
    };
    let state = StateDir::lock(directory.path()).unwrap();
    Agent::new(kernel.clone(), holder, state).unwrap()
}

impl Machine {
    /// A machine that directs these virtual services.
    fn new(services: &[(&str, Arc<VirtualService>)]) -> Self {
        Self::with(FakeKernel::boot(facts()), services)
    }

    fn with(kernel: FakeKernel, services: &[(&str, Arc<VirtualService>)]) -> Self {
        let kernel = SharedFake::new(kernel);
        let directory = tempfile::tempdir().unwrap();
        let group = DirectorGroup {
            nodes: vec![node()],
            ..DirectorGroup::default()
        };
        let services = services.iter();
        Self {
            agent: agent(&kernel, &directory),
            view: ClusterView {
                services: services
                    .map(|(text, service)| (name(text), Arc::clone(service)))
                    .collect(),
                groups: [("edge".parse().unwrap(), group)].into(),
                pools: Default::default(),
                unreadable_objects: BTreeSet::new(),
            },
            kernel,
            directory,
        }
    }

    async fn pass(&mut self, scope: Scope) -> Applied {
        self.agent.pass(&node(), &self.view, scope).await.unwrap()
    }

    /// Makes passes until one has no steps.
    async fn settle(&mut self) {
        for _ in 0..3 {
            if self.pass(Scope::Everything).await.prepared.plan.is_empty() {
                return;
            }
        }
        panic!("the passes do not converge");
    }

    async fn update(&mut self, service: &str, server: &str) -> Applied {
        let vip = match &self.view.services[&name(service)].frontend {
            Frontend::Addresses { vips, .. } => vips[0].to_string(),
            Frontend::Fwmark(mark) => panic!("{mark}"),
        };
        let newer = self::service(&vip, server);
        self.view.services.insert(name(service), newer);
        self.pass(Scope::Services([name(service)].into())).await
    }

    fn restart(&mut self) {
        // The old agent must be dropped first, since it holds the lock.
        let kernel = self.kernel.clone();
        let elsewhere = tempfile::tempdir().unwrap();
        self.agent = agent(&kernel, &elsewhere);
        self.agent = agent(&kernel, &self.directory);
    }

    /// Adds an address, as another program does.
    fn add_address(&self, key: &AddressKey, config: AddressConfig) {
        let mut kernel = self.kernel.get_mut();
        kernel.state.addresses.insert(key.clone(), config);
    }

    fn servers(&self, vip: &str) -> Vec<String> {
        let kernel = self.kernel.get();
        let found = &kernel.state.services[&key(vip)];
        let keys = found.destinations.keys();
        keys.map(|key| key.address.to_string()).collect()
    }
}

fn steps(applied: &Applied) -> Vec<String> {
    let steps = applied.prepared.plan.steps.iter();
    steps.map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_pass_programs_everything_and_the_next_has_no_steps() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);

    let first = machine.pass(Scope::Everything).await;

    assert!(first.outcomes.is_complete(), "{:?}", first.outcomes);
    assert_eq!(machine.servers("192.0.2.100"), ["192.0.2.11"]);
    let vip = AddressKey::host(&"eth0".parse().unwrap(), "192.0.2.100".parse().unwrap());
    assert!(machine.kernel.get().state.addresses.contains_key(&vip));
    let second = machine.pass(Scope::Everything).await;
    assert_eq!(steps(&second), [""; 0]);
}

#[tokio::test]
async fn an_update_of_real_servers_reads_its_own_services_only() {
    let mut machine = Machine::new(&[
        ("web", service("192.0.2.100", "192.0.2.11")),
        ("api", service("192.0.2.101", "192.0.2.11")),
    ]);
    machine.settle().await;
    machine
        .kernel
        .get_mut()
        .state
        .services
        .remove(&key("192.0.2.101"));

    let applied = machine.update("web", "192.0.2.12").await;

    let names = Scope::Services([name("web")].into());
    assert_eq!(applied.prepared.scope, names);
    let add = "ipvsadm -a -t 192.0.2.100:80 -r 192.0.2.12:80 -g -w 1";
    let remove = "ipvsadm -d -t 192.0.2.100:80 -r 192.0.2.11:80";
    assert_eq!(steps(&applied), [add, remove]);
    assert_eq!(applied.prepared.holding, None);
    let repaired = machine.pass(Scope::Everything).await;
    assert_eq!(
        repaired.prepared.plan.steps.len(),
        2,
        "{:?}",
        steps(&repaired)
    );
}

#[tokio::test]
async fn an_update_with_further_effects_becomes_a_pass_over_all_objects() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    machine.settle().await;
    // A real server that DR cannot reach is a problem of its service.
    let applied = machine.update("web", "203.0.113.9").await;
    assert_eq!(applied.prepared.scope, Scope::Objects);
    assert_eq!(applied.prepared.problems.len(), 1);
    // The next version needs a pass over all objects too, since the last pass had a problem.
    let applied = machine.update("web", "192.0.2.12").await;
    assert_eq!(applied.prepared.scope, Scope::Objects);
    let applied = machine.update("web", "192.0.2.13").await;
    assert!(applied.prepared.scope.is_of_some_services());
}

#[tokio::test]
async fn an_update_that_fails_is_retried_over_all_objects() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    machine.settle().await;
    machine.kernel.get_mut().fails_after = Some(0);

    let applied = machine.update("web", "192.0.2.12").await;

    assert_eq!(applied.prepared.scope, Scope::Objects);
    assert!(applied.outcomes.is_complete());
    assert_eq!(machine.servers("192.0.2.100"), ["192.0.2.12"]);
}

#[tokio::test]
async fn a_network_pass_does_not_read_unchanged_services() {
    let mut machine = Machine::new(&[
        ("web", service("192.0.2.100", "192.0.2.11")),
        ("api", service("192.0.2.101", "192.0.2.11")),
    ]);
    machine.settle().await;
    machine.kernel.get_mut().state.services.clear();
    assert_eq!(steps(&machine.pass(Scope::Network).await), [""; 0]);
    assert_eq!(
        machine
            .pass(Scope::Everything)
            .await
            .prepared
            .plan
            .steps
            .len(),
        4
    );
}

#[tokio::test]
async fn every_pass_reports_a_conflict() {
    let mut kernel = FakeKernel::boot(facts());
    let foreign = Arc::new(lvs_model::Service::default());
    kernel.state.services.insert(key("192.0.2.100"), foreign);
    let mut machine = Machine::with(kernel, &[("web", service("192.0.2.100", "192.0.2.11"))]);
    for scope in [Scope::Everything, Scope::Network, Scope::Objects] {
        let applied = machine.pass(scope).await;
        let subject = Subject::Target(Target::Service(key("192.0.2.100")));
        let problems = applied.prepared.problems.iter();
        assert_eq!(
            problems
                .filter(|problem| problem.subject == subject)
                .count(),
            1
        );
        assert!(machine.servers("192.0.2.100").is_empty(), "left alone");
    }
}

#[tokio::test]
async fn a_sysctl_that_another_program_changes_is_left_alone_until_a_restart() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    machine.settle().await;
    let sysctl = Sysctl::VsExpireNodestConn;
    let by_hand = SysctlStep::Restore {
        sysctl: sysctl.clone(),
        value: 0,
    };
    machine.kernel.get_mut().step(&by_hand.into()).unwrap();

    let applied = machine.pass(Scope::Everything).await;

    assert_eq!(steps(&applied), [""; 0]);
    let subject = Subject::Target(Target::Sysctl(sysctl.clone()));
    let problem = &applied.prepared.problems[0];
    assert_eq!(
        (&problem.subject, problem.severity),
        (&subject, lvs_model::Severity::Error)
    );
    machine.restart();
    machine.pass(Scope::Everything).await;
    assert_eq!(machine.kernel.get().state.sysctls[&sysctl], 1);
}

#[tokio::test]
async fn without_ipvs_a_director_directs_nothing_and_reports_a_problem() {
    let mut kernel = FakeKernel::boot_without_ipvs(facts());
    kernel.ipvs = FakeIpvs::Missing;
    let mut machine = Machine::with(kernel, &[("web", service("192.0.2.100", "192.0.2.11"))]);
    let applied = machine.pass(Scope::Everything).await;
    assert!(applied.prepared.spec.directs.is_empty());
    let problem = &applied.prepared.problems[0];
    assert_eq!(problem.subject, Subject::Machine);
    assert_eq!(problem.message, "this kernel has no IPVS");
}

#[tokio::test]
async fn ipvs_is_loaded_before_its_sysctls_are_read() {
    let kernel = FakeKernel::boot_without_ipvs(facts());
    let mut machine = Machine::with(kernel, &[("web", service("192.0.2.100", "192.0.2.11"))]);
    machine.settle().await;
    let ledger = machine.agent.state.load_ledger().unwrap();
    assert_eq!(ledger.sysctls[&Sysctl::VsExpireNodestConn].before, 0);
}

#[tokio::test]
async fn an_unreadable_kernel_is_left_unchanged() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    machine.settle().await;
    let before = machine.kernel.get().state.clone();
    machine.kernel.get_mut().is_unreadable = true;
    machine.view.services.clear();
    let result = machine
        .agent
        .pass(&node(), &machine.view, Scope::Everything)
        .await;
    assert!(matches!(result, Err(PassError::Kernel(_))));
    assert_eq!(machine.kernel.get().state, before);
}

#[tokio::test]
async fn nothing_is_removed_while_some_objects_of_the_machine_are_unreadable() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    machine.settle().await;
    let before = machine.kernel.get().state.clone();
    machine.view.services.clear();
    let unreadable = "DirectorBinding shop/new.lvs1";
    machine
        .view
        .unreadable_objects
        .insert(unreadable.to_owned());
    let applied = machine.pass(Scope::Everything).await;
    assert_eq!(applied.prepared.steps(), []);
    assert_eq!(machine.kernel.get().state, before);
    let [problem] = applied.prepared.problems.as_slice() else {
        panic!("{:?}", applied.prepared.problems)
    };
    assert_eq!(
        problem.message,
        "nothing is removed, because DirectorBinding shop/new.lvs1 could not be read and has no last good version; what no \
         other object asks for stays: IPVS service TCP 192.0.2.100:80, sysctl net.ipv4.conf.all.arp_announce, sysctl \
         net.ipv4.vs.expire_nodest_conn, sysctl net.ipv4.vs.expire_quiescent_template, address 192.0.2.100/32 dev eth0"
    );

    // What is known is added all the same.
    let api = service("192.0.2.101", "192.0.2.11");
    machine.view.services.insert(name("api"), api);
    machine.pass(Scope::Everything).await;
    assert_eq!(machine.kernel.get().state.services.len(), 2);

    machine.view.unreadable_objects.clear();
    machine.settle().await;
    assert_eq!(machine.kernel.get().state.services.len(), 1);
}

#[tokio::test]
async fn a_pool_that_is_added_later_refuses_only_what_does_not_serve_yet() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    machine.settle().await;
    let pool = Pool {
        ranges: vec!["192.0.2.200-192.0.2.209".parse().unwrap()],
        groups: None,
        namespaces: None,
        is_auto_assigned: false,
        avoids_network_addresses: false,
    };
    machine.view.pools.set("web".parse().unwrap(), Some(pool));
    let api = service("192.0.2.101", "192.0.2.11");
    machine.view.services.insert(name("api"), api);

    for is_restarted in [false, true] {
        if is_restarted {
            machine.restart();
        }
        let applied = machine.pass(Scope::Everything).await;
        assert_eq!(applied.prepared.steps(), []);
        let rejections = applied.prepared.rejections.iter();
        let rejections: Vec<String> = rejections.map(ToString::to_string).collect();
        let reason = |vip| {
            format!(
                "`spec.addresses[0]` must be in an AddressPool that serves namespace 'shop' and DirectorGroup 'edge': '{vip}' \
                 is not in web"
            )
        };
        assert_eq!(
            rejections,
            [
                format!("VirtualService shop/api: {}", reason("192.0.2.101")),
                format!("VirtualService shop/web: {}", reason("192.0.2.100")),
            ]
        );
    }
    // What stays is followed like any other.
    let web = service("192.0.2.100", "192.0.2.12");
    machine.view.services.insert(name("web"), web);
    machine.pass(Scope::Everything).await;
    assert_eq!(machine.servers("192.0.2.100"), ["192.0.2.12"]);
}

#[tokio::test]
async fn a_group_that_is_deleted_before_its_virtual_services_stays_in_force() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    machine.settle().await;
    let before = machine.kernel.get().state.clone();
    machine.view.groups.clear();
    machine.pass(Scope::Everything).await;
    assert_eq!(machine.kernel.get().state, before);
    let web = service("192.0.2.100", "192.0.2.12");
    machine.view.services.insert(name("web"), web);
    machine.pass(Scope::Everything).await;
    assert_eq!(machine.servers("192.0.2.100"), ["192.0.2.12"]);

    machine.restart();
    let before = machine.kernel.get().state.clone();
    let applied = machine.pass(Scope::Everything).await;
    assert_eq!(applied.prepared.steps(), []);
    let web = service("192.0.2.100", "192.0.2.11");
    machine.view.services.insert(name("web"), web);
    machine.pass(Scope::Everything).await;
    assert_eq!(machine.servers("192.0.2.100"), ["192.0.2.11"]);
    assert_ne!(machine.kernel.get().state, before);

    machine.view.services.clear();
    machine.settle().await;
    assert!(machine.kernel.get().state.services.is_empty());
}

#[tokio::test]
async fn a_virtual_service_without_a_group_takes_nothing_from_one_that_has_it() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    machine.settle().await;
    let before = machine.kernel.get().state.clone();
    let mut typo = VirtualService::clone(&service("192.0.2.100", "192.0.2.12"));
    typo.group = "egde".parse().unwrap();
    machine.view.services.insert(name("api"), Arc::new(typo));
    for is_restarted in [false, true] {
        if is_restarted {
            machine.restart();
        }
        let applied = machine.pass(Scope::Everything).await;
        assert_eq!(applied.prepared.rejections.len(), 1);
        assert_eq!(machine.kernel.get().state, before);
    }
}

#[tokio::test]
async fn a_virtual_service_gets_no_second_vip_outside_the_pools() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    let pool = Pool {
        ranges: vec!["192.0.2.100-192.0.2.109".parse().unwrap()],
        groups: None,
        namespaces: None,
        is_auto_assigned: false,
        avoids_network_addresses: false,
    };
    machine.view.pools.set("web".parse().unwrap(), Some(pool));
    machine.settle().await;
    let before = machine.kernel.get().state.clone();
    let mut two = VirtualService::clone(&service("192.0.2.100", "192.0.2.11"));
    if let Frontend::Addresses { vips, .. } = &mut two.frontend {
        vips.push("192.0.2.200".parse().unwrap());
    }
    machine.view.services.insert(name("web"), Arc::new(two));
    machine.settle().await;
    assert_eq!(machine.kernel.get().state, before);
}

#[tokio::test]
async fn the_first_group_removes_nothing_of_services_that_named_none() {
    let mut web = VirtualService::clone(&service("192.0.2.100", "192.0.2.11"));
    web.group = "default".parse().unwrap();
    let mut machine = Machine::new(&[("web", Arc::new(web))]);
    let groups = std::mem::take(&mut machine.view.groups);
    machine.settle().await;
    let before = machine.kernel.get().state.clone();
    machine.view.groups = groups;
    for is_restarted in [false, true] {
        if is_restarted {
            machine.restart();
        }
        let applied = machine.pass(Scope::Everything).await;
        let rejections = applied.prepared.rejections.iter();
        let rejections: Vec<String> = rejections.map(ToString::to_string).collect();
        assert_eq!(
            rejections,
            [
                "VirtualService shop/web: `spec.directorGroup` must name a DirectorGroup; there is none called 'default'"
            ]
        );
        assert_eq!(machine.kernel.get().state, before);
    }
}

#[tokio::test]
async fn connection_sync_runs_as_long_as_it_is_needed_and_is_replaced_when_its_settings_change() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    let edge = machine
        .view
        .groups
        .get_mut(&"edge".parse().unwrap())
        .unwrap();
    edge.failover = Some(Failover {
        router_id: 51,
        routers: 1,
        interval: 100,
        preempt_after: None,
        router_priorities: BTreeMap::new(),
        standby: BTreeSet::new(),
        unicast: None,
        keep_seconds: Some(300),
    });
    machine.settle().await;
    let ids = |machine: &Machine| -> Vec<u8> {
        let kernel = machine.kernel.get();
        let daemons = kernel.state.sync_daemons.values();
        daemons.map(|daemon| daemon.settings.sync_id).collect()
    };
    assert_eq!(ids(&machine), [0, 0]);

    // Another program must not be able to stop all forwarding by this sysctl.
    machine
        .kernel
        .get_mut()
        .state
        .sysctls
        .insert(Sysctl::VsBackupOnly, 1);
    machine.settle().await;
    assert_eq!(machine.kernel.get().state.sysctls[&Sysctl::VsBackupOnly], 0);

    // What replaces a daemon stops it also while nothing is removed.
    let edge = machine
        .view
        .groups
        .get_mut(&"edge".parse().unwrap())
        .unwrap();
    edge.connection_sync.settings.sync_id = 7;
    let unreadable = "VirtualService shop/new".to_owned();
    machine.view.unreadable_objects.insert(unreadable);
    machine.restart();
    machine.settle().await;
    assert_eq!(ids(&machine), [7, 7]);

    machine.view.unreadable_objects.clear();
    machine.view.services.clear();
    machine.settle().await;
    assert_eq!(ids(&machine), [0; 0]);
}

#[tokio::test]
async fn what_is_masqueraded_stays_so_while_some_objects_of_the_machine_are_unreadable() {
    let masqueraded = |vip: &str| {
        let mut service = VirtualService::clone(&service(vip, "192.0.2.11"));
        service.forwarding = Forwarding::Nat;
        service.nat.return_path = ReturnPath::Masquerade;
        for server in &mut service.real_servers {
            server.forwarding = Forwarding::Nat;
        }
        Arc::new(service)
    };
    let mut machine = Machine::new(&[("web", masqueraded("192.0.2.100"))]);
    machine.settle().await;
    let masquerade = |machine: &Machine| machine.kernel.get().state.masquerade.clone().unwrap();
    let before = masquerade(&machine);

    let api = ObjectName::clone(&name("api"));
    machine.view.services = [(api, masqueraded("192.0.2.101"))].into();
    machine
        .view
        .unreadable_objects
        .insert("VirtualService shop/web".to_owned());
    machine.pass(Scope::Everything).await;

    let both = masquerade(&machine);
    assert_eq!(both.services.len(), 2);
    assert!(both.services.is_superset(&before.services));
    let again = machine.pass(Scope::Everything).await;
    assert_eq!(again.prepared.steps(), []);

    machine.view.unreadable_objects.clear();
    machine.settle().await;
    assert_eq!(masquerade(&machine).services.len(), 1);
}

#[tokio::test]
async fn what_only_stays_masqueraded_is_reported_too() {
    let service = |return_path| {
        let mut service = VirtualService::clone(&service("192.0.2.100", "192.0.2.11"));
        service.forwarding = Forwarding::Nat;
        service.nat.return_path = return_path;
        for server in &mut service.real_servers {
            server.forwarding = Forwarding::Nat;
        }
        Arc::new(service)
    };
    let masqueraded = service(ReturnPath::Masquerade);
    let mut other = VirtualService::clone(&masqueraded);
    other.frontend = Frontend::Addresses {
        vips: vec!["192.0.2.101".parse().unwrap()],
        ports: vec![Port {
            protocol: Protocol::Tcp,
            port: 80,
        }],
    };
    let mut machine = Machine::new(&[("api", other.into()), ("web", masqueraded)]);
    machine.settle().await;

    let web = ObjectName::clone(&name("web"));
    let edited = service(ReturnPath::DefaultGateway);
    machine.view.services.insert(web, edited);
    let unknown = "VirtualService shop/new";
    machine.view.unreadable_objects.insert(unknown.to_owned());
    let applied = machine.pass(Scope::Everything).await;

    assert_eq!(applied.prepared.steps(), []);
    let messages = applied.prepared.problems.iter();
    let messages: Vec<&str> = messages.map(|problem| problem.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "nothing is removed, because VirtualService shop/new could not be read and has no last good version; what no other \
             object asks for stays: masquerading of TCP 192.0.2.100:80"
        ]
    );
}

#[tokio::test]
async fn a_port_that_two_real_servers_of_one_address_share_has_the_larger_weight() {
    let mut two = VirtualService::clone(&service("192.0.2.100", "192.0.2.11"));
    let ports = [80, 443].map(|port| Port {
        protocol: Protocol::Tcp,
        port,
    });
    two.frontend = Frontend::Addresses {
        vips: vec!["192.0.2.100".parse().unwrap()],
        ports: ports.to_vec(),
    };
    let server = |ports: [u16; 2], weight| RealServer {
        ports: ports.iter().copied().collect(),
        weight,
        forwarding: Forwarding::Nat,
        service: None,
        ..two.real_servers[0].clone()
    };
    two.real_servers = vec![server([8080, 8090], 1), server([8080, 9090], 0)];
    let mut machine = Machine::new(&[("web", Arc::new(two))]);
    machine.settle().await;
    let services = machine.kernel.get().state.services.clone();
    let weights = services.values().flat_map(|service| {
        let destinations = service.destinations.iter();
        destinations.map(|(key, settings)| (key.port, settings.weight))
    });
    let weights: Vec<_> = weights.collect();
    assert_eq!(weights, [(8080, 1), (8090, 1), (9090, 0)]);
}

#[tokio::test]
async fn a_vip_is_removed_before_its_services_and_added_after_them() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    machine.pass(Scope::Everything).await;
    assert_eq!(machine.agent.holder.handovers, 1);
    machine.view.services.clear();

    let applied = machine.pass(Scope::Everything).await;

    let steps: Vec<_> = applied
        .prepared
        .steps()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(steps[0], "ip addr del 192.0.2.100/32 dev eth0");
    assert_eq!(steps[1], "ipvsadm -D -t 192.0.2.100:80");
    assert_eq!(machine.agent.holder.releases, 1);
    assert_eq!(machine.agent.holder.handovers, 2);
}

#[tokio::test]
async fn a_vip_that_another_program_adds_after_the_holder_failed_is_not_owned() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    machine.agent.holder.is_failing = true;
    machine.pass(Scope::Everything).await;
    let vip = AddressKey::host(&"eth0".parse().unwrap(), "192.0.2.100".parse().unwrap());
    assert!(machine.agent.ledger.owns(&Target::Address(vip.clone())));
    let theirs = AddressConfig {
        deprecated: false,
        expires: false,
        owner: Owner::Foreign,
    };
    machine.add_address(&vip, theirs);

    machine.pass(Scope::Network).await;
    machine.view.services.clear();
    machine.pass(Scope::Everything).await;

    assert!(!machine.agent.ledger.owns(&Target::Address(vip.clone())));
    let kernel = machine.kernel.get();
    assert_eq!(kernel.state.addresses.get(&vip), Some(&theirs));
}

#[tokio::test]
async fn timeouts_that_go_and_come_back_are_set_again() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    let timeouts = |tcp_seconds| Timeouts {
        tcp_seconds,
        tcp_fin_seconds: 60,
        udp_seconds: 30,
    };
    for seconds in [600, 700, 600] {
        let group = machine.view.groups.get_mut(&"edge".parse().unwrap());
        group.unwrap().timeouts = Some(timeouts(seconds));

        machine.pass(Scope::Objects).await;

        let found = machine.kernel.get().state.timeouts;
        assert_eq!(found, Some(timeouts(seconds)));
    }
}

#[tokio::test]
async fn a_cleanup_removes_what_is_owned_and_leaves_an_empty_ledger() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    let boot = machine.kernel.get().state.clone();
    machine.settle().await;

    let prepared = machine.agent.prepare_cleanup().await.unwrap();
    let released = prepared.holding.clone().unwrap().release;
    machine.agent.apply(prepared).await.unwrap();
    machine.agent.forget_vips(released).unwrap();

    assert_eq!(machine.kernel.get().state, boot);
    assert!(machine.agent.state.load_ledger().unwrap().is_empty());
}

#[tokio::test]
async fn the_last_accepted_version_of_a_refused_service_stays_in_force() {
    let mut machine = Machine::new(&[
        ("api", service("192.0.2.100", "192.0.2.11")),
        ("web", service("192.0.2.101", "192.0.2.11")),
    ]);
    machine.settle().await;
    machine
        .view
        .services
        .insert(name("web"), service("192.0.2.100", "192.0.2.12"));

    let applied = machine.pass(Scope::Objects).await;

    assert_eq!(steps(&applied), [""; 0]);
    assert_eq!(applied.prepared.rejections.len(), 1);
    let kernel = machine.kernel.get();
    assert_eq!(
        kernel.state.services.keys().copied().collect::<Vec<_>>(),
        [key("192.0.2.100"), key("192.0.2.101")]
    );
}

#[tokio::test]
async fn a_ledger_that_cannot_be_stored_stops_the_pass_before_any_change() {
    let mut machine = Machine::new(&[("web", service("192.0.2.100", "192.0.2.11"))]);
    let boot = machine.kernel.get().state.clone();
    std::fs::remove_dir_all(machine.directory.path()).unwrap();
    let result = machine
        .agent
        .pass(&node(), &machine.view, Scope::Everything)
        .await;
    assert!(matches!(result, Err(PassError::StateDir(_))));
    assert_eq!(machine.kernel.get().state, boot);
}

mod absence;
mod preemption;
mod reads;
mod second_chance;
