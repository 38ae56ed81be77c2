//! Leader election: of several controllers the one that holds a Lease is the leader.
//!
//! As in client-go, a candidate trusts no other machine's clock. It takes a lease over only after it has seen it unchanged
//! for the whole lease duration by its own monotonic clock. Every write carries the resource version that was read, so that
//! of two candidates one loses. A leader that cannot renew in time stops before another one can start.

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

/// How long a lease is valid without being renewed.
const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How long a leader goes on trying to renew.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How long a leader waits between two renewals.
const RENEW_PERIOD: Duration = Duration::from_secs(2);
/// How long a candidate waits between two attempts to acquire the lease.
const ACQUIRE_PERIOD: Duration = Duration::from_secs(1);
/// How long one call may take.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Returns whether a controller that was the leader until a moment still is. A process that was suspended is not, before it
/// has received any message.
pub(crate) fn is_leader(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() < until)
}

/// Waits until this controller is no longer the leader. Cancel-safe.
pub(crate) async fn lost(leader_until: &mut watch::Receiver<Option<Instant>>) {
    loop {
        let until = *leader_until.borrow_and_update();
        let Some(until) = until.filter(|until| Instant::now() < *until) else {
            return;
        };
        tokio::select! {
            changed = leader_until.changed() => if changed.is_err() { return },
            () = time::sleep_until(until.into()) => {}
        }
    }
}

/// The lease as it was last read, and how long it has been unchanged.
#[derive(Clone, Debug)]
struct ObservedLease {
    lease: Lease,
    since: Instant,
}

/// What a candidate does with the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// Acquire or renew it: it is free, or held by this candidate, or expired.
    Acquire,
    /// Try again later: another candidate holds it.
    Wait,
}

/// A candidate for leadership.
pub(crate) struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
}

impl Candidate {
    /// A candidate. The client should be used for nothing else and not retry.
    pub(crate) fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
        }
    }

    /// Acquires the lease and renews it, until `stop` changes or the lease is lost. On `stop` the lease is released.
    /// `leader_until` is sent until when this controller is the leader at least.
    pub(crate) async fn run(
        self,
        leader_until: watch::Sender<Option<Instant>>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut observed = None;
        let mut renewed = None;
        loop {
            let started = Instant::now();
            match time::timeout(CALL_TIMEOUT, self.try_acquire(&mut observed)).await {
                Ok(Ok(true)) => {
                    renewed = Some(started);
                    let until = Some(started + RENEW_DEADLINE);
                    if leader_until.send_replace(until).is_none() {
                        info!(identity = self.identity, "this controller is the leader");
                    }
                }
                Ok(Ok(false)) if renewed.is_some() => {
                    warn!("lease lost: another controller holds it");
                    break;
                }
                Ok(Ok(false)) => debug!("another controller is the leader"),
                Ok(Err(error)) => {
                    warn!(error = %lvs_runtime::error::chain(&error), "reading or writing the lease failed");
                }
                Err(_elapsed) => warn!("reading or writing the lease timed out"),
            }
            if renewed.is_some_and(|renewed| renewed.elapsed() > RENEW_DEADLINE) {
                warn!("lease lost: it could not be renewed in time");
                break;
            }
            let pause = if renewed.is_some() {
                RENEW_PERIOD
            } else {
                ACQUIRE_PERIOD
            };
            tokio::select! {
                () = time::sleep(pause) => {}
                _ = stop.changed() => {
                    self.release(observed.as_ref()).await;
                    break;
                }
            }
        }
        leader_until.send_replace(None);
    }

    /// Reads the lease, and acquires or renews it if possible. Returns whether this candidate holds it.
    async fn try_acquire(&self, observed: &mut Option<ObservedLease>) -> Result<bool, kube::Error> {
        let parameters = PostParams::default();
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let created = self.api.create(&parameters, &self.lease(None)).await;
            return has_acquired(created, observed);
        };
        observe(observed, lease, Instant::now());
        let Some(current) = observed.as_ref() else {
            return Ok(false);
        };
        if attempt(current, &self.identity, Instant::now()) == Attempt::Wait {
            return Ok(false);
        }
        let lease = self.lease(Some(&current.lease));
        let replaced = self.api.replace(&self.name, &parameters, &lease).await;
        has_acquired(replaced, observed)
    }

    /// The lease held by this candidate. The resource version of `before` makes the write conditional.
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
                lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
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

    /// Releases the lease, so that another candidate need not wait until it expires.
    async fn release(&self, observed: Option<&ObservedLease>) {
        let held = observed.filter(|held| holder(&held.lease) == Some(&self.identity));
        let Some(held) = held else {
            return;
        };
        let mut lease = self.lease(Some(&held.lease));
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        let parameters = PostParams::default();
        let call = self.api.replace(&self.name, &parameters, &lease);
        match time::timeout(CALL_TIMEOUT, call).await {
            Ok(Ok(_)) => info!("lease released"),
            Ok(Err(error)) => {
                warn!(error = %lvs_runtime::error::chain(&error), "releasing the lease failed");
            }
            Err(_elapsed) => warn!("releasing the lease timed out"),
        }
    }
}

/// Returns whether a write of the lease succeeded.
fn has_acquired(
    written: Result<Lease, kube::Error>,
    observed: &mut Option<ObservedLease>,
) -> Result<bool, kube::Error> {
    match written {
        Ok(lease) => {
            observe(observed, lease, Instant::now());
            Ok(true)
        }
        // Another candidate was faster.
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Stores the lease as it was read, with the time since when it has been unchanged.
fn observe(observed: &mut Option<ObservedLease>, lease: Lease, now: Instant) {
    let version = |lease: &Lease| lease.metadata.resource_version.clone();
    let is_unchanged = observed
        .as_ref()
        .is_some_and(|observed| version(&observed.lease) == version(&lease));
    if !is_unchanged {
        *observed = Some(ObservedLease { lease, since: now });
    }
}

fn holder(lease: &Lease) -> Option<&String> {
    let holder = lease.spec.as_ref()?.holder_identity.as_ref()?;
    Some(holder).filter(|holder| !holder.is_empty())
}

fn attempt(observed: &ObservedLease, identity: &str, now: Instant) -> Attempt {
    let spec = observed.lease.spec.as_ref();
    let seconds = spec
        .and_then(|spec| spec.lease_duration_seconds)
        .unwrap_or(0);
    let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    match holder(&observed.lease) {
        None => Attempt::Acquire,
        Some(holder) if holder == identity => Attempt::Acquire,
        Some(_) if now.saturating_duration_since(observed.since) > duration => Attempt::Acquire,
        Some(_) => Attempt::Wait,
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
    fn a_lease_is_taken_over_after_it_was_unchanged_for_its_duration() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut observed = None;
        observe(&mut observed, mk_lease("a", "1"), at(0));
        assert_eq!(
            attempt(observed.as_ref().unwrap(), "b", at(15)),
            Attempt::Wait
        );
        observe(&mut observed, mk_lease("a", "1"), at(14));
        assert_eq!(
            attempt(observed.as_ref().unwrap(), "b", at(16)),
            Attempt::Acquire
        );

        observe(&mut observed, mk_lease("a", "2"), at(16));
        assert_eq!(
            attempt(observed.as_ref().unwrap(), "b", at(31)),
            Attempt::Wait
        );
        assert_eq!(
            attempt(observed.as_ref().unwrap(), "b", at(32)),
            Attempt::Acquire
        );
    }

    #[test]
    fn the_holder_renews_and_a_released_lease_is_free() {
        let now = Instant::now();
        let observed = |holder| ObservedLease {
            lease: mk_lease(holder, "1"),
            since: now,
        };
        assert_eq!(attempt(&observed("a"), "a", now), Attempt::Acquire);
        assert_eq!(attempt(&observed(""), "b", now), Attempt::Acquire);
    }
}
