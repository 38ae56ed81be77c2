//! One of several controllers leads: the one that holds a Lease.
//!
//! As client-go does it, a candidate trusts no other machine's clock. It takes a lease over only when it has seen it
//! unchanged for the whole of its duration by its own monotonic clock, and every write carries the resource version
//! that was read, so that of two candidates one loses. A leader that cannot renew in time stops leading before anybody
//! else can start.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{sync::watch, time};
use tracing::{debug, info, warn};

/// How long a lease holds without being renewed.
const DURATION: Duration = Duration::from_secs(15);
/// How long a leader goes on trying to renew.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How long a leader waits between two renewals.
const PERIOD: Duration = Duration::from_secs(2);
/// How long one that stands by waits between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long one call may take.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Says whether somebody leads who was told to lead until a moment. A process that was stopped for a while finds itself
/// beyond it, before it has heard of anything.
pub(crate) fn is_leading(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() < until)
}

/// Waits until this candidate leads no more.
pub(crate) async fn ended(leads: &mut watch::Receiver<Option<Instant>>) {
    loop {
        let until = *leads.borrow_and_update();
        let Some(until) = until.filter(|until| Instant::now() < *until) else {
            return;
        };
        tokio::select! {
            changed = leads.changed() => if changed.is_err() { return },
            () = time::sleep_until(until.into()) => {}
        }
    }
}

/// A lease as it was last seen, and since when it has been so.
#[derive(Clone, Debug)]
struct Seen {
    lease: Lease,
    since: Instant,
}

/// What a candidate may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    /// Write itself in: nobody holds the lease, or it does itself, or the holder's time is over.
    Take,
    /// Look again later.
    Wait,
}

/// A candidate for leading.
pub(crate) struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
}

impl Candidate {
    /// A candidate. The client should be one of its own, without retries.
    pub(crate) fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
        }
    }

    /// Tells until when this candidate leads, until `stop` is told or leading is lost; then the lease is given back.
    pub(crate) async fn run(
        self,
        leads: watch::Sender<Option<Instant>>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut seen = None;
        let mut renewed = None;
        loop {
            let started = Instant::now();
            match time::timeout(CALL_TIMEOUT, self.step(&mut seen)).await {
                Ok(Ok(true)) => {
                    renewed = Some(started);
                    if leads.send_replace(Some(started + RENEW_DEADLINE)).is_none() {
                        info!(identity = self.identity, "this controller leads");
                    }
                }
                Ok(Ok(false)) if renewed.is_some() => {
                    warn!("another controller has taken the lease");
                    break;
                }
                Ok(Ok(false)) => debug!("another controller leads"),
                Ok(Err(error)) => {
                    warn!(error = %lvs_runtime::error::chain(&error), "the lease cannot be read or written");
                }
                Err(_elapsed) => warn!("no answer to a call for the lease"),
            }
            if renewed.is_some_and(|renewed| renewed.elapsed() > RENEW_DEADLINE) {
                warn!("the lease could not be renewed in time");
                break;
            }
            let pause = if renewed.is_some() { PERIOD } else { LOOK };
            tokio::select! {
                () = time::sleep(pause) => {}
                _ = stop.changed() => {
                    self.release(seen.as_ref()).await;
                    break;
                }
            }
        }
        leads.send_replace(None);
    }

    /// Looks, and takes or renews the lease where it may. Returns whether it holds it.
    async fn step(&self, seen: &mut Option<Seen>) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let made = self.lease(None);
            let made = self.api.create(&PostParams::default(), &made).await;
            return self.settle(made, seen);
        };
        observe(seen, lease, Instant::now());
        let Some(current) = seen.as_ref() else {
            return Ok(false);
        };
        if decide(current, &self.identity, Instant::now()) == Move::Wait {
            return Ok(false);
        }
        let taken = self.lease(Some(&current.lease));
        let taken = self
            .api
            .replace(&self.name, &PostParams::default(), &taken)
            .await;
        self.settle(taken, seen)
    }

    fn settle(
        &self,
        written: Result<Lease, kube::Error>,
        seen: &mut Option<Seen>,
    ) -> Result<bool, kube::Error> {
        match written {
            Ok(lease) => {
                observe(seen, lease, Instant::now());
                Ok(true)
            }
            // Somebody else was faster.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The lease in this candidate's name; the resource version of `before` makes the write conditional.
    fn lease(&self, before: Option<&Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let spec = before
            .and_then(|lease| lease.spec.clone())
            .unwrap_or_default();
        let is_own = spec.holder_identity.as_deref() == Some(&self.identity);
        let transitions = spec.lease_transitions.unwrap_or(0);
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: before.and_then(|lease| lease.metadata.resource_version.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: spec
                    .acquire_time
                    .filter(|_| is_own)
                    .or_else(|| Some(now.clone())),
                renew_time: Some(now),
                lease_transitions: Some(transitions + i32::from(!is_own && before.is_some())),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Gives the lease back, so that another one need not wait for its end.
    async fn release(&self, seen: Option<&Seen>) {
        let Some(held) = seen.filter(|seen| holder(&seen.lease) == Some(&self.identity)) else {
            return;
        };
        let mut lease = self.lease(Some(&held.lease));
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        let parameters = PostParams::default();
        match time::timeout(
            CALL_TIMEOUT,
            self.api.replace(&self.name, &parameters, &lease),
        )
        .await
        {
            Ok(Ok(_)) => info!("the lease is given back"),
            Ok(Err(error)) => {
                warn!(error = %lvs_runtime::error::chain(&error), "the lease was not given back")
            }
            Err(_elapsed) => warn!("the lease was not given back: no answer"),
        }
    }
}

/// Notes a lease; the time runs on as long as it stays the same.
fn observe(seen: &mut Option<Seen>, lease: Lease, now: Instant) {
    let version = |lease: &Lease| lease.metadata.resource_version.clone();
    let is_same = seen
        .as_ref()
        .is_some_and(|seen| version(&seen.lease) == version(&lease));
    if !is_same {
        *seen = Some(Seen { lease, since: now });
    }
}

fn holder(lease: &Lease) -> Option<&String> {
    let holder = lease.spec.as_ref()?.holder_identity.as_ref()?;
    Some(holder).filter(|holder| !holder.is_empty())
}

fn decide(seen: &Seen, identity: &str, now: Instant) -> Move {
    let spec = seen.lease.spec.as_ref();
    let seconds = spec
        .and_then(|spec| spec.lease_duration_seconds)
        .unwrap_or(0);
    let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    match holder(&seen.lease) {
        None => Move::Take,
        Some(holder) if holder == identity => Move::Take,
        Some(_) if now.saturating_duration_since(seen.since) > duration => Move::Take,
        Some(_) => Move::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_lease(holder: &str, version: &str) -> Lease {
        Lease {
            metadata: ObjectMeta {
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: Some(15),
                ..LeaseSpec::default()
            }),
        }
    }

    #[test]
    fn a_lease_is_taken_over_when_it_was_seen_unchanged_for_its_duration() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut seen = None;
        observe(&mut seen, mk_lease("a", "1"), at(0));
        assert_eq!(decide(seen.as_ref().unwrap(), "b", at(15)), Move::Wait);
        observe(&mut seen, mk_lease("a", "1"), at(14));
        assert_eq!(decide(seen.as_ref().unwrap(), "b", at(16)), Move::Take);

        observe(&mut seen, mk_lease("a", "2"), at(16));
        assert_eq!(decide(seen.as_ref().unwrap(), "b", at(31)), Move::Wait);
        assert_eq!(decide(seen.as_ref().unwrap(), "b", at(32)), Move::Take);
    }

    #[test]
    fn the_holder_renews_and_a_lease_given_back_is_anybodys() {
        let now = Instant::now();
        let seen = |holder| Seen {
            lease: mk_lease(holder, "1"),
            since: now,
        };
        assert_eq!(decide(&seen("a"), "a", now), Move::Take);
        assert_eq!(decide(&seen(""), "b", now), Move::Take);
    }
}
