//! Events: their texts and types, and that no transition has two.

use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Objects, Operator, condition_of, programmed, wait_until};
use lvs_crd::condition::{ConditionType, Reason, Status, Verdict};
use serde_json::{Value, json};

use crate::shop::{kube_service, service};

const WEB: &str = "shop/web";
const BINDING: &str = "shop/web.lvs1";
const TIMEOUT: Duration = Duration::from_secs(20);

#[test]
fn each_transition_has_one_event_and_only_failures_are_warnings() -> Result<()> {
    let operator = Operator::install(&["lvs1"])?;
    operator.admit("lvs1")?;
    operator.namespace("shop")?;
    let lvs1 = operator.machine("lvs1")?;
    let mut controller = operator.lead("one")?;
    let admin = &operator.admin;
    admin.apply(&kube_service())?;
    admin.apply(&slice(1))?;

    // A new object that waits for another has no event.
    admin.apply(&service("shop/web", &json!({})))?;
    admin.await_that("VirtualService", WEB, "waiting", |object| {
        condition_of(object, "Ready").as_deref() == Some("False DirectorGroupNotFound")
    })?;
    admin.apply(&group(&["lvs1"]))?;
    let mut of_web = vec!["Normal Pending: 0 of 1 directors have it"];
    await_events(admin, "web", &of_web)?;
    lvs1.report(BINDING, &programmed())?;
    of_web.push("Normal Ready");
    await_events(admin, "web", &of_web)?;
    let mut of_group = vec!["Normal Ready"];
    await_events(admin, "edge", &of_group)?;

    let failure = failed("no memory");
    lvs1.report(BINDING, &failure)?;
    of_web.push("Warning ProgrammingFailed: lvs1: no memory");
    await_events(admin, "web", &of_web)?;

    // A change of the status without a transition has no event.
    await_real_servers(admin, 2)?;
    for count in [3, 4] {
        controller.kill()?;
        admin.apply(&slice(count))?;
        controller = operator.lead("one")?;
        await_real_servers(admin, count)?;
    }
    lvs1.report(BINDING, &failure)?;
    await_event_of_another(admin, "first")?;
    await_events(admin, "web", &of_web)?;
    await_events(admin, "edge", &of_group)?;

    // A state that users or administrators have to repair is a warning, and the recovery is normal.
    let twice = json!([{"address": "10.0.0.13"}, {"address": "10.0.0.13"}]);
    admin.apply(&service("shop/web", &json!({"backends": twice})))?;
    of_web.push("Warning Invalid: `spec.backends[1]` must not repeat `spec.backends[0]`");
    await_events(admin, "web", &of_web)?;
    admin.apply(&service("shop/web", &json!({})))?;
    of_web.push("Normal Pending: 0 of 1 directors have it");
    await_events(admin, "web", &of_web)?;
    admin.apply(&group(&["lvs1", "lvs2"]))?;
    of_group.push(
        "Normal NoActiveDirector: no director of DirectorGroup 'edge' reports that it holds its VIPs",
    );
    await_events(admin, "web", &of_web)?;
    await_events(admin, "edge", &of_group)?;

    controller.kill()?;
    let _last = operator.lead("one")?;
    await_event_of_another(admin, "second")?;
    await_events(admin, "web", &of_web)?;
    await_events(admin, "edge", &of_group)
}

fn failed(message: &str) -> Verdict {
    let kind = ConditionType::Programmed;
    Verdict::new(kind, Status::False, Reason::ProgrammingFailed, message)
}

/// Waits until the status has this number of real servers.
fn await_real_servers(admin: &Objects, count: u8) -> Result<()> {
    admin.apply(&slice(count))?;
    let wanted = json!(format!("{count}/{count}"));
    admin
        .await_that("VirtualService", WEB, "its real servers", |object| {
            object.pointer("/status/realServersColumn") == Some(&wanted)
        })
        .map(drop)
}

/// Waits for an event about another object, after which all earlier events have been published.
fn await_event_of_another(admin: &Objects, name: &str) -> Result<()> {
    let twice = json!([{"address": "10.0.0.14"}, {"address": "10.0.0.14"}]);
    let spec = json!({"addresses": ["10.0.0.101"], "backends": twice});
    admin.apply(&service(&format!("shop/{name}"), &spec))?;
    wait_until("the event of another", TIMEOUT, || {
        Ok((!events(admin, name)?.is_empty()).then_some(()))
    })
}

fn await_events(admin: &Objects, name: &str, wanted: &[&str]) -> Result<()> {
    let mut found = Vec::new();
    let waited = wait_until(&format!("the events of {name}"), TIMEOUT, || {
        found = events(admin, name)?;
        Ok((found == wanted).then_some(()))
    });
    waited.with_context(|| format!("{name} has {found:#?} and not {wanted:#?}"))
}

/// Returns the events of an object in the order of time: type, reason, note, and the count if it is not 1.
fn events(admin: &Objects, name: &str) -> Result<Vec<String>> {
    let text = |event: &Value, path: &str| -> String {
        let found = event.pointer(path).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    let mut events = admin.list("Event", "")?;
    // Kubernetes publishes events of its own objects.
    let is_ours =
        |event: &Value| text(event, "/regarding/apiVersion").starts_with("lvs-operator.io/");
    events.retain(|event| is_ours(event) && text(event, "/regarding/name") == name);
    events.sort_by_key(|event| text(event, "/eventTime"));
    let line = |event: &Value| {
        let mut line = format!("{} {}", text(event, "/type"), text(event, "/reason"));
        let note = text(event, "/note");
        if !note.is_empty() {
            line.push_str(&format!(": {note}"));
        }
        if let Some(count) = event.pointer("/series/count") {
            line.push_str(&format!(" ({count} times)"));
        }
        line
    };
    Ok(events.iter().map(line).collect())
}

fn group(names: &[&str]) -> Value {
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "DirectorGroup",
        "metadata": {"name": "edge"},
        "spec": {"nodes": {"names": names}, "realServers": {"cidrs": ["0.0.0.0/0", "::/0"]}},
    })
}

fn slice(count: u8) -> Value {
    let endpoints = (1..=count).map(|number| json!({"addresses": [format!("10.0.0.2{number}")]}));
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": "shop", "name": "web-1",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "ports": [{"port": 80, "protocol": "TCP"}],
        "endpoints": endpoints.collect::<Vec<_>>(),
    })
}
