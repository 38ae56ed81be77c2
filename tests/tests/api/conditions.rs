//! What is told of an object: each condition, each change of one, and what tools make of it.

#![expect(clippy::indexing_slicing, reason = "the helpers of a test may fail it")]

use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Objects, Operator, condition_of, message_of, programmed, wait_until};
use lvs_crd::{
    PROGRAMMED,
    condition::{Status, Verdict},
};
use serde_json::{Value, json};

use crate::shop::{kube_service, service};

const WEB: &str = "shop/web";
const BINDING: &str = "shop/web.lvs1";

/// Accepted, ResolvedRefs, Programmed, BackendsHealthy, Ready, and the one of Stalled and Reconciling that is there.
type Told<'a> = [&'a str; 6];

const READY: Told = [
    "True Accepted",
    "True ResolvedRefs",
    "True Programmed",
    "True BackendsHealthy",
    "True Ready",
    "",
];

#[test]
fn each_condition_follows_what_is_there_and_what_the_agents_say() -> Result<()> {
    let operator = started()?;
    let _controller = operator.lead("one")?;
    let lvs1 = operator.machine("lvs1")?;
    let admin = &operator.admin;
    let sees = |told: Told, kstatus: &str| await_told(admin, told, kstatus);

    // At first sight all are there, and say what is waited for.
    admin.apply(&service(WEB, &json!({})))?;
    let first = sees(
        [
            "True Accepted",
            "False DirectorGroupNotFound",
            "False Pending",
            "False NoRealServer",
            "False DirectorGroupNotFound",
            "Reconciling DirectorGroupNotFound",
        ],
        "InProgress",
    )?;
    let reason = "there is no DirectorGroup 'edge'";
    assert_eq!(message_of(&first, "ResolvedRefs").as_deref(), Some(reason));
    admin.apply(&group(
        &json!({"selector": {"matchLabels": {"edge": "yes"}}}),
    ))?;
    sees(
        [
            "True Accepted",
            "False NoDirector",
            "False Pending",
            "False NoRealServer",
            "False NoDirector",
            "Reconciling NoDirector",
        ],
        "InProgress",
    )?;
    let waiting = admin.await_that("DirectorGroup", "edge", "without a node", |object| {
        condition_of(object, "Ready").as_deref() == Some("False NoDirector")
    })?;
    assert_eq!(kstatus(&waiting), "InProgress");
    admin.apply(&group(&json!({"names": ["lvs1"]})))?;
    sees(
        [
            "True Accepted",
            "False ServiceNotFound",
            "False Pending",
            "False NoRealServer",
            "False ServiceNotFound",
            "Reconciling ServiceNotFound",
        ],
        "InProgress",
    )?;
    let group_now = admin.await_that("DirectorGroup", "edge", "with its node", |object| {
        condition_of(object, "Ready").as_deref() == Some("True Ready")
    })?;
    assert_eq!(kstatus(&group_now), "Current");
    assert_eq!(group_now.pointer("/status/directors"), Some(&json!("lvs1")));

    // A Service without endpoints is served: connections are refused.
    admin.apply(&kube_service())?;
    sees(
        [
            "True Accepted",
            "True ResolvedRefs",
            "False Pending",
            "False NoRealServer",
            "False Pending",
            "Reconciling Pending",
        ],
        "InProgress",
    )?;
    lvs1.report(BINDING, &programmed())?;
    let mut no_servers = READY;
    no_servers[3] = "False NoRealServer";
    let served = sees(no_servers, "Current")?;
    assert_eq!(served.pointer("/status/directors"), Some(&json!("1/1")));
    assert_eq!(served.pointer("/status/realServers"), Some(&json!("0/0")));
    assert_eq!(
        served.pointer("/status/activeDirector"),
        Some(&json!("lvs1"))
    );

    // Real servers come: no new generation, and the director has not said anything of them.
    admin.apply(&slice(&["10.0.0.11", "10.0.0.12"]))?;
    let healthy = sees(READY, "Current")?;
    assert_eq!(healthy.pointer("/status/realServers"), Some(&json!("2/2")));
    for kind in ["Accepted", "Programmed", "Ready"] {
        assert_eq!(moment(&healthy, kind)?, moment(&served, kind)?, "{kind}");
    }
    assert_eq!(moment(&healthy, "Accepted")?, moment(&first, "Accepted")?);

    // A director fails and recovers.
    lvs1.report(BINDING, &failed("no such scheduler"))?;
    let broken = sees(
        [
            "True Accepted",
            "True ResolvedRefs",
            "False ProgrammingFailed",
            "True BackendsHealthy",
            "False ProgrammingFailed",
            "Reconciling ProgrammingFailed",
        ],
        "InProgress",
    )?;
    let message = "lvs1: no such scheduler";
    assert_eq!(message_of(&broken, "Ready").as_deref(), Some(message));
    let failures = json!([{"node": "lvs1", "message": "no such scheduler"}]);
    assert_eq!(broken.pointer("/status/failures"), Some(&failures));
    assert_eq!(broken.pointer("/status/directors"), Some(&json!("0/1")));
    lvs1.report(BINDING, &programmed())?;
    let again = sees(READY, "Current")?;
    assert_eq!(again.pointer("/status/failures"), None);

    // A new generation is not ready before its director says so.
    admin.apply(&service(WEB, &json!({"scheduler": {"name": "rr"}})))?;
    let edited = admin.await_that("VirtualService", WEB, "seen", is_observed)?;
    assert_eq!(told(&edited)[4..], ["False Pending", "Reconciling Pending"]);
    lvs1.report(BINDING, &programmed())?;
    sees(READY, "Current")?;

    // An edit that cannot be served is refused; what was programmed stays so.
    let binding = admin.get("DirectorBinding", BINDING)?;
    let twice = json!({"endpoints": [{"address": "10.0.0.13"}, {"address": "10.0.0.13"}]});
    admin.apply(&service(WEB, &json!({"backends": twice})))?;
    let refused = sees(
        [
            "False Invalid",
            "True ResolvedRefs",
            "False Invalid",
            "True BackendsHealthy",
            "False Invalid",
            "Stalled Invalid",
        ],
        "Failed",
    )?;
    let reason = "`spec.backends.endpoints[1]` must not repeat `spec.backends.endpoints[0]`";
    assert_eq!(message_of(&refused, "Stalled").as_deref(), Some(reason));
    let reason = "the directors keep generation 2";
    assert_eq!(message_of(&refused, "Programmed").as_deref(), Some(reason));
    assert_eq!(
        admin.get("DirectorBinding", BINDING)?["spec"],
        binding["spec"]
    );
    admin.apply(&service(WEB, &json!({})))?;
    admin.await_that("VirtualService", WEB, "waiting again", |object| {
        condition_of(object, "Reconciling").is_some() && condition_of(object, "Stalled").is_none()
    })?;
    lvs1.report(BINDING, &programmed())?;
    sees(READY, "Current")?;

    // A port that no endpoint has; several directors.
    let ports = json!([{"port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    admin.apply(&service(WEB, &json!({"ports": ports})))?;
    let lacking = admin.await_that("VirtualService", WEB, "a port is missing", |object| {
        condition_of(object, "ResolvedRefs").as_deref() == Some("False PortNotFound")
    })?;
    let reason = "Service 'web' has no endpoints, or not all of them, for port 'dns'";
    assert_eq!(message_of(&lacking, "Ready").as_deref(), Some(reason));
    admin.apply(&service(WEB, &json!({})))?;
    admin.apply(&group(&json!({"names": ["lvs1", "lvs2"]})))?;
    let several = admin.await_that("VirtualService", WEB, "stalled", |object| {
        condition_of(object, "Stalled").as_deref() == Some("True SeveralDirectors")
    })?;
    assert_eq!(kstatus(&several), "Failed");
    let group_now = admin.await_that("DirectorGroup", "edge", "stalled", |object| {
        condition_of(object, "Stalled").as_deref() == Some("True SeveralDirectors")
    })?;
    let accepted = condition_of(&group_now, "Accepted");
    assert_eq!(accepted.as_deref(), Some("False SeveralDirectors"));
    assert_eq!(kstatus(&group_now), "Failed");

    // Warnings are for what is stalled or has failed.
    let events = wait_until("the events", Duration::from_secs(20), || {
        let events = events(admin, "web")?;
        let is_last = |event: &(String, String)| event.1 == "SeveralDirectors";
        Ok(events.iter().any(is_last).then_some(events))
    })?;
    for (kind, reason) in events {
        let is_bad =
            ["Invalid", "ProgrammingFailed", "SeveralDirectors"].contains(&reason.as_str());
        assert_eq!(kind == "Warning", is_bad, "{kind} {reason}");
    }
    Ok(())
}

#[test]
fn a_bad_neighbour_changes_nothing_of_a_good_one() -> Result<()> {
    let operator = started()?;
    let _controller = operator.lead("one")?;
    let admin = &operator.admin;
    admin.apply(&group(&json!({"names": ["lvs1"]})))?;
    let servers = json!({"endpoints": [{"address": "10.0.0.11"}, {"address": "10.0.0.12"}]});
    admin.apply(&service(WEB, &json!({"backends": servers})))?;
    admin.await_that("DirectorBinding", BINDING, "made", |object| {
        !object.is_null()
    })?;
    operator.machine("lvs1")?.report(BINDING, &programmed())?;
    await_told(admin, READY, "Current")?;
    let version = |kind, name| -> Result<Value> {
        Ok(admin.get(kind, name)?["metadata"]["resourceVersion"].clone())
    };
    let before = (
        version("VirtualService", WEB)?,
        version("DirectorBinding", BINDING)?,
    );
    let of_machine = version("LvsNode", "lvs1")?;

    let twice = json!({"endpoints": [{"address": "10.0.0.13"}, {"address": "10.0.0.13"}]});
    let bad = [
        ("shop/x-conflict", json!({}), "True Conflict"),
        (
            "shop/x-invalid",
            json!({"addresses": ["10.0.0.101"], "backends": twice}),
            "True Invalid",
        ),
        (
            "shop/x-empty",
            json!({"addresses": []}),
            "True NoFreeAddress",
        ),
        (
            "shop/x-server",
            json!({"addresses": ["10.0.0.11"]}),
            "True Conflict",
        ),
    ];
    for (name, changes, reason) in &bad {
        admin.apply(&service(name, changes))?;
        admin.await_that("VirtualService", name, reason, |object| {
            condition_of(object, "Stalled").as_deref() == Some(*reason)
        })?;
    }
    let after = (
        version("VirtualService", WEB)?,
        version("DirectorBinding", BINDING)?,
    );
    assert_eq!(after, before);
    assert_eq!(version("LvsNode", "lvs1")?, of_machine);
    assert_eq!(admin.list("DirectorBinding", "")?.len(), 1);
    Ok(())
}

#[test]
fn real_servers_and_nodes_are_told_what_they_serve_and_what_they_say_counts() -> Result<()> {
    let operator = started()?;
    let controller = operator.lead("one")?;
    let admin = &operator.admin;
    // A label holds 63 characters.
    let node = format!("n1.{}.example", ["long"; 20].join("."));
    for name in [node.as_str(), "rs2"] {
        admin.apply(&json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"edge": if name == node { "yes" } else { "no" }}},
        }))?;
    }
    admin.apply(&group(
        &json!({"selector": {"matchLabels": {"edge": "yes"}}}),
    ))?;
    let all = json!({"endpoints": [{"address": "10.0.0.11"}, {"address": "10.0.0.12"}, {"address": "10.0.0.13"}]});
    admin.apply(&service(WEB, &json!({"backends": all})))?;

    let made = admin.await_that("LvsNode", &node, "a director", |object| {
        object.pointer("/spec/groups/0/name") == Some(&json!("edge"))
    })?;
    let owner = made.pointer("/metadata/ownerReferences/0");
    let uid = admin.get("Node", &node)?["metadata"]["uid"].clone();
    assert_eq!(owner.map(|owner| &owner["uid"]), Some(&uid));
    let binding = format!("{WEB}.{node}");
    admin.await_that("DirectorBinding", &binding, "made", |object| {
        !object.is_null()
    })?;
    let director = operator.agent(&node)?;
    assert_eq!(director.report_all()?, 1);
    let weights = |wanted: &'static [i64]| {
        admin.await_that(
            "DirectorBinding",
            &binding,
            &format!("{wanted:?}"),
            move |object| weights_of(object) == wanted,
        )
    };
    weights(&[1, 1, 1])?;

    // Two of the real servers turn out to have agents: they keep their weight until those say that they cannot answer.
    let (rs1, rs2) = (operator.machine("rs1")?, operator.agent("rs2")?);
    rs1.describe(&["10.0.0.11/24"], &[])?;
    rs2.describe(&["10.0.0.12/24"], &[])?;
    let serves = |machine: &str| {
        admin.await_that("LvsNode", machine, "serves it", |object| {
            object.pointer("/spec/serves/0/name") == Some(&json!("web"))
        })
    };
    let served = serves("rs1")?;
    assert_eq!(
        served.pointer("/spec/identity"),
        Some(&json!("lvs:machine:rs1"))
    );
    assert_eq!(
        served.pointer("/spec/serves/0/endpoints/0/address"),
        Some(&json!("10.0.0.11"))
    );
    serves("rs2")?;
    let servers = |wanted: &'static str| {
        admin.await_that("VirtualService", WEB, wanted, move |object| {
            object.pointer("/status/realServers") == Some(&json!(wanted))
        })
    };
    weights(&[1, 1, 1])?;
    servers("3/3")?;
    rs1.describe(&["10.0.0.11/24"], &[])?;
    rs2.describe(&["10.0.0.12/24"], &[("web", "arp_ignore is 0")])?;
    weights(&[1, 0, 1])?;
    servers("2/3")?;
    let failures = json!([{"node": "rs2", "message": "arp_ignore is 0"}]);
    admin.await_that("VirtualService", WEB, "a complaint", |object| {
        object.pointer("/status/failures") == Some(&failures)
    })?;
    rs2.describe(&["10.0.0.12/24"], &[])?;
    weights(&[1, 1, 1])?;
    servers("3/3")?;

    // Who has nothing left to serve is told so once its director has let go of it. Who has to serve afterwards gets weight
    // when its agent says that it can answer.
    let without_rs2 = json!({"endpoints": [{"address": "10.0.0.11"}, {"address": "10.0.0.13"}]});
    for _ in 0..2 {
        admin.apply(&service(WEB, &json!({"backends": without_rs2})))?;
        weights(&[1, 1])?;
        serves("rs2")?;
        assert_eq!(director.report_all()?, 1);
        admin.await_that("LvsNode", "rs2", "serves nothing", |object| {
            object.pointer("/spec/serves") == Some(&json!([]))
        })?;
        rs2.describe(&["10.0.0.12/24"], &[])?;
        admin.apply(&service(WEB, &json!({"backends": all})))?;
        serves("rs2")?;
        weights(&[1, 0, 1])?;
        servers("2/3")?;
        rs2.describe(&["10.0.0.12/24"], &[])?;
        weights(&[1, 1, 1])?;
        director.report_all()?;
    }

    // A node that goes takes its LvsNode with it, and what it was said to be.
    admin.delete("Node", "rs2")?;
    admin.await_that("LvsNode", "rs2", "gone", Value::is_null)?;
    admin.delete("Node", &node)?;
    admin.await_that("LvsNode", &node, "gone", Value::is_null)?;
    admin.await_that("DirectorBinding", &binding, "gone", Value::is_null)?;
    // One that an administrator deletes is not made again.
    admin.delete("LvsNode", "rs1")?;
    admin.apply(&service(
        "shop/other",
        &json!({"addresses": ["10.0.0.101"]}),
    ))?;
    admin.await_that("VirtualService", "shop/other", "seen", is_observed)?;
    assert_eq!(admin.find("LvsNode", "rs1")?, None);
    let log = controller.log()?;
    assert!(!log.contains("not written; another try follows"), "{log}");
    Ok(())
}

#[test]
fn a_service_that_is_deleted_while_it_is_bound_leaves_nothing_and_one_made_anew_is_bound_anew()
-> Result<()> {
    let operator = started()?;
    let mut controller = operator.lead("one")?;
    let admin = &operator.admin;
    admin.apply(&group(&json!({"names": ["lvs1"]})))?;
    for number in 0..20 {
        let name = format!("shop/brief-{number}");
        let address = format!("10.0.1.{number}");
        admin.apply(&service(&name, &json!({"addresses": [address]})))?;
        // Some live long enough to be bound, others do not.
        if number % 3 == 0 {
            admin.await_that("VirtualService", &name, "seen", is_observed)?;
        }
        admin.delete("VirtualService", &name)?;
    }
    let servers = json!({"endpoints": [{"address": "10.0.0.11"}]});
    admin.apply(&service(WEB, &json!({"backends": servers})))?;
    admin.await_that("DirectorBinding", BINDING, "made", |object| {
        !object.is_null()
    })?;
    wait_until("the bindings to be gone", Duration::from_secs(20), || {
        Ok((admin.list("DirectorBinding", "")?.len() == 1).then_some(()))
    })?;

    // Nobody sees that it was gone for a moment.
    controller.kill()?;
    admin.delete("VirtualService", WEB)?;
    let anew = admin.apply(&service(WEB, &json!({"backends": servers})))?;
    let _second = operator.lead("two")?;
    admin.await_that("DirectorBinding", BINDING, "the new one's", |object| {
        let owner = object.pointer("/metadata/ownerReferences/0/uid");
        owner == anew.pointer("/metadata/uid")
    })?;
    Ok(())
}

fn started() -> Result<Operator> {
    let operator = Operator::install(&["lvs1", "rs1"])?;
    operator.admit("lvs1")?;
    operator.admit("rs1")?;
    operator.namespace("shop")?;
    Ok(operator)
}

fn group(nodes: &Value) -> Value {
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1",
        "kind": "DirectorGroup",
        "metadata": {"name": "edge"},
        "spec": {"nodes": nodes},
    })
}

fn slice(addresses: &[&str]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "shop", "name": "web-1",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "ports": [{"port": 80, "protocol": "TCP"}],
        "endpoints": addresses.iter().map(|address| json!({"addresses": [address]})).collect::<Vec<_>>(),
    })
}

fn failed(message: &str) -> Verdict {
    Verdict::new(PROGRAMMED, Status::False, "ProgrammingFailed", message)
}

fn is_observed(object: &Value) -> bool {
    let observed = object.pointer("/status/observedGeneration");
    observed.is_some() && observed == object.pointer("/metadata/generation")
}

/// What is told of a VirtualService, in the order of [`Told`].
fn told(object: &Value) -> [String; 6] {
    let normal = |kind| condition_of(object, kind).unwrap_or_default();
    let abnormal = ["Stalled", "Reconciling"].into_iter().filter_map(|kind| {
        let told = condition_of(object, kind)?;
        Some(told.replace("True", kind))
    });
    [
        normal("Accepted"),
        normal("ResolvedRefs"),
        normal("Programmed"),
        normal("BackendsHealthy"),
        normal("Ready"),
        abnormal.collect::<Vec<_>>().join(" and "),
    ]
}

/// Waits until that is told of the current generation, by each condition, and until tools take it for what it is.
fn await_told(admin: &Objects, wanted: Told, meaning: &str) -> Result<Value> {
    let object = admin.await_that("VirtualService", WEB, &format!("{wanted:?}"), |object| {
        is_observed(object) && told(object) == wanted
    })?;
    assert_eq!(kstatus(&object), meaning);
    let generation = &object["metadata"]["generation"];
    let conditions = object["status"]["conditions"].as_array();
    for condition in conditions.context("there are no conditions")? {
        assert_eq!(&condition["observedGeneration"], generation, "{condition}");
    }
    Ok(object)
}

/// What kstatus, by which Flux, Helm and `kubectl wait` go, takes an object for.
fn kstatus(object: &Value) -> &'static str {
    let is_true = |kind| condition_of(object, kind).is_some_and(|told| told.starts_with("True"));
    if !is_observed(object) {
        return "InProgress";
    }
    match (is_true("Stalled"), is_true("Reconciling"), is_true("Ready")) {
        (true, _, _) => "Failed",
        (false, true, _) | (false, false, false) => "InProgress",
        (false, false, true) => "Current",
    }
}

/// When a condition changed last.
fn moment(object: &Value, kind: &str) -> Result<Value> {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions
        .into_iter()
        .flatten()
        .find(|found| found["type"] == kind);
    Ok(found.context("there is no such condition")?["lastTransitionTime"].clone())
}

/// Type and reason of each event of an object.
fn events(admin: &Objects, name: &str) -> Result<Vec<(String, String)>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = admin.list("Event", "")?.into_iter();
    Ok(events
        .filter(|event| event["regarding"]["kind"] == "VirtualService")
        .filter(|event| event["regarding"]["name"] == name)
        .map(|event| (text(&event["type"]), text(&event["reason"])))
        .collect())
}

fn weights_of(binding: &Value) -> Vec<i64> {
    let endpoints = binding.pointer("/spec/service/backends/endpoints");
    let endpoints = endpoints.and_then(Value::as_array).into_iter().flatten();
    endpoints
        .filter_map(|endpoint| endpoint["weight"].as_i64())
        .collect()
}
