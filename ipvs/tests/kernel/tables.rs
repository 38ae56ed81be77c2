//! Services with their destinations, read one after the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use ipvs_netlink::{
    DestinationKey, Family, Forwarding, Handle, Request, ServiceConfig, ServiceKey, ServiceTable,
    Tables,
};

use super::namespace::{
    apply, create_service, in_namespace, numbered_destination, numbered_service, real_server,
    scheduled_by, table, tcp, weighing,
};

/// A datagram of a dump holds about eighty destinations.
const SEVERAL_DATAGRAMS: u32 = 200;
const MANY_DATAGRAMS: u32 = 2000;

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn every_service_is_read_once_with_any_number_of_destinations() {
    in_namespace(async |mut handle| {
        let sizes = [3, 0, MANY_DATAGRAMS, 1, 0, 80, 90, 10];
        for (number, size) in (0..).zip(sizes) {
            apply(&mut handle, &service_of(number, size)).await;
        }

        let mut found = BTreeMap::new();
        let mut tables = handle.tables().await.unwrap();
        while let Some(table) = tables.next().await.unwrap() {
            let last = found.insert(table.service.key, keys(table));
            assert_eq!(last, None, "{} was read twice", table.service.key);
            assert_eq!(table.service.config, scheduled_by("rr"));
        }

        let expected = (0..)
            .zip(sizes)
            .map(|(number, size)| {
                let destinations = (0..size).map(numbered_destination);
                (numbered_service(number), destinations.collect())
            })
            .collect();
        assert_eq!(found, expected);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn a_snapshot_equals_the_tables() {
    in_namespace(async |mut handle| {
        apply(&mut handle, &table(20, 3)).await;

        let snapshot = handle.snapshot().await.unwrap();

        assert_eq!(snapshot, all(handle.tables().await.unwrap()).await);
        assert_eq!(snapshot.len(), 20);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn services_are_read_in_the_given_order_and_missing_ones_are_left_out() {
    in_namespace(async |mut handle| {
        for (number, size) in [(0, 2), (1, MANY_DATAGRAMS), (2, 0), (3, 4)] {
            apply(&mut handle, &service_of(number, size)).await;
        }
        let numbers = [3, 77, 2, 1, 78, 79, 3];

        let tables = all(handle.tables_of(numbers.map(numbered_service))).await;

        let found: Vec<_> = tables
            .iter()
            .map(|table| (table.service.key, table.destinations.len()))
            .collect();
        let expected = [(3, 4), (2, 0), (1, MANY_DATAGRAMS as usize), (3, 4)]
            .map(|(number, size)| (numbered_service(number), size));
        assert_eq!(found, expected);
        assert_eq!(all(handle.tables_of([])).await, []);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn services_of_every_kind_are_read_by_their_keys() {
    in_namespace(async |mut handle| {
        let mark = |family| ServiceKey::Fwmark {
            mark: 7.try_into().unwrap(),
            family,
        };
        let keys = [
            tcp("192.0.2.1", 80),
            tcp("2001:db8::1", 80),
            mark(Family::V4),
            mark(Family::V6),
        ];
        let destination = |service: ServiceKey| {
            let address = match service.family() {
                Family::V4 => "198.51.100.7",
                Family::V6 => "2001:db8:1::7",
            };
            real_server(address, 8080)
        };
        for service in keys {
            let create = Request::CreateDestination {
                service,
                key: destination(service),
                config: weighing(5, Forwarding::Masquerade),
            };
            apply(&mut handle, &[create_service(service), create]).await;
        }

        let tables = all(handle.tables_of(keys)).await;

        let found: Vec<_> = tables
            .iter()
            .map(|table| (table.service.key, table.destinations[0].key))
            .collect();
        assert_eq!(found, keys.map(|service| (service, destination(service))));
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn a_service_that_is_deleted_before_its_turn_is_left_out() {
    in_namespace(async |mut handle| {
        let mut other = Handle::connect().await.unwrap();
        apply(&mut handle, &table(3, 10)).await;
        let mut tables = handle.tables().await.unwrap();
        let first = tables.next().await.unwrap().unwrap().service.key;
        let deleted = (0..3).map(numbered_service).find(|key| *key != first);

        let key = deleted.unwrap();
        apply(&mut other, &[Request::DeleteService { key }]).await;

        let last = tables.next().await.unwrap().unwrap();
        assert_ne!(last.service.key, key);
        assert_eq!(last.destinations.len(), 10);
        assert_eq!(tables.next().await.unwrap(), None);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn a_service_that_loses_its_destinations_is_read_without_them() {
    in_namespace(async |mut handle| {
        let mut other = Handle::connect().await.unwrap();
        let service = numbered_service(0);
        apply(&mut handle, &service_of(0, 1)).await;
        let mut tables = handle.tables().await.unwrap();

        let config = ServiceConfig {
            one_packet: true,
            ..scheduled_by("wrr")
        };
        let key = numbered_destination(0);
        let requests = [
            Request::UpdateService {
                key: service,
                config,
            },
            Request::DeleteDestination { service, key },
        ];
        apply(&mut other, &requests).await;

        let table = tables.next().await.unwrap().unwrap();
        assert_eq!(
            (table.service.config, table.destinations.len()),
            (config, 0)
        );
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn a_service_that_is_deleted_and_created_again_does_not_disturb_a_read() {
    in_namespace(async |mut handle| {
        apply(&mut handle, &table(2, SEVERAL_DATAGRAMS)).await;
        let (unstable, stable) = (numbered_service(0), numbered_service(1));
        let every_key: BTreeSet<_> = (0..SEVERAL_DATAGRAMS).map(numbered_destination).collect();
        let stop = Arc::new(AtomicBool::new(false));
        // A thread inherits the network namespace of the one that starts it.
        let other = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || come_and_go(unstable, &stop)
        });

        for _ in 0..200 {
            let tables = all(handle.tables_of([unstable, stable])).await;
            match tables.as_slice() {
                [last] => assert_eq!(keys(last), every_key),
                [first, last] => {
                    let found = first.destinations.iter().map(|found| found.key);
                    assert!(found.collect::<BTreeSet<_>>().is_subset(&every_key));
                    assert_eq!(keys(last), every_key);
                }
                _ => panic!("{tables:?}"),
            }
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        other.join().unwrap();
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn a_dropped_read_is_repeated_by_the_next_call() {
    in_namespace(async |mut handle| {
        apply(&mut handle, &table(200, 3)).await;
        let mut tables = handle.tables().await.unwrap();
        let mut found = BTreeSet::new();
        let mut given_up = 0;
        loop {
            // After every few dozen reads, a read yields to other tasks; such a read is dropped
            // here.
            match poll_once(tables.next()).await {
                None => {
                    given_up += 1;
                    tokio::task::yield_now().await;
                }
                Some(table) => match table.unwrap() {
                    Some(table) => assert!(found.insert(table.service.key)),
                    None => break,
                },
            }
        }

        assert!(given_up > 0);
        assert_eq!(found.len(), 200);
    });
}

/// Polls a future once and drops it; `None` when it waits.
async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Deletes and creates a service until `stop` is set.
fn come_and_go(service: ServiceKey, stop: &AtomicBool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut handle = Handle::connect().await.unwrap();
        while !stop.load(Ordering::Relaxed) {
            apply(&mut handle, &[Request::DeleteService { key: service }]).await;
            std::thread::yield_now();
            apply(&mut handle, &service_of(0, SEVERAL_DATAGRAMS)).await;
            std::thread::yield_now();
        }
    });
}

/// Requests that create the `number`th service with this many destinations.
fn service_of(number: u32, destinations: u32) -> Vec<Request> {
    let service = numbered_service(number);
    let mut requests = vec![create_service(service)];
    requests.extend((0..destinations).map(|number| Request::CreateDestination {
        service,
        key: numbered_destination(number),
        config: weighing(1, Forwarding::Masquerade),
    }));
    requests
}

async fn all(mut tables: Tables<'_>) -> Vec<ServiceTable> {
    let mut all = Vec::new();
    while let Some(table) = tables.next().await.unwrap() {
        all.push(table.clone());
    }
    all
}

fn keys(table: &ServiceTable) -> BTreeSet<DestinationKey> {
    let keys: BTreeSet<_> = table.destinations.iter().map(|found| found.key).collect();
    assert_eq!(keys.len(), table.destinations.len(), "one was read twice");
    keys
}
