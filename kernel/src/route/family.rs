//! Address families, of the model and of the wire.

use lvs_model::Family;
use netlink_packet_route::AddressFamily;

/// The family as the wire has it.
pub(super) const fn to_wire(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// The family of the wire; `None` for one that the model does not know.
pub(super) fn from_wire(family: AddressFamily) -> Option<Family> {
    if family == AddressFamily::Inet {
        Some(Family::V4)
    } else if family == AddressFamily::Inet6 {
        Some(Family::V6)
    } else {
        None
    }
}
