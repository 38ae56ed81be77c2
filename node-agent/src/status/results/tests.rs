//! Tests of the statuses that follow from a pass.

use std::sync::Arc;

use lvs_crd::{LvsNode, convert::node_view};
use lvs_kernel::About;
use lvs_model::{
    AddressKey, Assignment, Extent, Holding, Interface, IpvsStep, KernelState, Ledger, NodeFacts,
    NodeName, NodeRoute, Outcomes, Problem, Protocol, RouteOrigin, ServiceKey, StepFailure,
    SyncDaemon, SyncRole, SyncSettings, Target, assign, desired, diff, holding,
};
use serde_json::json;

use super::*;
use crate::holder::HolderReport;
use crate::{pass::Seen, status::facts::facts};

fn node() -> NodeName {
    "lvs1".parse().unwrap()
}

fn machine_facts() -> NodeFacts {
    let interface = |loopback| Interface {
        index: 1,
        up: true,
        mtu: 1500,
        loopback,
        tunnel: false,
        mac: None,
    };
    let address = |interface: &str, network: &str| lvs_model::InterfaceAddress {
        interface: interface.parse().unwrap(),
        network: network.parse().unwrap(),
    };
    let route = |destination: &str| NodeRoute {
        destination: destination.parse().unwrap(),
        gateway: None,
        interface: "eth0".parse().unwrap(),
        metric: 0,
        origin: RouteOrigin::Other,
    };
    NodeFacts {
        interfaces: [("eth0", false), ("lo", true)]
            .map(|(name, loopback)| (name.parse().unwrap(), interface(loopback)))
            .into(),
        addresses: vec![
            address("lo", "127.0.0.1/8"),
            address("lo", "192.0.2.1/32"),
            address("eth0", "192.168.220.11/24"),
            address("eth0", "fe80::11/64"),
        ],
        routes: vec![route("192.168.220.0/24"), route("0.0.0.0/0")],
        ..NodeFacts::default()
    }
}

fn binding(name: &str, vip: &str) -> Bound<DirectorBinding> {
    binding_to(name, vip, &["192.168.220.12"])
}

fn binding_to(name: &str, vip: &str, servers: &[&str]) -> Bound<DirectorBinding> {
    let servers = servers.iter().map(|address| json!({"address": address}));
    let servers: Vec<_> = servers.collect();
    let object = json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "DirectorBinding",
        "metadata": {"namespace": "shop", "name": format!("{name}-lvs1"), "uid": name, "generation": 3},
        "spec": {"node": "lvs1", "virtualService": name, "generation": 7,
            "directorGroup": "edge", "addresses": [vip], "ports": [{"port": 80}],
            "realServers": servers},
    });
    let object: DirectorBinding = serde_json::from_value(object).unwrap();
    Bound::directed(Arc::new(object), |_| None)
}

fn lvs_node() -> Arc<LvsNode> {
    let object = json!({"apiVersion": "lvs-operator.io/v1alpha1", "kind": "LvsNode",
        "metadata": {"name": "lvs1", "generation": 5}, "spec": {}});
    Arc::new(serde_json::from_value(object).unwrap())
}

/// One of several directors of the group.
fn lvs_node_of_several() -> Arc<LvsNode> {
    let failover = json!({"virtualRouterId": 51, "advertisementMilliseconds": 1000, "priorities": [100], "keepSeconds": 300});
    let object = json!({"apiVersion": "lvs-operator.io/v1alpha1", "kind": "LvsNode",
        "metadata": {"name": "lvs1", "generation": 5},
        "spec": {"groups": [{"name": "edge", "failover": failover}]}});
    Arc::new(serde_json::from_value(object).unwrap())
}

fn served(name: &str, vip: &str) -> Bound<RealServerBinding> {
    let object = json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "RealServerBinding",
        "metadata": {"namespace": "shop", "name": format!("{name}.lvs1"), "uid": name, "generation": 4},
        "spec": {"node": "lvs1", "virtualService": name, "addresses": [vip], "ports": [{"port": 80}],
            "realServers": [{"address": "192.168.220.11"}]},
    });
    Bound::served(Arc::new(serde_json::from_value(object).unwrap()))
}

fn service_key(vip: &str) -> ServiceKey {
    ServiceKey::Address {
        address: vip.parse().unwrap(),
        protocol: Protocol::Tcp,
        port: 80,
    }
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("shop", name).unwrap()
}

/// A pass over the model's own functions, in which the steps fail whose command holds a text.
struct Pass {
    objects: NodeObjects,
    applied: Applied,
}

impl Pass {
    fn new(
        bound: Vec<Bound<DirectorBinding>>,
        served: Vec<Bound<RealServerBinding>>,
        observed: KernelState,
        fails: &str,
    ) -> Self {
        Self::on(lvs_node(), (bound, served), observed, fails)
    }

    fn on(
        lvs_node: Arc<LvsNode>,
        (bound, served): (Vec<Bound<DirectorBinding>>, Vec<Bound<RealServerBinding>>),
        observed: KernelState,
        fails: &str,
    ) -> Self {
        let seen = node_view(&node(), &bound, &served, Some(&lvs_node));
        let facts = machine_facts();
        let ledger = Ledger::default();
        let Assignment {
            spec, rejections, ..
        } = assign(&seen.view, &facts.node(node(), &ledger));
        let wanted = desired(&spec, &facts);
        let difference = diff(&wanted.state, &observed, &ledger, &Extent::ALL);
        let holding = holding(&wanted.state, &observed, &ledger);
        let mut outcomes = Outcomes::default();
        for (index, step) in difference.plan.steps.iter().enumerate() {
            if !outcomes.skips(index, step) && !fails.is_empty() && step.to_string().contains(fails)
            {
                outcomes.fail(index, step, StepFailure::refused("No such device"));
            }
        }
        let prepared = Prepared {
            scope: crate::pass::Scope::Everything,
            spec: spec.into(),
            seen: Seen {
                facts,
                observed: observed.into(),
                ..Seen::default()
            },
            desired: wanted.state.into(),
            owners: wanted.owners,
            plan: difference.plan,
            holding: Some(holding),
            problems: [wanted.problems, difference.problems].concat(),
            rejections,
            ..Prepared::default()
        };
        let rejections = seen.rejected.into_iter().map(|all| all.rejection);
        let mut objects = NodeObjects::new(node());
        (objects.bound, objects.served) = (bound, served);
        (objects.lvs_node, objects.rejections) = (Some(lvs_node), rejections.collect());
        Self {
            objects,
            applied: Applied {
                prepared,
                outcomes,
                ..Applied::default()
            },
        }
    }

    /// A pass in which nothing fails on an empty kernel.
    fn over(bound: Vec<Bound<DirectorBinding>>, served: Vec<Bound<RealServerBinding>>) -> Self {
        Self::new(bound, served, KernelState::default(), "")
    }

    fn holding(&self) -> &Holding {
        self.applied.prepared.holding.as_ref().unwrap()
    }

    /// The report of a holder that holds all VIPs.
    fn held(&self) -> HolderReport {
        let mut report = HolderReport::default().handed(self.holding());
        for key in self.holding().hold.keys() {
            report.set(key, VipState::Held);
        }
        report
    }

    fn results(&self) -> PassResults {
        let seen = &self.applied.prepared.seen.facts;
        let facts = facts(seen, About::default());
        of_all(&self.objects, &self.applied, facts)
    }

    /// The condition of each binding: virtual service, status, reason, message.
    fn bindings(&self) -> Vec<(String, &'static str, String, String)> {
        self.bindings_with(&self.held())
    }

    fn bindings_with(&self, holder: &HolderReport) -> Vec<(String, &'static str, String, String)> {
        let results = self.results().bindings.into_iter();
        results
            .map(|result| {
                assert_eq!(result.version.generation, Some(3));
                let verdict = result.verdict(&holder.by_address(), holder.vip_problems());
                assert_eq!(verdict.kind, ConditionType::Programmed);
                let status = verdict.status.as_str();
                let service = result.version.uid.unwrap();
                (
                    service,
                    status,
                    verdict.reason.as_str().to_owned(),
                    verdict.message,
                )
            })
            .collect()
    }

    /// The result of each RealServerBinding: virtual service, whether it is ready, and the message.
    fn served(&self) -> Vec<(String, bool, String)> {
        let results = self.results().served.into_iter();
        results
            .map(|result| {
                assert_eq!(result.version.generation, Some(4));
                assert_eq!(result.verdict.kind, ConditionType::Ready);
                let is_ready = result.verdict.status == Status::True;
                (
                    result.version.uid.unwrap(),
                    is_ready,
                    result.verdict.message,
                )
            })
            .collect()
    }

    fn ready(&self) -> (&'static str, String, String) {
        let verdict = self.results().node.unwrap().verdict;
        assert_eq!(verdict.kind, ConditionType::Ready);
        let reason = verdict.reason.as_str().to_owned();
        (verdict.status.as_str(), reason, verdict.message)
    }
}

fn condition(
    service: &str,
    status: &'static str,
    reason: &str,
    message: &str,
) -> (String, &'static str, String, String) {
    (
        service.to_owned(),
        status,
        reason.to_owned(),
        message.to_owned(),
    )
}

fn is_ready() -> (&'static str, String, String) {
    ("True", "Ready".to_owned(), String::new())
}

#[test]
fn what_is_done_is_programmed_and_ready() {
    let bound = vec![binding("web", "192.168.220.100")];
    let pass = Pass::over(bound, vec![served("api", "192.168.220.101")]);
    assert_eq!(
        pass.bindings(),
        [condition("web", "True", "Programmed", "")]
    );
    assert_eq!(pass.served(), [("api".to_owned(), true, String::new())]);
    assert_eq!(pass.ready(), is_ready());
}

#[test]
fn a_failed_step_is_a_fault_of_the_service_that_wants_its_target() {
    let bound = vec![
        binding("web", "192.168.220.100"),
        binding("api", "192.168.220.101"),
    ];
    let fails = "ipvsadm -A -t 192.168.220.100";
    let pass = Pass::new(bound, Vec::new(), KernelState::default(), fails);
    let bindings = pass.bindings();
    let [web, api] = bindings.as_slice() else {
        panic!("{bindings:?}")
    };
    assert_eq!(*api, condition("api", "True", "Programmed", ""));
    assert_eq!((web.1, web.2.as_str()), ("False", "ProgrammingFailed"));
    let text = "failed: ipvsadm -A -t 192.168.220.100:80 -s wlc: No such device; skipped: ";
    assert!(web.3.starts_with(text), "{}", web.3);
    assert_eq!(pass.ready(), is_ready());
}

#[test]
fn a_failed_step_of_the_real_server_is_a_fault_of_its_binding() {
    let serves = vec![
        served("api", "192.168.220.101"),
        served("web", "192.168.220.100"),
    ];
    let fails = "192.168.220.100/32 dev lo";
    let pass = Pass::new(Vec::new(), serves, KernelState::default(), fails);
    let served = pass.served();
    let [api, web] = served.as_slice() else {
        panic!("{served:?}")
    };
    assert_eq!(*api, ("api".to_owned(), true, String::new()));
    assert!(!web.1 && web.2.contains("dev lo"), "{web:?}");
    assert_eq!(pass.ready(), is_ready());
}

#[test]
fn a_step_that_nothing_wants_is_a_fault_of_the_machine() {
    let mut pass = Pass::over(vec![binding("web", "192.168.220.100")], Vec::new());
    let removal = Step::Ipvs(IpvsStep::RemoveService(service_key("192.168.220.109")));
    let index = pass.applied.prepared.plan.steps.len();
    let failure = StepFailure::refused("busy");
    pass.applied.outcomes.fail(index, &removal, failure);
    pass.applied.prepared.plan.steps.push(removal);
    let (status, reason, message) = pass.ready();
    assert_eq!((status, reason.as_str()), ("False", "ProgrammingFailed"));
    assert_eq!(message, "failed: ipvsadm -D -t 192.168.220.109:80: busy");
    assert_eq!(pass.bindings()[0].1, "True");
}

#[test]
fn a_foreign_service_is_a_conflict() {
    let key = service_key("192.168.220.100");
    let observed = KernelState {
        services: [(key, Arc::default())].into(),
        ..KernelState::default()
    };
    let bound = vec![binding("web", "192.168.220.100")];
    let pass = Pass::new(bound, Vec::new(), observed, "");
    let message = "IPVS service TCP 192.168.220.100:80 exists and was not made by lvs-agent; it is left alone: remove it, \
                   or its VirtualService";
    assert_eq!(
        pass.bindings(),
        [condition("web", "False", "Conflict", message)]
    );
}

#[test]
fn a_vip_that_the_holder_does_not_hold_is_a_fault_of_its_services() {
    let bound = vec![
        binding("web", "192.168.220.100"),
        binding("api", "192.168.220.101"),
    ];
    let pass = Pass::over(bound, Vec::new());
    let mut holder = HolderReport::default().handed(pass.holding());
    assert_eq!(
        pass.bindings_with(&holder),
        ["web", "api"].map(|service| {
            let vip = if service == "web" { 100 } else { 101 };
            let message = format!("VIP 192.168.220.{vip} is not held yet");
            condition(service, "False", "Pending", &message)
        })
    );

    for key in pass.holding().hold.keys() {
        let state = if key.address.to_string().ends_with(".100") {
            VipState::Failed("VIP 192.168.220.100: address in use".to_owned())
        } else {
            VipState::Held
        };
        holder.set(key, state);
    }

    let message = "VIP 192.168.220.100: address in use";
    assert_eq!(
        pass.bindings_with(&holder),
        [
            condition("web", "False", "ProgrammingFailed", message),
            condition("api", "True", "Programmed", "")
        ]
    );
}

#[test]
fn a_kernel_without_ipvs_is_a_fault_of_the_machine_and_of_every_binding() {
    let mut pass = Pass::over(vec![binding("web", "192.168.220.100")], Vec::new());
    Arc::make_mut(&mut pass.applied.prepared.spec)
        .directs
        .clear();
    let message = "this kernel has no IPVS";
    pass.applied.prepared.problems = vec![Problem::error(Subject::Machine, message)];
    let reason = "ProgrammingFailed";
    assert_eq!(
        pass.bindings(),
        [condition("web", "False", reason, message)]
    );
    assert_eq!(
        pass.ready(),
        ("False", reason.to_owned(), message.to_owned())
    );
}

#[test]
fn a_rejection_is_a_fault_of_its_object_though_the_last_good_version_works() {
    let mut faulty = binding("web", "192.168.220.100");
    let mut pass = Pass::over(vec![faulty.clone()], Vec::new());
    let object = ObjectRef::VirtualService(name("web"));
    let reason = "must be between 1 and 65535, not '70000'";
    let rejection = Rejection::new(object, "spec.ports[0].port", reason);
    faulty.service = Err(vec![rejection.clone()]);
    pass.objects = NodeObjects::new(node());
    (pass.objects.bound, pass.objects.rejections) = (vec![faulty], vec![rejection]);
    let message = format!("VirtualService shop/web: `spec.ports[0].port` {reason}");
    assert_eq!(
        pass.bindings(),
        [condition("web", "False", "Rejected", &message)]
    );
    assert_eq!(pass.results().node, None);
}

#[test]
fn a_problem_is_a_fault_of_its_service_and_a_warning_leaves_it_programmed() {
    let bound = vec![
        binding("web", "192.168.220.100"),
        binding("api", "192.168.220.101"),
    ];
    let mut pass = Pass::over(bound, Vec::new());
    let subject = |service| Subject::Service(name(service));
    let (web, api) = (
        "real server 192.0.2.9 is behind a router",
        "no route to real server 192.0.2.8",
    );
    pass.applied.prepared.problems = vec![
        Problem::error(subject("web"), web),
        Problem::warning(subject("api"), api),
    ];
    assert_eq!(
        pass.bindings(),
        [
            condition("web", "False", "Incomplete", web),
            condition("api", "True", "Programmed", api)
        ]
    );
}

#[test]
fn a_problem_with_a_target_is_a_fault_of_all_services_that_want_it() {
    let serves = vec![
        served("api", "192.168.220.101"),
        served("web", "192.168.220.100"),
    ];
    let mut pass = Pass::over(Vec::new(), serves);
    let target = Target::Sysctl(Sysctl::ArpIgnore(None));
    let message = "another program has set it";
    pass.applied.prepared.problems = vec![Problem::error(Subject::Target(target), message)];
    let expected = ["api", "web"].map(|name| (name.to_owned(), false, message.to_owned()));
    assert_eq!(pass.served(), expected);
    assert_eq!(pass.ready(), is_ready());
}

/// Or else a real server would get no new connections because it cannot keep those that another one had.
#[test]
fn what_is_for_second_chances_is_no_fault() {
    let ready_with = |target: &Target, bound: Vec<Bound<DirectorBinding>>| {
        let mut pass = Pass::over(bound, vec![served("web", "192.168.220.100")]);
        let subject = Subject::Target(target.clone());
        pass.applied.prepared.problems = vec![Problem::error(subject, "nft does not run")];
        let bindings = pass.bindings();
        let mut statuses = bindings.iter().map(|(_, status, ..)| *status);
        pass.ready().0 == "True" && statuses.all(|status| status == "True")
    };
    let second = Target::Service(ServiceKey::Fwmark {
        mark: (*lvs_model::RESERVED_MARKS.start()).try_into().unwrap(),
        family: lvs_model::Family::V4,
    });
    let sloppy = Target::Sysctl(Sysctl::VsSloppyTcp);
    for target in [Target::Strays, second, sloppy] {
        assert!(ready_with(&target, Vec::new()), "{target}");
    }
    let expiring = Target::Sysctl(Sysctl::VsExpireNodestConn);
    assert!(ready_with(&expiring, Vec::new()));
    let directs = vec![binding("web", "192.168.220.100")];
    assert!(!ready_with(&expiring, directs));
}

/// A real server that is ready gets connections from the other directors, whatever hinders this one.
#[test]
fn a_director_that_is_a_real_server_reports_each_part_in_its_own_binding() {
    let servers = ["192.168.220.11", "192.168.220.12"];
    let parts = |fails: &str, problem: Option<Problem>| {
        let bound = vec![binding_to("web", "192.168.220.100", &servers)];
        let served = vec![served("web", "192.168.220.100")];
        let (of_several, empty) = (lvs_node_of_several(), KernelState::default());
        let mut pass = Pass::on(of_several, (bound, served), empty, fails);
        pass.applied.prepared.problems.extend(problem);
        let (_, programmed, ..) = pass.bindings().remove(0);
        let (_, is_ready, _) = pass.served().remove(0);
        (programmed, is_ready)
    };
    assert_eq!(parts("", None), ("True", true));
    for command in ["ip route add local", "-r 127.0.0.1:0"] {
        assert_eq!(parts(command, None), ("True", false), "{command}");
    }
    // Without the marks it must not direct either.
    for command in ["nft add table", "-A -f"] {
        assert_eq!(parts(command, None), ("False", false), "{command}");
    }
    assert_eq!(parts("ipvsadm -A -t", None), ("False", true));
    let problem = |subject| Some(Problem::error(subject, "something"));
    let name = name("web");
    assert_eq!(
        parts("", problem(Subject::Service(name.clone()))),
        ("False", true)
    );
    assert_eq!(parts("", problem(Subject::Serving(name))), ("True", false));
}

#[test]
fn a_connection_sync_daemon_that_does_not_run_is_a_problem_of_its_group() {
    let problems = |observed: KernelState, fails: &str| {
        let bound = vec![binding("web", "192.168.220.100")];
        let pass = Pass::on(lvs_node_of_several(), (bound, Vec::new()), observed, fails);
        let problems = pass.results().node.unwrap().sync_problems.unwrap();
        let problems = problems.into_iter();
        let texts: Vec<_> = problems
            .map(|(group, text)| format!("{group}: {text}"))
            .collect();
        texts.join("\n")
    };
    assert_eq!(problems(KernelState::default(), ""), "");

    let failed = problems(KernelState::default(), "start-daemon master");
    assert!(
        failed.starts_with("edge: failed: ipvsadm --start-daemon master"),
        "{failed}"
    );
    assert!(failed.ends_with("No such device"), "{failed}");

    let foreign = SyncDaemon {
        interface: "eth1".parse().unwrap(),
        settings: SyncSettings::default(),
    };
    let observed = KernelState {
        sync_daemons: [(SyncRole::Backup, foreign)].into(),
        ..KernelState::default()
    };
    let occupied = "edge: a connection-sync backup runs on eth1 and was not started by lvs-agent; it is left alone: stop it with \
                    `ipvsadm --stop-daemon backup`";
    assert_eq!(problems(observed, ""), occupied);
}

#[test]
fn addresses_that_other_machines_cannot_use_are_left_out_of_the_facts() {
    let Facts { addresses, .. } = facts(&machine_facts(), About::default());
    let [only] = addresses.as_slice() else {
        panic!("{addresses:?}")
    };
    assert_eq!(only.interface, "eth0");
    assert_eq!(only.address, "192.168.220.11/24");
}

#[test]
fn a_pass_that_could_not_be_made_is_a_fault_of_the_machine() {
    let pass = Pass::over(vec![binding("web", "192.168.220.100")], Vec::new());
    let reason = "reading interfaces: no buffer space";
    let status = of_failed(&pass.objects, reason).unwrap();
    let expected = Verdict::new(
        ConditionType::Ready,
        Status::False,
        Reason::KernelUnreadable,
        reason,
    );
    assert_eq!((status.verdict, status.facts), (expected, None));
}

#[test]
fn objects_that_cannot_be_decoded_are_counted_in_the_condition_of_the_machine() {
    let mut pass = Pass::over(vec![binding("web", "192.168.220.100")], Vec::new());
    let rejection = |number: usize| Rejection {
        object: None,
        origin: format!("DirectorBinding shop/{number}"),
        field: String::new(),
        reason: "cannot be decoded".to_owned(),
    };
    pass.objects.unreadable = (0..7).map(rejection).collect();
    let (status, reason, message) = pass.ready();
    assert_eq!((status, reason.as_str()), ("False", "Rejected"));
    let start =
        "7 objects of this machine are rejected: DirectorBinding shop/0: cannot be decoded; ";
    assert!(message.starts_with(start), "{message}");
    assert_eq!(
        pass.bindings(),
        [condition("web", "True", "Programmed", "")]
    );
}

#[test]
fn a_binding_that_waits_for_a_slice_is_pending() {
    let mut object = binding("web", "192.168.220.100").object.as_ref().clone();
    object.spec.slices = vec!["r1".to_owned()];
    let waiting = Bound::directed(Arc::new(object), |_| None);
    let pass = Pass::over(vec![waiting], Vec::new());
    let message = "`spec.slices` must all be there in these revisions: waiting for 1 of 1; the last complete set stays";
    assert_eq!(
        pass.bindings(),
        [condition("web", "False", "Pending", message)]
    );
}

#[test]
fn the_facts_hold_as_many_addresses_as_the_status_may_and_count_the_others() {
    let mut machine = machine_facts();
    let address = |number: u32| lvs_model::InterfaceAddress {
        interface: "eth0".parse().unwrap(),
        network: format!("10.1.{}.{}/16", number / 250, number % 250 + 1)
            .parse()
            .unwrap(),
    };
    machine.addresses = (0..300).map(address).collect();
    let some = facts(&machine, About::default());
    assert_eq!((some.addresses.len(), some.omitted_addresses), (300, 0));
    machine.addresses = (0..1017).map(address).collect();
    let many = facts(&machine, About::default());
    assert_eq!((many.addresses.len(), many.omitted_addresses), (1000, 17));
}

#[test]
fn the_facts_hold_the_mac_addresses_of_the_interfaces_with_addresses_or_vips() {
    let mut machine = machine_facts();
    let vip = AddressKey::host(&"eth7".parse().unwrap(), "192.0.2.7".parse().unwrap());
    machine.standing.addresses.insert(vip);
    // That of a pod has only a link-local address.
    let pod = lvs_model::InterfaceAddress {
        interface: "veth9".parse().unwrap(),
        network: "fe80::9/64".parse().unwrap(),
    };
    machine.addresses.push(pod);
    for (name, last) in [("eth0", 0x0a), ("eth7", 7), ("veth9", 9)] {
        set_mac(&mut machine, name, last);
    }

    let facts = facts(&machine, About::default());

    assert_eq!(
        facts.mac_addresses,
        ["02:00:00:00:00:07", "02:00:00:00:00:0a"]
    );
}

#[test]
fn the_mac_addresses_of_the_interfaces_with_vips_are_never_cut_off() {
    let mut machine = machine_facts();
    for number in 1..=70 {
        let name = format!("vlan{number}");
        machine.addresses.push(lvs_model::InterfaceAddress {
            interface: name.parse().unwrap(),
            network: format!("10.1.{number}.1/24").parse().unwrap(),
        });
        set_mac(&mut machine, &name, number);
    }
    let vip = AddressKey::host(&"vlan69".parse().unwrap(), "192.0.2.7".parse().unwrap());
    machine.standing.addresses.insert(vip);

    let facts = facts(&machine, About::default());

    assert_eq!(facts.mac_addresses.len(), 64);
    assert_eq!(
        facts.mac_addresses[62..],
        ["02:00:00:00:00:3f", "02:00:00:00:00:45"]
    );
}

#[test]
fn the_gateways_of_the_routes_that_services_use_are_never_cut_off() {
    let mut machine = machine_facts();
    machine.gateways = (1..=70).map(|end| [10, 1, 0, end].into()).collect();
    machine.gateways.insert("fe80::1".parse().unwrap());
    let used = [10, 1, 0, 69].into();
    machine.routes[0].gateway = Some(used);

    let facts = facts(&machine, About::default());

    assert_eq!(facts.gateways.len(), 64);
    assert_eq!(facts.gateways[62..], ["10.1.0.63", "10.1.0.69"]);
}

/// Gives an interface a MAC address.
fn set_mac(machine: &mut NodeFacts, name: &str, last: u8) {
    let interface = Interface {
        mac: Some([2, 0, 0, 0, 0, last].into()),
        ..machine.interfaces[&"eth0".parse().unwrap()].clone()
    };
    let name = name.parse().unwrap();
    machine.interfaces.insert(name, interface);
}

#[test]
fn a_vip_in_use_is_reported_with_the_mac_address_of_the_machine_that_answers() {
    let pass = Pass::over(vec![binding("web", "192.168.220.100")], Vec::new());
    let mut holder = pass.held();
    let state = VipState::InUse {
        mac: [2, 0, 0, 0, 0, 9].into(),
        reason: "VIP 192.168.220.100: address in use".to_owned(),
    };
    for key in pass.holding().hold.keys() {
        holder.set(key, state.clone());
    }
    let [result] = pass.results().bindings.try_into().unwrap();

    let in_use = result.vips_in_use(&holder.by_address());

    let expected = VipInUse {
        address: "192.168.220.100".to_owned(),
        mac_address: "02:00:00:00:00:09".to_owned(),
    };
    assert_eq!(in_use, [expected]);
    let verdict = result.verdict(&holder.by_address(), holder.vip_problems());
    assert_eq!(verdict.reason, Reason::VipInUse);
    assert!(result.vips_in_use(&pass.held().by_address()).is_empty());
}

#[test]
fn one_of_several_directors_reports_a_digest_of_the_table_that_it_has() {
    let digest_of = |node: Arc<LvsNode>, fails: &str| {
        let bound = vec![binding("web", "192.168.220.100")];
        let pass = Pass::on(node, (bound, Vec::new()), KernelState::default(), fails);
        let [result] = pass.results().bindings.try_into().unwrap();
        result
            .report(&pass.held().by_address(), &BTreeMap::new())
            .table_digest
    };
    let of_one = digest_of(lvs_node_of_several(), "").unwrap();
    assert_eq!(of_one.len(), 16);
    assert_eq!(digest_of(lvs_node_of_several(), "ipvsadm -a"), None);
    assert_eq!(digest_of(lvs_node(), ""), None);
}

#[test]
fn a_held_vip_with_a_problem_is_programmed_with_a_warning() {
    let pass = Pass::over(vec![binding("web", "192.168.220.100")], Vec::new());
    let [result] = pass.results().bindings.try_into().unwrap();
    let problem = |vip: &str| BTreeMap::from([(vip.parse().unwrap(), "answered by".to_owned())]);
    let message = |vip: &str| {
        let verdict = result
            .report(&pass.held().by_address(), &problem(vip))
            .verdict;
        assert_eq!(verdict.status, Status::True);
        verdict.message
    };
    assert_eq!(message("192.168.220.100"), "answered by");
    assert_eq!(message("192.168.220.101"), "");
}
