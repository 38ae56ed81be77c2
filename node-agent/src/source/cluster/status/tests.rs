//! Tests of the statuses that follow from a pass.

use lvs_crd::{DirectorBinding, convert::node_view};
use lvs_model::{
    Assignment, Interface, KernelState, Ledger, NodeFacts, NodeRoute, Outcomes, Problem,
    RouteOrigin, Service, ServiceConfig, StepFailure, assign, desired, diff,
};
use serde_json::{Value, json};

use super::*;
use lvs_kernel::About;

fn node() -> NodeName {
    "lvs1".parse().unwrap()
}

fn machine_facts() -> NodeFacts {
    let interface = |loopback| Interface {
        index: 1,
        up: true,
        loopback,
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

fn binding(name: &str, vip: &str) -> Bound {
    let object = json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "DirectorBinding",
        "metadata": {"namespace": "shop", "name": format!("{name}-lvs1"), "uid": name, "generation": 3},
        "spec": {"node": "lvs1", "virtualService": name, "generation": 7, "service": {
            "directorGroup": "edge", "addresses": [vip], "ports": [{"port": 80}],
            "backends": {"endpoints": [{"address": "192.168.220.12"}]}}},
    });
    let object: DirectorBinding = serde_json::from_value(object).unwrap();
    Bound::new(Arc::new(object))
}

fn lvs_node(serves: &Value) -> Arc<LvsNode> {
    let object = json!({"apiVersion": "lvs-operator.io/v1alpha1", "kind": "LvsNode",
        "metadata": {"name": "lvs1", "generation": 5}, "spec": {"serves": serves}});
    Arc::new(serde_json::from_value(object).unwrap())
}

fn served(name: &str, vip: &str) -> Value {
    json!({"namespace": "shop", "name": name, "directorGroup": "edge", "addresses": [vip],
        "ports": [{"port": 80}], "endpoints": [{"address": "192.168.220.11"}]})
}

/// A pass over the model's own functions, in which the steps fail whose command holds a text.
fn pass(
    bound: Vec<Bound>,
    serves: &Value,
    observed: KernelState,
    fails: &str,
) -> (Machine, Applied) {
    let lvs_node = lvs_node(serves);
    let seen = node_view(&node(), &bound, Some(&lvs_node));
    let facts = machine_facts();
    let Assignment {
        spec, rejections, ..
    } = assign(&seen.view, &facts.node(node(), &Ledger::default()));
    let wanted = desired(&spec, &facts);
    let difference = diff(&wanted.state, &observed, &Ledger::default());
    let mut outcomes = Outcomes::default();
    for (index, step) in difference.plan.steps.iter().enumerate() {
        if !outcomes.skips(index, step) && !fails.is_empty() && step.to_string().contains(fails) {
            outcomes.fail(index, step, StepFailure::refused("No such device"));
        }
    }
    let prepared = Prepared {
        desired: Arc::new(wanted.state),
        observed,
        spec: spec.into(),
        facts,
        plan: difference.plan,
        problems: [wanted.problems, difference.problems].concat(),
        rejections,
        ..Prepared::default()
    };
    let machine = Machine {
        node: node(),
        bound,
        lvs_node: Some(lvs_node),
        rejections: seen.rejected.into_iter().map(|all| all.rejection).collect(),
    };
    let applied = Applied {
        prepared,
        outcomes,
        ..Applied::default()
    };
    (machine, applied)
}

fn told(machine: &Machine, applied: &Applied) -> Statuses {
    let facts = |applied: &Applied| facts(&applied.prepared.facts, About::default());
    statuses(machine, applied, facts(applied))
}

/// What is told of each binding: service, status, reason, message.
fn of_bindings(statuses: &Statuses) -> Vec<(&str, &str, &str, &str)> {
    statuses
        .bindings
        .iter()
        .map(|(subject, verdict)| {
            assert_eq!((subject.generation, verdict.kind), (Some(3), PROGRAMMED));
            let uid = subject.uid.as_deref().unwrap();
            let Verdict {
                status,
                reason,
                message,
                ..
            } = verdict;
            (uid, status.as_str(), reason.as_str(), message.as_str())
        })
        .collect()
}

fn of_served(statuses: &Statuses) -> Vec<(&str, bool, &str)> {
    let serves = statuses.node.as_ref().unwrap().serves.as_ref().unwrap();
    serves
        .iter()
        .map(|served| (served.name.as_str(), served.ready, served.message.as_str()))
        .collect()
}

fn ready(statuses: &Statuses) -> (&str, &str, &str) {
    let NodeStatus { verdict, .. } = statuses.node.as_ref().unwrap();
    assert_eq!(verdict.kind, READY);
    (
        verdict.status.as_str(),
        verdict.reason.as_str(),
        verdict.message.as_str(),
    )
}

#[test]
fn what_is_done_is_programmed_and_ready() {
    let bound = vec![binding("web", "192.168.220.100")];
    let serves = json!([served("api", "192.168.220.101")]);
    let (machine, applied) = pass(bound, &serves, KernelState::default(), "");
    let statuses = told(&machine, &applied);
    assert_eq!(of_bindings(&statuses), [("web", "True", "Programmed", "")]);
    assert_eq!(of_served(&statuses), [("api", true, "")]);
    assert_eq!(ready(&statuses), ("True", "Ready", ""));
}

#[test]
fn a_failed_step_is_told_to_the_service_that_needs_it() {
    let bound = vec![
        binding("web", "192.168.220.100"),
        binding("api", "192.168.220.101"),
    ];
    let fails = "ipvsadm -A -t 192.168.220.100";
    let (machine, applied) = pass(bound, &json!([]), KernelState::default(), fails);
    let statuses = told(&machine, &applied);
    let [web, api] = of_bindings(&statuses)[..] else {
        panic!("{statuses:?}")
    };
    assert_eq!(api, ("api", "True", "Programmed", ""));
    assert_eq!((web.1, web.2), ("False", "ProgrammingFailed"));
    assert!(
        web.3.starts_with(
            "failed: ipvsadm -A -t 192.168.220.100:80 -s wlc: No such device; skipped: "
        ),
        "{}",
        web.3
    );
    assert_eq!(ready(&statuses), ("True", "Ready", ""));
}

#[test]
fn a_failed_step_of_the_real_servers_side_is_told_in_serves() {
    let serves = json!([
        served("api", "192.168.220.101"),
        served("web", "192.168.220.100")
    ]);
    let fails = "192.168.220.100/32 dev lo";
    let (machine, applied) = pass(Vec::new(), &serves, KernelState::default(), fails);
    let statuses = told(&machine, &applied);
    let [api, web] = of_served(&statuses)[..] else {
        panic!("{statuses:?}")
    };
    assert_eq!(api, ("api", true, ""));
    assert_eq!((web.0, web.1), ("web", false));
    assert!(web.2.contains("dev lo"), "{}", web.2);
    assert_eq!(ready(&statuses), ("True", "Ready", ""));
}

#[test]
fn somebody_elses_service_is_a_conflict_also_for_a_pass_that_did_not_look() {
    let key = ServiceKey::Address {
        address: "192.168.220.100".parse().unwrap(),
        protocol: lvs_model::Protocol::Tcp,
        port: 80,
    };
    let foreign = Service {
        config: ServiceConfig::default(),
        ..Service::default()
    };
    let observed = KernelState {
        services: [(key, foreign)].into(),
        ..KernelState::default()
    };
    let bound = vec![binding("web", "192.168.220.100")];
    let (machine, mut applied) = pass(bound, &json!([]), observed, "");
    let expected = [(
        "web",
        "False",
        "Conflict",
        "IPVS service TCP 192.168.220.100:80 exists and was not made by lvs-agent; it is left alone",
    )];
    assert_eq!(of_bindings(&told(&machine, &applied)), expected);

    applied.prepared.observed.services.clear();
    applied.prepared.problems.clear();

    assert_eq!(of_bindings(&told(&machine, &applied)), expected);
}

#[test]
fn a_kernel_without_ipvs_is_the_machines_fault_and_every_bindings() {
    let bound = vec![binding("web", "192.168.220.100")];
    let (machine, mut applied) = pass(bound, &json!([]), KernelState::default(), "");
    Arc::make_mut(&mut applied.prepared.spec).directs.clear();
    applied.prepared.problems = vec![Problem::error(None, "this kernel has no IPVS")];
    let statuses = told(&machine, &applied);
    let told = ("False", "ProgrammingFailed", "this kernel has no IPVS");
    assert_eq!(of_bindings(&statuses), [("web", told.0, told.1, told.2)]);
    assert_eq!(ready(&statuses), told);
}

#[test]
fn a_rejection_is_told_to_its_object_though_the_last_good_version_works() {
    let mut faulty = binding("web", "192.168.220.100");
    let (_, applied) = pass(vec![faulty.clone()], &json!([]), KernelState::default(), "");
    faulty.service = Err(vec![Rejection {
        object: "VirtualService shop/web".to_owned(),
        field: "spec.ports[0].port".to_owned(),
        reason: "must be between 1 and 65535, not '70000'".to_owned(),
    }]);
    let machine = Machine {
        rejections: faulty.service.clone().unwrap_err(),
        bound: vec![faulty],
        ..Machine::new(node())
    };
    let statuses = told(&machine, &applied);
    assert_eq!(
        of_bindings(&statuses),
        [(
            "web",
            "False",
            "Rejected",
            "VirtualService shop/web: `spec.ports[0].port` must be between 1 and 65535, not '70000'"
        )]
    );
    assert_eq!(statuses.node, None);
}

#[test]
fn a_step_that_is_held_back_is_told_to_who_needs_it() {
    let serves = json!([served("api", "192.168.220.101")]);
    let (machine, mut applied) = pass(Vec::new(), &serves, KernelState::default(), "");
    let Prepared { plan, held, .. } = &mut applied.prepared;
    let step = plan.steps.remove(0);
    let command = step.to_string();
    held.push((step, "another program has set it".to_owned()));
    let statuses = told(&machine, &applied);
    let message = format!("not done: {command}: another program has set it");
    assert_eq!(of_served(&statuses), [("api", false, message.as_str())]);
}

#[test]
fn a_problem_is_told_to_its_service_and_a_warning_leaves_it_programmed() {
    let bound = vec![
        binding("web", "192.168.220.100"),
        binding("api", "192.168.220.101"),
    ];
    let (machine, mut applied) = pass(bound, &json!([]), KernelState::default(), "");
    let name = |name| ObjectName::new("shop", name).unwrap();
    applied.prepared.problems = vec![
        Problem::error(
            Some(&name("web")),
            "real server 192.0.2.9 is behind a router",
        ),
        Problem::warning(Some(&name("api")), "no route to real server 192.0.2.8"),
    ];
    assert_eq!(
        of_bindings(&told(&machine, &applied)),
        [
            (
                "web",
                "False",
                "Incomplete",
                "real server 192.0.2.9 is behind a router"
            ),
            (
                "api",
                "True",
                "Programmed",
                "no route to real server 192.0.2.8"
            ),
        ]
    );
}

#[test]
fn addresses_that_others_cannot_use_are_not_told() {
    let Facts { addresses, .. } = facts(&machine_facts(), About::default());
    let [only] = addresses.as_slice() else {
        panic!("{addresses:?}")
    };
    assert_eq!(only.interface, "eth0");
    assert_eq!(only.address, "192.168.220.11/24");
}

#[test]
fn a_pass_that_could_not_be_made_is_told_of_the_machine() {
    let bound = vec![binding("web", "192.168.220.100")];
    let (machine, _) = pass(bound, &json!([]), KernelState::default(), "");
    let reason = "reading interfaces: no buffer space";
    let told = Statuses {
        node: failed(&machine, reason),
        ..Statuses::default()
    };
    assert_eq!(ready(&told), ("False", "KernelUnreadable", reason));
}
