//! What unit tests of several modules begin with.

use crate::{
    Forwarding, Frontend, Nat, Port, Protocol, RealServer, Scheduler, SchedulerName, VirtualService,
};

/// A real server by DR, on port 80.
pub(crate) fn dr_server(address: &str, weight: u32) -> RealServer {
    RealServer {
        address: address.parse().unwrap(),
        ports: vec![80].into(),
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
        forwarding: Forwarding::Dr,
        service: None,
    }
}

/// A virtual service of files for TCP port 80, whose connections are found again by the hash of the client.
pub(crate) fn hashed_service(real_servers: Vec<RealServer>) -> VirtualService {
    VirtualService {
        created: None,
        group: "edge".parse().unwrap(),
        frontend: Frontend::Addresses {
            vips: vec!["192.0.2.100".parse().unwrap()],
            ports: vec![Port {
                protocol: Protocol::Tcp,
                port: 80,
            }],
        },
        forwarding: Forwarding::Dr,
        nat: Nat::default(),
        scheduler: Scheduler::new(SchedulerName::Mh, &[]),
        persistence: None,
        one_packet: false,
        alone: false,
        previous: Vec::new(),
        real_servers,
    }
}
