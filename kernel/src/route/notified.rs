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
    /// One that cannot be decoded: any can have changed.
    Unreadable,
}

impl Notified {
    /// Decodes a notification. `None` if it is not relevant.
    pub(crate) fn of(frame: &Frame) -> Option<Self> {
        let Ok(route) = fib::decode(&frame.payload) else {
            return Some(Self::Unreadable);
        };
        let route = route?;
        if route.is_ours {
            return Some(Self::Ours);
        }
        (route.table != RT_TABLE_LOCAL).then_some(Self::Foreign(route.destination))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notified(family: u8, destination: &[u8]) -> Option<Notified> {
        // struct rtmsg, then an attribute with a header of 4 bytes.
        let prefix = u8::try_from(destination.len() * 8).unwrap();
        let mut payload = vec![family, prefix, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        payload.extend([u8::try_from(destination.len() + 4).unwrap(), 0, 1, 0]);
        payload.extend(destination);
        Notified::of(&Frame { kind: 24, payload })
    }

    #[test]
    fn a_route_that_cannot_be_decoded_is_relevant_and_one_of_another_family_is_not() {
        let foreign = Notified::Foreign("192.0.2.1/32".parse().unwrap());
        assert_eq!(notified(2, &[192, 0, 2, 1]), Some(foreign));
        assert_eq!(notified(2, &[192, 0, 2, 1, 9]), Some(Notified::Unreadable));
        // AF_MPLS.
        assert_eq!(notified(28, &[0, 1, 0, 0]), None);
    }
}
