//! What the kernel refuses, and with which error.

use ipvs_netlink::{
    DestinationConfig, Forwarding, Granularity, KernelErrorKind as Kind, Persistence, Request,
    RequestError, Tunnel, TunnelChecksum, TunnelKind,
};

use super::namespace::{
    apply, create_service, in_namespace, name, real_server, refused, scheduled_by, tcp, weighing,
};

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn refused_services_have_a_reason() {
    in_namespace(async |mut handle| {
        let (key, config) = (tcp("192.0.2.1", 80), scheduled_by("rr"));
        for request in [
            Request::UpdateService { key, config },
            Request::DeleteService { key },
            Request::Zero(Some(key)),
        ] {
            assert_eq!(refused(&mut handle, request).await, Kind::ServiceNotFound);
        }

        let unknown = Request::CreateService {
            key,
            config: scheduled_by("nosuch"),
        };
        assert_eq!(refused(&mut handle, unknown).await, Kind::UnknownScheduler);
        let mut config = scheduled_by("rr");
        config.persistence = Some(Persistence {
            timeout_seconds: 300,
            granularity: Granularity::Prefix(32),
            engine: Some(name("nosuch")),
        });
        let unknown = Request::CreateService { key, config };
        assert_eq!(refused(&mut handle, unknown).await, Kind::UnknownScheduler);

        apply(&mut handle, &[create_service(key)]).await;
        assert_eq!(
            refused(&mut handle, create_service(key)).await,
            Kind::ServiceExists
        );
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn an_ipv6_prefix_length_of_zero_is_invalid() {
    in_namespace(async |mut handle| {
        let mut config = scheduled_by("rr");
        config.persistence = Some(Persistence {
            timeout_seconds: 300,
            granularity: Granularity::Prefix(0),
            engine: None,
        });

        let request = Request::CreateService {
            key: tcp("2001:db8::1", 80),
            config,
        };
        assert_eq!(refused(&mut handle, request).await, Kind::Invalid);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn refused_destinations_have_a_reason() {
    in_namespace(async |mut handle| {
        let (service, key) = (tcp("192.0.2.1", 80), real_server("198.51.100.7", 8080));
        let config = weighing(1, Forwarding::Masquerade);
        let create = Request::CreateDestination {
            service,
            key,
            config,
        };
        let update = Request::UpdateDestination {
            service,
            key,
            config,
        };
        let delete = Request::DeleteDestination { service, key };
        for request in [create, update, delete] {
            assert_eq!(refused(&mut handle, request).await, Kind::ServiceNotFound);
        }

        apply(&mut handle, &[create_service(service)]).await;
        for request in [update, delete] {
            assert_eq!(
                refused(&mut handle, request).await,
                Kind::DestinationNotFound
            );
        }

        apply(&mut handle, &[create]).await;
        assert_eq!(refused(&mut handle, create).await, Kind::DestinationExists);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn impossible_settings_of_a_destination_are_refused() {
    in_namespace(async |mut handle| {
        let service = tcp("192.0.2.1", 80);
        apply(&mut handle, &[create_service(service)]).await;

        let masqueraded = weighing(1, Forwarding::Masquerade);
        let gue = Tunnel {
            kind: TunnelKind::Gue { port: 0 },
            checksum: TunnelChecksum::None,
        };
        let crossed = DestinationConfig {
            lower_threshold: 9,
            upper_threshold: 8,
            ..masqueraded
        };
        for (address, config, expected) in [
            (
                "198.51.100.7",
                weighing(u32::MAX, Forwarding::Route),
                Kind::OutOfRange,
            ),
            ("198.51.100.7", crossed, Kind::OutOfRange),
            (
                "198.51.100.7",
                weighing(1, Forwarding::Tunnel(gue)),
                Kind::Invalid,
            ),
            ("2001:db8:1::7", masqueraded, Kind::Invalid),
            ("224.0.0.1", masqueraded, Kind::Invalid),
        ] {
            let key = real_server(address, 8080);
            let request = Request::CreateDestination {
                service,
                key,
                config,
            };
            assert_eq!(
                refused(&mut handle, request).await,
                expected,
                "{address} {config:?}"
            );
        }
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn a_refusal_reads_as_a_sentence() {
    in_namespace(async |mut handle| {
        let key = tcp("192.0.2.1", 80);

        let failures = handle
            .execute(&[Request::DeleteService { key }])
            .await
            .unwrap();

        assert_eq!(
            failures[0].error.to_string(),
            "delete service: no such service"
        );
        let RequestError::Refused(error) = &failures[0].error else {
            panic!("{failures:?}")
        };
        assert!(error.is_not_found() && error.is_service_not_found());
        assert!(!error.is_already_exists() && !error.is_invalid());
    });
}
