//! VRRP version 3 (RFC 9568) for IPv4 and IPv6: the packets, and the state machine of one router for one virtual router.
//!
//! The crate has no socket, no clock and no thread. The caller does three things:
//!
//! - A packet that arrives is read by [`parse()`], and handed to the [`Machine`] of its [`RouterKey`] as [`Event::Received`]. What
//!   [`parse()`] refuses can be counted by [`ParseErrorKind`].
//! - At [`Machine::deadline`] the machine gets [`Event::Deadline`], **after** every packet that waits in the socket. Otherwise a
//!   caller that ran late would take over from a router whose advertisements it has not read. For an active machine, the deadline may
//!   come first, so that a flood of packets does not delay its advertisements.
//! - The [`Action`]s that an event returns are done in their order.
//!
//! # Example
//! ```
//! use std::{net::IpAddr, time::Duration};
//! use lvs_vrrp::{
//!     Action, Addresses, Config, Event, Interval, Ipv4Checksum, Machine, Preemption, Priority,
//!     Recipients, Start, State, Time, Vrid,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let source: IpAddr = "192.0.2.11".parse()?;
//! let mut machine = Machine::new(Config {
//!     vrid: Vrid::new(51)?,
//!     addresses: Addresses::new(&["192.0.2.100".parse()?])?,
//!     source,
//!     priority: Priority::new(150)?,
//!     interval: Interval::from_centiseconds(10)?,
//!     preemption: Preemption::Never,
//!     recipients: Recipients::Group,
//!     checksum: Ipv4Checksum::Message,
//! })?;
//! let boot = Time::since_epoch(Duration::from_secs(7));
//! machine.handle(boot, Event::Start(Start::Fresh));
//! let deadline = machine.deadline().ok_or("no deadline")?;
//! for action in machine.handle(deadline, Event::Deadline) {
//!     if let Action::SendAdvertisement { priority, to } = action {
//!         for destination in to {
//!             let packet = machine.advertisement(priority);
//!             let bytes = packet.encode(source, destination, Ipv4Checksum::Message)?;
//!             assert_eq!(bytes.len(), 12);
//!         }
//!     }
//! }
//! assert_eq!(machine.state(), State::Active);
//! # Ok(())
//! # }
//! ```

mod action;
mod addresses;
mod advertisement;
mod checksum;
mod config;
mod counters;
mod event;
mod family;
mod interval;
mod machine;
mod parse;
mod priority;
mod time;
mod vrid;

pub use self::{
    action::{Action, ActiveReason, BackupReason, Observation},
    addresses::{Addresses, AddressesError},
    advertisement::{Advertisement, EncodeError},
    checksum::Ipv4Checksum,
    config::{Config, ConfigError, Preemption, Recipients, RouterKey},
    counters::{Counters, ParseErrorKind},
    event::{Event, Fitness, Link, Start},
    family::{Family, GROUP_V4, GROUP_V6, HOP_LIMIT, PROTOCOL},
    interval::{Interval, IntervalError},
    machine::{Machine, OtherActive, State},
    parse::{Packet, ParseError, Received, parse},
    priority::{Priority, PriorityError},
    time::Time,
    vrid::{Vrid, VridError},
};
