//! Tests of when statuses are written.

use axum::{Router, http::StatusCode};
use futures::{FutureExt, pin_mut};
use kube::{
    Config,
    runtime::{reflector::store, watcher::Event},
};
use lvs_crd::VipInUse;
use lvs_crd::{
    Facts,
    condition::{ConditionType, Reason, Status},
};
use lvs_model::{AddressConfig, AddressKey, Holding, Owner};
use tokio::{net::TcpListener, sync::mpsc};

use super::*;
use crate::{holder::VipState, status::results::BindingResult};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn version(generation: i64) -> ObjectVersion {
    ObjectVersion {
        namespace: Some("shop".to_owned()),
        name: "web-lvs1".to_owned(),
        uid: None,
        generation: Some(generation),
    }
}

fn programmed(status: Status, message: &str) -> Verdict {
    Verdict::new(
        ConditionType::Programmed,
        status,
        Reason::Programmed,
        message,
    )
}

fn shown(value: Value) -> DirectorBindingStatus {
    serde_json::from_value(value).unwrap()
}

/// A report without anything but a condition.
fn report(verdict: &Verdict) -> BindingReport {
    BindingReport {
        verdict: verdict.clone(),
        vips_in_use: Vec::new(),
        table_digest: None,
    }
}

#[test]
fn a_status_is_written_once() {
    let verdict = programmed(Status::True, "");
    let first = binding_status(None, &version(3), report(&verdict), at(10)).unwrap();
    let status = shown(first);
    assert_eq!(status.observed_generation, Some(3));
    assert_eq!(status.conditions[0].observed_generation, Some(3));
    assert_eq!(
        binding_status(Some(&status), &version(3), report(&verdict), at(20)),
        None
    );
}

#[test]
fn a_new_generation_is_written_with_the_old_transition_time() {
    let verdict = programmed(Status::True, "");
    let status = shown(binding_status(None, &version(3), report(&verdict), at(10)).unwrap());
    let next = binding_status(Some(&status), &version(4), report(&verdict), at(20)).unwrap();
    let next = shown(next);
    assert_eq!(next.conditions[0].observed_generation, Some(4));
    assert_eq!(next.conditions[0].last_transition_time.0, at(10));
}

#[test]
fn a_condition_that_was_removed_is_written_again_and_a_foreign_one_stays() {
    let verdict = programmed(Status::False, "failed: ip addr add");
    let mut status = shown(binding_status(None, &version(3), report(&verdict), at(10)).unwrap());
    let other = Verdict::new(ConditionType::Accepted, Status::True, Reason::Accepted, "");
    status
        .conditions
        .extend(condition::conditions(vec![other], &[], None, at(5)));
    assert_eq!(
        binding_status(Some(&status), &version(3), report(&verdict), at(20)),
        None
    );
    status.conditions.remove(0);
    assert!(binding_status(Some(&status), &version(3), report(&verdict), at(20)).is_some());
}

#[test]
fn a_status_is_written_again_when_another_machine_answers_for_a_vip() {
    let verdict = programmed(Status::False, "in use");
    let in_use = |mac: &str| {
        vec![VipInUse {
            address: "192.0.2.1".to_owned(),
            mac_address: mac.to_owned(),
        }]
    };
    let write = |before: Option<&DirectorBindingStatus>, mac: &str| {
        let report = BindingReport {
            vips_in_use: in_use(mac),
            ..report(&verdict)
        };
        binding_status(before, &version(3), report, at(10))
    };
    let status = shown(write(None, "02:00:00:00:00:01").unwrap());
    assert_eq!(status.vips_in_use, in_use("02:00:00:00:00:01"));
    assert_eq!(write(Some(&status), "02:00:00:00:00:01"), None);
    assert!(write(Some(&status), "02:00:00:00:00:02").is_some());
}

#[test]
fn a_status_is_written_again_when_the_table_has_changed() {
    let verdict = programmed(Status::True, "");
    let write = |before: Option<&DirectorBindingStatus>, digest: &str| {
        let report = BindingReport {
            table_digest: Some(digest.to_owned()),
            ..report(&verdict)
        };
        binding_status(before, &version(3), report, at(10))
    };
    let status = shown(write(None, "0123456789abcdef").unwrap());
    assert_eq!(status.table_digest.as_deref(), Some("0123456789abcdef"));
    assert_eq!(write(Some(&status), "0123456789abcdef"), None);
    assert!(write(Some(&status), "0123456789abcdee").is_some());
}

#[test]
fn the_status_of_a_machine_is_written_once() {
    let status = NodeStatus {
        version: version(3),
        facts: Some(Facts::default()),
        sync_problems: Some(BTreeMap::new()),
        verdict: programmed(Status::True, ""),
    };
    let written = node_status(None, &status, &HolderReport::default(), at(10)).unwrap();
    let shown: LvsNodeStatus = serde_json::from_value(written).unwrap();
    assert_eq!(
        node_status(Some(&shown), &status, &HolderReport::default(), at(20)),
        None
    );
}

#[test]
fn the_status_of_a_real_server_is_written_once() {
    let ready = Verdict::new(ConditionType::Ready, Status::True, Reason::Ready, "");
    let written = served_status(None, &version(3), &ready, at(10)).unwrap();
    let shown: RealServerBindingStatus = serde_json::from_value(written).unwrap();
    assert_eq!(
        served_status(Some(&shown), &version(3), &ready, at(20)),
        None
    );
    let next = served_status(Some(&shown), &version(4), &ready, at(20)).unwrap();
    assert_eq!(next["observedGeneration"], 4);
}

#[test]
fn a_pass_that_failed_leaves_facts_as_they_were() {
    let facts = Facts {
        kernel: "6.18.44".to_owned(),
        ..Facts::default()
    };
    let shown = LvsNodeStatus {
        facts: Some(facts),
        ..LvsNodeStatus::default()
    };
    let status = NodeStatus {
        version: version(3),
        facts: None,
        sync_problems: None,
        verdict: Verdict::new(
            ConditionType::Ready,
            Status::False,
            Reason::KernelUnreadable,
            "no netlink",
        ),
    };
    let written = node_status(Some(&shown), &status, &HolderReport::default(), at(10)).unwrap();
    assert_eq!(written["facts"]["kernel"], "6.18.44");
    assert_eq!(written["conditions"][0]["reason"], "KernelUnreadable");
}

/// Stores of which only the one of the DirectorBindings has objects.
fn stores(bindings: Store<DirectorBinding>) -> Stores {
    Stores {
        bindings,
        served: store().0,
        lvs_nodes: store().0,
    }
}

/// A client of an API server that knows no object, and what comes in for each of its requests.
async fn api_server() -> (Client, mpsc::UnboundedReceiver<()>) {
    let (asked, requests) = mpsc::unbounded_channel();
    let answer = async move || {
        asked.send(()).unwrap();
        let status = json!({"kind": "Status", "apiVersion": "v1", "code": 404, "reason": "NotFound",
            "status": "Failure", "message": "not found", "metadata": {}});
        (StatusCode::NOT_FOUND, status.to_string())
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer);
    tokio::spawn(async { axum::serve(listener, router).await });
    let config = Config::new(format!("http://{address}").parse().unwrap());
    (Client::try_from(config).unwrap(), requests)
}

#[tokio::test]
async fn a_status_waits_until_what_it_is_about_is_on_disk() {
    let (client, mut requests) = api_server().await;
    let (bindings, mut arriving) = store();
    let object = json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "DirectorBinding",
        "metadata": {"namespace": "shop", "name": "web-lvs1", "generation": 3},
        "spec": {"node": "lvs1", "virtualService": "web", "generation": 7},
    });
    arriving.apply_watcher_event(&Event::Apply(serde_json::from_value(object).unwrap()));
    let progress = Arc::new(Progress::default());
    let (_, holder) = watch::channel(Arc::default());
    let saving = Arc::clone(&progress);
    let stores = stores(bindings);
    let mut publisher = Publisher::new(client, stores, saving, holder, LeaseState::renewed().1);
    let queue = StatusQueue::default();
    queue.put(vec![BindingResult::without_faults(version(3))]);

    progress.sent();
    let write = tokio::spawn(async move { publisher.write(&queue).await });
    while !progress.is_waited_for() {
        assert!(!write.is_finished());
        tokio::task::yield_now().await;
    }
    assert!(requests.is_empty());
    progress.tried(1);

    requests.recv().await.unwrap();
    assert!(write.await.unwrap());
}

fn vip() -> AddressKey {
    AddressKey::host(&"eth0".parse().unwrap(), "192.0.2.1".parse().unwrap())
}

fn pending() -> HolderReport {
    let config = AddressConfig {
        deprecated: false,
        expires: false,
        owner: Owner::Ours,
    };
    HolderReport::default().handed(&Holding {
        hold: [(vip(), config)].into(),
        ..Holding::default()
    })
}

fn publisher(client: Client, holder: watch::Receiver<Arc<HolderReport>>) -> Publisher {
    Publisher::new(
        client,
        stores(store().0),
        Arc::default(),
        holder,
        LeaseState::renewed().1,
    )
}

#[tokio::test(start_paused = true)]
async fn statuses_wait_a_while_for_vips_that_are_probed_for() {
    let (client, _requests) = api_server().await;
    let (holder, reports) = watch::channel(Arc::new(pending()));
    let publisher = publisher(client, reports);
    {
        let settled = publisher.vips_settled();
        pin_mut!(settled);
        assert!(settled.as_mut().now_or_never().is_none());
        let mut held = pending();
        held.set(&vip(), VipState::Held);
        holder.send_replace(Arc::new(held));
        assert!(settled.now_or_never().is_some());
    }
    assert!(publisher.holder.has_changed().unwrap());

    holder.send_replace(Arc::new(pending()));
    let started = tokio::time::Instant::now();
    publisher.vips_settled().await;
    assert_eq!(started.elapsed(), LONGEST_PENDING);
}

#[tokio::test]
async fn a_vip_that_fails_while_other_statuses_are_written_is_compared_afterwards() {
    let (client, _requests) = api_server().await;
    let (holder, reports) = watch::channel(Arc::new(pending()));
    let mut publisher = publisher(client, reports);
    let mut failed = pending();
    failed.set(&vip(), VipState::Failed("in use".to_owned()));
    holder.send_replace(Arc::new(failed));

    assert!(publisher.write(&StatusQueue::default()).await);
    assert!(publisher.holder.has_changed().unwrap());
}
