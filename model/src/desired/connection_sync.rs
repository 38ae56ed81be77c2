//! The part of the desired state by which directors tell each other their connections.

use super::builder::Builder;
use crate::{
    Absent, ConnectionSync, Director, Family, InterfaceName, Keeping, NodeSpec, ObjectName,
    ServiceKey, SyncDaemon, SyncRole, Sysctl, Target,
};

impl Builder<'_> {
    /// Adds the connection-sync daemons, if virtual services need them.
    pub(super) fn sync_connections(&mut self, spec: &NodeSpec) {
        let Some(sync) = &spec.connection_sync else {
            return;
        };
        let needing = spec.directs.iter();
        let needing = needing.filter(|(_, director)| director.keeping == Keeping::Sync);
        let needing: Vec<(&ObjectName, &Director)> = needing.collect();
        let mixed = self.mixed_service();
        let daemon = match (mixed, self.sync_interface(sync, &needing)) {
            // The kernel would send the others what it delivers here, and they would deliver it to themselves.
            _ if spec.serves_what_it_directs() => Err(
                "its connections do not survive a failover: there is no connection sync on a director that is itself a real server by \
                 DR or TUN"
                    .to_owned(),
            ),
            (Some(key), _) => Err(format!(
                "its connections do not survive a failover: the kernel has no connection sync as long as the IPVS service {key} has \
                 a real server of another address family"
            )),
            (None, None) => Err(
                "its connections do not survive a failover: name an interface for connection sync in the DirectorGroup's \
                 `spec.connectionSync.interface`"
                    .to_owned(),
            ),
            (None, Some(interface)) => Ok(SyncDaemon {
                interface,
                settings: sync.settings.clone(),
            }),
        };
        for (name, _) in needing {
            match &daemon {
                Err(reason) => self.warn(name, reason),
                Ok(daemon) => {
                    // With 1, a machine whose daemon learns would not forward.
                    self.want_exactly(name, Sysctl::VsBackupOnly, 0);
                    for role in SyncRole::BOTH {
                        self.add_owner(name, Target::SyncDaemon(role));
                        self.state.sync_daemons.insert(role, daemon.clone());
                    }
                }
            }
        }
    }

    /// An IPVS service that has, or has lost the route to, a real server of another address family.
    fn mixed_service(&self) -> Option<ServiceKey> {
        let services = self.state.services.iter();
        let mut mixed = services.filter(|(key, service)| service.is_mixed(key.family()));
        let mut absent = self
            .absences
            .iter()
            .filter_map(|absence| match &absence.what {
                Absent::Server {
                    key, destination, ..
                } => (Family::of(destination.address) != key.family()).then_some(*key),
                Absent::Vip(_) => None,
            });
        mixed.next().map(|(key, _)| *key).or_else(|| absent.next())
    }

    /// The interface of connection sync: the one that is given, or that of the first VIP whose connections need it.
    fn sync_interface(
        &self,
        sync: &ConnectionSync,
        needing: &[(&ObjectName, &Director)],
    ) -> Option<InterfaceName> {
        let vips = needing.iter();
        let vips = vips.flat_map(|(_, director)| director.service.frontend.vips());
        let mut places = vips.filter_map(|vip| self.places.get(vip)?.interface());
        sync.interface.as_ref().or_else(|| places.next()).cloned()
    }
}
