//! Assigns the roles of a machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    AcceptedVips, Asker, Claim, ClaimState, Claims, ClusterView, ConnectionSync, Director,
    DirectorGroup, Family, Forwarding, GroupGateways, GroupName, Keeping, KeptService, Node,
    NodeName, NodeSpec, ObjectName, ObjectRef, Problem, RealServer, RealServerRole, Rejection,
    ReturnPath, ServedAddress, Subject, Timeouts, VirtualService, second_chance::is_keepable,
};

/// The roles of one machine, and the rejected objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// What the machine must do.
    pub spec: NodeSpec,
    /// The objects that are refused, in order of their names.
    pub rejections: Vec<Rejection>,
    /// Services that the machine does not direct although its files may intend it.
    pub problems: Vec<Problem>,
    /// Whether the machine is, or ever was, a real server while there was no group; the ledger must keep this.
    pub has_served: bool,
    /// The machine's addresses with which it is a real server; the ledger must keep them.
    pub served_at: BTreeSet<IpAddr>,
    /// The virtual services that the machine may direct or serve and whose group does not exist. It is not known who directs them, so
    /// nothing is removed.
    pub without_group: BTreeSet<ObjectName>,
    /// The virtual services of files that are accepted, with their VIPs; the ledger must keep them.
    pub accepted: AcceptedVips,
}

/// Assigns virtual services to one machine. Every machine that is given the same view refuses the same objects.
///
/// 1. A virtual service names a group that exists; if there is no group at all, every name except `default` is
///    refused.
/// 2. If there is a pool at all, each VIP is from a pool that serves the namespace and the group. A VIP with which the virtual service was
///    accepted before is rejected, and stays all the same.
/// 3. Its claim of VIPs, ports or a mark is granted: [`Claims`].
/// 4. A machine directs the services of the groups that name it. If there is no group at all, a machine directs all
///    services, unless it is a real server of one, or was one while there was no group. It begins to direct once one of its
///    networks has a VIP or a real server, unless marks and tunnels need none: until then, the address that makes it a real
///    server may still be missing.
/// 5. A machine serves every service that has one of its addresses among the real servers, unless it directs that
///    service alone: then IPVS delivers locally, and the machine has the VIP already. An address with which it was a real
///    server before counts while it is missing.
#[must_use]
pub fn assign(view: &ClusterView, node: &Node) -> Assignment {
    let Acceptance {
        accepted,
        mut rejections,
        without_group,
    } = accept(view, &node.accepted);
    let serves = roles(&accepted, node);
    let now_accepted = accepted_of_files(&accepted, &without_group, &node.accepted);
    let directing = directing(view, &accepted, node, !serves.is_empty());
    let has_served = node.has_served || matches!(directing, Directing::NothingAsRealServer);
    let own = serves.values().flat_map(|role| role.own.keys());
    let served_at = own.copied().collect();
    let problems = problems(&directing, !accepted.is_empty());
    router_ids(&directing, &mut rejections);
    let mut spec = NodeSpec {
        timeouts: timeouts(&directing, &mut rejections),
        connection_sync: connection_sync(&directing, &accepted, &mut rejections),
        ..NodeSpec::default()
    };
    for (name, service) in accepted {
        let director = directing.director(service, &node.name);
        let is_directed = director.is_some();
        let is_served_too = director.as_ref().is_none_or(may_serve_too);
        spec.directs
            .extend(director.map(|director| (name.clone(), director)));
        if !is_served_too {
            continue;
        }
        let role = serves.get(name).cloned();
        let role = role.and_then(|role| {
            if is_directed {
                shared(role)
            } else {
                Some(role)
            }
        });
        spec.serves.extend(role.map(|role| (name.clone(), role)));
        if is_keepable(service) || !service.previous.is_empty() {
            let keep_seconds = keep_seconds(view.groups.get(&service.group));
            // In a cluster, a director knows how long sets count, but the controller remembers them.
            let keep_seconds = keep_seconds.filter(|_| !is_directed || service.created.is_none());
            let kept = KeptService {
                service: Arc::clone(service),
                keep_seconds,
                is_directed,
            };
            spec.kept.insert(name.clone(), kept);
        }
    }
    spec.gateways = gateways(&directing, &spec.directs);
    rejections.sort();
    Assignment {
        spec,
        rejections,
        problems,
        has_served,
        served_at,
        without_group,
        accepted: now_accepted,
    }
}

/// Returns whether a director can be a real server beside others: one of several whose virtual service has VIPs. One that directs alone
/// has the VIPs all the time, and IPVS delivers to itself.
fn may_serve_too(director: &Director) -> bool {
    director.candidacy.is_some() && !director.service.frontend.vips().is_empty()
}

/// The role of a real server that directs too. NAT brings it packets to its own address, for which there is no IPVS service.
fn shared(mut role: RealServerRole) -> Option<RealServerRole> {
    role.own.retain(|_, own| own.forwarding.keeps_vip());
    (!role.own.is_empty()).then_some(role)
}

/// The virtual services of files that are accepted, and those of them before that are undecided, with their VIPs.
fn accepted_of_files(
    accepted: &Accepted<'_>,
    undecided: &BTreeSet<ObjectName>,
    before: &AcceptedVips,
) -> AcceptedVips {
    let of_files = accepted
        .iter()
        .filter(|(_, service)| service.created.is_none());
    let now = of_files.map(|(name, service)| {
        let vips = service.frontend.vips().iter().copied();
        ((*name).clone(), vips.collect())
    });
    let undecided = before.iter().filter(|(name, _)| undecided.contains(*name));
    now.chain(undecided.map(|(name, vips)| (name.clone(), vips.clone())))
        .collect()
}

/// Which virtual services are served.
struct Acceptance<'a> {
    accepted: Accepted<'a>,
    /// What is wrong with the others, and with some of those that are served.
    rejections: Vec<Rejection>,
    without_group: BTreeSet<ObjectName>,
}

type Accepted<'a> = Vec<(&'a ObjectName, &'a Arc<VirtualService>)>;

/// Returns which virtual services are served. A refused one blocks no other.
fn accept<'a>(view: &'a ClusterView, accepted_before: &AcceptedVips) -> Acceptance<'a> {
    let vips = view.services.values();
    let vips: BTreeSet<IpAddr> = vips
        .flat_map(|service| service.frontend.vips().iter().copied())
        .collect();
    let mut claims = Claims::default();
    let mut rejections = Vec::new();
    let mut without_group = BTreeSet::new();
    for (name, service) in &view.services {
        let servers = service.real_servers.iter().map(|server| server.address);
        let servers = servers.filter(|address| vips.contains(address)).collect();
        let before = accepted_before.get(name);
        let no_group = refuse_group(view, name, service);
        let no_pool = vip_without_pool(view, name, service, None);
        let is_undecided = no_group.is_some() && before.is_some();
        let is_refused = match no_group {
            Some(_) => !is_undecided,
            None => no_pool.is_some() && vip_without_pool(view, name, service, before).is_some(),
        };
        if is_undecided {
            without_group.insert(name.clone());
        }
        let claim = Claim {
            is_refused,
            ..Claim::with_servers(service, servers)
        };
        claims.replace(name, Some(claim));
        rejections.extend(no_group.or(no_pool));
    }
    let mut accepted = Vec::with_capacity(view.services.len());
    for ((name, service), (_, state)) in view.services.iter().zip(claims.states()) {
        match state {
            ClaimState::Granted if without_group.contains(name) => {}
            ClaimState::Granted => accepted.push((name, service)),
            ClaimState::Waiting(conflict) => {
                rejections.push(conflict.rejection(name, &service.frontend));
            }
            ClaimState::Refused => {}
        }
    }
    Acceptance {
        accepted,
        rejections,
        without_group,
    }
}

fn refuse_group(
    view: &ClusterView,
    name: &ObjectName,
    service: &VirtualService,
) -> Option<Rejection> {
    let known = view.groups.contains_key(&service.group);
    let implied = view.groups.is_empty() && service.group.as_str() == "default";
    (!known && !implied).then(|| {
        Rejection::new(
            ObjectRef::VirtualService(name.clone()),
            "spec.directorGroup",
            format!(
                "must name a DirectorGroup; there is none called '{}'",
                service.group
            ),
        )
    })
}

/// Refuses a VIP that is in no pool, if there are pools, unless the virtual service had it before.
fn vip_without_pool(
    view: &ClusterView,
    name: &ObjectName,
    service: &VirtualService,
    before: Option<&BTreeSet<IpAddr>>,
) -> Option<Rejection> {
    if view.pools.is_empty() {
        return None;
    }
    let asker = Asker {
        namespace: name.namespace(),
        group: &service.group,
    };
    let vips = service.frontend.vips().iter();
    let vips = vips.filter(|vip| before.is_none_or(|before| !before.contains(*vip)));
    let mut refused = vips.filter_map(|vip| Some((*vip, view.pools.check(asker, *vip).err()?)));
    let (vip, refusal) = refused.next()?;
    let object = ObjectRef::VirtualService(name.clone());
    let field = service.frontend.field_of_vip(vip);
    Some(Rejection::new(object, field, refusal.text(asker)))
}

fn roles<'a>(accepted: &Accepted<'a>, node: &Node) -> BTreeMap<&'a ObjectName, RealServerRole> {
    accepted
        .iter()
        .filter_map(|(name, service)| Some((*name, role(service, node)?)))
        .collect()
}

/// The role of a machine for a virtual service; `None` if none of its addresses is a real server.
fn role(service: &VirtualService, node: &Node) -> Option<RealServerRole> {
    let mut own: BTreeMap<IpAddr, ServedAddress> = BTreeMap::new();
    let is_own = |address| node.addresses.contains(address) || node.absent.contains(address);
    let local = service.real_servers.iter();
    for server in local.filter(|server| is_own(&server.address)) {
        let served = own.entry(server.address).or_insert_with(|| ServedAddress {
            forwarding: server.forwarding,
            families: families(service, server),
            ports: BTreeSet::new(),
        });
        let ports = service.frontend.ports().iter().zip(&server.ports);
        let ports = ports.map(|(port, own)| (port.protocol, *own));
        served.ports.extend(ports);
    }
    (!own.is_empty()).then(|| RealServerRole {
        vips: service.frontend.vips().to_vec(),
        nat: service.nat.clone(),
        own,
        is_former: false,
    })
}

/// The families of the packets that arrive at a real server.
fn families(service: &VirtualService, server: &RealServer) -> BTreeSet<Family> {
    let mut families = service.families();
    families.retain(|family| server.takes(*family));
    families
}

enum Directing<'a> {
    Groups(BTreeMap<&'a GroupName, &'a DirectorGroup>),
    Everything,
    NothingAsRealServer,
    NothingAsFormerRealServer,
    NothingWithoutNetwork,
}

fn directing<'a>(
    view: &'a ClusterView,
    accepted: &Accepted<'_>,
    node: &Node,
    is_real_server: bool,
) -> Directing<'a> {
    if !view.groups.is_empty() {
        let groups = view.groups.iter();
        return Directing::Groups(
            groups
                .filter(|(_, group)| group.nodes.contains(&node.name))
                .collect(),
        );
    }
    match (is_real_server, node.has_served) {
        (true, _) => Directing::NothingAsRealServer,
        (false, true) => Directing::NothingAsFormerRealServer,
        (false, false) if node.has_directed || is_on_a_network(accepted, node) => {
            Directing::Everything
        }
        (false, false) => Directing::NothingWithoutNetwork,
    }
}

/// Returns whether one of the machine's networks has a VIP or a real server. A mark and tunnels need none.
fn is_on_a_network(accepted: &Accepted<'_>, node: &Node) -> bool {
    let is_near = |address: IpAddr| {
        let mut networks = node.networks.iter();
        networks.any(|network| network.contains(&address))
    };
    accepted.iter().any(|(_, service)| {
        let (vips, servers) = (service.frontend.vips(), &service.real_servers);
        let is_tunnelled = |server: &RealServer| matches!(server.forwarding, Forwarding::Tun(_));
        let is_anywhere = vips.is_empty() && servers.iter().all(is_tunnelled);
        let mut servers = servers.iter().map(|server| server.address);
        is_anywhere || vips.iter().copied().any(is_near) || servers.any(is_near)
    })
}

fn problems(directing: &Directing<'_>, is_there_something_to_direct: bool) -> Vec<Problem> {
    let reason = match directing {
        Directing::NothingAsFormerRealServer => {
            "this machine has been a real server, so it does not direct without being named: name the director in a \
             DirectorGroup, or run `lvs-agent cleanup` on this machine for it to direct"
        }
        Directing::NothingWithoutNetwork => {
            "no VIP and no real server is on a network of this machine, so it does not direct without being named: add the \
             missing address, or name the director in a DirectorGroup"
        }
        Directing::NothingAsRealServer | Directing::Everything | Directing::Groups(_) => {
            return Vec::new();
        }
    };
    let problem = is_there_something_to_direct.then(|| Problem::warning(Subject::Machine, reason));
    problem.into_iter().collect()
}

impl Directing<'_> {
    /// The machine as the director of a virtual service; `None` if it does not direct it.
    fn director(&self, service: &Arc<VirtualService>, node: &NodeName) -> Option<Director> {
        let group = match self {
            Self::Groups(groups) => Some(*groups.get(&service.group)?),
            Self::Everything => None,
            Self::NothingAsRealServer
            | Self::NothingAsFormerRealServer
            | Self::NothingWithoutNetwork => return None,
        };
        Some(Director {
            service: Arc::clone(service),
            interface: group.and_then(|group| group.interface.clone()),
            candidacy: group
                .and_then(|group| group.failover.as_ref())
                .filter(|_| !service.alone)
                .map(|failover| failover.of(node)),
            keeping: keeping(group, service),
        })
    }
}

/// The gateways of the groups for which the machine directs, each group's with its first virtual service by NAT, or else its first.
fn gateways(
    directing: &Directing<'_>,
    directs: &BTreeMap<ObjectName, Director>,
) -> BTreeMap<ObjectName, GroupGateways> {
    let Directing::Groups(groups) = directing else {
        return BTreeMap::new();
    };
    let groups = groups
        .iter()
        .filter(|(_, group)| !group.gateways.is_empty());
    let owned = groups.filter_map(|(name, group)| {
        let services = directs.iter();
        let services = services
            .filter(|(_, director)| director.service.group == **name && !director.service.alone);
        let (owner, director) =
            services.min_by_key(|(_, director)| !director.service.uses_nat())?;
        let gateways = GroupGateways {
            group: (*name).clone(),
            addresses: group.gateways.clone(),
            candidacy: director.candidacy.clone(),
        };
        Some((owner.clone(), gateways))
    });
    owned.collect()
}

/// How the connections of a virtual service survive that another director takes over.
fn keeping(group: Option<&DirectorGroup>, service: &VirtualService) -> Keeping {
    let failover = group.and_then(|group| group.failover.as_ref());
    let keeps = failover.is_some_and(|failover| failover.keep_seconds.is_some());
    // With masquerading, real servers see each director as another client.
    let masquerades = service.uses_nat() && service.nat.return_path == ReturnPath::Masquerade;
    match (keeps && !service.alone, is_keepable(service)) {
        (false, _) => Keeping::Nothing,
        (true, true) => Keeping::Hash,
        (true, false) if masquerades && service.persistence.is_none() => Keeping::Nothing,
        (true, false) => Keeping::Sync,
    }
}

/// How the machine tells other directors its connections; `None` if no group needs it. A network namespace has one daemon that
/// sends: the first group that needs it decides.
fn connection_sync(
    directing: &Directing<'_>,
    accepted: &Accepted<'_>,
    rejections: &mut Vec<Rejection>,
) -> Option<ConnectionSync> {
    let Directing::Groups(groups) = directing else {
        return None;
    };
    let services = accepted.iter().map(|(_, service)| service);
    let needing = services.filter(|service| {
        let group = groups.get(&service.group).copied();
        keeping(group, service) == Keeping::Sync
    });
    let needing: BTreeSet<&GroupName> = needing.map(|service| &service.group).collect();
    let mut needing = groups.iter().filter(|(name, _)| needing.contains(*name));
    let (first, group) = needing.next()?;
    let chosen = &group.connection_sync;
    for (name, _) in needing.filter(|(_, other)| other.connection_sync != *chosen) {
        rejections.push(disagreement(name, "spec.connectionSync", first));
    }
    Some(chosen.clone())
}

/// The rejection of a group whose settings for the whole machine differ from those of the group that decides.
fn disagreement(group: &GroupName, field: &str, decisive: &GroupName) -> Rejection {
    let reason =
        format!("must agree with DirectorGroup {decisive}, which shares a director with it");
    Rejection::new(ObjectRef::DirectorGroup(group.clone()), field, reason)
}

/// How long the previous sets of a group's virtual services count, in seconds; `None` if connections are not kept.
fn keep_seconds(group: Option<&DirectorGroup>) -> Option<u32> {
    group?.failover.as_ref()?.keep_seconds
}

/// The timeouts of the machine's groups. A network namespace has one set: the first group that names one decides.
fn timeouts(directing: &Directing<'_>, rejections: &mut Vec<Rejection>) -> Option<Timeouts> {
    let Directing::Groups(groups) = directing else {
        return None;
    };
    let mut named = groups
        .iter()
        .filter_map(|(name, group)| group.timeouts.map(|timeouts| (name, timeouts)));
    let (first, timeouts) = named.next()?;
    for (name, _) in named.filter(|(_, other)| *other != timeouts) {
        rejections.push(disagreement(name, "spec.timeouts", first));
    }
    Some(timeouts)
}

/// Reports groups with a router id of another group of this machine. On one interface, their VIPs would move together although their
/// directors may differ.
fn router_ids(directing: &Directing<'_>, rejections: &mut Vec<Rejection>) {
    let Directing::Groups(groups) = directing else {
        return;
    };
    let mut known: BTreeMap<u8, &GroupName> = BTreeMap::new();
    for (name, group) in groups {
        let Some(failover) = &group.failover else {
            continue;
        };
        let (first, last) = failover.router_ids();
        let mut ids = first..=last;
        let Some(taken) = ids.find(|id| known.contains_key(id)) else {
            known.extend((first..=last).map(|id| (id, *name)));
            continue;
        };
        let Some(other) = known.get(&taken) else {
            continue;
        };
        let reason = if first == last {
            format!("must not be {first}, which DirectorGroup {other} has on the same machine")
        } else {
            format!(
                "must not be {first}: of the ids {first} to {last} of the `routers`, DirectorGroup {other} has {taken} on the same \
                 machine"
            )
        };
        let object = ObjectRef::DirectorGroup((*name).clone());
        let field = "spec.failover.virtualRouterId";
        rejections.push(Rejection::new(object, field, reason));
    }
}
