//! What a virtual service asks for, with everything looked up that does not depend on other virtual services.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use lvs_crd::{
    DirectorBindingSpec, DirectorGroup, Endpoint, Forwarding, ReturnPath, VirtualService,
    VirtualServiceSpec, condition::Reason, convert,
};
use lvs_model::{Family, Frontend, NodeName, ObjectName, ServiceKey};

use super::{claims::Claim, objects::Objects};

/// What a virtual service was worked out to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Draft {
    /// When the object was created, in seconds since 1970.
    pub created: i64,
    /// The generation of the object that `service` is of.
    pub generation: i64,
    /// The address that was allocated to it.
    pub granted: Option<IpAddr>,
    /// The Service that it names.
    pub kube_service: Option<ObjectName>,
    /// Its group.
    pub group: String,
    /// The machines of its group.
    pub directors: Vec<String>,
    /// The spec to program: with its VIPs, and its real servers as endpoints. `None` when there is none yet.
    pub service: Option<Arc<VirtualServiceSpec>>,
    /// What it claims.
    pub claim: Claim,
    /// The addresses of its real servers.
    pub servers: BTreeSet<IpAddr>,
    /// The machines that are its real servers, each with its addresses.
    pub serving: BTreeMap<String, Vec<IpAddr>>,
    /// Whether the spec is not the object's own, but the last one that could be programmed.
    pub is_restored: bool,
    /// Why it is refused.
    pub refusal: Option<Fault>,
    /// What it names and is not there.
    pub unresolved: Option<Fault>,
}

/// A reason in a word and in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub reason: Reason,
    pub message: String,
}

impl Fault {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// The machines of a group: those that it names, or the nodes that its selector matches.
pub(super) fn members(objects: &Objects, group: &DirectorGroup) -> BTreeSet<String> {
    let Some(selector) = &group.spec.nodes.selector else {
        return group.spec.nodes.names.iter().cloned().collect();
    };
    let nodes = objects.nodes.iter().filter(|(_, node)| {
        let labels = node.metadata.labels.as_ref();
        selector
            .match_labels
            .iter()
            .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
    });
    nodes.map(|(name, _)| name.clone()).collect()
}

/// Why a group cannot direct.
pub(super) fn group_fault(members: &BTreeSet<String>) -> Option<Fault> {
    let names = members.iter().map(|name| name.parse::<NodeName>());
    if let Some(error) = names.filter_map(Result::err).next() {
        let message = format!("must hold the names of nodes: each {error}");
        return Some(Fault::new(Reason::Invalid, message));
    }
    match members.len() {
        0 => Some(Fault::new(Reason::NoDirector, "no node is in the group")),
        1 => None,
        count => Some(Fault::new(
            Reason::SeveralDirectors,
            format!(
                "must not have more than one director, not {count}: failover between several is not there yet"
            ),
        )),
    }
}

/// Draws up a virtual service. `granted` is the VIP that was allocated to it.
pub(super) fn draw(
    objects: &Objects,
    name: &ObjectName,
    object: &VirtualService,
    granted: Option<IpAddr>,
) -> Draft {
    let mut spec = object.spec.clone();
    let mut draft = Draft {
        generation: object.metadata.generation.unwrap_or(0),
        group: spec.director_group.clone(),
        ..Draft::default()
    };
    draft.look_up_group(objects);
    if let Some(address) = granted.filter(|_| spec.fwmark.is_none() && spec.addresses.is_empty()) {
        spec.addresses = vec![address.to_string()];
    }
    draft.look_up_backends(objects, name, &mut spec);
    draft.check(object, spec);
    draft
}

impl Draft {
    fn look_up_group(&mut self, objects: &Objects) {
        let Some(group) = objects.groups.get(&self.group) else {
            let message = format!("there is no DirectorGroup '{}'", self.group);
            self.unresolved = Some(Fault::new(Reason::DirectorGroupNotFound, message));
            return;
        };
        let members = members(objects, group);
        match group_fault(&members) {
            Some(fault) if fault.reason == Reason::NoDirector => {
                let message = format!("no node is in DirectorGroup '{}'", self.group);
                self.unresolved = Some(Fault::new(Reason::NoDirector, message));
            }
            Some(fault) => {
                let message = format!("`spec.directorGroup` {}", fault.message);
                self.refusal = Some(Fault::new(fault.reason, message));
            }
            None => self.directors = members.into_iter().collect(),
        }
    }

    /// Puts a Service's endpoints behind those that the object names itself.
    fn look_up_backends(
        &mut self,
        objects: &Objects,
        name: &ObjectName,
        spec: &mut VirtualServiceSpec,
    ) {
        let Some(reference) = spec.backends.service.take() else {
            return;
        };
        let Ok(service) = ObjectName::new(name.namespace(), &reference.name) else {
            let message = format!(
                "`spec.backends.service.name` must be the name of a Service, not '{}'",
                reference.name
            );
            self.refusal = Some(Fault::new(Reason::Invalid, message));
            return;
        };
        if !objects.has_kube_service(&service) {
            let message = format!("there is no Service '{}'", reference.name);
            self.unresolved
                .get_or_insert(Fault::new(Reason::ServiceNotFound, message));
        }
        let found = convert::service_endpoints(&spec.ports, objects.slices(&service));
        self.kube_service = Some(service);
        if let Some(port) = found.unmatched_port {
            let message = format!(
                "Service '{}' has no endpoints, or not all of them, for port '{port}'",
                reference.name
            );
            self.unresolved
                .get_or_insert(Fault::new(Reason::PortNotFound, message));
        }
        if found.has_pods {
            self.refuse_pods(spec);
        }
        spec.ports = found.ports;
        let own: BTreeSet<String> = spec
            .backends
            .endpoints
            .iter()
            .map(|e| e.address.clone())
            .collect();
        let others = found
            .endpoints
            .into_iter()
            .filter(|found| !own.contains(&found.address));
        spec.backends.endpoints.extend(others);
    }

    fn refuse_pods(&mut self, spec: &VirtualServiceSpec) {
        let masquerades = spec
            .nat
            .as_ref()
            .is_some_and(|nat| nat.return_path == ReturnPath::Masquerade);
        if spec.forwarding != Forwarding::Nat {
            let message = "`spec.forwarding` must be 'NAT': pods as real servers in DR or TUN are not there yet";
            self.refusal
                .get_or_insert(Fault::new(Reason::PodsNeedNat, message));
        } else if !masquerades {
            let message = "`spec.nat.returnPath` must be 'Masquerade': pods do not send their replies through a director";
            self.refusal
                .get_or_insert(Fault::new(Reason::PodsNeedMasquerade, message));
        }
    }

    /// Converts the spec as the director's agent will, and notes what it claims.
    fn check(&mut self, object: &VirtualService, spec: VirtualServiceSpec) {
        if spec.fwmark.is_none() && spec.addresses.is_empty() {
            return;
        }
        let resolved = VirtualService {
            metadata: object.metadata.clone(),
            spec,
            status: None,
        };
        match convert::virtual_service(&resolved) {
            Ok((_, service)) => {
                self.claim = claim(&service.frontend, &self.group);
                self.servers = service
                    .real_servers
                    .iter()
                    .map(|server| server.address)
                    .collect();
                self.service = Some(Arc::new(resolved.spec));
            }
            Err(rejections) => {
                let texts: Vec<String> = rejections
                    .iter()
                    .map(|rejection| format!("`{}` {}", rejection.field, rejection.reason))
                    .collect();
                self.refusal
                    .get_or_insert(Fault::new(Reason::Invalid, texts.join("; ")));
            }
        }
    }

    /// Takes what was programmed before in place of what cannot be.
    pub(super) fn restore(&mut self, last: &DirectorBindingSpec) {
        let object = VirtualService::new("restored", last.service.clone());
        self.check(&object, last.service.clone());
        self.directors = vec![last.node.clone()];
        self.generation = last.generation;
        self.is_restored = self.service.is_some();
    }

    /// Says whether the spec goes to the directors.
    pub(super) fn is_programmed(&self) -> bool {
        self.service.is_some() && (self.refusal.is_none() || self.is_restored)
    }

    /// The endpoints; none when there is nothing to program.
    pub(super) fn endpoints(&self) -> &[Endpoint] {
        self.service
            .as_deref()
            .map_or(&[], |service| service.backends.endpoints.as_slice())
    }
}

fn claim(frontend: &Frontend, group: &str) -> Claim {
    let keys = match frontend {
        Frontend::Addresses { vips, ports } => vips
            .iter()
            .flat_map(|vip| {
                ports.iter().map(|port| ServiceKey::Address {
                    address: *vip,
                    protocol: port.protocol,
                    port: port.port,
                })
            })
            .collect(),
        Frontend::Fwmark(mark) => [Family::V4, Family::V6]
            .map(|family| ServiceKey::Fwmark {
                mark: *mark,
                family,
            })
            .into(),
    };
    Claim {
        keys,
        vips: frontend.vips().iter().copied().collect(),
        group: group.to_owned(),
    }
}
