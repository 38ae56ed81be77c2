//! Converts address families.

use lvs_model::Family;
use netlink_packet_route::AddressFamily;

/// Converts a family for the wire.
pub(super) const fn to_wire(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// Converts a family from the wire. `None` for one that the model does not have.
pub(super) fn from_wire(family: AddressFamily) -> Option<Family> {
    if family == AddressFamily::Inet {
        Some(Family::V4)
    } else if family == AddressFamily::Inet6 {
        Some(Family::V6)
    } else {
        None
    }
}
