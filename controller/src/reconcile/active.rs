//! Who holds the VIPs of a group with several directors, as their agents report it.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lvs_crd::{
    IpFamily, Standing, StandingState,
    condition::{ConditionType, Reason, Status, Verdict},
};
use lvs_model::{Family, Frontend, NodeName};

use crate::cluster::{Cluster, Reconciled, standings};

/// A director that holds VIPs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Holder {
    /// The director.
    pub node: NodeName,
    /// Which VIPs.
    pub standing: Standing,
}

impl Holder {
    /// Returns whether another director holds the same VIPs.
    fn contests(&self, other: &Self) -> bool {
        let (own, others) = (&self.standing, &other.standing);
        let is_same_place = own.interface == others.interface && own.family == others.family;
        is_same_place && self.node != other.node
    }
}

/// The directors that hold VIPs, in one line, and when the last of them took VIPs over.
#[derive(Default)]
pub(super) struct Active {
    /// Their names, separated by commas.
    pub names: String,
    /// When the last of them took VIPs over; `None` if nothing is reported.
    pub since: Option<Time>,
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
            .map(|(node, standing)| Holder {
                node,
                standing: standing.clone(),
            })
            .collect()
    }

    /// What the machines of a group whose agents are alive report that they are in it.
    fn heard_standings<'a>(
        &'a self,
        group: &'a str,
    ) -> impl Iterator<Item = (NodeName, &'a Standing)> {
        let machines = self.index.machines_of_group(group).into_iter();
        let heard = machines.filter(|machine| !self.agents.is_silent(machine));
        heard.flat_map(move |node| {
            let lvs_node = self.objects.lvs_nodes.get(&node);
            let standings = standings(lvs_node.map(AsRef::as_ref));
            let of_group = standings.filter(move |standing| standing.group == group);
            of_group.map(move |standing| (node.clone(), standing))
        })
    }

    /// The directors that hold the VIPs of a group, and what is wrong with that. A group without virtual services needs no
    /// holder.
    pub(super) fn active_of_group(&self, group: &str) -> (Active, Option<Verdict>) {
        let holders = self.holders(group);
        let is_unheld = holders.is_empty() && self.has_failover(group);
        let unheld = is_unheld && !self.index.users_of_group(group).is_empty();
        let unheld = unheld.then(|| self.unheld(group, "its VIPs"));
        let verdict = unheld.or_else(|| conflict(&holders));
        (Active::of(&holders), verdict)
    }

    /// What a director of a group reports that is wrong between the directors.
    pub(super) fn router_problem(&self, group: &str) -> Option<Verdict> {
        let message = self.heard_standings(group).find_map(|(node, standing)| {
            let problem = standing.problem.as_deref()?;
            let Standing {
                interface, family, ..
            } = standing;
            Some(format!("{node}, {family} on {interface}: {problem}"))
        })?;
        let (kind, reason) = (ConditionType::Ready, Reason::RouterProblem);
        Some(Verdict::new(kind, Status::True, reason, message))
    }

    /// The directors that hold the VIPs of a virtual service, and what is wrong with that.
    pub(super) fn active_of_service(
        &self,
        reconciled: &Reconciled,
        granted: Option<&Frontend>,
    ) -> (Active, Option<Verdict>) {
        let group = &reconciled.group;
        let vips = granted.map_or(&[][..], Frontend::vips);
        if reconciled.directors.len() < 2 || vips.is_empty() {
            return (Active::default(), None);
        }
        let holders = self.holders(group);
        let of_vip = |vip: &IpAddr| {
            let family = IpFamily::from(Family::of(*vip));
            let holders = holders.iter();
            holders.filter(move |holder| holder.standing.family == family)
        };
        let unheld = vips.iter().find(|vip| of_vip(vip).next().is_none());
        let unheld = unheld.map(|vip| self.unheld(group, &vip.to_string()));
        let verdict = unheld.or_else(|| conflict(&holders));
        (Active::of(vips.iter().flat_map(of_vip)), verdict)
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

/// Two directors report that they hold the same VIPs.
fn conflict(holders: &[Holder]) -> Option<Verdict> {
    let (one, other) = holders.iter().enumerate().find_map(|(i, one)| {
        let mut others = holders.iter().skip(i + 1);
        let other = others.find(|other| other.contests(one))?;
        Some((one, other))
    })?;
    let message = format!(
        "{} and {} both report that they hold the VIPs on {}: VRRP advertisements do not pass between them",
        one.node, other.node, one.standing.interface
    );
    let (kind, reason) = (ConditionType::Ready, Reason::SeveralActive);
    Some(Verdict::new(kind, Status::False, reason, message))
}
