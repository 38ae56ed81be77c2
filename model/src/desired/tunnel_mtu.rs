//! The largest packets that fit into the tunnel to a real server.

use std::{collections::BTreeSet, net::IpAddr};

use super::builder::Builder;
use crate::{Family, Problem, Subject, Tunnel};

impl Builder<'_> {
    /// Notes the largest packets and TCP segments that fit into a tunnel to one of the machine's addresses.
    ///
    /// The director asks clients to send smaller packets, by ICMP; where that is lost, an administrator has to set the MSS.
    pub(super) fn note_mtu(
        &mut self,
        address: IpAddr,
        tunnel: Tunnel,
        families: &BTreeSet<Family>,
    ) {
        let found = self.facts.find_address(address);
        let interface = found.map(|found| &found.interface);
        let facts = interface.and_then(|name| Some((name, self.facts.interfaces.get(name)?)));
        let Some((name, interface)) = facts else {
            return;
        };
        let overhead = tunnel.overhead(Family::of(address));
        let Some(largest) = interface.mtu.checked_sub(overhead) else {
            return;
        };
        let segments = families.iter().map(|family| {
            let size = largest.saturating_sub(family.tcp_headers());
            format!("{size} over {family}")
        });
        let segments: Vec<String> = segments.collect();
        let message = format!(
            "the tunnel to {address} adds {overhead} bytes, so with MTU {} on {name}, packets from the director may have {largest} \
             bytes, and TCP segments {}; where ICMP errors are lost on the way to clients, set this MSS (docs/modes/tun.md)",
            interface.mtu,
            segments.join(", ")
        );
        self.problems.push(Problem::note(Subject::Machine, message));
    }
}
