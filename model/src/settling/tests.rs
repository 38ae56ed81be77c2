//! When a director programs a changed set.

use super::*;
use crate::{
    Scheduler, SchedulerName,
    sample::{dr_server, hashed_service},
};

const SOON: Duration = Duration::from_millis(1999);

fn service(servers: &[&str]) -> VirtualService {
    let servers = servers.iter();
    hashed_service(servers.map(|address| dr_server(address, 1)).collect())
}

fn name() -> ObjectName {
    ObjectName::new("shop", "web").unwrap()
}

/// A director over time.
struct Fixture {
    settling: Settling,
    start: Instant,
    keeping: Keeping,
}

impl Fixture {
    fn new(keeping: Keeping) -> Self {
        Self {
            settling: Settling::default(),
            start: Instant::now(),
            keeping,
        }
    }

    /// Returns what it programs of a version, and how long it waits then.
    fn at(
        &mut self,
        after: Duration,
        version: &VirtualService,
    ) -> (VirtualService, Option<Duration>) {
        let director = Director {
            service: Arc::new(version.clone()),
            interface: None,
            candidacy: None,
            keeping: self.keeping,
        };
        let mut directs = BTreeMap::from([(name(), director)]);
        let left = self.settling.hold(&mut directs, self.start + after);
        (VirtualService::clone(&directs[&name()].service), left)
    }
}

#[test]
fn a_changed_set_is_programmed_two_seconds_later() {
    let (one, other, last) = (
        service(&["192.0.2.1"]),
        service(&["192.0.2.2"]),
        service(&["192.0.2.3"]),
    );
    let mut director = Fixture::new(Keeping::Hash);
    let millis = Duration::from_millis;
    assert_eq!(director.at(millis(0), &one), (one.clone(), None));
    assert_eq!(
        director.at(millis(5), &other),
        (one.clone(), Some(SETTLING))
    );
    let left = SETTLING - millis(500);
    assert_eq!(director.at(millis(505), &last), (one.clone(), Some(left)));
    assert_eq!(director.at(millis(2005), &last), (last.clone(), None));
    assert_eq!(director.at(millis(2006), &one), (last, Some(SETTLING)));
}

#[test]
fn a_change_that_is_taken_back_is_forgotten() {
    let (one, other) = (service(&["192.0.2.1"]), service(&["192.0.2.2"]));
    let mut director = Fixture::new(Keeping::Hash);
    let _first = director.at(Duration::ZERO, &one);
    let _change = director.at(Duration::ZERO, &other);
    assert_eq!(director.at(SOON, &one), (one.clone(), None));
    assert_eq!(director.at(SOON * 2, &other), (one, Some(SETTLING)));
}

#[test]
fn a_change_counts_at_once_where_no_connection_depends_on_the_order() {
    let (one, other) = (service(&["192.0.2.1"]), service(&["192.0.2.2"]));
    let of_cluster = |service: &VirtualService| VirtualService {
        created: Some(1),
        ..service.clone()
    };
    let by_another_scheduler = VirtualService {
        scheduler: Scheduler::new(SchedulerName::Sh, &[]),
        ..other.clone()
    };
    let cases = [
        (Keeping::Sync, one.clone(), other.clone()),
        (Keeping::Nothing, one.clone(), other.clone()),
        (Keeping::Hash, of_cluster(&one), of_cluster(&other)),
        (Keeping::Hash, one, by_another_scheduler),
        (Keeping::Hash, service(&[]), other),
    ];
    for (keeping, before, now) in cases {
        let mut director = Fixture::new(keeping);
        let _before = director.at(Duration::ZERO, &before);
        assert_eq!(director.at(SOON, &now), (now, None), "{keeping:?}");
    }
}

#[test]
fn another_order_is_no_change() {
    let (one, reordered) = (
        service(&["192.0.2.1", "192.0.2.2"]),
        service(&["192.0.2.2", "192.0.2.1"]),
    );
    let mut director = Fixture::new(Keeping::Hash);
    let _first = director.at(Duration::ZERO, &one);
    assert_eq!(director.at(SOON, &reordered), (reordered, None));
}
