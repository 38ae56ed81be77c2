//! What a machine asks of its caller.

use std::{collections::BTreeSet, fmt, net::IpAddr, time::Duration};

use crate::{Interval, Ipv4Checksum, Priority};

/// What the caller of a [`Machine`](crate::Machine) must do, in the order of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sends [`Machine::advertisement`](crate::Machine::advertisement) with this priority, `None` to resign, to each destination.
    SendAdvertisement {
        /// The priority of the advertisement.
        priority: Option<Priority>,
        /// The destinations: the multicast group, or peers.
        to: BTreeSet<IpAddr>,
    },
    /// Adds and announces the virtual addresses.
    BecomeActive(ActiveReason),
    /// Removes the virtual addresses. At a start there may be some of a former life.
    BecomeBackup(BackupReason),
    /// Reports something. It is repeated with each packet that shows it, so the caller decides when it is over.
    Report(Observation),
}

/// Why a router becomes active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActiveReason {
    /// It owns the addresses, and started or became fit.
    Owner,
    /// It had the addresses when it started.
    Continued,
    /// It was active before a quick restart, and no other router has taken over.
    Resumed,
    /// No advertisement was heard for the down interval.
    Silence,
    /// The active router resigned.
    Resignation,
    /// The active router is less preferred, and preemption is allowed.
    Preemption,
}

/// Why a router gives up the virtual addresses, or begins without them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackupReason {
    /// It started.
    Started,
    /// It stopped. The state is [`Initialize`](crate::State::Initialize).
    Stopped,
    /// Its interface went down. The state is [`Initialize`](crate::State::Initialize).
    LinkDown,
    /// It became unfit.
    Unfit,
    /// Another active router is more preferred.
    Outranked {
        /// The other router.
        by: IpAddr,
        /// Its priority.
        priority: Priority,
    },
    /// Another router took over as planned.
    HandedOver {
        /// The other router.
        to: IpAddr,
    },
    /// Another router took over during a restart.
    TakenOver {
        /// The other router.
        by: IpAddr,
    },
    /// It did not run for so long that another may have taken over.
    Paused {
        /// The time since its last advertisement.
        silent_for: Duration,
    },
}

/// Something that a person may have to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// Another router is active at the same time. The machine does what ends it.
    TwoActives {
        /// The other router.
        source: IpAddr,
        /// Its priority.
        priority: Priority,
    },
    /// Another router advertises at another interval (RFC 9568, section 7.1: misconfigured, not discarded).
    IntervalDiffers {
        /// The other router.
        source: IpAddr,
        /// Its interval.
        interval: Interval,
    },
    /// Another router lists other addresses, some of them in common.
    AddressesDiffer {
        /// The other router.
        source: IpAddr,
        /// Those that only the other lists.
        additional: BTreeSet<IpAddr>,
        /// Those that only this router lists.
        missing: BTreeSet<IpAddr>,
    },
    /// Another router has the id of this virtual router for addresses that have nothing in common with it.
    ForeignRouter {
        /// The other router.
        source: IpAddr,
        /// What it lists.
        addresses: BTreeSet<IpAddr>,
    },
    /// Another router computes checksums in another way over IPv4, and may discard the packets of this one.
    ChecksumDiffers {
        /// The other router.
        source: IpAddr,
        /// What its checksums cover.
        checksum: Ipv4Checksum,
    },
    /// A router that is none of the peers sends advertisements. They are ignored.
    UnknownPeer {
        /// The other router.
        source: IpAddr,
    },
    /// A packet has this router's own address as its source: it came back, or another router has the address too. It is ignored.
    OwnSource,
    /// No other router took over within the time for a hand-over, so this one stays active.
    HandOverFailed,
    /// The machine ran so late that packets may have been lost. It listens anew before it takes over.
    Late {
        /// How late.
        by: Duration,
    },
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |addresses: &BTreeSet<IpAddr>| {
            let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
            addresses.join(", ")
        };
        match self {
            Self::TwoActives { source, priority } => {
                write!(
                    f,
                    "{source} is active at the same time, with priority {priority}"
                )
            }
            Self::IntervalDiffers { source, interval } => {
                write!(
                    f,
                    "{source} advertises at another interval: {:?}",
                    interval.duration()
                )
            }
            Self::AddressesDiffer {
                source,
                additional,
                missing,
            } => write!(
                f,
                "{source} lists other addresses: in addition [{}], and not [{}]",
                list(additional),
                list(missing)
            ),
            Self::ForeignRouter { source, addresses } => write!(
                f,
                "{source} uses the same router id for other addresses: {}",
                list(addresses)
            ),
            Self::ChecksumDiffers { source, checksum } => {
                write!(
                    f,
                    "{source} computes checksums in another way: {checksum:?}"
                )
            }
            Self::UnknownPeer { source } => {
                write!(
                    f,
                    "{source} sends advertisements, and is none of the peers: they are ignored"
                )
            }
            Self::OwnSource => f.write_str("a packet has this router's own address as its source"),
            Self::HandOverFailed => {
                f.write_str("no other router has taken over, so the addresses stay here")
            }
            Self::Late { by } => {
                write!(f, "ran {by:?} late, and listens again before it takes over")
            }
        }
    }
}

impl fmt::Display for ActiveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner => "owns the addresses",
            Self::Continued => "had the addresses already",
            Self::Resumed => "was active before a restart",
            Self::Silence => "the active router is silent",
            Self::Resignation => "the active router resigned",
            Self::Preemption => "the active router is less preferred",
        })
    }
}

impl fmt::Display for BackupReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("started"),
            Self::Stopped => f.write_str("stopped"),
            Self::LinkDown => f.write_str("the interface is down"),
            Self::Unfit => f.write_str("cannot forward"),
            Self::Outranked { by, priority } => {
                write!(f, "{by} is active with priority {priority}")
            }
            Self::HandedOver { to } => write!(f, "handed over to {to}"),
            Self::TakenOver { by } => write!(f, "{by} has taken over"),
            Self::Paused { silent_for } => {
                write!(
                    f,
                    "did not run for {silent_for:?}, so another may be active"
                )
            }
        }
    }
}
