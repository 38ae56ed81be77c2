//! Tests of the encoding of requests.

use std::{hint::black_box, net::IpAddr, time::Instant};

use netlink_packet_core::Parseable;
use netlink_packet_generic::GenlMessage;
use proptest::prelude::*;

use super::*;
use crate::{Forwarding, Name, Protocol, destination, service, wire::tests::answers};

proptest! {
    #[test]
    fn the_direct_encoding_equals_that_of_the_attribute_list(request in request()) {
        let message = GenlMessage::from_payload(request.to_message());
        let mut expected = vec![0; message.buffer_len()];
        message.emit(&mut expected);

        let mut encoded = b"what is in the buffer already".to_vec();
        let start = encoded.len();
        request.encode(&mut encoded);
        prop_assert_eq!(&encoded[start..], expected);
    }
}

#[test]
fn a_captured_daemon_is_encoded_as_it_was_captured() {
    let daemon = Daemon::parse(&answers::daemon()).unwrap();

    let IpvsMessage { attributes, .. } = Request::StartDaemon(daemon).to_message();
    let [IpvsAttribute::Daemon(nlas)] = attributes.as_slice() else {
        panic!("{attributes:?}")
    };
    let mut bytes = vec![0; nlas.as_slice().buffer_len()];
    nlas.as_slice().emit(&mut bytes);
    assert_eq!(Daemon::parse(&bytes).unwrap(), daemon);
    assert_eq!(
        (daemon.port, daemon.ttl, daemon.sync_id),
        (Some(8850), Some(2), 9)
    );
}

#[test]
fn the_text_of_a_request_names_command_and_object() {
    let [service, destination] = table(1, 1).try_into().unwrap();
    assert_eq!(service.to_string(), "create service TCP 10.0.0.0:80");
    assert_eq!(
        destination.to_string(),
        "create destination 192.168.0.0:8080 of TCP 10.0.0.0:80"
    );
    assert_eq!(
        Request::StopDaemon(DaemonState::Backup).to_string(),
        "stop sync daemon (backup)"
    );
}

/// Prints nanoseconds for each request; run it with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "measures, asserts nothing"]
fn encoding_speed() {
    let requests = table(10_000, 10);
    let mut buffer = Vec::with_capacity(1 << 20);
    for round in 0..5 {
        let start = Instant::now();
        let mut bytes = 0;
        for batch in requests.chunks(500) {
            buffer.clear();
            for request in batch {
                black_box(request).encode(&mut buffer);
            }
            bytes += black_box(&buffer).len();
        }
        let elapsed = start.elapsed();
        let each = elapsed.as_nanos() / requests.len() as u128;
        println!(
            "round {round}: {} requests, {bytes} bytes, {elapsed:?}, {each} ns each",
            requests.len()
        );
    }
}

fn request() -> impl Strategy<Value = Request> {
    let (service_key, destination_key) = (service::tests::key, destination::tests::key);
    let (service, destination) = (service::tests::config, destination::tests::config);
    let state = || prop_oneof![Just(DaemonState::Master), Just(DaemonState::Backup)];
    let daemon = (
        state(),
        any::<u32>(),
        any::<Option<u16>>(),
        any::<Option<IpAddr>>(),
        any::<Option<u16>>(),
        any::<Option<u8>>(),
    )
        .prop_map(|(state, sync_id, max_length, group, port, ttl)| {
            let interface = Name::new("eth1").unwrap();
            Daemon {
                state,
                interface,
                sync_id,
                max_length,
                group,
                port,
                ttl,
            }
        });
    prop_oneof![
        (service_key(), service()).prop_map(|(key, config)| Request::CreateService { key, config }),
        (service_key(), service()).prop_map(|(key, config)| Request::UpdateService { key, config }),
        service_key().prop_map(|key| Request::DeleteService { key }),
        (service_key(), destination_key(), destination()).prop_map(|(service, key, config)| {
            Request::CreateDestination {
                service,
                key,
                config,
            }
        }),
        (service_key(), destination_key(), destination()).prop_map(|(service, key, config)| {
            Request::UpdateDestination {
                service,
                key,
                config,
            }
        }),
        (service_key(), destination_key())
            .prop_map(|(service, key)| Request::DeleteDestination { service, key }),
        any::<(u32, u32, u32)>().prop_map(|(tcp_seconds, tcp_fin_seconds, udp_seconds)| {
            Request::SetTimeouts(Timeouts {
                tcp_seconds,
                tcp_fin_seconds,
                udp_seconds,
            })
        }),
        daemon.prop_map(Request::StartDaemon),
        state().prop_map(Request::StopDaemon),
        proptest::option::of(service_key()).prop_map(Request::Zero),
        Just(Request::Flush),
    ]
}

/// Requests that create this many services with this many destinations each.
fn table(services: u32, destinations: u32) -> Vec<Request> {
    let mut requests = Vec::new();
    for number in 0..services {
        let address = (0x0a00_0000 + number).to_be_bytes().into();
        let service = ServiceKey::Address {
            protocol: Protocol::Tcp,
            address,
            port: 80,
        };
        let config = ServiceConfig::new(Name::new("wlc").unwrap());
        requests.push(Request::CreateService {
            key: service,
            config,
        });
        for number in 0..destinations {
            let address = (0xc0a8_0000 + number).to_be_bytes().into();
            let key = DestinationKey {
                address,
                port: 8080,
            };
            let forwarding = Forwarding::Masquerade;
            let (weight, upper_threshold, lower_threshold) = (1, 0, 0);
            let config = DestinationConfig {
                forwarding,
                weight,
                upper_threshold,
                lower_threshold,
            };
            requests.push(Request::CreateDestination {
                service,
                key,
                config,
            });
        }
    }
    requests
}
