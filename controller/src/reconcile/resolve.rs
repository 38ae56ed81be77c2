//! What the spec of a virtual service comes to: its director, its real servers, and its conversion.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use lvs_crd::{
    DirectorBinding, Forwarding, ReturnPath, VirtualService, VirtualServiceSpec, condition::Reason,
    convert,
};
use lvs_model::{NodeName, ObjectName};

use crate::cluster::{Cluster, Election, Fault, Objects, Version, elect, members};

/// The spec of a virtual service with everything looked up that does not depend on other virtual services.
pub(super) struct Resolved {
    /// Its group.
    pub group: String,
    /// The Service that it names.
    pub kube_service: Option<ObjectName>,
    /// Its directors.
    pub directors: Vec<NodeName>,
    /// What can be programmed; `None` if the spec is invalid or lacks an address.
    pub version: Option<Version>,
    /// The version as the model's type.
    pub service: Option<Arc<lvs_model::VirtualService>>,
    /// Whether the version is not the object's own, but the last one that its directors were given.
    pub is_kept: bool,
    /// Why the spec is refused.
    pub refusal: Option<Fault>,
    /// Which pools have no free address.
    pub exhausted: Option<Fault>,
    /// What the spec names that is not there.
    pub missing: Option<Fault>,
    /// What is wrong although the spec is served.
    pub warning: Option<Fault>,
}

impl Cluster {
    /// Resolves the spec of a virtual service. `address` was allocated to it.
    pub(super) fn resolve(
        &self,
        name: &ObjectName,
        object: &VirtualService,
        address: Option<IpAddr>,
    ) -> Resolved {
        let mut spec = object.spec.clone();
        if let Some(address) = address {
            spec.addresses = vec![address.to_string()];
            (spec.address_pool, spec.ip_families) = (None, None);
        }
        let mut resolved = Resolved::new(spec.director_group.clone());
        self.resolve_group(name, &mut resolved);
        resolved.resolve_service(&self.objects, name, &mut spec);
        if spec.fwmark.is_some() || !spec.addresses.is_empty() {
            let generation = object.metadata.generation.unwrap_or(0);
            resolved.convert(object, spec, generation);
        }
        resolved
    }

    /// Finds the director. While the group has none, or does not exist, the machines that direct go on.
    fn resolve_group(&self, name: &ObjectName, resolved: &mut Resolved) {
        let group = self.objects.groups.get(&resolved.group);
        let election = group.map(|group| {
            let has_bindings = |machine: &NodeName| self.index.is_bound(machine, &resolved.group);
            elect(&members(&self.objects, group), has_bindings)
        });
        match election {
            Some(Ok(Election { director, warning })) => {
                resolved.directors = vec![director];
                let group = &resolved.group;
                let warning = warning.map(|warning| {
                    let message = format!("DirectorGroup '{group}': {}", warning.message);
                    Fault::new(warning.reason, message)
                });
                warning
                    .into_iter()
                    .for_each(|warning| resolved.warn(warning));
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

    /// The machines that have bindings of a virtual service in a group.
    fn directors_of(&self, name: &ObjectName, group: &str) -> Vec<NodeName> {
        let bindings = self.bindings_of(name);
        let of_group = bindings.filter(|(_, binding)| binding.spec.director_group == group);
        of_group
            .filter_map(|(_, binding)| binding.spec.node.parse().ok())
            .collect()
    }

    /// Takes the version that the directors have, if they have one, in place of the object's own.
    pub(super) fn keep_last(
        &self,
        name: &ObjectName,
        object: &VirtualService,
        resolved: &mut Resolved,
    ) {
        let is_director = |(_, binding): &(_, &Arc<DirectorBinding>)| {
            let mut directors = resolved.directors.iter();
            directors.any(|director| director.as_str() == binding.spec.node)
        };
        let of_director = self.bindings_of(name).find(is_director);
        let Some((_, last)) = of_director.or_else(|| self.bindings_of(name).next()) else {
            return;
        };
        if let Some(version) = self.version_of(last, object) {
            resolved.service = Some(Arc::clone(&version.service));
            resolved.version = Some(version);
            resolved.is_kept = true;
            let nodes = self.bindings_of(name);
            let nodes = nodes.map(|(_, binding)| &binding.spec.node);
            resolved.directors = nodes.filter_map(|node| node.parse().ok()).collect();
        }
    }
}

impl Resolved {
    /// Nothing is resolved yet.
    pub(super) const fn new(group: String) -> Self {
        Self {
            group,
            kube_service: None,
            directors: Vec::new(),
            version: None,
            service: None,
            is_kept: false,
            refusal: None,
            exhausted: None,
            missing: None,
            warning: None,
        }
    }

    /// Adds what is wrong although the spec is served.
    pub(super) fn warn(&mut self, warning: Fault) {
        self.warning.get_or_insert(warning);
    }

    /// Notes that no address is free.
    pub(super) fn exhaust(&mut self, namespace: &str) {
        let message = format!(
            "no address is free in the pools of DirectorGroup '{}' for namespace '{namespace}'",
            self.group
        );
        self.exhausted = Some(Fault::new(Reason::NoFreeAddress, message));
    }

    /// Returns whether directors should keep the version that they have: the spec cannot be served, or less would be served
    /// because something that it names is not there.
    pub(super) fn needs_last_version(&self) -> bool {
        let is_without_servers = self
            .service
            .as_ref()
            .is_none_or(|service| service.real_servers.is_empty());
        let is_less = self.missing.as_ref().is_some_and(|fault| {
            let is_of_group = matches!(
                fault.reason,
                Reason::DirectorGroupNotFound | Reason::NoDirector
            );
            if is_of_group {
                // The machines that direct go on with the present version; there are none if the group is another one.
                self.directors.is_empty()
            } else {
                fault.reason != Reason::PortNotFound || is_without_servers
            }
        });
        self.refusal.is_some() || self.exhausted.is_some() || is_less
    }

    fn refuse(&mut self, reason: Reason, message: impl Into<String>) {
        self.refusal.get_or_insert(Fault::new(reason, message));
    }

    fn miss(&mut self, reason: Reason, message: impl Into<String>) {
        self.missing.get_or_insert(Fault::new(reason, message));
    }

    /// Adds the endpoints of a Service to those that the spec lists.
    fn resolve_service(
        &mut self,
        objects: &Objects,
        name: &ObjectName,
        spec: &mut VirtualServiceSpec,
    ) {
        let Some(reference) = spec.backends.service.take() else {
            return;
        };
        let reference = reference.name;
        let Ok(service) = ObjectName::new(name.namespace(), &reference) else {
            let message = format!(
                "`spec.backends.service.name` must be the name of a Service, not '{reference}'"
            );
            self.refusal = Some(Fault::new(Reason::Invalid, message));
            return;
        };
        if !objects.has_kube_service(&service) {
            let message = format!("there is no Service '{reference}'");
            self.miss(Reason::ServiceNotFound, message);
        }
        let found = convert::service_endpoints(&spec.ports, objects.slices(&service));
        self.kube_service = Some(service);
        if let Some(port) = found.unmatched_port {
            let message = format!(
                "Service '{reference}' has no endpoints, or not all of them, for port '{port}'"
            );
            self.miss(Reason::PortNotFound, message);
        }
        if found.has_pods {
            self.check_pods(spec);
        }
        spec.ports = found.ports;
        let listed = spec.backends.endpoints.iter();
        let listed: BTreeSet<String> = listed.map(|endpoint| endpoint.address.clone()).collect();
        let others = found.endpoints.into_iter();
        let others = others.filter(|found| !listed.contains(&found.address));
        spec.backends.endpoints.extend(others);
    }

    fn check_pods(&mut self, spec: &VirtualServiceSpec) {
        let return_path = spec.nat.as_ref().map(|nat| nat.return_path);
        if spec.forwarding != Forwarding::Nat {
            self.refuse(
                Reason::PodsNeedNat,
                "`spec.forwarding` must be 'NAT': pods as real servers in DR or TUN are not supported yet",
            );
        } else if return_path != Some(ReturnPath::Masquerade) {
            self.refuse(
                Reason::PodsNeedMasquerade,
                "`spec.nat.returnPath` must be 'Masquerade': pods do not send their replies through a director",
            );
        }
    }

    /// Converts a spec.
    fn convert(&mut self, object: &VirtualService, spec: VirtualServiceSpec, generation: i64) {
        let resolved = VirtualService {
            metadata: object.metadata.clone(),
            spec,
            status: None,
        };
        match convert::virtual_service(&resolved) {
            Ok((_, service)) => {
                let service = Arc::new(service);
                self.service = Some(Arc::clone(&service));
                self.version = Some(Version {
                    generation,
                    service,
                });
            }
            Err(rejections) => {
                let fault = Fault::of_rejections(Reason::Invalid, &rejections);
                self.refusal.get_or_insert(fault);
            }
        }
    }
}
