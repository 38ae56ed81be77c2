//! Writes that wait or are on their way to the API server.
//!
//! For each object at most one write is on its way; of several that wait for it the latest counts. What kernels wait for does
//! not queue behind statuses, and nothing here is waited for by whoever works out what is to be written.

use std::collections::{BTreeMap, VecDeque};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use lvs_model::ObjectName;

use crate::{
    cluster::{Objects, Write},
    writer::{WriteError, Writer},
};

/// How many bindings and LvsNodes are on their way at once.
const MOST_SPECS: usize = 32;
/// How many statuses: an API server that is busy with them is slow for everything.
const MOST_STATUSES: usize = 4;

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Binding(ObjectName),
    Node(String),
    ServiceStatus(ObjectName),
    GroupStatus(String),
}

impl Target {
    fn of(write: &Write) -> Self {
        match write {
            Write::ApplyBinding { name, .. } | Write::DeleteBinding(name) => {
                Self::Binding(name.clone())
            }
            Write::ApplyNode { name, .. } | Write::DeleteNode { name, .. } => {
                Self::Node(name.clone())
            }
            Write::ServiceStatus { name, .. } => Self::ServiceStatus(name.clone()),
            Write::GroupStatus { name, .. } => Self::GroupStatus(name.clone()),
        }
    }
}

/// What became of a write.
pub(crate) struct Done {
    /// The write.
    pub write: Write,
    /// Whether the API server has it.
    pub result: Result<(), WriteError>,
}

/// Writes that wait or are on their way.
pub(crate) struct Outbox {
    writer: Writer,
    specs: Queue,
    statuses: Queue,
    calls: FuturesUnordered<BoxFuture<'static, Done>>,
}

impl Outbox {
    pub(crate) fn new(writer: Writer) -> Self {
        Self {
            writer,
            specs: Queue::new(MOST_SPECS),
            statuses: Queue::new(MOST_STATUSES),
            calls: FuturesUnordered::new(),
        }
    }

    /// Takes writes, and sends what may be on its way. Returns how many were sent.
    pub(crate) fn send(&mut self, writes: Vec<Write>, objects: &Objects) -> usize {
        for write in writes {
            self.queue_of(&Target::of(&write)).put(write);
        }
        self.writer.forget_gone(objects);
        let before = self.calls.len();
        while let Some(write) = self.specs.next().or_else(|| self.statuses.next()) {
            let writer = self.writer.clone();
            let seen = writer.see(&write, objects);
            let call = async move {
                let result = writer.execute(&write, seen).await;
                Done { write, result }
            };
            self.calls.push(call.boxed());
        }
        self.calls.len() - before
    }

    /// Waits for a write to be done; for ever when none is on its way.
    pub(crate) async fn done(&mut self) -> Done {
        match self.calls.next().await {
            Some(done) => {
                let target = Target::of(&done.write);
                self.queue_of(&target).finish(target);
                done
            }
            None => std::future::pending().await,
        }
    }

    fn queue_of(&mut self, target: &Target) -> &mut Queue {
        match target {
            Target::Binding(_) | Target::Node(_) => &mut self.specs,
            Target::ServiceStatus(_) | Target::GroupStatus(_) => &mut self.statuses,
        }
    }
}

/// Writes in the order in which their objects came up.
struct Queue {
    most: usize,
    order: VecDeque<Target>,
    waiting: BTreeMap<Target, Write>,
    on_their_way: BTreeMap<Target, Write>,
}

impl Queue {
    const fn new(most: usize) -> Self {
        Self {
            most,
            order: VecDeque::new(),
            waiting: BTreeMap::new(),
            on_their_way: BTreeMap::new(),
        }
    }

    fn put(&mut self, write: Write) {
        let target = Target::of(&write);
        if self.on_their_way.get(&target) == Some(&write) {
            self.waiting.remove(&target);
        } else if self.waiting.insert(target.clone(), write).is_none()
            && !self.on_their_way.contains_key(&target)
        {
            self.order.push_back(target);
        }
    }

    /// The next write to send, when one more may be on its way.
    fn next(&mut self) -> Option<Write> {
        if self.on_their_way.len() >= self.most {
            return None;
        }
        let target = self.order.pop_front()?;
        let write = self.waiting.remove(&target)?;
        self.on_their_way.insert(target, write.clone());
        Some(write)
    }

    fn finish(&mut self, target: Target) {
        self.on_their_way.remove(&target);
        if self.waiting.contains_key(&target) {
            self.order.push_back(target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delete(name: &str) -> Write {
        Write::DeleteBinding(ObjectName::new("shop", name).unwrap())
    }

    fn apply(node: &str, uid: &str) -> Write {
        Write::ApplyNode {
            name: node.to_owned(),
            uid: Some(uid.to_owned()),
            owner_uid: None,
            groups: Vec::new(),
            serves: Vec::new(),
        }
    }

    #[test]
    fn so_many_are_on_their_way_and_the_rest_follows_in_order() {
        let mut queue = Queue::new(2);
        for name in ["c", "b", "a"] {
            queue.put(delete(name));
        }
        assert_eq!(queue.next(), Some(delete("c")));
        assert_eq!(queue.next(), Some(delete("b")));
        assert_eq!(queue.next(), None);
        queue.finish(Target::of(&delete("b")));
        assert_eq!(queue.next(), Some(delete("a")));
        queue.finish(Target::of(&delete("a")));
        queue.finish(Target::of(&delete("c")));
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn the_latest_for_an_object_follows_the_one_that_is_on_its_way() {
        let mut queue = Queue::new(9);
        queue.put(apply("n", "1"));
        assert_eq!(queue.next(), Some(apply("n", "1")));
        queue.put(apply("n", "2"));
        queue.put(apply("n", "3"));
        assert_eq!(queue.next(), None, "one at a time");
        queue.finish(Target::of(&apply("n", "1")));
        assert_eq!(queue.next(), Some(apply("n", "3")));
        queue.finish(Target::of(&apply("n", "3")));
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn what_is_on_its_way_already_is_not_sent_again() {
        let mut queue = Queue::new(9);
        queue.put(apply("n", "1"));
        assert_eq!(queue.next(), Some(apply("n", "1")));
        queue.put(apply("n", "2"));
        queue.put(apply("n", "1"));
        queue.finish(Target::of(&apply("n", "1")));
        assert_eq!(queue.next(), None);
    }
}
