//! Conditions: each type and reason, each transition, and what kstatus derives from them.

#![expect(clippy::indexing_slicing, reason = "the helpers of a test may fail it")]

use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Objects, condition_of, message_of, programmed, wait_until};
use lvs_crd::condition::{ConditionType, Reason, Status, Verdict};
use serde_json::{Value, json};

use crate::shop::{group, is_observed, kube_service, service, started};

const WEB: &str = "shop/web";
const BINDING: &str = "shop/web.lvs1";

/// Accepted, ResolvedRefs, Programmed, BackendsHealthy, Ready, and whichever of Stalled and Reconciling is present.
type Summary<'a> = [&'a str; 6];

const READY: Summary = [
    "True Accepted",
    "True ResolvedRefs",
    "True Programmed",
    "True BackendsHealthy",
    "True Ready",
    "",
];

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one sequence, in which each state follows from the one before"
)]
fn each_condition_follows_the_objects_and_the_reports_of_agents() -> Result<()> {
    let operator = started()?;
    let _controller = operator.lead("one")?;
    let lvs1 = operator.machine("lvs1")?;
    let admin = &operator.admin;
    let sees = |wanted: Summary, kstatus: &str| await_summary(admin, wanted, kstatus);
    // Like an agent, it reports again for each newer generation of the binding.
    let director_reports = |verdict: &Verdict, wanted: Summary, kstatus: &str| {
        let what = format!("{wanted:?}");
        wait_until(&what, Duration::from_secs(60), || {
            lvs1.report(BINDING, verdict)?;
            let object = admin.get("VirtualService", WEB)?;
            Ok((is_observed(&object) && summary(&object) == wanted).then_some(()))
        })?;
        sees(wanted, kstatus)
    };

    // A new object has all conditions, which name what is missing.
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
    let mut no_servers = READY;
    no_servers[3] = "False NoRealServer";
    let served = director_reports(&programmed(), no_servers, "Current")?;
    assert_eq!(
        served.pointer("/status/directorsColumn"),
        Some(&json!("1/1"))
    );
    assert_eq!(
        served.pointer("/status/realServersColumn"),
        Some(&json!("0/0"))
    );
    assert_eq!(
        served.pointer("/status/activeDirector"),
        Some(&json!("lvs1"))
    );

    // Real servers are added: the generation stays, and the director has not reported them yet.
    admin.apply(&slice(&["10.0.0.11", "10.0.0.12"]))?;
    let healthy = sees(READY, "Current")?;
    assert_eq!(
        healthy.pointer("/status/realServersColumn"),
        Some(&json!("2/2"))
    );
    for kind in ["Accepted", "Programmed", "Ready"] {
        assert_eq!(moment(&healthy, kind)?, moment(&served, kind)?, "{kind}");
    }
    assert_eq!(moment(&healthy, "Accepted")?, moment(&first, "Accepted")?);

    // A director fails and recovers.
    let broken = director_reports(
        &failed("no such scheduler"),
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
    assert_eq!(
        broken.pointer("/status/directorsColumn"),
        Some(&json!("0/1"))
    );
    let again = director_reports(&programmed(), READY, "Current")?;
    assert_eq!(again.pointer("/status/failures"), None);

    // A new generation is not ready before its director says so.
    admin.apply(&service(WEB, &json!({"scheduler": {"name": "rr"}})))?;
    let edited = admin.await_that("VirtualService", WEB, "seen", is_observed)?;
    assert_eq!(
        summary(&edited)[4..],
        ["False Pending", "Reconciling Pending"]
    );
    director_reports(&programmed(), READY, "Current")?;

    // An invalid edit is refused; what is programmed stays.
    let binding = admin.get("DirectorBinding", BINDING)?;
    let twice = json!([{"address": "10.0.0.13"}, {"address": "10.0.0.13"}]);
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
    let reason = "`spec.backends[1]` must not repeat `spec.backends[0]`";
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
    director_reports(&programmed(), READY, "Current")?;

    // A port that no endpoint has; several directors.
    let ports = json!([{"port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    admin.apply(&service(WEB, &json!({"ports": ports})))?;
    let lacking = admin.await_that("VirtualService", WEB, "a port is missing", |object| {
        condition_of(object, "ResolvedRefs").as_deref() == Some("False PortNotFound")
    })?;
    let reason = "Service 'web' has no port 'dns 53/UDP'; it has 80/TCP";
    assert_eq!(message_of(&lacking, "Ready").as_deref(), Some(reason));
    admin.apply(&service(WEB, &json!({})))?;
    admin.apply(&group(&json!({"names": ["lvs1", "lvs2"]})))?;
    let several = admin.await_that("VirtualService", WEB, "several directors", |object| {
        object.pointer("/status/directors") == Some(&json!(2))
    })?;
    assert_eq!(condition_of(&several, "Stalled"), None);
    // No agent has reported yet that it holds the VIP.
    let group_now = admin.await_that("DirectorGroup", "edge", "without a holder", |object| {
        condition_of(object, "Reconciling").as_deref() == Some("True NoActiveDirector")
    })?;
    let accepted = condition_of(&group_now, "Accepted");
    assert_eq!(accepted.as_deref(), Some("True Accepted"));
    assert_eq!(kstatus(&group_now), "InProgress");

    // Events are warnings if the object is stalled or has failed.
    let events = events(admin, "web")?;
    assert!(events.iter().any(|(_, reason)| reason == "Invalid"));
    for (kind, reason) in events {
        let is_bad = ["Invalid", "ProgrammingFailed"].contains(&reason.as_str());
        assert_eq!(kind == "Warning", is_bad, "{kind} {reason}");
    }
    Ok(())
}

#[test]
fn a_bad_object_changes_nothing_of_a_good_one() -> Result<()> {
    let operator = started()?;
    let _controller = operator.lead("one")?;
    let admin = &operator.admin;
    admin.apply(&group(&json!({"names": ["lvs1"]})))?;
    let servers = json!([{"address": "10.0.0.11"}, {"address": "10.0.0.12"}]);
    admin.apply(&service(WEB, &json!({"backends": servers})))?;
    admin.await_that("DirectorBinding", BINDING, "made", |object| {
        !object.is_null()
    })?;
    operator.machine("lvs1")?.report(BINDING, &programmed())?;
    await_summary(admin, READY, "Current")?;
    let version = |kind, name| -> Result<Value> {
        Ok(admin.get(kind, name)?["metadata"]["resourceVersion"].clone())
    };
    let before = (
        version("VirtualService", WEB)?,
        version("DirectorBinding", BINDING)?,
    );
    let of_machine = version("LvsNode", "lvs1")?;

    let twice = json!([{"address": "10.0.0.13"}, {"address": "10.0.0.13"}]);
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
            "True NoAddressPool",
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
    Verdict::new(
        ConditionType::Programmed,
        Status::False,
        Reason::ProgrammingFailed,
        message,
    )
}

/// Returns the conditions of a VirtualService in the order of [`Summary`].
fn summary(object: &Value) -> [String; 6] {
    let normal = |kind| condition_of(object, kind).unwrap_or_default();
    let abnormal = ["Stalled", "Reconciling"].into_iter().filter_map(|kind| {
        let condition = condition_of(object, kind)?;
        Some(condition.replace("True", kind))
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

/// Waits until the conditions are as wanted for the current generation, and checks what kstatus derives from them.
fn await_summary(admin: &Objects, wanted: Summary, meaning: &str) -> Result<Value> {
    let object = admin.await_that("VirtualService", WEB, &format!("{wanted:?}"), |object| {
        is_observed(object) && summary(object) == wanted
    })?;
    assert_eq!(kstatus(&object), meaning);
    let generation = &object["metadata"]["generation"];
    let conditions = object["status"]["conditions"].as_array();
    for condition in conditions.context("there are no conditions")? {
        assert_eq!(&condition["observedGeneration"], generation, "{condition}");
    }
    Ok(object)
}

/// Returns the state that kstatus, which Flux and Helm use, derives from an object.
fn kstatus(object: &Value) -> &'static str {
    let is_true =
        |kind| condition_of(object, kind).is_some_and(|condition| condition.starts_with("True"));
    if !is_observed(object) {
        return "InProgress";
    }
    match (is_true("Stalled"), is_true("Reconciling"), is_true("Ready")) {
        (true, _, _) => "Failed",
        (false, true, _) | (false, false, false) => "InProgress",
        (false, false, true) => "Current",
    }
}

/// Returns the last transition time of a condition.
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
