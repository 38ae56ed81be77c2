//! The director's part of the desired state that depends on all directed services together: the sysctls of IPVS. Warns of what
//! disturbs all of them.

use super::builder::Builder;
use crate::{Forwarding, Keeping, KernelVersion, NodeSpec, ObjectName, Problem, Subject, Sysctl};

/// The first kernel in which IPVS uses a tracked connection again without a delay.
const REUSES_TRACKED: KernelVersion = KernelVersion::new(5, 9);

impl Builder<'_> {
    /// Adds what depends on all directed services together. Called after the last [`Builder::direct`].
    pub(super) fn finish_directors(&mut self, spec: &NodeSpec) {
        if self.state.services.is_empty() {
            return;
        }
        self.warn_of_other_writers();
        for name in spec.directs.keys() {
            self.want_exactly(name, Sysctl::VsExpireNodestConn, 1);
            self.want_exactly(name, Sysctl::VsExpireQuiescentTemplate, 1);
        }
        for (name, director) in &spec.directs {
            if director.keeping == Keeping::Hash {
                self.want_exactly(name, Sysctl::VsSloppyTcp, 1);
            }
        }
        self.track_connections(spec);
        self.warn_of_conntrack();
        self.warn_of_lro();
    }

    /// Decides on `net.ipv4.vs.conntrack`, which applies to all IPVS services of the namespace.
    ///
    /// - NAT should have it on: only then does a firewall recognise NAT replies, and masquerading does not work without
    ///   it.
    /// - DR and TUN should have it off: the director sees only half of each connection, and conntrack marks such
    ///   packets INVALID.
    ///
    /// With both kinds on one machine it is left as it is, unless something masquerades, and a warning is added.
    fn track_connections(&mut self, spec: &NodeSpec) {
        let directors = spec.directs.iter();
        let nat: Vec<_> = directors
            .filter(|(_, director)| director.service.uses_nat())
            .map(|(name, _)| name)
            .collect();
        let directors = spec.directs.values();
        let mut methods = directors.flat_map(|director| director.service.methods());
        let is_mixed = !nat.is_empty() && methods.any(Forwarding::keeps_vip);
        let masquerades = self.state.masquerade.is_some();
        // A kernel built without the sysctl (CONFIG_IP_VS_NFCT) can still do NAT.
        let is_known = self.facts.sysctls.contains_key(&Sysctl::VsConntrack);
        if masquerades || !is_mixed && is_known {
            for name in nat {
                self.want_exactly(name, Sysctl::VsConntrack, 1);
                self.reuse_connections(name);
            }
        }
        if is_mixed {
            let reason = if masquerades {
                "NAT with `returnPath: Masquerade` needs net.ipv4.vs.conntrack=1 on this machine, which breaks its DR and \
                 TUN services if a firewall drops packets in state INVALID; put them on different directors"
            } else {
                "this machine directs NAT services beside DR or TUN ones, so net.ipv4.vs.conntrack is left as it is; if it \
                 is 0, a firewall that drops packets in state INVALID, as kube-proxy in iptables mode does, drops NAT \
                 replies; put them on different directors"
            };
            let problem = Problem::warning(Subject::Machine, reason);
            self.problems.push(problem);
        }
    }

    /// Turns `net.ipv4.vs.conn_reuse_mode` off where it delays clients.
    ///
    /// With connection tracking and a mode other than 0, a kernel before 5.9 drops the first packet of a client that uses a port
    /// again while IPVS still knows its last connection, so the client waits for a second (Linux commit f0a5e4d7a594,
    /// kubernetes/kubernetes#81775).
    fn reuse_connections(&mut self, name: &ObjectName) {
        let facts = self.facts;
        let delays = facts.kernel.is_some_and(|kernel| kernel < REUSES_TRACKED);
        if delays && facts.sysctls.contains_key(&Sysctl::VsConnReuseMode) {
            self.want_exactly(name, Sysctl::VsConnReuseMode, 0);
        }
    }

    /// Warns while IPVS connections take entries of a table that is nearly full. The text has no count: it would be another
    /// warning each time.
    fn warn_of_conntrack(&mut self) {
        let desired = self.state.sysctls.get(&Sysctl::VsConntrack);
        let value = desired.or_else(|| self.facts.sysctls.get(&Sysctl::VsConntrack));
        let table = self.facts.conntrack.filter(|table| table.is_nearly_full());
        if let (Some(1), Some(table)) = (value, table) {
            self.problems.push(Problem::warning(
                Subject::Machine,
                format!(
                    "more than 80 % of the connection tracking table are used, and when it is full, new connections are dropped: \
                     raise net.netfilter.nf_conntrack_max, which is {}",
                    table.max
                ),
            ));
        }
    }

    /// Warns of interfaces that merge packets: IPVS cannot forward a packet that is larger than the MTU. The kernel turns LRO off
    /// by itself only where it forwards (`dev_disable_lro`), which DR and TUN do not need.
    fn warn_of_lro(&mut self) {
        for interface in &self.facts.lro {
            self.problems.push(Problem::warning(
                Subject::Machine,
                format!(
                    "{interface} merges received packets (LRO), which IPVS cannot forward: `ethtool -K {interface} lro off`"
                ),
            ));
        }
    }

    /// Warns of programs that delete IPVS services of others. Each is recognised by its interface.
    fn warn_of_other_writers(&mut self) {
        for (interface, program) in [
            ("kube-ipvs0", "kube-proxy in ipvs mode"),
            ("kube-dummy-if", "kube-router"),
        ] {
            if self
                .facts
                .interfaces
                .keys()
                .any(|name| name.as_str() == interface)
            {
                self.problems.push(Problem::warning(
                    Subject::Machine,
                    format!(
                        "{program} seems to run here ({interface}) and deletes IPVS services that it did not make: \
                         exclude the VIPs there, or direct from another machine"
                    ),
                ));
            }
        }
    }
}
