//! What the holder does about other machines that answer for VIPs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use futures::future::join_all;
use lvs_kernel::announce;
use lvs_model::{AddressKey, InterfaceName, MacAddr};
use lvs_runtime::error::chain;
use tokio::time::sleep_until;
use tracing::{info, warn};

use super::{
    announcer::{self, Announcer},
    claim_watch::{ClaimWatch, SeenClaim},
    conflicts::Conflicts,
    metrics::RouterMetrics,
    report::VipState,
};

/// The VIPs of this machine that another one answers for too.
pub(super) struct Contested {
    claims: ClaimWatch,
    conflicts: Conflicts,
    /// The VIPs with the text of the problem.
    problems: BTreeMap<AddressKey, String>,
    metrics: RouterMetrics,
}

impl Contested {
    /// None yet.
    pub(super) fn new(metrics: RouterMetrics) -> Self {
        Self {
            claims: ClaimWatch::default(),
            conflicts: Conflicts::default(),
            problems: BTreeMap::new(),
            metrics,
        }
    }

    /// The VIPs with the text of the problem.
    pub(super) const fn problems(&self) -> &BTreeMap<AddressKey, String> {
        &self.problems
    }

    /// Follows which VIPs this machine has. `links_changed`: an interface may have been made anew.
    pub(super) fn follow(&mut self, held: &BTreeSet<AddressKey>, links_changed: bool) {
        self.claims.follow(held, links_changed);
        self.conflicts.follow(held, Instant::now());
    }

    /// Waits until other machines say that they have addresses, or are to be asked. Returns what they say. Cancel-safe.
    pub(super) async fn news(&mut self) -> Vec<SeenClaim> {
        let deadline = self.conflicts.deadline();
        let asking = async {
            match deadline {
                Some(deadline) => sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            claims = self.claims.next() => claims,
            () = asking => Vec::new(),
        }
    }

    /// Announces VIPs again that other machines say they have, and asks those again that have said so before. Returns whether the problems
    /// have changed.
    pub(super) async fn act(&mut self, news: Vec<SeenClaim>, announcer: &mut Announcer) -> bool {
        let now = Instant::now();
        let again = news.into_iter();
        let again =
            again.filter_map(|(interface, claim)| self.conflicts.note(&interface, claim, now));
        let again: BTreeSet<AddressKey> = again.collect();
        announcer.announce(again.into_iter().collect()).await;
        if self.conflicts.deadline().is_some_and(|at| at <= now) {
            announcer::ask(&self.conflicts.due(now)).await;
        }
        self.note_problems()
    }

    fn note_problems(&mut self) -> bool {
        let problems: BTreeMap<AddressKey, String> =
            self.conflicts.problems().into_iter().collect();
        if problems == self.problems {
            return false;
        }
        for (vip, text) in &problems {
            if !self.problems.contains_key(vip) {
                warn!("{text}");
            }
        }
        let over = self.problems.keys();
        for vip in over.filter(|vip| !problems.contains_key(*vip)) {
            info!(vip = %vip.address, "no other machine answers for it any more");
        }
        self.metrics.set_contested(problems.len());
        self.problems = problems;
        true
    }
}

/// Probes for VIPs; returns those that another machine answers for, with the MAC address of that machine.
pub(super) async fn probe<'a>(
    keys: impl Iterator<Item = &'a AddressKey>,
) -> BTreeMap<AddressKey, MacAddr> {
    let mut by_interface: BTreeMap<&InterfaceName, Vec<&AddressKey>> = BTreeMap::new();
    for key in keys {
        by_interface.entry(&key.interface).or_default().push(key);
    }
    let probes = by_interface.into_iter().map(async |(interface, keys)| {
        let addresses: Vec<IpAddr> = keys.iter().map(|key| key.address).collect();
        let taken = match announce::probe(interface, &addresses).await {
            Ok(taken) => taken,
            Err(error) => {
                warn!(%interface, error = chain(&error), "cannot probe for addresses in use");
                BTreeMap::new()
            }
        };
        let taken = keys.into_iter().filter_map(move |key| {
            let mac = taken.get(&key.address)?;
            Some((key.clone(), *mac))
        });
        taken.collect::<Vec<_>>()
    });
    join_all(probes).await.into_iter().flatten().collect()
}

/// Returns the state of a VIP that another machine answers for.
pub(super) fn in_use((key, mac): (&AddressKey, &MacAddr)) -> (AddressKey, VipState) {
    let AddressKey {
        interface, address, ..
    } = key;
    let reason = format!(
        "VIP {address}: address in use on {interface} (answered by {mac}), perhaps by a real server whose agent does not run \
         or that answers ARP requests for VIPs on lo (arp_ignore), or by another director; remove it there"
    );
    (key.clone(), VipState::InUse { mac: *mac, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_for_a_vip_in_use_points_to_a_real_server_without_its_agent() {
        let key = AddressKey::host(&"eth0".parse().unwrap(), "192.0.2.100".parse().unwrap());
        let (_, state) = in_use((&key, &MacAddr([2, 0, 0, 0, 0, 9])));
        let reason = state.failure().unwrap();
        let start = "VIP 192.0.2.100: address in use on eth0 (answered by 02:00:00:00:00:09), perhaps by a real server whose agent \
                     does not run ";
        assert!(reason.starts_with(start), "{reason}");
        // The VIP may be that of a DirectorGroup.
        assert!(!reason.contains("DirectorGroup"), "{reason}");
    }
}
