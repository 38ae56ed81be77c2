//! Many requests, and many objects in a dump.

use std::collections::BTreeSet;

use ipvs_netlink::{Request, RequestError};

use super::namespace::{
    apply, create_service, in_namespace, numbered_destination, numbered_service, table,
};

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn errors_in_the_middle_of_a_batch_do_not_stop_the_rest() {
    in_namespace(async |mut handle| {
        let mut requests: Vec<_> = (0..2000)
            .map(|n| create_service(numbered_service(n)))
            .collect();
        requests[700] = requests[699];
        requests[701] = Request::DeleteService {
            key: numbered_service(9999),
        };
        requests[1999] = requests[0];

        let failures = handle.execute(&requests).await.unwrap();

        let indexes: Vec<_> = failures.iter().map(|failure| failure.index).collect();
        assert_eq!(indexes, [700, 701, 1999]);
        let [exists, missing, last] = failures.as_slice() else {
            panic!("{failures:?}")
        };
        assert!(matches!(&exists.error, RequestError::Refused(e) if e.is_already_exists()));
        assert!(matches!(&missing.error, RequestError::Refused(e) if e.is_not_found()));
        assert!(matches!(&last.error, RequestError::Refused(e) if e.is_already_exists()));
        assert_eq!(handle.services().await.unwrap().len(), 1997);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn a_batch_that_fails_as_a_whole_loses_no_answer() {
    in_namespace(async |mut handle| {
        let requests: Vec<_> = (0..2000)
            .map(|n| Request::DeleteService {
                key: numbered_service(n),
            })
            .collect();

        let failures = handle.execute(&requests).await.unwrap();

        assert_eq!(failures.len(), 2000);
        for (index, failure) in failures.iter().enumerate() {
            assert_eq!(failure.index, index);
            assert!(matches!(&failure.error, RequestError::Refused(e) if e.is_not_found()));
        }
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn a_dump_of_two_thousand_services_contains_each_once() {
    in_namespace(async |mut handle| {
        apply(&mut handle, &table(2000, 2)).await;

        let tables = handle.snapshot().await.unwrap();

        let services: BTreeSet<_> = tables.iter().map(|table| table.service.key).collect();
        assert_eq!(services, (0..2000).map(numbered_service).collect());
        assert_eq!(tables.len(), 2000);
        for table in &tables {
            let keys: BTreeSet<_> = table.destinations.iter().map(|found| found.key).collect();
            assert_eq!(keys, (0..2).map(numbered_destination).collect());
        }
    });
}

#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn a_service_with_two_thousand_destinations_is_read_whole() {
    in_namespace(async |mut handle| {
        apply(&mut handle, &table(1, 2000)).await;

        let found = handle.destinations(&numbered_service(0)).await.unwrap();

        let keys: BTreeSet<_> = found.iter().map(|found| found.key).collect();
        assert_eq!(keys, (0..2000).map(numbered_destination).collect());
        assert_eq!(found.len(), 2000);
    });
}
