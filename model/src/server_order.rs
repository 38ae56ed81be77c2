//! The order of the real servers of a virtual service in the lists that directors get, one after the other.
//!
//! A director adds real servers to its kernel in the order of its list, and those of a later list after those that it has. The kernel's
//! lookup table of `mh` depends on the order. So that a director that has followed the changes has the same order as one that starts
//! later:
//!
//! 1. Real servers that stay keep their order, whatever the order of the new version is.
//! 2. New ones come last, in the order of the new version.
//!
//! A real server is known by its address and, where they are not those of the VIPs, its ports.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{Frontend, RealServer, VirtualService};

/// Gives the real servers of a new version the order of those that directors have.
pub fn keep_server_order(known: &VirtualService, version: &mut Arc<VirtualService>) {
    let servers = known.real_servers.iter();
    let keys = servers.map(|server| key(&known.frontend, server));
    let places: BTreeMap<_, usize> = keys.zip(0..).collect();
    let place = |frontend: &Frontend, server: &RealServer| {
        let place = places.get(&key(frontend, server));
        place.copied().unwrap_or(usize::MAX)
    };
    let servers = version.real_servers.iter();
    if servers.is_sorted_by_key(|server| place(&version.frontend, server)) {
        return;
    }
    let VirtualService {
        frontend,
        real_servers,
        ..
    } = Arc::make_mut(version);
    real_servers.sort_by_cached_key(|server| place(frontend, server));
}

/// What a real server is known by.
fn key<'a>(frontend: &Frontend, server: &'a RealServer) -> (IpAddr, &'a [u16]) {
    (server.address, server.own_ports(frontend))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Port, Protocol,
        sample::{dr_server, hashed_service},
    };

    fn version(numbers: &[u8]) -> Arc<VirtualService> {
        let servers = numbers.iter();
        let servers = servers.map(|number| dr_server(&format!("192.0.2.{number}"), 1));
        Arc::new(hashed_service(servers.collect()))
    }

    #[test]
    fn real_servers_that_stay_keep_their_order_and_new_ones_come_last() {
        for (known, new, expected) in [
            (&[3, 1, 2][..], &[1, 2, 3][..], &[3, 1, 2][..]),
            (&[3, 1, 2], &[0, 1, 3], &[3, 1, 0]),
            (&[1, 2], &[5, 4], &[5, 4]),
            (&[], &[2, 1], &[2, 1]),
            (&[2, 1], &[], &[]),
        ] {
            let mut found = version(new);
            keep_server_order(&version(known), &mut found);
            assert_eq!(found, version(expected), "{known:?} {new:?}");
        }
    }

    #[test]
    fn a_version_in_order_is_not_copied() {
        let mut found = version(&[3, 1, 4]);
        let shared = Arc::clone(&found);
        keep_server_order(&version(&[3, 2, 1]), &mut found);
        assert!(Arc::ptr_eq(&found, &shared));
    }

    #[test]
    fn a_port_that_is_added_to_the_vip_moves_no_real_server() {
        let mut found = version(&[1, 3]);
        let changed = Arc::make_mut(&mut found);
        if let Frontend::Addresses { ports, .. } = &mut changed.frontend {
            ports.push(Port {
                protocol: Protocol::Tcp,
                port: 443,
            });
        }
        for server in &mut changed.real_servers {
            server.ports.push(443);
        }
        keep_server_order(&version(&[3, 1]), &mut found);
        assert_eq!(
            found.real_servers[0].address,
            version(&[3]).real_servers[0].address
        );
    }
}
