//! Destinations: forwarding methods, tunnels, thresholds.

use ipvs_netlink::{
    Connections, DestinationConfig, DestinationKey, Forwarding, Request, Stats, Tunnel,
    TunnelChecksum, TunnelKind,
};

use super::namespace::{apply, create_service, in_namespace, real_server, tcp, weighing};

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn destinations_of_every_kind_are_set_and_read_back() {
    in_namespace(async |mut handle| {
        let service = tcp("192.0.2.1", 80);
        let expected = destinations();
        let create = |&(key, config)| Request::CreateDestination {
            service,
            key,
            config,
        };
        let requests: Vec<_> = expected.iter().map(create).collect();
        apply(&mut handle, &[create_service(service)]).await;
        apply(&mut handle, &requests).await;

        let mut found = handle.destinations(&service).await.unwrap();
        found.sort_by_key(|destination| destination.key);

        let settings: Vec<_> = found
            .iter()
            .map(|found| (found.key, found.config))
            .collect();
        assert_eq!(settings, expected);
        assert_eq!(found[0].stats, Stats::default());
        assert_eq!(found[0].connections, Connections::default());
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn a_destination_of_an_ipv6_service_is_updated_in_place_and_deleted() {
    in_namespace(async |mut handle| {
        let (service, key) = (tcp("2001:db8::1", 80), real_server("2001:db8:1::7", 80));
        let config = weighing(3, Forwarding::Route);
        let create = Request::CreateDestination {
            service,
            key,
            config,
        };
        apply(&mut handle, &[create_service(service), create]).await;

        let tunnel = Tunnel {
            kind: TunnelKind::Gre,
            checksum: TunnelChecksum::Checksum,
        };
        let config = DestinationConfig {
            forwarding: Forwarding::Tunnel(tunnel),
            weight: 0,
            upper_threshold: 70_000,
            lower_threshold: 60_000,
        };
        apply(
            &mut handle,
            &[Request::UpdateDestination {
                service,
                key,
                config,
            }],
        )
        .await;
        let found = handle.destinations(&service).await.unwrap();
        assert_eq!((found[0].key, found[0].config), (key, config));

        apply(&mut handle, &[Request::DeleteDestination { service, key }]).await;
        assert_eq!(handle.destinations(&service).await.unwrap(), []);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn a_tunnel_may_lead_to_the_other_family() {
    in_namespace(async |mut handle| {
        let (service, key) = (tcp("192.0.2.1", 80), real_server("2001:db8:1::7", 80));
        let config = weighing(1, Forwarding::Tunnel(Tunnel::IPIP));
        let create = Request::CreateDestination {
            service,
            key,
            config,
        };
        apply(&mut handle, &[create_service(service), create]).await;

        let found = handle.destinations(&service).await.unwrap();
        assert_eq!((found[0].key, found[0].config), (key, config));

        apply(&mut handle, &[Request::DeleteDestination { service, key }]).await;
        assert_eq!(handle.destinations(&service).await.unwrap(), []);
    });
}

/// Sorted by key.
fn destinations() -> Vec<(DestinationKey, DestinationConfig)> {
    let tunnel = |kind, checksum| Forwarding::Tunnel(Tunnel { kind, checksum });
    let limited = DestinationConfig {
        upper_threshold: 100,
        lower_threshold: 50,
        ..weighing(7, Forwarding::Masquerade)
    };
    let gue = TunnelKind::Gue { port: 6080 };
    let foreign = TunnelKind::Other { number: 9, port: 4 };
    let configs = [
        limited,
        weighing(0, Forwarding::Masquerade),
        weighing(i32::MAX.unsigned_abs(), Forwarding::Route),
        weighing(1, Forwarding::Local),
        weighing(1, Forwarding::Bypass),
        weighing(1, Forwarding::Other(5)),
        weighing(1, Forwarding::Tunnel(Tunnel::IPIP)),
        weighing(1, tunnel(gue, TunnelChecksum::None)),
        weighing(1, tunnel(gue, TunnelChecksum::Remote)),
        weighing(1, tunnel(TunnelKind::Gre, TunnelChecksum::Checksum)),
        weighing(1, tunnel(foreign, TunnelChecksum::Other(3))),
    ];
    (1..)
        .map(|host| real_server(&format!("198.51.100.{host}"), 8080))
        .zip(configs)
        .collect()
}
