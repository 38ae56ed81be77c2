//! What happens to a machine.

use crate::Received;

/// What happens to a [`Machine`](crate::Machine). New settings are a method of their own, because they can be refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The router begins to take part. Ignored if it does already.
    Start(Start),
    /// The router ends to take part. An active one resigns.
    Stop,
    /// The active router is to let another take over: a planned hand-over. In every state, preemption is forbidden until
    /// [`TakeBack`](Self::TakeBack), also over a [`Stop`](Self::Stop), and a router that resigns is succeeded only after silence, if no
    /// other has done it. So two routers that both hand over do not pass the addresses to and fro.
    HandOver,
    /// Preemption is allowed again after a [`HandOver`](Self::HandOver). One that is under way is cancelled.
    TakeBack,
    /// A valid advertisement arrived.
    Received(Received),
    /// The [`deadline`](crate::Machine::deadline) was reached. Too early is harmless.
    Deadline,
    /// The fitness changed.
    Fitness(Fitness),
    /// The interface went up or down.
    Link(Link),
}

/// How a router begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Start {
    /// As a backup, which listens first. An owner is active at once (RFC 9568, section 6.4.1).
    Fresh,
    /// As the active router that it is: the program has the virtual addresses, and now they belong to this virtual router. An unfit router
    /// begins as a backup.
    Continue,
    /// As the active router that it was, unless another has taken over, which it asks first. Only for a program that has the virtual
    /// addresses still. If its last advertisement is less than [`Interval::shortest_down`](crate::Interval::shortest_down) ago, it
    /// stays the active one. An unfit router begins as a backup.
    Resume,
}

/// Whether a router can forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fitness {
    /// It can. The state of a new machine.
    Fit,
    /// It cannot, and is never active.
    Unfit,
}

/// The state of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// Packets can be sent and received. The state of a new machine.
    Up,
    /// They cannot.
    Down,
}
