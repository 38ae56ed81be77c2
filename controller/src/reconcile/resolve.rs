//! What the spec of a virtual service comes to: its director, its real servers, and its conversion.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use lvs_crd::{
    MAX_ACCEPTED_SPEC, VirtualService, VirtualServiceSpec,
    condition::Reason,
    convert::{self, Gap, KubeServices, Resolution},
};
use lvs_model::{NodeName, ObjectName, RealServer, Rejection};

use crate::cluster::{Cluster, Election, Fault, Version, addresses};

/// The spec of a virtual service with everything looked up that does not depend on other virtual services.
pub(super) struct Resolved {
    /// Its group.
    pub group: String,
    /// The Services that it names.
    pub kube_services: BTreeSet<ObjectName>,
    /// Its directors.
    pub directors: Vec<NodeName>,
    /// What can be programmed; `None` if the spec is invalid or lacks an address.
    pub version: Option<Version>,
    /// The version as the model's type.
    pub service: Option<Arc<lvs_model::VirtualService>>,
    /// Whether the directors have a version of this generation, whose backends were all there once.
    pub is_given: bool,
    /// Whether the version is not the object's own, but the last one that its directors were given.
    pub is_kept: bool,
    /// Why the spec is refused.
    pub refusal: Option<Fault>,
    /// Why no address can be allocated yet.
    pub unallocated: Option<Fault>,
    /// What the spec names that is not there.
    pub missing: Option<Fault>,
    /// What is wrong although the spec is served.
    pub warning: Option<Fault>,
    /// Which endpoints are left out; empty if none is.
    pub left_out: String,
    /// The addresses of these.
    pub left_out_addresses: BTreeSet<IpAddr>,
}

impl Cluster {
    /// Resolves the spec of a virtual service. `addresses` were allocated to it.
    pub(super) fn resolve(
        &self,
        name: &ObjectName,
        object: &VirtualService,
        addresses: &[IpAddr],
    ) -> Resolved {
        let mut spec = object.spec.clone();
        if !addresses.is_empty() {
            spec.addresses = addresses.iter().map(ToString::to_string).collect();
            (spec.address_pool, spec.ip_families) = (None, None);
        }
        let mut resolved = Resolved::new(spec.director_group.clone());
        self.resolve_group(name, &mut resolved);
        resolved.is_given = self.is_given(name, object);
        if spec.fwmark.is_some() || !spec.addresses.is_empty() {
            let accepted_spec = accepted_spec(&object.spec);
            let object = VirtualService {
                metadata: object.metadata.clone(),
                spec,
                status: None,
            };
            self.resolve_backends(name, &object, accepted_spec, &mut resolved);
        } else {
            resolved.name_services(name, &spec);
        }
        resolved
    }

    /// Converts a spec with its addresses, and the Services among its backends.
    pub(super) fn resolve_backends(
        &self,
        name: &ObjectName,
        object: &VirtualService,
        accepted_spec: Option<Arc<str>>,
        resolved: &mut Resolved,
    ) {
        let names = resolved.name_services(name, &object.spec);
        let first = self.first_director(name, &resolved.directors);
        let services = self.kube_services(name, &resolved.group, &names, first);
        resolved.convert(object, accepted_spec, &services);
    }

    /// Finds the directors. While the group has none, or does not exist, the machines that direct go on.
    fn resolve_group(&self, name: &ObjectName, resolved: &mut Resolved) {
        match self.index.election(&resolved.group) {
            Some(Ok(Election { directors, warning })) => {
                resolved.directors.clone_from(directors);
                if let Some(warning) = warning {
                    let group = &resolved.group;
                    let message = format!("DirectorGroup '{group}': {}", warning.message);
                    resolved.warn(Fault::new(warning.reason, message));
                }
            }
            Some(Err(fault)) if fault.reason == Reason::Invalid => {
                let message = format!("`spec.directorGroup` {}", fault.message);
                resolved.refuse(fault.reason, message);
            }
            Some(Err(fault)) => {
                let message = format!("no node is in DirectorGroup '{}'", resolved.group);
                resolved.miss(fault.reason, message);
                resolved.directors = self.directors_of(name, &resolved.group);
            }
            None => {
                let message = format!("there is no DirectorGroup '{}'", resolved.group);
                resolved.miss(Reason::DirectorGroupNotFound, message);
                resolved.directors = self.directors_of(name, &resolved.group);
            }
        }
    }

    /// What is known of Services, and of the machines beside them.
    fn kube_services<'a>(
        &'a self,
        own: &'a ObjectName,
        group: &str,
        names: &'a BTreeSet<ObjectName>,
        director: Option<&NodeName>,
    ) -> KubeServices<'a> {
        let services = names.iter();
        let group = group.to_owned();
        KubeServices {
            services: services
                .map(|name| (name.name(), self.objects.kube_service(name)))
                .collect(),
            directors: director
                .into_iter()
                .flat_map(|name| {
                    let machine = self.objects.lvs_nodes.get(name);
                    addresses(machine.map(AsRef::as_ref))
                })
                .collect(),
            machines: self.index.machines(),
            may_name: Box::new(move |address| {
                self.may_list(own, &group, address) || self.claims.holds_server(own, address)
            }),
            bound: Box::new(|service| self.bound_servers(own, service)),
        }
    }

    /// The director that has a binding of a virtual service already, or the first by name.
    fn first_director<'a>(
        &self,
        name: &ObjectName,
        directors: &'a [NodeName],
    ) -> Option<&'a NodeName> {
        let mut all = directors.iter();
        let bound = all.find(|director| {
            let mut bindings = self.bindings_of(name);
            bindings.any(|(_, binding)| binding.spec.node == director.as_str())
        });
        bound.or(directors.first())
    }

    /// Returns whether a machine reports without saying that it can direct what it is a real server of: its agent is of an earlier version.
    fn lacks_marks(&self, machine: &NodeName) -> bool {
        let lvs_node = self.objects.lvs_nodes.get(machine);
        let status = lvs_node.and_then(|lvs_node| lvs_node.status.as_ref());
        let facts = status.and_then(|status| status.facts.as_ref());
        facts.is_some_and(|facts| !facts.serves_what_it_directs)
    }

    /// Leaves one director to a virtual service with a firewall mark if a machine of the group is a real server that DR or TUN reaches.
    /// Such a machine gets packets from other directors, and as a director it would send them on: packets could go round between
    /// several. With a VIP, a machine tells these packets from those of clients, unless its agent is of an earlier version.
    pub(super) fn limit_directors(&self, name: &ObjectName, resolved: &mut Resolved) {
        let machines = self.index.machines_of_group(&resolved.group);
        if machines.len() < 2 {
            return;
        }
        let first = self.first_director(name, &resolved.directors).cloned();
        let (Some(first), Some(version)) = (first, &mut resolved.version) else {
            return;
        };
        let can_tell = !machines.iter().any(|machine| self.lacks_marks(machine));
        if !version.service.frontend.vips().is_empty() && can_tell {
            return;
        }
        let owner = |server: &RealServer| {
            let mut machines = machines.iter();
            machines.find(|machine| {
                self.index
                    .reported(machine)
                    .addresses
                    .contains(&server.address)
            })
        };
        let servers = version.service.real_servers.iter();
        let mut routed = servers.filter(|server| server.forwarding.keeps_vip());
        let Some((address, owner)) =
            routed.find_map(|server| Some((server.address, owner(server)?.clone())))
        else {
            return;
        };
        Arc::make_mut(&mut version.service).alone = true;
        if resolved.directors.len() > 1 {
            let message = format!(
                "{first} directs alone: the real server {address} is {owner}, a director of DirectorGroup '{}', and packets could \
                 go round between several; use a VIP instead of the firewall mark, other real servers, or NAT",
                resolved.group
            );
            resolved.warn(Fault::new(Reason::SingleDirector, message));
        }
        resolved.directors = vec![first];
    }

    /// The machines that have bindings of a virtual service in a group.
    pub(super) fn directors_of(&self, name: &ObjectName, group: &str) -> Vec<NodeName> {
        let bindings = self.bindings_of(name);
        let of_group = bindings.filter(|(_, binding)| binding.spec.director_group == group);
        of_group
            .filter_map(|(_, binding)| binding.spec.node.parse().ok())
            .collect()
    }
}

impl Resolved {
    /// Nothing is resolved yet.
    pub(super) const fn new(group: String) -> Self {
        Self {
            group,
            kube_services: BTreeSet::new(),
            directors: Vec::new(),
            version: None,
            service: None,
            is_given: false,
            is_kept: false,
            refusal: None,
            unallocated: None,
            missing: None,
            warning: None,
            left_out: String::new(),
            left_out_addresses: BTreeSet::new(),
        }
    }

    /// Adds what is wrong although the spec is served.
    pub(super) fn warn(&mut self, warning: Fault) {
        self.warning.get_or_insert(warning);
    }

    /// Returns whether directors should keep the version that they have: the spec cannot be served, or it names something that
    /// is not there and was never served with it.
    pub(super) fn needs_last_version(&self) -> bool {
        let is_incomplete = self.missing.as_ref().is_some_and(|fault| {
            let is_of_group = matches!(
                fault.reason,
                Reason::DirectorGroupNotFound | Reason::NoDirector
            );
            if is_of_group {
                // The machines that direct go on with the present version; there are none if the group is another one.
                self.directors.is_empty()
            } else {
                // A Service that goes missing keeps the real servers that the directors have of it.
                !self.is_given && fault.reason != Reason::ExternalName
            }
        });
        self.refusal.is_some() || self.unallocated.is_some() || is_incomplete
    }

    /// Refuses the spec, unless it is refused already.
    pub(super) fn refuse(&mut self, reason: Reason, message: impl Into<String>) {
        self.refusal.get_or_insert(Fault::new(reason, message));
    }

    fn miss(&mut self, reason: Reason, message: impl Into<String>) {
        self.missing.get_or_insert(Fault::new(reason, message));
    }

    /// Notes the Services that a spec names.
    fn name_services(
        &mut self,
        name: &ObjectName,
        spec: &VirtualServiceSpec,
    ) -> BTreeSet<ObjectName> {
        for (i, backend) in spec.backends.iter().enumerate() {
            let Some(service) = &backend.service else {
                continue;
            };
            match ObjectName::new(name.namespace(), &service.name) {
                Ok(service) => drop(self.kube_services.insert(service)),
                Err(_) => self.refuse(
                    Reason::Invalid,
                    format!(
                        "`spec.backends[{i}].service.name` must be the name of a Service, not '{}'",
                        service.name
                    ),
                ),
            }
        }
        self.kube_services.clone()
    }

    /// Converts a spec.
    fn convert(
        &mut self,
        object: &VirtualService,
        accepted_spec: Option<Arc<str>>,
        services: &KubeServices<'_>,
    ) {
        match convert::resolved_service(object, services) {
            Ok(Resolution { service, gaps }) => {
                let service = Arc::new(service);
                self.service = Some(Arc::clone(&service));
                self.version = Some(Version {
                    generation: object.metadata.generation.unwrap_or(0),
                    service,
                    accepted_spec,
                });
                self.note(&gaps);
            }
            Err(rejections) => self.refuse_all(&rejections),
        }
    }

    fn refuse_all(&mut self, rejections: &[Rejection]) {
        let fault = Fault::of_rejections(Reason::Invalid, rejections);
        self.refusal.get_or_insert(fault);
    }

    /// Notes what is missing or left out of the real servers.
    fn note(&mut self, gaps: &[Gap]) {
        for gap in gaps {
            match gap {
                Gap::ServiceNotFound(_) => self.miss(Reason::ServiceNotFound, gap.to_string()),
                Gap::ExternalName(_) => self.miss(Reason::ExternalName, gap.to_string()),
                Gap::PortNotFound { .. } => self.miss(Reason::PortNotFound, gap.to_string()),
                Gap::PodsNeedNat(_) => self.refuse(Reason::PodsNeedNat, gap.to_string()),
                Gap::PodsNeedMasquerade(_) => {
                    self.refuse(Reason::PodsNeedMasquerade, gap.to_string());
                }
                Gap::Endpoint { .. }
                | Gap::Slice { .. }
                | Gap::HostNames { .. }
                | Gap::Unreadable { .. }
                | Gap::OtherFamily { .. }
                | Gap::Surplus { .. } => {}
            }
        }
        self.left_out = left_out(gaps);
        self.left_out_addresses = gaps.iter().filter_map(Gap::address).collect();
    }
}

/// The spec as a binding keeps it; `None` if nothing of it needs to be followed, or if it is too long for the schema.
fn accepted_spec(spec: &VirtualServiceSpec) -> Option<Arc<str>> {
    let mut backends = spec.backends.iter();
    let has_service = backends.any(|backend| backend.service.is_some());
    let text = has_service.then(|| serde_json::to_string(spec).ok());
    let text = text.flatten()?;
    (text.len() <= MAX_ACCEPTED_SPEC).then(|| text.into())
}

/// Counts the endpoints that are left out and the slices that cannot be decoded, with the first three reasons of each.
fn left_out(gaps: &[Gap]) -> String {
    let reasons = |is_one: fn(&Gap) -> bool| {
        let reasons = gaps.iter().filter(|gap| is_one(gap)).take(3);
        reasons
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    };
    let endpoints = match gaps.iter().map(Gap::left_out).sum::<usize>() {
        0 => None,
        1 => Some("1 endpoint is left out".to_owned()),
        count => Some(format!("{count} endpoints are left out")),
    };
    let slices = match gaps.iter().filter(|gap| gap.is_unreadable()).count() {
        0 => None,
        1 => Some("1 EndpointSlice cannot be decoded".to_owned()),
        count => Some(format!("{count} EndpointSlices cannot be decoded")),
    };
    let endpoints = endpoints.map(|text| format!("{text}: {}", reasons(|gap| gap.left_out() > 0)));
    let slices = slices.map(|text| format!("{text}: {}", reasons(Gap::is_unreadable)));
    let texts: Vec<String> = endpoints.into_iter().chain(slices).collect();
    texts.join("; ")
}
