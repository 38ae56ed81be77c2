//! The status of an AddressPool.

use std::net::IpAddr;

use lvs_crd::{
    AddressCounts, AddressPoolStatus,
    condition::{self, ConditionType, Reason, Status, Verdict},
    convert,
};
use lvs_model::{Family, Pool, PoolName};

use crate::{
    cluster::{Cluster, Fault, ReconcileRequest},
    write::{Revision, Write},
};

/// The largest integer that every reader of JSON has.
const MOST: u128 = (1 << 53) - 1;

impl Cluster {
    /// Queues the pools of the VIPs that a virtual service has gained or given up, and those that wait for an address.
    pub(super) fn enqueue_pools(&mut self) {
        let touched = self.claims.take_touched();
        let pools = touched.iter().flat_map(|vip| self.pools.with(*vip));
        let pools = pools.cloned().map(ReconcileRequest::Pool);
        let pools: Vec<ReconcileRequest> = pools.collect();
        self.queue.extend(pools);
        let mut touched = touched.iter();
        let is_free = |address: &IpAddr| {
            !self.claims.is_claimed(*address) && self.pools.with(*address).next().is_some()
        };
        if touched.any(is_free) {
            self.enqueue_waiting();
        }
    }

    /// The status of a pool, if it differs from the one that it has.
    pub(super) fn reconcile_pool(&self, name: &PoolName) -> Option<Write> {
        let object = self.objects.pools.get(name)?;
        let pool = self.pools.get(name)?;
        let (_, errors) = convert::pool_with_errors(object, &self.objects.namespaces);
        let fault = if errors.is_empty() {
            self.overlap(name, pool)
        } else {
            Some(Fault::of_rejections(Reason::Invalid, &errors))
        };
        let verdicts = verdicts(fault);
        let status = AddressPoolStatus {
            observed_generation: object.metadata.generation,
            ipv4: self.counts(pool, Family::V4),
            ipv6: self.counts(pool, Family::V6),
            conditions: Vec::new(),
        };
        let is_written = object.status.as_ref().is_some_and(|found| {
            let without_conditions = AddressPoolStatus {
                conditions: Vec::new(),
                ..found.clone()
            };
            without_conditions == status
                && condition::agree(&found.conditions, &verdicts, status.observed_generation)
        });
        (!is_written).then(|| Write::PoolStatus {
            name: name.clone(),
            revision: Revision::of(object.as_ref()),
            status,
            verdicts,
        })
    }

    fn counts(&self, pool: &Pool, family: Family) -> AddressCounts {
        let ends = pool.ranges.iter().map(lvs_model::AddressRange::ends);
        let ends = ends.filter(|(first, _)| Family::of(*first) == family);
        let (mut unusable, mut allocated) = (0_u128, 0_u128);
        for (first, last) in ends {
            let machines = self.index.machines().range(first..=last);
            let machines = machines.filter(|(address, _)| !pool.lists(**address));
            unusable += machines.count() as u128;
            unusable += self.index.reserved_between(first, last) as u128;
            allocated += self.claims.held_between(first, last) as u128;
        }
        let total = pool.total(family).saturating_sub(unusable).max(allocated);
        let number = |count: u128| i64::try_from(count.min(MOST)).unwrap_or(i64::MAX);
        AddressCounts {
            total: number(total),
            allocated: number(allocated),
            free: number(total - allocated),
        }
    }

    /// The first address of a pool that another pool has too.
    fn overlap(&self, name: &PoolName, pool: &Pool) -> Option<Fault> {
        let others = self.pools.iter().filter(|(other, _)| *other != name);
        let mut ranges = others.flat_map(|(other, pool)| {
            let ranges = pool.ranges.iter();
            ranges.map(move |range| (other, range))
        });
        let (other, range) = ranges.find(|(_, range)| {
            let mut own = pool.ranges.iter();
            own.any(|own| own.overlaps(range))
        })?;
        let message = format!(
            "`spec.addresses` must not have addresses of AddressPool '{other}', which has '{range}'; each is given once all the same"
        );
        Some(Fault::new(Reason::Overlap, message))
    }
}

/// A pool with wrong addresses is not accepted, but has the others; one that overlaps is accepted.
fn verdicts(fault: Option<Fault>) -> Vec<Verdict> {
    let Some(Fault { reason, message }) = fault else {
        return vec![
            Verdict::new(ConditionType::Accepted, Status::True, Reason::Accepted, ""),
            Verdict::new(ConditionType::Ready, Status::True, Reason::Ready, ""),
        ];
    };
    let accepted = Status::of(reason != Reason::Invalid);
    vec![
        Verdict::new(ConditionType::Accepted, accepted, reason, &*message),
        Verdict::new(ConditionType::Ready, Status::False, reason, &*message),
        Verdict::new(ConditionType::Stalled, Status::True, reason, message),
    ]
}
