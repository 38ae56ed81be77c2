//! Writes that are queued or in flight.
//!
//! For each object at most one write is in flight; a newer queued write replaces an older one. What directors are given does not queue
//! behind what real servers are given, neither behind statuses, and reconciling does not wait for any write.

use std::collections::{BTreeMap, VecDeque};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use lvs_model::{NodeName, ObjectName, PoolName};

use crate::{
    cluster::{Objects, ReconcileRequest},
    write::{Reported, Write},
    writer::{WriteError, Writer},
};

/// The most writes of DirectorBindings and LvsNodes that are in flight.
const MAX_SPECS: usize = 32;
/// The most writes of RealServerBindings that are in flight. A change of one real server writes those of all, so there may be many.
const MAX_SERVED: usize = 16;
/// The most writes of statuses that are in flight: an API server that is busy with them is slow for everything.
const MAX_STATUSES: usize = 4;

/// The object that is written, or its status.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum WriteKey {
    Binding(ObjectName),
    Served(ObjectName),
    Node(NodeName),
    ServiceStatus(ObjectName),
    GroupStatus(String),
    ReportedStatus(Reported),
    PoolStatus(PoolName),
}

impl WriteKey {
    fn of(write: &Write) -> Self {
        match write {
            Write::ApplyBinding { name, .. } | Write::DeleteBinding { name, .. } => {
                Self::Binding(name.clone())
            }
            Write::ApplyServed { name, .. } | Write::DeleteServed { name, .. } => {
                Self::Served(name.clone())
            }
            Write::ApplyNode { name, .. } | Write::DeleteNode { name, .. } => {
                Self::Node(name.clone())
            }
            Write::Silence { object, .. } => Self::ReportedStatus(object.clone()),
            Write::ServiceStatus { name, .. } => Self::ServiceStatus(name.clone()),
            Write::GroupStatus { name, .. } => Self::GroupStatus(name.clone()),
            Write::PoolStatus { name, .. } => Self::PoolStatus(name.clone()),
        }
    }
}

/// A write with its result.
pub(crate) struct Completed {
    /// The write.
    pub write: Write,
    /// Whether the API server has accepted it.
    pub result: Result<(), WriteError>,
}

/// Writes that are queued or in flight.
pub(crate) struct WriteQueue {
    writer: Writer,
    specs: Lane,
    served: Lane,
    statuses: Lane,
    calls: FuturesUnordered<BoxFuture<'static, Completed>>,
}

impl WriteQueue {
    pub(crate) fn new(writer: Writer) -> Self {
        Self {
            writer,
            specs: Lane::new(MAX_SPECS),
            served: Lane::new(MAX_SERVED),
            statuses: Lane::new(MAX_STATUSES),
            calls: FuturesUnordered::new(),
        }
    }

    /// Queues writes and starts as many as may be in flight. Returns how many were started.
    pub(crate) fn send(&mut self, writes: Vec<Write>, objects: &Objects) -> usize {
        for write in writes {
            self.lane_of(&WriteKey::of(&write)).push(write);
        }
        self.writer.evict_deleted(objects);
        let before = self.calls.len();
        while let Some(write) = self.next() {
            let writer = self.writer.clone();
            let object = writer.status_object(&write, objects);
            let call = async move {
                let result = writer.execute(&write, object).await;
                Completed { write, result }
            };
            self.calls.push(call.boxed());
        }
        self.calls.len() - before
    }

    fn next(&mut self) -> Option<Write> {
        let served = || self.served.next();
        let specs = self.specs.next().or_else(served);
        specs.or_else(|| self.statuses.next())
    }

    /// Waits for a write to complete; forever if none is in flight. Cancel-safe.
    pub(crate) async fn completed(&mut self) -> Completed {
        match self.calls.next().await {
            Some(completed) => {
                let key = WriteKey::of(&completed.write);
                let failed = completed.result.is_err().then(|| completed.write.clone());
                self.lane_of(&key).complete(key, failed);
                completed
            }
            None => std::future::pending().await,
        }
    }

    /// Lets a write that failed be sent again.
    pub(crate) fn retry(&mut self, request: &ReconcileRequest) {
        for lane in [&mut self.specs, &mut self.served, &mut self.statuses] {
            lane.failed.retain(|_, write| write.request() != *request);
        }
    }

    fn lane_of(&mut self, key: &WriteKey) -> &mut Lane {
        match key {
            WriteKey::Binding(_) | WriteKey::Node(_) => &mut self.specs,
            WriteKey::Served(_) => &mut self.served,
            WriteKey::ServiceStatus(_)
            | WriteKey::GroupStatus(_)
            | WriteKey::ReportedStatus(_)
            | WriteKey::PoolStatus(_) => &mut self.statuses,
        }
    }
}

/// A queue of writes with a limit on those in flight.
struct Lane {
    max_in_flight: usize,
    /// The queued objects, without those that have a write in flight.
    order: VecDeque<WriteKey>,
    queued: BTreeMap<WriteKey, Write>,
    in_flight: BTreeMap<WriteKey, Write>,
    /// The writes that failed and are not due yet. They are not sent again, whatever causes their objects to be reconciled:
    /// otherwise a refusal that is written to a status would cause the next attempt.
    failed: BTreeMap<WriteKey, Write>,
}

impl Lane {
    const fn new(max_in_flight: usize) -> Self {
        Self {
            max_in_flight,
            order: VecDeque::new(),
            queued: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    fn push(&mut self, write: Write) {
        let key = WriteKey::of(&write);
        if self.failed.get(&key) == Some(&write) {
            self.queued.remove(&key);
            return;
        }
        self.failed.remove(&key);
        if self.in_flight.get(&key) == Some(&write) {
            self.queued.remove(&key);
        } else if self.queued.insert(key.clone(), write).is_none()
            && !self.in_flight.contains_key(&key)
        {
            self.order.push_back(key);
        }
    }

    /// The next write to start, if one more may be in flight.
    fn next(&mut self) -> Option<Write> {
        if self.in_flight.len() >= self.max_in_flight {
            return None;
        }
        let key = self.order.pop_front()?;
        let write = self.queued.remove(&key)?;
        self.in_flight.insert(key, write.clone());
        Some(write)
    }

    fn complete(&mut self, key: WriteKey, failed: Option<Write>) {
        self.in_flight.remove(&key);
        match failed {
            Some(write) => drop(self.failed.insert(key.clone(), write)),
            None => drop(self.failed.remove(&key)),
        }
        if self.queued.contains_key(&key) {
            self.order.push_back(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::Revision;

    fn delete(name: &str) -> Write {
        Write::DeleteBinding {
            name: ObjectName::new("shop", name).unwrap(),
            revision: Revision::default(),
        }
    }

    fn apply(node: &str, uid: &str) -> Write {
        Write::ApplyNode {
            name: node.parse().unwrap(),
            uid: Some(uid.to_owned()),
            owner_uid: None,
            groups: Vec::new(),
        }
    }

    #[test]
    fn the_writes_in_flight_are_limited_and_the_rest_follows_in_order() {
        let mut lane = Lane::new(2);
        for name in ["c", "b", "a"] {
            lane.push(delete(name));
        }
        assert_eq!(lane.next(), Some(delete("c")));
        assert_eq!(lane.next(), Some(delete("b")));
        assert_eq!(lane.next(), None);
        lane.complete(WriteKey::of(&delete("b")), None);
        assert_eq!(lane.next(), Some(delete("a")));
        lane.complete(WriteKey::of(&delete("a")), None);
        lane.complete(WriteKey::of(&delete("c")), None);
        assert_eq!(lane.next(), None);
    }

    #[test]
    fn the_last_write_to_an_object_follows_the_one_in_flight() {
        let mut lane = Lane::new(9);
        lane.push(apply("n", "1"));
        assert_eq!(lane.next(), Some(apply("n", "1")));
        lane.push(apply("n", "2"));
        lane.push(apply("n", "3"));
        assert_eq!(lane.next(), None, "one at a time");
        lane.complete(WriteKey::of(&apply("n", "1")), None);
        assert_eq!(lane.next(), Some(apply("n", "3")));
        lane.complete(WriteKey::of(&apply("n", "3")), None);
        assert_eq!(lane.next(), None);
    }

    #[test]
    fn a_write_that_is_in_flight_is_not_sent_again() {
        let mut lane = Lane::new(9);
        lane.push(apply("n", "1"));
        assert_eq!(lane.next(), Some(apply("n", "1")));
        lane.push(apply("n", "2"));
        lane.push(apply("n", "1"));
        lane.complete(WriteKey::of(&apply("n", "1")), None);
        assert_eq!(lane.next(), None);
    }

    /// The API server refuses a grant that was decided on a revision that is not the last one.
    #[test]
    fn a_write_that_was_decided_on_a_later_revision_follows_an_equal_one_in_flight() {
        let status = |version: &str| Write::PoolStatus {
            name: "public".parse().unwrap(),
            revision: Revision {
                uid: None,
                resource_version: Some(version.to_owned()),
            },
            status: Default::default(),
            verdicts: Vec::new(),
        };
        let mut lane = Lane::new(9);
        lane.push(status("1"));
        assert_eq!(lane.next(), Some(status("1")));
        lane.push(status("2"));
        lane.complete(WriteKey::of(&status("1")), None);
        assert_eq!(lane.next(), Some(status("2")));
    }

    #[test]
    fn a_write_that_failed_waits_for_its_retry_and_a_newer_one_does_not() {
        let mut lane = Lane::new(9);
        lane.push(delete("a"));
        assert_eq!(lane.next(), Some(delete("a")));
        lane.complete(WriteKey::of(&delete("a")), Some(delete("a")));
        lane.push(delete("a"));
        assert_eq!(lane.next(), None);
        lane.failed.clear();
        lane.push(delete("a"));
        assert_eq!(lane.next(), Some(delete("a")));

        lane.push(apply("n", "1"));
        assert_eq!(lane.next(), Some(apply("n", "1")));
        lane.complete(WriteKey::of(&apply("n", "1")), Some(apply("n", "1")));
        lane.push(apply("n", "2"));
        assert_eq!(lane.next(), Some(apply("n", "2")));
    }
}
