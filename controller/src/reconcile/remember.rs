//! The fifth step: the real servers before a change, for connections that exist.
//!
//! Real servers pass on packets of connections that another one had before the change (`lvs_model::recall`). The controller
//! remembers the versions before changes for all of them:
//!
//! 1. It writes one to each real server ([`ServerHistory::leading`]), and gives directors the new version once all have it. So the
//!    RealServerBindings keep what is remembered over a restart of the controller; the version in force is that of the DirectorBindings.
//! 2. A machine that is no real server any more keeps its RealServerBinding, without real servers, as long as a version counts in which it
//!    was one.
//! 3. When the time is over, the version is removed from the RealServerBindings.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::jiff::Timestamp;
use lvs_crd::{Connections, Failover, VirtualService, condition::Reason, convert};
use lvs_model::{MOST_KEPT_SERVERS, ObjectName, PreviousVersion, ServerHistory, is_keepable};

use super::{binding::is_owned, resolve::Resolved, served::Served};
use crate::cluster::{Cluster, Fault};

/// How long, in seconds, directors wait at most until all real servers have the version before a change.
const LONGEST_WAIT: u32 = 5;

impl Cluster {
    /// Compares the real servers of a virtual service with those that are remembered. `present` is its version with the weights of the
    /// moment. If its changes are not remembered any more, as when the group has lost its second director, a previous version stays
    /// until its time is over. While nothing is programmed, or the group does not exist, what is remembered stays.
    pub(super) fn remember(
        &mut self,
        name: &ObjectName,
        object: &VirtualService,
        present: Option<&lvs_model::VirtualService>,
    ) {
        let Some(reconciled) = self.services.get(name) else {
            return;
        };
        let present = present.filter(|_| reconciled.state.programmed().is_some());
        let Some(present) = present.filter(|_| self.objects.groups.contains_key(&reconciled.group))
        else {
            return;
        };
        let remembers = self.remembers(&reconciled.group) && is_kept(present);
        if !remembers && !self.has_previous(name) {
            return self.forget_servers(name);
        }
        let keep_seconds = self.keep_seconds(&reconciled.group);
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        let known = self.histories.remove(name);
        let known = known.or_else(|| self.observed_history(name, uid));
        let present = Arc::new(present.clone());
        let follows = remembers && known.iter().all(|known| is_kept(&known.present));
        let history = if follows {
            ServerHistory::follow(known, present, keep_seconds, self.now)
        } else {
            ServerHistory::pass_over(known, present, keep_seconds, self.now)
        };
        let wait = history
            .previous
            .first()
            .map(|newest| newest.end(LONGEST_WAIT));
        let ends = history.previous.iter();
        let ends = ends.map(|previous| previous.end(keep_seconds)).chain(wait);
        let deadline = ends.filter(|end| *end > self.now).min();
        self.deadlines.set(name, deadline);
        self.histories.insert(name.clone(), history);
    }

    /// Forgets the real servers of a virtual service.
    pub(super) fn forget_servers(&mut self, name: &ObjectName) {
        self.histories.remove(name);
        self.deadlines.set(name, None);
    }

    /// What the objects show after a restart: directors have the version in force, and real servers the one before it.
    fn observed_history(&self, name: &ObjectName, uid: &str) -> Option<ServerHistory> {
        let present = self.bound_version(name, uid)?;
        let served = self.index.served_bindings_of(name);
        let served = served
            .iter()
            .filter_map(|name| self.objects.served.get(name));
        let own = served.filter(|binding| is_owned(binding.as_ref(), uid));
        let previous = own.filter_map(|binding| convert::previous_version(binding));
        let previous: BTreeMap<u64, PreviousVersion> =
            previous.map(|version| (version.since, version)).collect();
        Some(ServerHistory {
            present,
            previous: previous.into_values().rev().collect(),
        })
    }

    /// The versions of a virtual service before its real servers changed, the newest first, while they count.
    pub(super) fn previous_versions(&self, name: &ObjectName) -> &[PreviousVersion] {
        let history = self.histories.get(name);
        history.map_or(&[], |history| &history.previous)
    }

    /// Returns whether directors wait for the version before a change to be written to all real servers. They do not wait for one that
    /// the API server refuses, and never for longer than [`LONGEST_WAIT`].
    pub(super) fn waits_for_real_servers(
        &self,
        name: &ObjectName,
        uid: &str,
        served: &Served,
    ) -> bool {
        let is_missing = || {
            let mut served = served.iter();
            served.any(|(binding, spec)| {
                !self.refusals.served.contains_key(binding)
                    && !self.is_served_written(binding, spec, uid)
            })
        };
        let newest = self.previous_versions(name).first();
        newest.is_some_and(|newest| self.now < newest.end(LONGEST_WAIT) && is_missing())
    }

    /// Returns the warning that the real servers have changed again while those from before an earlier change count, so that not all
    /// connections from before it are found any more.
    pub(super) fn changed_again(&self, name: &ObjectName) -> Option<Fault> {
        let passed_over = self.histories.get(name)?.passed_over()?;
        let since = i64::try_from(passed_over.since).ok()?;
        let since = Timestamp::from_second(since).ok()?;
        let message = format!(
            "the real servers have changed again within keepSeconds: connections from before {since} can be lost if the active director \
             changes"
        );
        Some(Fault::new(Reason::ChangedAgain, message))
    }

    /// Why connections are not kept when the real servers of a virtual service change: there are too many of them.
    pub(super) fn too_many_to_remember(&self, resolved: &Resolved) -> Option<Fault> {
        if !self.remembers(&resolved.group) {
            return None;
        }
        let service = &resolved.version.as_ref()?.service;
        let count = service.real_servers.len();
        (is_keepable(service) && count > MOST_KEPT_SERVERS).then(|| {
            let message = format!(
                "connections are kept as by `mh` alone when real servers change: there are {count}, and at most \
                 {MOST_KEPT_SERVERS} are remembered"
            );
            Fault::new(Reason::TooManyRealServers, message)
        })
    }

    /// Returns whether the real servers before a change are remembered in a group: connections are kept, and it has several directors.
    fn remembers(&self, group: &str) -> bool {
        let connections = self.failover(group).map(|failover| failover.connections);
        connections.unwrap_or_default() == Connections::Keep && self.has_failover(group)
    }

    /// For how long the real servers before a change count in a group.
    fn keep_seconds(&self, group: &str) -> u32 {
        let keep_seconds = self.failover(group).map(|failover| failover.keep_seconds);
        let keep_seconds = keep_seconds.unwrap_or_else(|| Failover::default().keep_seconds);
        u32::try_from(keep_seconds).unwrap_or_default()
    }

    fn failover(&self, group: &str) -> Option<&Failover> {
        self.objects.groups.get(group)?.spec.failover.as_ref()
    }

    /// Returns whether a version of a virtual service before its real servers changed may count.
    fn has_previous(&self, name: &ObjectName) -> bool {
        let mut served = self.index.served_bindings_of(name).into_iter();
        !self.previous_versions(name).is_empty()
            || served.any(|binding| {
                let found = self.objects.served.get(&binding);
                found.is_some_and(|found| found.spec.previous.is_some())
            })
    }
}

/// Returns whether the real servers of a virtual service are remembered for its connections.
fn is_kept(service: &lvs_model::VirtualService) -> bool {
    is_keepable(service) && !service.alone && service.real_servers.len() <= MOST_KEPT_SERVERS
}
