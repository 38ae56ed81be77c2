//! Which machine does what.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    ClusterView, Director, DirectorGroup, Family, Forwarding, Frontend, GroupName, InterfaceName,
    Node, NodeSpec, ObjectName, ObjectRef, Problem, RealServerRole, Rejection, ServiceKey, Subject,
    Timeouts, VirtualService,
};

/// What one machine must do, and the objects that nobody serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// What the machine must do.
    pub spec: NodeSpec,
    /// The objects that are refused, in order of their names.
    pub rejections: Vec<Rejection>,
    /// What the machine does not do though its files may be meant so.
    pub problems: Vec<Problem>,
    /// Whether it is, or ever was, a real server while no group was there; the ledger is to keep it.
    pub has_served: bool,
}

/// Assigns virtual services to one machine. Every machine that is given the same view refuses the same objects.
///
/// 1. A virtual service names a group that exists; where there is no group at all, any name but `default` is refused.
/// 2. A VIP is no real server's address, in any virtual service.
/// 3. A VIP belongs to one group, and a VIP with a protocol and port, or a mark, to one virtual service: the older, or
///    of equally old ones the first by namespace and name.
/// 4. A machine directs the services of the groups that name it. Where there is no group at all, a machine that is no
///    real server of any service, and never was one in such a case, directs them all.
/// 5. A machine serves what has one of its addresses among its real servers, unless it directs that service itself:
///    then IPVS delivers to it locally and the VIP is where it must be.
#[must_use]
pub fn assign(view: &ClusterView, node: &Node) -> Assignment {
    let (accepted, mut rejections) = accept(view);
    let serves = roles(&accepted, node);
    let directing = directing(view, node, !serves.is_empty());
    let has_served = node.has_served || matches!(directing, Directing::NothingAsRealServer);
    let problems = problems(&directing, !accepted.is_empty());
    let mut spec = NodeSpec {
        timeouts: timeouts(&directing, &mut rejections),
        ..NodeSpec::default()
    };
    for (name, service) in accepted {
        if let Some(interface) = directing.interface(&service.group) {
            spec.directs.insert(
                name.clone(),
                Director {
                    service: service.clone(),
                    interface,
                },
            );
        } else if let Some(role) = serves.get(name) {
            spec.serves.insert(name.clone(), role.clone());
        }
    }
    rejections.sort();
    Assignment {
        spec,
        rejections,
        problems,
        has_served,
    }
}

type Accepted<'a> = Vec<(&'a ObjectName, &'a Arc<VirtualService>)>;

fn accept(view: &ClusterView) -> (Accepted<'_>, Vec<Rejection>) {
    let real_servers = real_servers_on_vips(view);
    let mut oldest_first: Accepted<'_> = view.services.iter().collect();
    oldest_first.sort_by_key(|(name, service)| (service.created.is_none(), service.created, *name));
    let mut claims = Claims::default();
    let mut rejections = Vec::new();
    oldest_first.retain(|(name, service)| {
        let refused = refuse_group(view, name, service)
            .or_else(|| refuse_real_server_vip(&real_servers, name, service))
            .or_else(|| claims.claim(name, service).err());
        rejections.extend(refused.clone());
        refused.is_none()
    });
    (oldest_first, rejections)
}

/// The real servers whose address is a VIP too, each with the first virtual service that names it.
fn real_servers_on_vips(view: &ClusterView) -> BTreeMap<IpAddr, &ObjectName> {
    let services = view.services.values();
    let vips: BTreeSet<IpAddr> = services
        .flat_map(|service| service.frontend.vips().iter().copied())
        .collect();
    let mut found = BTreeMap::new();
    for (name, service) in &view.services {
        for server in &service.real_servers {
            if vips.contains(&server.address) {
                found.entry(server.address).or_insert(name);
            }
        }
    }
    found
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

fn refuse_real_server_vip(
    real_servers: &BTreeMap<IpAddr, &ObjectName>,
    name: &ObjectName,
    service: &VirtualService,
) -> Option<Rejection> {
    service.frontend.vips().iter().enumerate().find_map(|(index, vip)| {
        let owner = real_servers.get(vip)?;
        Some(Rejection::new(
            ObjectRef::VirtualService(name.clone()),
            format!("spec.addresses[{index}]"),
            format!("must not be the address of a real server: '{vip}' is one of VirtualService {owner}"),
        ))
    })
}

#[derive(Default)]
struct Claims<'a> {
    vips: BTreeMap<IpAddr, (&'a ObjectName, &'a GroupName)>,
    keys: BTreeMap<ServiceKey, &'a ObjectName>,
}

impl<'a> Claims<'a> {
    fn claim(
        &mut self,
        name: &'a ObjectName,
        service: &'a VirtualService,
    ) -> Result<(), Rejection> {
        for (index, vip) in service.frontend.vips().iter().enumerate() {
            if let Some((owner, group)) = self
                .vips
                .get(vip)
                .filter(|(_, group)| **group != service.group)
            {
                let reason = format!(
                    "must not be a VIP of another group: '{vip}' is held by DirectorGroup {group} for VirtualService {owner}"
                );
                return Err(Rejection::new(
                    ObjectRef::VirtualService(name.clone()),
                    format!("spec.addresses[{index}]"),
                    reason,
                ));
            }
        }
        let keys = keys(service);
        if let Some((field, key, owner)) = keys
            .iter()
            .find_map(|(field, key)| self.keys.get(key).map(|owner| (field, key, owner)))
        {
            let reason = format!("must not be in use: {key} belongs to VirtualService {owner}");
            return Err(Rejection::new(
                ObjectRef::VirtualService(name.clone()),
                field,
                reason,
            ));
        }
        self.keys
            .extend(keys.into_iter().map(|(_, key)| (key, name)));
        self.vips.extend(
            service
                .frontend
                .vips()
                .iter()
                .map(|vip| (*vip, (name, &service.group))),
        );
        Ok(())
    }
}

/// The IPVS services of a virtual service, each with the field that names it.
pub(crate) fn keys(service: &VirtualService) -> Vec<(String, ServiceKey)> {
    match &service.frontend {
        Frontend::Addresses { vips, ports } => vips
            .iter()
            .flat_map(|vip| {
                ports.iter().enumerate().map(|(index, port)| {
                    let key = ServiceKey::Address {
                        address: *vip,
                        protocol: port.protocol,
                        port: port.port,
                    };
                    (format!("spec.ports[{index}].port"), key)
                })
            })
            .collect(),
        Frontend::Fwmark(mark) => [Family::V4, Family::V6]
            .map(|family| {
                (
                    "spec.fwmark".to_owned(),
                    ServiceKey::Fwmark {
                        mark: *mark,
                        family,
                    },
                )
            })
            .into(),
    }
}

fn roles<'a>(accepted: &Accepted<'a>, node: &Node) -> BTreeMap<&'a ObjectName, RealServerRole> {
    accepted
        .iter()
        .filter_map(|(name, service)| {
            let own: BTreeSet<IpAddr> = service
                .real_servers
                .iter()
                .map(|server| server.address)
                .filter(|address| node.addresses.contains(address))
                .collect();
            (!own.is_empty()).then(|| (*name, role(service, own)))
        })
        .collect()
}

fn role(service: &VirtualService, own: BTreeSet<IpAddr>) -> RealServerRole {
    let local = || {
        service
            .real_servers
            .iter()
            .filter(|server| own.contains(&server.address))
    };
    let ports = service
        .frontend
        .ports()
        .iter()
        .flat_map(|port| {
            local().map(|server| (port.protocol, server.port.unwrap_or(port.target_port)))
        })
        .collect();
    let families = service
        .families()
        .into_iter()
        .filter(|family| {
            matches!(service.forwarding, Forwarding::Tun(_))
                || own.iter().any(|address| Family::of(*address) == *family)
        })
        .collect();
    RealServerRole {
        vips: service.frontend.vips().to_vec(),
        families,
        forwarding: service.forwarding,
        nat: service.nat.clone(),
        ports,
        own,
    }
}

enum Directing<'a> {
    Groups(BTreeMap<&'a GroupName, &'a DirectorGroup>),
    Everything,
    NothingAsRealServer,
    NothingAsFormerRealServer,
}

fn directing<'a>(view: &'a ClusterView, node: &Node, is_real_server: bool) -> Directing<'a> {
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
        (false, false) => Directing::Everything,
    }
}

fn problems(directing: &Directing<'_>, is_there_something_to_direct: bool) -> Vec<Problem> {
    match directing {
        Directing::NothingAsFormerRealServer if is_there_something_to_direct => {
            vec![Problem::warning(
                Subject::Machine,
                "this machine has been a real server, so it does not direct without being named: name the director in a \
                 DirectorGroup, or run `lvs-agent cleanup` on this machine for it to direct",
            )]
        }
        Directing::NothingAsFormerRealServer
        | Directing::NothingAsRealServer
        | Directing::Everything
        | Directing::Groups(_) => Vec::new(),
    }
}

impl Directing<'_> {
    /// The interface setting of a group that the machine directs; `None` when it does not.
    fn interface(&self, group: &GroupName) -> Option<Option<InterfaceName>> {
        match self {
            Self::Groups(groups) => groups.get(group).map(|group| group.interface.clone()),
            Self::Everything => Some(None),
            Self::NothingAsRealServer | Self::NothingAsFormerRealServer => None,
        }
    }
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
        let reason =
            format!("must agree with DirectorGroup {first}, which shares a director with it");
        let object = ObjectRef::DirectorGroup((*name).clone());
        rejections.push(Rejection::new(object, "spec.timeouts", reason));
    }
    Some(timeouts)
}

/// Says whether packets of a virtual service arrive at its real servers with the VIP as their destination.
pub(crate) const fn keeps_vip(forwarding: Forwarding) -> bool {
    matches!(forwarding, Forwarding::Dr | Forwarding::Tun(_))
}
