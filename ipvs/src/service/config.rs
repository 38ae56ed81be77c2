//! The settings of a virtual service, and the attributes that carry them.

use std::{
    net::Ipv4Addr,
    ops::{BitOr, BitOrAssign},
};

use crate::{
    Family, Name,
    wire::{FlagsAndMask, ServiceAttribute},
};

const IP_VS_SVC_F_PERSISTENT: u32 = 0x0001;
const IP_VS_SVC_F_ONEPACKET: u32 = 0x0004;
const IP_VS_SVC_F_SCHED1: u32 = 0x0008;
const IP_VS_SVC_F_SCHED2: u32 = 0x0010;
const IP_VS_SVC_F_SCHED3: u32 = 0x0020;

const SCHEDULER_FLAGS: u32 = IP_VS_SVC_F_SCHED1 | IP_VS_SVC_F_SCHED2 | IP_VS_SVC_F_SCHED3;

/// The flags that this crate sets. `IP_VS_SVC_F_HASHED` belongs to the kernel and is neither sent
/// nor read; unknown bits of later kernels are not changed.
const KNOWN_FLAGS: u32 = IP_VS_SVC_F_PERSISTENT | IP_VS_SVC_F_ONEPACKET | SCHEDULER_FLAGS;

/// The settings of a virtual service. Settings that the kernel does not distinguish are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceConfig {
    /// The scheduler (`IPVS_SVC_ATTR_SCHED_NAME`): `rr`, `wlc`, `mh`, ... The kernel loads
    /// `ip_vs_<name>` if necessary.
    pub scheduler: Name,
    /// The scheduler's own flags (`IP_VS_SVC_F_SCHED1` to `3`).
    pub flags: SchedulerFlags,
    /// Whether each UDP datagram is scheduled by itself (`IP_VS_SVC_F_ONEPACKET`).
    pub one_packet: bool,
    /// Whether and how a client stays with its real server (`IP_VS_SVC_F_PERSISTENT`).
    pub persistence: Option<Persistence>,
}

/// How a client stays with its first real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Persistence {
    /// How long it stays after its last connection, in seconds (`IPVS_SVC_ATTR_TIMEOUT`).
    pub timeout_seconds: u32,
    /// Which clients count as one (`IPVS_SVC_ATTR_NETMASK`).
    pub granularity: Granularity,
    /// The engine that identifies the client by more than its address (`IPVS_SVC_ATTR_PE_NAME`);
    /// the kernel has `sip`.
    pub engine: Option<Name>,
}

/// Which clients count as one for persistence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// Clients whose first bits are equal: 0 to 32 of them for IPv4, 1 to 128 for IPv6.
    ///
    /// For IPv4 a greater length is sent as 32. For IPv6 it is sent as it is, and the kernel
    /// refuses 0 and more than 128 as invalid.
    Prefix(u8),
    /// An IPv4 netmask with gaps, which no prefix length can express. Other programs may have set
    /// one.
    Netmask(Ipv4Addr),
}

impl Granularity {
    /// Returns the granularity in which each address is a client of its own: the full length of the
    /// family.
    #[must_use]
    pub fn host(family: Family) -> Self {
        Self::Prefix(family.bits())
    }

    /// Returns the prefix length, unless this is a netmask with gaps.
    #[must_use]
    pub fn prefix_length(&self) -> Option<u8> {
        match self {
            Self::Prefix(length) => Some(*length),
            Self::Netmask(_) => None,
        }
    }

    fn to_wire(self, family: Family) -> [u8; 4] {
        match (self, family) {
            (Self::Prefix(length), Family::V4) => {
                let host_bits = 32_u32.saturating_sub(length.into());
                u32::MAX.checked_shl(host_bits).unwrap_or(0).to_be_bytes()
            }
            (Self::Prefix(length), Family::V6) => u32::from(length).to_ne_bytes(),
            (Self::Netmask(mask), Family::V4 | Family::V6) => mask.octets(),
        }
    }

    pub(super) fn from_wire(bytes: [u8; 4], family: Family) -> Self {
        match family {
            Family::V4 => {
                let mask = u32::from_be_bytes(bytes);
                let ones = mask.leading_ones();
                if ones == mask.count_ones() {
                    Self::Prefix(u8::try_from(ones).unwrap_or(u8::MAX))
                } else {
                    Self::Netmask(Ipv4Addr::from(bytes))
                }
            }
            Family::V6 => Self::Prefix(u8::try_from(u32::from_ne_bytes(bytes)).unwrap_or(u8::MAX)),
        }
    }
}

impl ServiceConfig {
    /// Creates settings with this scheduler and nothing else.
    #[must_use]
    pub fn new(scheduler: Name) -> Self {
        Self {
            scheduler,
            flags: SchedulerFlags::NONE,
            one_packet: false,
            persistence: None,
        }
    }

    /// Yields the attributes of the settings.
    ///
    /// The kernel requires timeout and netmask even without persistence, and refuses netmask 0 for
    /// IPv6. So the full length is sent if there is no persistence.
    pub(crate) fn attributes(self, family: Family) -> impl Iterator<Item = ServiceAttribute> {
        let Self {
            scheduler,
            flags: _,
            one_packet: _,
            persistence,
        } = self;
        let persistence = persistence.unwrap_or(Persistence {
            timeout_seconds: 0,
            granularity: Granularity::host(family),
            engine: None,
        });
        [
            Some(ServiceAttribute::Scheduler(scheduler)),
            Some(ServiceAttribute::Flags(self.wire_flags())),
            Some(ServiceAttribute::Timeout(persistence.timeout_seconds)),
            Some(ServiceAttribute::Netmask(
                persistence.granularity.to_wire(family),
            )),
            persistence.engine.map(ServiceAttribute::PersistenceEngine),
        ]
        .into_iter()
        .flatten()
    }

    fn wire_flags(&self) -> FlagsAndMask {
        let one_packet = if self.one_packet {
            IP_VS_SVC_F_ONEPACKET
        } else {
            0
        };
        let persistent = if self.persistence.is_some() {
            IP_VS_SVC_F_PERSISTENT
        } else {
            0
        };
        FlagsAndMask {
            flags: self.flags.0 | one_packet | persistent,
            mask: KNOWN_FLAGS,
        }
    }

    pub(super) fn from_wire(scheduler: Name, flags: u32, persistence: Persistence) -> Self {
        Self {
            scheduler,
            flags: SchedulerFlags(flags & SCHEDULER_FLAGS),
            one_packet: flags & IP_VS_SVC_F_ONEPACKET != 0,
            persistence: (flags & IP_VS_SVC_F_PERSISTENT != 0).then_some(persistence),
        }
    }
}

/// A set of three flags, whose meaning depends on the scheduler.
///
/// ```
/// use ipvs_netlink::SchedulerFlags;
///
/// let flags = SchedulerFlags::FALLBACK | SchedulerFlags::PORT;
/// assert!(flags.contains(SchedulerFlags::SCHED_1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchedulerFlags(u32);

impl SchedulerFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// `IP_VS_SVC_F_SCHED1`, `flag-1` of ipvsadm.
    pub const SCHED_1: Self = Self(IP_VS_SVC_F_SCHED1);
    /// `IP_VS_SVC_F_SCHED2`, `flag-2` of ipvsadm.
    pub const SCHED_2: Self = Self(IP_VS_SVC_F_SCHED2);
    /// `IP_VS_SVC_F_SCHED3`, `flag-3` of ipvsadm.
    pub const SCHED_3: Self = Self(IP_VS_SVC_F_SCHED3);
    /// With `sh` and `mh`: a client whose server is unusable gets another one
    /// (`IP_VS_SVC_F_SCHED_SH_FALLBACK`, `IP_VS_SVC_F_SCHED_MH_FALLBACK`).
    pub const FALLBACK: Self = Self::SCHED_1;
    /// With `sh` and `mh`: the client's port is hashed too (`IP_VS_SVC_F_SCHED_SH_PORT`,
    /// `IP_VS_SVC_F_SCHED_MH_PORT`).
    pub const PORT: Self = Self::SCHED_2;

    /// Returns whether every flag of `other` is set here.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns whether no flag is set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }
}

impl BitOr for SchedulerFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for SchedulerFlags {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}
