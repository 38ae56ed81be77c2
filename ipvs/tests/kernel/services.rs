//! Services, timeouts and information.

use std::{net::Ipv4Addr, num::NonZeroU32};

use ipvs_netlink::{
    Family, Forwarding, Granularity, Persistence, Protocol, Request, SchedulerFlags, ServiceConfig,
    ServiceKey, Timeouts, Version,
};

use super::namespace::{
    apply, create_service, in_namespace, name, real_server, scheduled_by, tcp, weighing,
};

const SCHEDULERS: [&str; 13] = [
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf",
];

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn the_kernel_reports_its_version() {
    in_namespace(async |mut handle| {
        let info = handle.info().await.unwrap();

        assert_eq!(
            info.version,
            Version {
                major: 1,
                minor: 2,
                patch: 1
            }
        );
        assert!(info.connection_table_size.is_power_of_two(), "{info:?}");
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn a_timeout_of_zero_keeps_the_present_one() {
    in_namespace(async |mut handle| {
        let timeouts = Timeouts {
            tcp_seconds: 901,
            tcp_fin_seconds: 121,
            udp_seconds: 301,
        };
        apply(&mut handle, &[Request::SetTimeouts(timeouts)]).await;
        assert_eq!(handle.timeouts().await.unwrap(), timeouts);

        let one = Timeouts {
            udp_seconds: 42,
            ..Timeouts::default()
        };
        apply(&mut handle, &[Request::SetTimeouts(one)]).await;
        let expected = Timeouts {
            udp_seconds: 42,
            ..timeouts
        };
        assert_eq!(handle.timeouts().await.unwrap(), expected);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn every_scheduler_is_set_and_read_back() {
    in_namespace(async |mut handle| {
        for (port, scheduler) in (8000..).zip(SCHEDULERS) {
            let (key, config) = (tcp("192.0.2.1", port), scheduled_by(scheduler));
            apply(&mut handle, &[Request::CreateService { key, config }]).await;

            let service = handle.service(&key).await.unwrap().unwrap();
            assert_eq!((service.key, service.config), (key, config));
        }
        assert_eq!(handle.services().await.unwrap().len(), SCHEDULERS.len());
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn services_of_every_kind_are_set_and_read_back() {
    in_namespace(async |mut handle| {
        for (key, config) in services() {
            apply(&mut handle, &[Request::CreateService { key, config }]).await;
            let service = handle.service(&key).await.unwrap().unwrap();
            assert_eq!((service.key, service.config), (key, config));
        }

        let mut dumped: Vec<_> = handle.services().await.unwrap();
        dumped.sort_by_key(|service| service.key);
        let mut expected = services();
        expected.sort_by_key(|(key, _)| *key);
        assert_eq!(
            dumped
                .iter()
                .map(|service| (service.key, service.config))
                .collect::<Vec<_>>(),
            expected
        );
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn an_update_replaces_every_setting_and_keeps_the_destinations() {
    in_namespace(async |mut handle| {
        let key = tcp("192.0.2.1", 80);
        let mut config = scheduled_by("mh");
        config.flags = SchedulerFlags::FALLBACK;
        config.persistence = Some(persistence(Granularity::Prefix(24)));
        let destination = Request::CreateDestination {
            service: key,
            key: real_server("198.51.100.7", 8080),
            config: weighing(1, Forwarding::Masquerade),
        };
        apply(
            &mut handle,
            &[Request::CreateService { key, config }, destination],
        )
        .await;

        let config = scheduled_by("wlc");
        apply(&mut handle, &[Request::UpdateService { key, config }]).await;

        let table = handle.snapshot().await.unwrap();
        assert_eq!(table[0].service.config, config);
        assert_eq!(table[0].destinations.len(), 1);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn a_deleted_service_is_gone_and_has_no_destinations() {
    in_namespace(async |mut handle| {
        let key = tcp("192.0.2.1", 80);
        apply(
            &mut handle,
            &[create_service(key), Request::DeleteService { key }],
        )
        .await;

        assert_eq!(handle.service(&key).await.unwrap(), None);
        assert_eq!(handle.destinations(&key).await.unwrap(), []);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn counters_are_zeroed_and_everything_is_flushed() {
    in_namespace(async |mut handle| {
        let keys = [tcp("192.0.2.1", 80), tcp("2001:db8::1", 80)];
        apply(&mut handle, &keys.map(create_service)).await;

        apply(
            &mut handle,
            &[Request::Zero(Some(keys[1])), Request::Zero(None)],
        )
        .await;
        assert_eq!(handle.services().await.unwrap().len(), 2);

        apply(&mut handle, &[Request::Flush]).await;
        assert_eq!(handle.services().await.unwrap(), []);
    });
}

fn services() -> Vec<(ServiceKey, ServiceConfig)> {
    let udp = |port| ServiceKey::Address {
        protocol: Protocol::Udp,
        address: Ipv4Addr::new(192, 0, 2, 1).into(),
        port,
    };
    let sctp = ServiceKey::Address {
        protocol: Protocol::Sctp,
        address: "2001:db8::2".parse().unwrap(),
        port: 2905,
    };
    let foreign = ServiceKey::Address {
        protocol: Protocol::Other(50),
        address: Ipv4Addr::new(192, 0, 2, 1).into(),
        port: 1,
    };
    let with = |change: fn(&mut ServiceConfig)| {
        let mut config = scheduled_by("sh");
        change(&mut config);
        config
    };
    let persistent = |granularity| {
        let mut config = scheduled_by("wlc");
        config.persistence = Some(persistence(granularity));
        config
    };
    let gaps = Granularity::Netmask(Ipv4Addr::new(255, 0, 255, 0));
    vec![
        (tcp("192.0.2.1", 80), scheduled_by("rr")),
        (tcp("2001:db8::1", 80), scheduled_by("rr")),
        (fwmark(Family::V4), scheduled_by("rr")),
        (fwmark(Family::V6), scheduled_by("wrr")),
        (udp(53), with(|config| config.one_packet = true)),
        (
            udp(5060),
            with(|config| config.persistence = Some(by_call())),
        ),
        (sctp, with(|config| config.flags = SchedulerFlags::SCHED_3)),
        (
            foreign,
            with(|config| config.flags = SchedulerFlags::FALLBACK | SchedulerFlags::PORT),
        ),
        (tcp("192.0.2.1", 0), persistent(Granularity::Prefix(32))),
        (tcp("192.0.2.2", 0), persistent(Granularity::Prefix(0))),
        (tcp("192.0.2.3", 0), persistent(Granularity::Prefix(20))),
        (tcp("192.0.2.4", 0), persistent(gaps)),
        (tcp("2001:db8::3", 0), persistent(Granularity::Prefix(128))),
        (tcp("2001:db8::4", 0), persistent(Granularity::Prefix(56))),
    ]
}

fn fwmark(family: Family) -> ServiceKey {
    ServiceKey::Fwmark {
        mark: NonZeroU32::new(7).unwrap(),
        family,
    }
}

fn persistence(granularity: Granularity) -> Persistence {
    Persistence {
        timeout_seconds: 360,
        granularity,
        engine: None,
    }
}

fn by_call() -> Persistence {
    let engine = Some(name("sip"));
    Persistence {
        timeout_seconds: 90,
        granularity: Granularity::Prefix(24),
        engine,
    }
}
