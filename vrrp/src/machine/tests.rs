//! A router with priority 100 at 192.0.2.20, whose interval is 1 second, among others.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use super::*;
use crate::{
    ActiveReason, Addresses, BackupReason, Interval, Ipv4Checksum, Observation, Preemption,
    Recipients, Start, Vrid,
};

mod claims;
mod invariants;
mod network;
mod resuming;
mod table;

const OWN: &str = "192.0.2.20";
/// Addresses below and above the router's own.
const BELOW: &str = "192.0.2.10";
const ABOVE: &str = "192.0.2.30";

fn mk_config(priority: u8, preemption: Preemption) -> Config {
    Config {
        vrid: Vrid::new(51).unwrap(),
        addresses: Addresses::new(&[ip("198.51.100.1"), ip("198.51.100.2")]).unwrap(),
        source: ip(OWN),
        priority: mk_priority(priority),
        interval: mk_interval(100),
        preemption,
        recipients: Recipients::Group,
        checksum: Ipv4Checksum::Message,
    }
}

fn mk_machine(priority: u8, preemption: Preemption) -> Machine {
    Machine::new(mk_config(priority, preemption)).unwrap()
}

/// A machine that became a backup at time 0.
fn mk_backup(priority: u8, preemption: Preemption) -> Machine {
    let mut machine = mk_machine(priority, preemption);
    let started = machine.handle(at(0), Event::Start(Start::Fresh));
    assert_eq!(started, [Action::BecomeBackup(BackupReason::Started)]);
    machine
}

/// A machine that is active since time 0.
fn mk_active(priority: u8, preemption: Preemption) -> Machine {
    let mut machine = mk_machine(priority, preemption);
    let _ = machine.handle(at(0), Event::Start(Start::Continue));
    assert_eq!(machine.state(), State::Active);
    machine
}

/// An advertisement with the settings of the machine. The priority 0 is a resignation.
fn mk_received(priority: u8, source: &str) -> Received {
    let config = mk_config(100, Preemption::Never);
    Received {
        source: ip(source),
        advertisement: Advertisement {
            vrid: config.vrid,
            priority: Priority::new(priority).ok(),
            interval: config.interval,
            addresses: config.addresses,
        },
        checksum: Some(Ipv4Checksum::Message),
    }
}

fn hears(priority: u8, source: &str) -> Event {
    Event::Received(mk_received(priority, source))
}

fn sends(priority: u8) -> Action {
    Action::SendAdvertisement {
        priority: Priority::new(priority).ok(),
        to: BTreeSet::from([ip("224.0.0.18")]),
    }
}

fn at(milliseconds: u64) -> Time {
    Time::since_epoch(ms(milliseconds))
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn mk_priority(priority: u8) -> Priority {
    Priority::new(priority).unwrap()
}

fn mk_interval(centiseconds: u16) -> Interval {
    Interval::from_centiseconds(centiseconds).unwrap()
}
