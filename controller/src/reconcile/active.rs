//! Who holds the VIPs of a group with several directors, as their agents report it.

use std::{collections::BTreeSet, net::IpAddr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lvs_crd::{
    IpFamily, RouterStatus, Standing, StandingState, VipHolder,
    condition::{ConditionType, Reason, Status, Verdict},
};
use lvs_model::{Family, Frontend, NodeName, abridged};

use super::virtual_routers::VirtualRouters;
use crate::cluster::{Cluster, Reconciled, standings};

/// The most virtual routers in the status of a group; the schema allows no more.
const MOST_ROUTERS_SHOWN: usize = 32;
/// The longest line of directors, in bytes; the schema allows no more.
pub(super) const LONGEST_LINE: usize = 1024;
/// The longest line of the holders of a VIP, in bytes; the schema allows no more.
const LONGEST_HOLDERS: usize = 512;

/// A director that holds VIPs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Holder {
    /// The director.
    pub node: NodeName,
    /// Which VIPs.
    pub standing: Standing,
}

impl Holder {
    /// The virtual router whose VIPs it holds.
    pub(super) fn router(&self) -> (i64, IpFamily) {
        (self.standing.router_id, self.standing.family)
    }

    /// Returns whether another director holds the same VIPs.
    fn contests(&self, other: &Self) -> bool {
        self.standing.interface == other.standing.interface
            && self.router() == other.router()
            && self.node != other.node
    }
}

/// Who holds the VIPs of a group.
pub(super) struct ActiveOfGroup {
    /// The names of the directors, in one line.
    pub names: String,
    /// When the last of them took VIPs over; `None` if nothing is reported.
    pub since: Option<Time>,
    /// Who holds the VIPs of each virtual router.
    pub routers: Vec<RouterStatus>,
    /// What is wrong with that.
    pub verdict: Option<Verdict>,
}

/// Who holds the VIPs of a virtual service.
#[derive(Default)]
pub(super) struct ActiveOfService {
    /// The names of the directors, in one line.
    pub names: String,
    /// When the last of them took VIPs over; `None` if nothing is reported.
    pub since: Option<Time>,
    /// Who holds each VIP.
    pub holders: Vec<VipHolder>,
    /// What is wrong with that.
    pub verdict: Option<Verdict>,
}

/// The directors that hold VIPs, in one line, and when the last of them took VIPs over.
#[derive(Default)]
struct Active {
    /// Their names, separated by commas.
    names: String,
    /// When the last of them took VIPs over; `None` if nothing is reported.
    since: Option<Time>,
}

impl Active {
    fn of<'a>(holders: impl IntoIterator<Item = &'a Holder>) -> Self {
        let mut active = Self::default();
        let mut names: Vec<&str> = Vec::new();
        for Holder { node, standing } in holders {
            if !names.contains(&node.as_str()) {
                names.push(node.as_str());
            }
            let is_later = active
                .since
                .as_ref()
                .is_none_or(|since| since.0 < standing.since.0);
            if is_later {
                active.since = Some(standing.since.clone());
            }
        }
        active.names = names.join(",");
        active
    }
}

impl Cluster {
    /// Returns whether a group has several directors.
    pub(super) fn has_failover(&self, group: &str) -> bool {
        self.index.machines_of_group(group).len() > 1
    }

    /// The directors of a group that hold VIPs, as far as is known. Of several that report the same VIPs, the last one that took them
    /// counts, until the contest is confirmed.
    fn holders(&self, group: &str) -> Vec<Holder> {
        let all = self.reported_holders(group);
        if self.contests.is_confirmed(group) {
            return all;
        }
        let time = |holder: &Holder| (holder.standing.since.0, holder.node.clone());
        let is_followed = |holder: &Holder| {
            let mut others = all.iter().filter(|other| other.contests(holder));
            others.any(|other| time(other) > time(holder))
        };
        let last = all.iter().filter(|holder| !is_followed(holder));
        last.cloned().collect()
    }

    /// Returns whether two directors of a group report that they hold the same VIPs.
    pub(crate) fn is_contested(&self, group: &str) -> bool {
        conflict(&self.reported_holders(group)).is_some()
    }

    /// The directors of a group that report that they hold VIPs. What a silent agent reported last does not count: its VIPs have
    /// expired.
    pub(super) fn reported_holders(&self, group: &str) -> Vec<Holder> {
        let active = self.heard_standings(group);
        let active = active.filter(|(_, standing)| standing.state == StandingState::Active);
        active
            .map(|(node, standing)| Holder { node, standing })
            .collect()
    }

    /// What the machines of a group whose agents are alive report that they are in it.
    fn heard_standings<'a>(
        &'a self,
        group: &'a str,
    ) -> impl Iterator<Item = (NodeName, Standing)> + 'a {
        let machines = self.index.machines_of_group(group).into_iter();
        let heard = machines.filter(|machine| !self.agents.is_silent(machine));
        heard.flat_map(move |node| {
            let lvs_node = self.objects.lvs_nodes.get(&node);
            let standings = standings(lvs_node.map(AsRef::as_ref));
            let of_group = standings.filter(move |standing| standing.group == group);
            of_group.map(move |standing| {
                let mut standing = standing.clone();
                if standing.router_id == 0 {
                    // An agent that knows one virtual router reports no id.
                    standing.router_id = self.virtual_routers(group).first;
                }
                (node.clone(), standing)
            })
        })
    }

    /// The directors that hold the VIPs of a group, of each virtual router, and what is wrong with that. A group without virtual services
    /// needs no holder.
    pub(super) fn active_of_group(&self, group: &str) -> ActiveOfGroup {
        let holders = self.holders(group);
        let routers = self.reported_routers(group, self.virtual_routers(group));
        let routers = routers.into_iter().map(|router| {
            let (router_id, family) = router;
            let of_router = holders.iter().filter(|holder| holder.router() == router);
            let Active { names, since } = Active::of(of_router);
            RouterStatus {
                router_id,
                family,
                active: shortened(&names, LONGEST_LINE),
                active_since: since,
            }
        });
        let routers: Vec<RouterStatus> = routers.take(MOST_ROUTERS_SHOWN).collect();
        let is_needed = self.has_failover(group) && self.index.has_users(group);
        let unheld = || {
            if holders.is_empty() {
                return Some("its VIPs".to_owned());
            }
            let mut routers = routers.iter();
            let router = routers.find(|router| router.active.is_empty())?;
            let RouterStatus {
                router_id, family, ..
            } = router;
            Some(format!("the {family} VIPs of virtual router {router_id}"))
        };
        let unheld = is_needed.then(unheld).flatten();
        let unheld = unheld.map(|vips| self.unheld(group, &vips));
        let verdict = unheld.or_else(|| conflict(&holders));
        let Active { names, since } = Active::of(&holders);
        ActiveOfGroup {
            names: shortened(&names, LONGEST_LINE),
            since,
            routers,
            verdict,
        }
    }

    /// The virtual routers of a group in which machines report that they take part. What is left of ids that the group had before does not
    /// count.
    fn reported_routers(&self, group: &str, routers: VirtualRouters) -> BTreeSet<(i64, IpFamily)> {
        let reported = self.heard_standings(group);
        let reported = reported.map(|(_, standing)| (standing.router_id, standing.family));
        reported.filter(|(id, _)| routers.contains(*id)).collect()
    }

    /// What a director of a group reports that is wrong between the directors.
    pub(super) fn router_problem(&self, group: &str) -> Option<Verdict> {
        let message = self.heard_standings(group).find_map(|(node, standing)| {
            let problem = standing.problem.as_deref()?;
            let Standing {
                interface,
                router_id,
                family,
                ..
            } = standing;
            let router = match self.virtual_routers(group).count {
                1 => String::new(),
                _ => format!(", virtual router {router_id}"),
            };
            Some(format!(
                "{node}, {family} on {interface}{router}: {problem}"
            ))
        })?;
        let (kind, reason) = (ConditionType::Ready, Reason::RouterProblem);
        Some(Verdict::new(kind, Status::True, reason, message))
    }

    /// The directors that hold the VIPs of a virtual service, and what is wrong with that.
    pub(super) fn active_of_service(
        &self,
        reconciled: &Reconciled,
        granted: Option<&Frontend>,
    ) -> ActiveOfService {
        let group = &reconciled.group;
        let vips = granted.map_or(&[][..], Frontend::vips);
        if reconciled.directors.len() < 2 || vips.is_empty() {
            return ActiveOfService::default();
        }
        let (holders, routers) = (self.holders(group), self.virtual_routers(group));
        let reported = self.reported_routers(group, routers);
        let of_vip = |vip: &IpAddr| {
            let router = (routers.id_of(*vip), IpFamily::from(Family::of(*vip)));
            // As long as no agent reports the router, which is new then, the VIP is where it was.
            let is_reported = reported.contains(&router);
            let is_holder = move |holder: &&Holder| {
                holder.router() == router || !is_reported && holder.standing.family == router.1
            };
            holders.iter().filter(is_holder).cloned().collect()
        };
        let by_vip: Vec<(&IpAddr, Vec<Holder>)> =
            vips.iter().map(|vip| (vip, of_vip(vip))).collect();
        let unheld = by_vip.iter().find(|(_, holders)| holders.is_empty());
        let unheld = unheld.map(|(vip, _)| self.unheld(group, &vip.to_string()));
        let mut conflicts = by_vip.iter().filter_map(|(_, holders)| conflict(holders));
        let shown = by_vip.iter().filter_map(|(vip, holders)| {
            let Active { names, since } = Active::of(holders);
            Some(VipHolder {
                address: vip.to_string(),
                director: shortened(&names, LONGEST_HOLDERS),
                since: since?,
            })
        });
        let Active { names, since } = Active::of(by_vip.iter().flat_map(|(_, holders)| holders));
        ActiveOfService {
            names,
            since,
            holders: shown.collect(),
            verdict: unheld.or_else(|| conflicts.next()),
        }
    }

    /// No director reports that it holds some VIPs. One whose agent is silent may.
    fn unheld(&self, group: &str, vips: &str) -> Verdict {
        let message =
            format!("no director of DirectorGroup '{group}' reports that it holds {vips}");
        let machines = self.index.machines_of_group(group);
        let silent = machines
            .iter()
            .find(|machine| self.agents.is_silent(machine));
        let (status, reason, message) = match silent {
            None => (Status::False, Reason::NoActiveDirector, message),
            Some(machine) => (
                Status::Unknown,
                Reason::DirectorUnreachable,
                format!("{message}; that of {machine} may: its agent is silent"),
            ),
        };
        Verdict::new(ConditionType::Ready, status, reason, message)
    }
}

/// A line of names that the schema allows.
fn shortened(names: &str, longest: usize) -> String {
    abridged(&names.split(',').collect::<Vec<_>>(), ",", longest)
}

/// Two directors report that they hold the same VIPs.
fn conflict(holders: &[Holder]) -> Option<Verdict> {
    let (one, other) = holders.iter().enumerate().find_map(|(i, one)| {
        let mut others = holders.iter().skip(i + 1);
        let other = others.find(|other| other.contests(one))?;
        Some((one, other))
    })?;
    let message = format!(
        "{} and {} both report that they hold the {} VIPs on {} of virtual router {}: VRRP advertisements do not pass between them",
        one.node, other.node, one.standing.family, one.standing.interface, one.standing.router_id
    );
    let (kind, reason) = (ConditionType::Ready, Reason::SeveralActive);
    Some(Verdict::new(kind, Status::False, reason, message))
}
