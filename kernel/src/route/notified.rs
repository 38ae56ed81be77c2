//! Decodes notifications of routes.

use ipnet::IpNet;

use super::{fib, frame::Frame};

/// The table of the machine's own addresses, whose changes are notified as changes of addresses.
const RT_TABLE_LOCAL: u32 = 255;

/// The route of a notification.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Notified {
    /// One of ours.
    Ours,
    /// Another, to these destinations.
    Foreign(IpNet),
}

impl Notified {
    /// Decodes a notification. `None` if it is not relevant.
    pub(crate) fn of(frame: &Frame) -> Option<Self> {
        let route = fib::decode(&frame.payload).ok()??;
        if route.is_ours {
            return Some(Self::Ours);
        }
        (route.table != RT_TABLE_LOCAL).then_some(Self::Foreign(route.destination))
    }
}
