//! When a real server may take new connections.

use crate::Forwarding;

/// What is known of the machine of a real server, as far as one virtual service goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// No agent prepares the machine for the virtual service: an administrator does.
    Unmanaged,
    /// Its agent has not reported on the virtual service yet.
    Unknown,
    /// Its agent reports that VIP, ARP settings and tunnel are in place.
    Ready,
    /// Its agent reports that something is missing.
    NotReady,
}

/// Returns whether a real server may have the weight that was asked for. One that is not ready has weight 0.
///
/// 1. With NAT packets arrive with the real server's own address: nothing has to be there first.
/// 2. A machine without an agent is used as it is.
/// 3. A machine with an agent needs its report, since a packet to a VIP that is missing there is lost.
/// 4. A real server that has weight already keeps it until the first report: it may have served before it had an agent.
#[must_use]
pub const fn may_have_weight(
    forwarding: Forwarding,
    readiness: Readiness,
    has_weight: bool,
) -> bool {
    if !forwarding.keeps_vip() {
        return true;
    }
    match readiness {
        Readiness::Unmanaged | Readiness::Ready => true,
        Readiness::Unknown => has_weight,
        Readiness::NotReady => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tunnel;

    #[test]
    fn a_real_server_that_must_have_the_vip_gets_weight_when_it_is_ready() {
        let dr = Forwarding::Dr;
        let tun = Forwarding::Tun(Tunnel::default());
        // The first of both results is of a real server that has weight already, the second of one that has none.
        let table = [
            (Readiness::Unmanaged, [true, true]),
            (Readiness::Unknown, [true, false]),
            (Readiness::Ready, [true, true]),
            (Readiness::NotReady, [false, false]),
        ];
        for (readiness, expected) in table {
            for forwarding in [dr, tun] {
                let found = [true, false].map(|has| may_have_weight(forwarding, readiness, has));
                assert_eq!(found, expected, "{forwarding:?} {readiness:?}");
            }
            let nat = [true, false].map(|has| may_have_weight(Forwarding::Nat, readiness, has));
            assert_eq!(nat, [true, true], "{readiness:?}");
        }
    }
}
