//! Whether this machine is fit to hold its VIPs. One that cannot forward gives way, as long as another director can.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use lvs_model::{NodeFacts, NodeSpec, Problem, Subject, abridged, unfit_vips};

use super::messages::LONGEST_LIST;

/// For how long the machine cannot forward before it gives way: most faults are over by then.
const UNFIT_DELAY: Duration = Duration::from_secs(2);

/// What passes remember of the machine's fitness.
#[derive(Default)]
pub(super) struct Fitness {
    /// The real servers that had a route.
    reached: BTreeSet<IpAddr>,
    /// Since when the machine cannot forward what VIPs receive.
    since: BTreeMap<IpAddr, Instant>,
}

/// The VIPs that the machine is not fit to hold.
#[derive(Default)]
pub(super) struct Unfit {
    /// The VIPs.
    pub vips: BTreeSet<IpAddr>,
    /// How long until another one is among them, if nothing changes.
    pub next: Option<Duration>,
}

impl Fitness {
    /// Decides which VIPs the machine is not fit to hold.
    pub(super) fn judge(&mut self, spec: &NodeSpec, facts: &NodeFacts, now: Instant) -> Unfit {
        let faulty = unfit_vips(spec, facts, &mut self.reached);
        self.since.retain(|vip, _| faulty.contains(vip));
        let mut unfit = Unfit::default();
        for vip in faulty {
            let since = *self.since.entry(vip).or_insert(now);
            let left = UNFIT_DELAY.saturating_sub(now.saturating_duration_since(since));
            if left.is_zero() {
                unfit.vips.insert(vip);
            } else {
                unfit.next = Some(unfit.next.map_or(left, |next| next.min(left)));
            }
        }
        unfit
    }
}

impl Unfit {
    /// The problem of the machine.
    pub(super) fn problem(&self) -> Option<Problem> {
        let vips: Vec<String> = self.vips.iter().map(ToString::to_string).collect();
        let message = format!(
            "this machine has lost the routes to all real servers behind some VIPs, so another director that has them takes over: {}",
            abridged(&vips, ", ", LONGEST_LIST)
        );
        (!vips.is_empty()).then(|| Problem::warning(Subject::Machine, message))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lvs_model::{
        Candidacy, Director, Forwarding, Frontend, Keeping, Nat, NodeRoute, ObjectName, Port,
        Protocol, RealServer, ReturnPath, RouteOrigin, Scheduler, SchedulerName, VirtualService,
    };

    use super::*;

    const VIP: &str = "192.0.2.100";

    /// A director of a pair with these real servers.
    fn spec(servers: &[&str]) -> NodeSpec {
        let servers = servers.iter().map(|address| RealServer {
            address: address.parse().unwrap(),
            ports: vec![80].into(),
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
            forwarding: Forwarding::Dr,
            service: None,
        });
        let service = VirtualService {
            created: None,
            group: "edge".parse().unwrap(),
            frontend: Frontend::Addresses {
                vips: vec![VIP.parse().unwrap()],
                ports: vec![Port {
                    protocol: Protocol::Tcp,
                    port: 80,
                }],
            },
            forwarding: Forwarding::Dr,
            nat: Nat {
                return_path: ReturnPath::DefaultGateway,
                gateways: Vec::new(),
            },
            scheduler: Scheduler::new(SchedulerName::Rr, &[]),
            persistence: None,
            one_packet: false,
            alone: false,
            previous: Vec::new(),
            real_servers: servers.collect(),
        };
        let director = Director {
            service: Arc::new(service),
            interface: None,
            candidacy: Some(Candidacy {
                router_id: 51,
                routers: 1,
                interval: 100,
                preempt_after: None,
                priorities: vec![100],
                standby: false,
                unicast: None,
            }),
            keeping: Keeping::Nothing,
        };
        NodeSpec {
            directs: [(ObjectName::new("shop", "web").unwrap(), director)].into(),
            ..NodeSpec::default()
        }
    }

    /// The facts of a machine that has been asked for the routes to these real servers.
    fn facts(servers: &[(&str, bool)]) -> NodeFacts {
        let route = Arc::new(NodeRoute {
            destination: "192.0.2.0/24".parse().unwrap(),
            gateway: None,
            interface: "eth0".parse().unwrap(),
            metric: 0,
            origin: RouteOrigin::Other,
        });
        let answers = servers.iter().map(|(address, has_route)| {
            let answer = has_route.then(|| Arc::clone(&route));
            (address.parse().unwrap(), answer)
        });
        NodeFacts {
            routes_to: Arc::new(answers.collect()),
            ..NodeFacts::default()
        }
    }

    #[test]
    fn a_machine_gives_way_once_all_routes_are_lost_for_a_while_and_not_after_their_return() {
        let (mut fitness, start) = (Fitness::default(), Instant::now());
        let spec = spec(&["192.0.2.11", "192.0.2.12"]);
        let mut judge = |millis, first, second| {
            let now = start + Duration::from_millis(millis);
            let facts = facts(&[("192.0.2.11", first), ("192.0.2.12", second)]);
            let unfit = fitness.judge(&spec, &facts, now);
            (unfit.vips.len(), unfit.next)
        };
        assert_eq!(judge(0, true, true), (0, None));
        assert_eq!(judge(100, false, true), (0, None));
        assert_eq!(judge(200, false, false), (0, Some(UNFIT_DELAY)));
        let left = Duration::from_millis(500);
        assert_eq!(judge(1700, false, false), (0, Some(left)));
        assert_eq!(judge(2200, false, false), (1, None));
        assert_eq!(judge(2300, true, false), (0, None));
        assert_eq!(judge(2400, false, false), (0, Some(UNFIT_DELAY)));
    }

    #[test]
    fn a_real_server_that_never_had_a_route_moves_nothing() {
        let mut fitness = Fitness::default();
        let facts = facts(&[("203.0.113.9", false)]);
        let unfit = fitness.judge(&spec(&["203.0.113.9"]), &facts, Instant::now());
        assert_eq!((unfit.vips.len(), unfit.next), (0, None));
    }
}
