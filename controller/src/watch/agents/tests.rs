//! Agents become silent and return, by arithmetic of the paused clock.

use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::sync::mpsc;

use super::*;

const N1: &str = "n1";

fn lease(node: &str, second: u8) -> Lease {
    let lease = json!({
        "metadata": {"name": agent_lease_name(node), "labels": {"lvs-operator.io/node": node}},
        "spec": {"holderIdentity": node, "renewTime": format!("2026-01-01T00:00:{second:02}.000000Z")},
    });
    serde_json::from_value(lease).unwrap()
}

/// What the list before a judgement answers: Leases, or nothing while the API server is away.
type Listed = Arc<Mutex<Option<Vec<Lease>>>>;

type Leases = mpsc::UnboundedSender<Result<Event<Lease>, watcher::Error>>;

/// A watch of agents with its Leases, and the answer to the lists.
fn agents() -> (BoxStream<'static, WatchEvent>, Leases, Listed) {
    let listed = Listed::default();
    let answer = Arc::clone(&listed);
    let list = move || std::future::ready(answer.lock().unwrap().clone()).boxed();
    let (leases, received) = mpsc::unbounded_channel();
    let received = stream::unfold(
        received,
        async |mut received: mpsc::UnboundedReceiver<_>| Some((received.recv().await?, received)),
    );
    let agents = AgentWatch::new(received.boxed(), Box::new(list));
    (
        stream::unfold(agents, AgentWatch::next).boxed(),
        leases,
        listed,
    )
}

/// The next event, and the seconds until it comes.
async fn next(agents: &mut BoxStream<'static, WatchEvent>) -> (String, u64) {
    let start = Instant::now();
    let text = match agents.next().await.unwrap() {
        WatchEvent::Changed(Change::Agent(node, true)) => format!("{node} is alive"),
        WatchEvent::Changed(Change::Agent(node, false)) => format!("{node} is silent"),
        WatchEvent::Changed(Change::AgentsKnown) => "known".to_owned(),
        WatchEvent::Synced(_) => "synced".to_owned(),
        WatchEvent::Changed(other) => format!("{other:?}"),
    };
    (text, start.elapsed().as_secs())
}

async fn expect(agents: &mut BoxStream<'static, WatchEvent>, text: &str, seconds: u64) {
    let found = next(agents).await;
    assert_eq!(found.0, text);
    assert_eq!(found.1, seconds, "{text}");
}

fn listed_first(leases: &Leases) {
    for event in [Event::Init, Event::InitApply(lease(N1, 1)), Event::InitDone] {
        leases.send(Ok(event)).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_is_silent_forty_seconds_after_its_last_renewal_and_returns_with_the_next() {
    let (mut agents, leases, listed) = agents();
    *listed.lock().unwrap() = Some(vec![lease(N1, 1)]);
    listed_first(&leases);
    expect(&mut agents, "n1 is alive", 0).await;
    expect(&mut agents, "synced", 0).await;
    // A Lease that was already there when the controller started.
    expect(&mut agents, "n1 is silent", 40).await;
    expect(&mut agents, "known", 0).await;
    leases.send(Ok(Event::Apply(lease(N1, 2)))).unwrap();
    expect(&mut agents, "n1 is alive", 0).await;
    *listed.lock().unwrap() = Some(vec![lease(N1, 2)]);
    expect(&mut agents, "n1 is silent", 40).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_watch_makes_no_agent_silent() {
    let (mut agents, leases, listed) = agents();
    listed_first(&leases);
    expect(&mut agents, "n1 is alive", 0).await;
    expect(&mut agents, "synced", 0).await;
    // The watch shows nothing more, but the Lease is renewed.
    *listed.lock().unwrap() = Some(vec![lease(N1, 2)]);
    expect(&mut agents, "known", 40).await;
    expect(&mut agents, "n1 is silent", 40).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_api_server_makes_no_agent_silent() {
    let (mut agents, leases, listed) = agents();
    listed_first(&leases);
    expect(&mut agents, "n1 is alive", 0).await;
    expect(&mut agents, "synced", 0).await;
    leases.send(Err(watcher::Error::NoResourceVersion)).unwrap();
    timeout(Duration::from_secs(300), agents.next())
        .await
        .unwrap_err();
    *listed.lock().unwrap() = Some(vec![lease(N1, 1)]);
    leases.send(Ok(Event::Init)).unwrap();
    leases.send(Ok(Event::InitApply(lease(N1, 1)))).unwrap();
    leases.send(Ok(Event::InitDone)).unwrap();
    expect(&mut agents, "synced", 0).await;
    expect(&mut agents, "n1 is silent", 40).await;
}

#[test]
fn a_lease_counts_for_the_machine_that_it_is_named_after() {
    assert_eq!(
        holder(&lease(N1, 1))
            .map(|node| node.to_string())
            .as_deref(),
        Some(N1)
    );
    let mut stolen = lease(N1, 1);
    stolen.spec.as_mut().unwrap().holder_identity = Some("n2".to_owned());
    assert_eq!(holder(&stolen), None);
}
