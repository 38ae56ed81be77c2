//! A pass over some virtual services whose real servers alone have changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use lvs_model::{Difference, KernelState, Ledger, ObjectName, ServiceKey, VirtualService, diff};

use super::{Agent, Applied, PassError, Prepared, Timing};
use lvs_kernel::fault;

impl Agent {
    /// Makes the kernel hold new versions of virtual services whose real servers alone have changed, at a cost that does
    /// not depend on what else there is.
    ///
    /// Returns `None` when it takes a pass over everything: more may follow from them, the last pass has left something
    /// undone or changed what was seen, or a step did not succeed now.
    pub(crate) async fn pass_part(
        &mut self,
        changed: &BTreeMap<ObjectName, Arc<VirtualService>>,
    ) -> Result<Option<Applied>, PassError> {
        let started = Instant::now();
        let Some(part) = self.memory.part(changed) else {
            return Ok(None);
        };
        let keys: BTreeSet<ServiceKey> = part.services.keys().copied().collect();
        if !keys.is_subset(&self.ledger.services) {
            return Ok(None);
        }
        let wanted = KernelState {
            services: part.services.clone(),
            ..KernelState::default()
        };
        let observed = KernelState {
            services: self.kernel.observe_services(Some(&keys)).await?,
            ..KernelState::default()
        };
        // All of it is recorded, so nothing is to be stored before or after.
        let ledger = Ledger {
            services: keys,
            ..Ledger::default()
        };
        let Difference { plan, problems } = diff(&wanted, &observed, &ledger);
        let prepared = Prepared {
            desired: Arc::new(wanted),
            observed,
            ledger,
            spec: Arc::new(part.spec.clone()),
            plan,
            problems,
            ..Prepared::default()
        };
        let prepare = started.elapsed();
        let started = Instant::now();
        fault::point();
        let outcomes = self.kernel.execute(&prepared.plan).await;
        fault::point();
        self.memory.remember_part(&part, &outcomes);
        let timing = Timing {
            prepare,
            execute: started.elapsed(),
            ..Timing::default()
        };
        Ok(outcomes.is_complete().then_some(Applied {
            prepared,
            outcomes,
            timing,
        }))
    }
}
