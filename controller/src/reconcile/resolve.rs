//! What the spec of a virtual service comes to: its director, its real servers, and its conversion.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use lvs_crd::{
    DirectorBinding, Forwarding, ReturnPath, VirtualService, VirtualServiceSpec, condition::Reason,
    convert,
};
use lvs_model::{NodeName, ObjectName};

use crate::cluster::{Fault, Objects, Version, director, members};

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
    pub service: Option<lvs_model::VirtualService>,
    /// Whether the version is not the object's own, but the last one that its directors were given.
    pub is_kept: bool,
    /// Why the spec is refused.
    pub refusal: Option<Fault>,
    /// What the spec names that is not there.
    pub missing: Option<Fault>,
}

/// Resolves the spec of a virtual service. `address` was allocated to it, `last` is a binding that it has.
///
/// A spec that is invalid, or whose group does not exist, is replaced by that of the last binding.
pub(super) fn resolve(
    objects: &Objects,
    name: &ObjectName,
    object: &VirtualService,
    address: Option<IpAddr>,
    last: Option<&DirectorBinding>,
) -> Resolved {
    let mut spec = object.spec.clone();
    if let Some(address) = address {
        spec.addresses = vec![address.to_string()];
    }
    let mut resolved = Resolved::new(spec.director_group.clone());
    resolved.resolve_group(objects);
    resolved.resolve_service(objects, name, &mut spec);
    if spec.fwmark.is_some() || !spec.addresses.is_empty() {
        let generation = object.metadata.generation.unwrap_or(0);
        resolved.convert(object, spec, generation);
    }
    if let Some(last) = last.filter(|_| resolved.needs_last_version()) {
        resolved.keep(object, last);
    }
    resolved
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
            missing: None,
        }
    }

    fn refuse(&mut self, reason: Reason, message: impl Into<String>) {
        self.refusal.get_or_insert(Fault::new(reason, message));
    }

    fn miss(&mut self, reason: Reason, message: impl Into<String>) {
        self.missing.get_or_insert(Fault::new(reason, message));
    }

    fn resolve_group(&mut self, objects: &Objects) {
        let Some(group) = objects.groups.get(&self.group) else {
            let message = format!("there is no DirectorGroup '{}'", self.group);
            return self.miss(Reason::DirectorGroupNotFound, message);
        };
        match director(&members(objects, group)) {
            Ok(director) => self.directors = vec![director],
            Err(fault) if fault.reason == Reason::NoDirector => {
                let message = format!("no node is in DirectorGroup '{}'", self.group);
                self.miss(Reason::NoDirector, message);
            }
            Err(fault) => {
                let message = format!("`spec.directorGroup` {}", fault.message);
                self.refuse(fault.reason, message);
            }
        }
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

    /// Converts a spec as the agents of its directors will. Returns whether it is valid.
    fn convert(
        &mut self,
        object: &VirtualService,
        spec: VirtualServiceSpec,
        generation: i64,
    ) -> bool {
        let resolved = VirtualService {
            metadata: object.metadata.clone(),
            spec,
            status: None,
        };
        match convert::virtual_service(&resolved) {
            Ok((_, service)) => {
                self.version = Some(Version {
                    generation,
                    spec: Arc::new(resolved.spec),
                    forwarding: service.forwarding,
                });
                self.service = Some(service);
                true
            }
            Err(rejections) => {
                let fault = Fault::of_rejections(Reason::Invalid, &rejections);
                self.refusal.get_or_insert(fault);
                false
            }
        }
    }

    fn needs_last_version(&self) -> bool {
        let is_invalid = |fault: &Fault| fault.reason == Reason::Invalid;
        let is_without_group = |fault: &Fault| fault.reason == Reason::DirectorGroupNotFound;
        self.refusal.as_ref().is_some_and(is_invalid)
            || self.missing.as_ref().is_some_and(is_without_group)
    }

    /// Takes the version of the last binding, on its director, in place of the object's own.
    fn keep(&mut self, object: &VirtualService, last: &DirectorBinding) {
        let last = &last.spec;
        let refusal = self.refusal.clone();
        self.is_kept = self.convert(object, last.service.clone(), last.generation);
        self.refusal = refusal;
        if self.is_kept {
            self.directors = last.node.parse().into_iter().collect();
        }
    }
}
