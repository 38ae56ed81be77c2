//! A digest of IPVS services, by which the tables of several directors are compared.

use std::{fmt::Write as _, hash::Hasher};

use fnv::FnvHasher;

use crate::{IpvsStep, Service, ServiceKey};

/// Returns a digest of IPVS services with their destinations: 16 hexadecimal digits.
///
/// It is the 64-bit FNV-1a hash of the commands of ipvsadm that add them, in the order of their keys, each followed by a newline. So it is
/// the same for equal services on all machines and in all versions of this program.
pub fn digest<'s>(services: impl Iterator<Item = (ServiceKey, &'s Service)>) -> String {
    let mut hasher = Commands(FnvHasher::default());
    for (key, service) in services {
        hasher.add(&IpvsStep::AddService {
            key,
            config: Box::new(service.config.clone()),
        });
        for (destination_key, destination) in &service.destinations {
            hasher.add(&IpvsStep::AddDestination {
                service: key,
                key: *destination_key,
                destination: *destination,
            });
        }
    }
    format!("{:016x}", hasher.0.finish())
}

/// Hashes text as it is written.
struct Commands(FnvHasher);

impl Commands {
    fn add(&mut self, step: &IpvsStep) {
        // A hasher takes all text.
        let _ = writeln!(self, "{step}");
    }
}

impl std::fmt::Write for Commands {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Destination, DestinationKey, Forwarding, Protocol, Scheduler, SchedulerName, ServiceConfig,
    };

    fn service(servers: &[(&str, u32)]) -> Service {
        let destinations = servers.iter().map(|(address, weight)| {
            let key = DestinationKey {
                address: address.parse().unwrap(),
                port: 80,
            };
            let destination = Destination {
                forwarding: Forwarding::Dr,
                weight: *weight,
                upper_threshold: 0,
                lower_threshold: 0,
            };
            (key, destination)
        });
        Service {
            config: ServiceConfig {
                scheduler: Scheduler::new(SchedulerName::Wlc, &[]),
                ..ServiceConfig::default()
            },
            destinations: destinations.collect(),
            ..Service::default()
        }
    }

    fn digest_of(service: &Service) -> String {
        let key = ServiceKey::Address {
            address: "192.0.2.100".parse().unwrap(),
            protocol: Protocol::Tcp,
            port: 80,
        };
        digest(std::iter::once((key, service)))
    }

    #[test]
    fn the_digest_of_a_service_never_changes() {
        let service = service(&[("192.0.2.11", 1), ("192.0.2.12", 3)]);
        assert_eq!(digest_of(&service), "ef0fd2b1cce57a98");
    }

    #[test]
    fn the_order_is_not_part_of_the_digest() {
        let service = service(&[("192.0.2.11", 1), ("192.0.2.12", 3)]);
        let mut reordered = Service {
            config: service.config.clone(),
            ..Service::default()
        };
        for (key, settings) in service.destinations.iter().rev() {
            reordered.add(*key, *settings);
        }
        assert_eq!(digest_of(&reordered), digest_of(&service));
    }

    #[test]
    fn services_that_differ_have_different_digests() {
        let known = digest_of(&service(&[("192.0.2.11", 1), ("192.0.2.12", 3)]));
        let other_weight = service(&[("192.0.2.11", 1), ("192.0.2.12", 2)]);
        let other_server = service(&[("192.0.2.11", 1), ("192.0.2.13", 3)]);
        let fewer = service(&[("192.0.2.11", 1)]);
        for other in [other_weight, other_server, fewer] {
            assert_ne!(digest_of(&other), known);
        }
    }
}
