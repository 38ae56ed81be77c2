//! How directors program a virtual service: the settings of its IPVS services and of their destinations.

use crate::{
    Destination, DestinationKey, Family, RealServer, Service, ServiceConfig, VirtualService,
};

/// Returns the settings of the IPVS services of one family.
pub(crate) fn config(service: &VirtualService, family: Family) -> ServiceConfig {
    let persistence = service
        .persistence
        .as_ref()
        .map(|persistence| match family {
            Family::V4 => persistence.v4.clone(),
            Family::V6 => persistence.v6.clone(),
        });
    ServiceConfig {
        scheduler: service.scheduler.clone(),
        persistence,
        one_packet: service.one_packet,
    }
}

/// Returns the settings of a real server's destinations.
pub(crate) const fn destination(server: &RealServer) -> Destination {
    Destination {
        forwarding: server.forwarding,
        weight: server.weight,
        upper_threshold: server.upper_threshold,
        lower_threshold: server.lower_threshold,
    }
}

/// Adds a real server to the IPVS service of the port at `index`. Two real servers of one address can share a port, as an old and a
/// new endpoint of a pod do; then the larger weight counts, and the place of the first one.
pub(crate) fn add(service: &mut Service, server: &RealServer, index: usize, settings: Destination) {
    let key = DestinationKey {
        address: server.address,
        port: server.destination_port(index),
    };
    let known = service.destinations.get(&key);
    if known.is_none_or(|known| settings.weight > known.weight) {
        service.add(key, settings);
    }
}
